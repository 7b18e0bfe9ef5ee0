"""The plan of a report: the cases that a layer is run on, and what is left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from rnncells.testing.case import (
    SIZES,
    WIDTHS,
    Case,
    LeftOut,
    Lengths,
    Options,
    draw_up,
    draw_up_long,
    too_narrow,
)
from rnncells.testing.problem import Loss
from rnncells.testing.report import Row, said
from rnncells.testing.subject import FunctionSubject, Subject

DTYPES = (torch.float32, torch.float64)
Outcome = tuple[Case, list[Row] | Exception]


@dataclass(frozen=True)
class Plan:
    """The cases to run; ``defaults`` are those of "options", "lengths" and "dtypes" that nobody
    asked for: what a layer refuses of them is left out."""

    cases: Sequence[Case]
    defaults: frozenset[str] = frozenset()
    left_out: Sequence[LeftOut] = ()

    def refused(self, outcomes: Sequence[Outcome]) -> list[LeftOut]:
        """What the layer refuses with NotImplementedError and nobody asked for.

        That is the options, the kind of lengths or the dtype that it ran in no case; else the
        options and the kind of lengths that it does not run together.
        """
        ran = [case for case, found in outcomes if not isinstance(found, NotImplementedError)]
        known = {name for case in ran for name in self._unasked(case).values()}
        refusals: dict[tuple[str, str], list[Case]] = {}
        for case, found in outcomes:
            if not ran or not isinstance(found, NotImplementedError):
                continue
            names = self._unasked(case)
            never = [name for name in names.values() if name not in known]
            names.pop("dtypes", None)
            what = never[0] if never else " ".join(names.values())
            if what:
                refusals.setdefault((what, said(found)), []).append(case)
        return [LeftOut(*key, tuple(cases)) for key, cases in refusals.items()]

    def _unasked(self, case: Case) -> dict[str, str]:
        """What of a case nobody asked for, and its name."""
        names = {
            "options": case.options_told,
            "lengths": "" if case.lengths == "full" else case.lengths,
            "dtypes": case.dtype_told,
        }
        return {kind: name for kind, name in names.items() if name and kind in self.defaults}


def make_plan(
    subject: Subject,
    sizes: Sequence[tuple[int, ...]] | None,
    options: Sequence[Options] | None,
    dtypes: Sequence[torch.dtype] | None,
    devices: Sequence[str],
    lengths: Sequence[Lengths] | None,
    states: Sequence[bool],
    losses: Sequence[Loss],
    seed: int,
) -> Plan:
    """Draws up the cases for a layer; the arguments are :func:`rnncells.testing.parity_report`'s.

    Raises:
        ValueError: one does not fit the layer.
    """
    asked = {"options": options, "lengths": lengths, "dtypes": dtypes}
    left_out: list[LeftOut] = []
    if options is None:
        options, why = subject.options()
        left_out += why
    elif not subject.sized:
        raise ValueError("options: they are for a factory; a module has its own")
    if lengths is None:
        lengths, why = subject.kinds()
        left_out += why
    dtypes = DTYPES if dtypes is None else dtypes
    drawn = _sizes(sizes, subject.sized)
    cases = list(draw_up(drawn, options, dtypes, devices, lengths, states, losses, seed))
    if sizes is None:
        cases += draw_up_long(dtypes, devices, subject.sized, seed)
    wide = {(o["proj_size"], s[3]): None for o in options for s in drawn if too_narrow(o, s)}
    reason = "a projection is narrower than the hidden size"
    left_out += [LeftOut(f"proj_size={P} with H={H}", reason) for P, H in wide]
    if isinstance(subject, FunctionSubject):
        given = [_with_states(case) for case in cases]
        if given != cases:
            reason = "a function is given initial states with them"
            left_out.append(LeftOut("packed rows without initial states", reason))
        cases = given
    defaults = frozenset(kind for kind, value in asked.items() if value is None)
    return Plan(cases, defaults, left_out)


def _with_states(case: Case) -> Case:
    """The case with initial states where its rows are packed."""
    packed = case.lengths in ("packed", "sorted")
    return replace(case, states=True) if packed and not case.states else case


def _sizes(sizes: Sequence[tuple[int, ...]] | None, sized: bool) -> Sequence[tuple[int, ...]]:
    if sizes is None:
        both = zip(SIZES, WIDTHS, strict=True)
        return [(*size, *widths) for size, widths in both] if sized else SIZES
    wanted = "(T, B, I, H)" if sized else "(T, B)"
    for size in sizes:
        if len(size) != len(wanted.split(",")) or min(size) < 1:
            raise ValueError(f"sizes: expected {wanted}, each at least 1, got {size}")
    return sizes
