"""Reports: what was held against the specification, how far off it was, and how to see it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rnncells.testing.case import Case, LeftOut


@dataclass(frozen=True)
class Row:
    """One tensor of one case.

    Attributes:
        case: what the layer was run on.
        tensor: ``y``, ``h_n`` and so on, ``grad <input, state or parameter>``; or ``call`` where
            the layer raised; or ``shape`` where its outputs are of wrong shapes, and nothing else
            of the case was compared.
        error: max|difference| by the size of the terms; infinite where the shape, the dtype or the
            device is another, a value is not finite, or there is no such tensor.
        limit: what the error may be.
        note: what is wrong besides, or "".
    """

    case: Case
    tensor: str
    error: float
    limit: float
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether the error is beyond the limit (or not a number)."""
        return not self.error <= self.limit

    @property
    def share(self) -> float:
        """The error by its limit."""
        return self.error / self.limit if self.limit else math.inf

    def __str__(self) -> str:
        mark = "FAIL" if self.failed else "ok"
        return (
            f"{mark:4}  {self.tensor:28} {self.error:10.2e} {self.limit:10.2e} "
            f"{self.share:10.2g}  {self.note}"
        ).rstrip()


def _badness(row: Row) -> tuple[bool, float]:
    return row.failed, row.share


HEAD = f"      {'tensor':28} {'error':>10} {'limit':>10} {'of limit':>10}"


def said(error: Exception) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {error}".split("\n")[0]


@dataclass(frozen=True)
class Report:
    """What :func:`rnncells.testing.parity_report` found. ``str`` is the short form for people: each
    tensor's worst case, and every failing case in full; :meth:`table` has everything.

    Attributes:
        title: what was held against what.
        rows: one for each tensor of each case.
        left_out: what it was not held to, and why: options, kinds of lengths and dtypes that it
            does not take, where nobody asked for them.
        call: a format for the call that runs one case again.
        raised: what the layer raised, in the order of the cases.
    """

    title: str
    rows: Sequence[Row]
    left_out: Sequence[LeftOut] = ()
    call: str = "parity_report(layer, cases=[{case!r}])"
    raised: Sequence[Exception] = ()
    shown: ClassVar[int] = 4

    @property
    def passed(self) -> bool:
        """Whether something was held, and every tensor is within its limit."""
        return bool(self.rows) and not self.failures

    @property
    def failures(self) -> list[Row]:
        """The rows beyond their limits."""
        return [row for row in self.rows if row.failed]

    @property
    def worst(self) -> Row:
        """The row whose error is the largest part of its limit; ValueError where there is none."""
        return max(self.rows, key=_badness)

    @property
    def cases(self) -> list[Case]:
        """The cases, in the order in which they ran."""
        return list(dict.fromkeys(row.case for row in self.rows))

    def reproduce(self, case: Case) -> str:
        """The call that runs one case again."""
        return self.call.format(case=case)

    def of(self, case: Case) -> list[Row]:
        """The rows of one case."""
        return [row for row in self.rows if row.case is case]

    def table(self) -> str:
        """Every tensor of every case, and everything left out."""
        lines = [self.title, *(line for case in self.cases for line in self._full(case))]
        for each in self.left_out:
            lines += ["", f"left out: {each}", *(f"  {case}" for case in each.cases)]
        return "\n".join(lines)

    def _gaps(self) -> list[str]:
        """What was left out, a line for each reason."""
        reasons: dict[str, list[LeftOut]] = {}
        for each in self.left_out:
            reasons.setdefault(each.reason, []).append(each)
        lines = []
        for reason, alike in reasons.items():
            cases = sum(len(each.cases) for each in alike)
            what = ", ".join(each.what for each in alike)
            lines.append(f"left out: {what}: {reason}{f' ({cases} cases)' if cases else ''}")
        return ["", *lines] if lines else []

    def _full(self, case: Case) -> list[str]:
        return ["", str(case), HEAD, *(str(row) for row in self.of(case))]

    def _wrong_shapes(self) -> list[str]:
        """In a line, the wrong shapes of the case that shows most; with T = B = 1 few show."""
        wrong = [row for row in self.rows if row.tensor == "shape"]
        if not wrong:
            return []
        most = max(wrong, key=lambda row: len(row.note))
        count = f"{len(wrong)} of {len(self.cases)} cases, of which nothing else was compared"
        return [f"wrong shapes in {count}: {most.note}, in {most.case}"]

    def _worst(self) -> list[str]:
        """The worst case of each tensor."""
        lines = []
        for name in dict.fromkeys(row.tensor for row in self.rows if row.tensor != "shape"):
            worst = max((row for row in self.rows if row.tensor == name), key=_badness)
            lines.append(f"{worst}  {worst.case}")
        return ["", f"{HEAD}  worst case", *lines] if lines else []

    def __str__(self) -> str:
        failing = list(dict.fromkeys(row.case for row in self.failures))
        if not self.rows:
            verdict = "nothing was held"
        elif failing:
            verdict = f"{len(failing)} of {len(self.cases)} cases FAIL"
        else:
            verdict = f"{len(self.cases)} cases, {len(self.rows)} tensors, all within their limits"
        lines = [f"{self.title}: {verdict}"]
        lines += [*self._wrong_shapes(), *self._worst(), *self._gaps()]
        for case in failing[: self.shown]:
            lines += [*self._full(case), f"reproduce: {self.reproduce(case)}"]
        if len(failing) > self.shown:
            lines += ["", f"and {len(failing) - self.shown} failing cases more; see .table()"]
        return "\n".join(lines)
