"""The suite: a layer, the cases it is held to, and what came out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rnncells.reference import CELLS, Cell
from rnncells.testing.case import Case, Lengths, Options
from rnncells.testing.compare import Raised, run_case
from rnncells.testing.module import Call, Parameters, torch_parameters
from rnncells.testing.plan import Plan, make_plan
from rnncells.testing.problem import Loss, name_of
from rnncells.testing.report import Report, Row, said
from rnncells.testing.subject import FunctionSubject, ModuleSubject, Subject

Layer = nn.Module | Callable[..., Any]


def assert_layer_parity(layer: Layer, reference: str | Cell, **options: Any) -> Report:
    """Holds a layer against the float64 specification, and raises where it is elsewhere.

    Args:
        layer, reference, options: as for :func:`parity_report`.

    Returns:
        The report, where every tensor is within its limit.

    Raises:
        AssertionError: one is not; the message is the report. Where the layer raised, the first
            such exception is the cause.
        TypeError, ValueError: as :func:`parity_report`.
    """
    report = parity_report(layer, reference, **options)
    if not report.passed:
        raise AssertionError(str(report)) from next(iter(report.raised), None)
    return report


def parity_report(
    layer: Layer,
    reference: str | Cell,
    *,
    sizes: Sequence[tuple[int, ...]] | None = None,
    options: Sequence[Options] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    devices: Sequence[str | torch.device] | None = None,
    lengths: Sequence[Lengths] | None = None,
    states: Sequence[bool] = (True, False),
    losses: Sequence[Loss] = ("both", "y", "last", "sum"),
    parameters: Parameters | None = None,
    call: Call | None = None,
    padding: float = math.nan,
    factor: float = 1.0,
    seed: int = 0,
    cases: Sequence[Case] | None = None,
) -> Report:
    """Runs a layer and the float64 specification on the same cases, and compares what comes out.

    Every case is one forward and one backward pass of the layer, in the case's dtype. Compared are
    the outputs (the sequence ``y``, each last state), and the gradients of the input, of the
    initial states, and of each of the layer's parameters that is not frozen.

    Args:
        layer: one of

            - a module that is called as torch.nn's layers are, with sizes and weights of its own:
              ``module(input, hx)`` gives ``y, last``. A copy of it is run, in the mode (training or
              not) that it is in;
            - a factory: a class or a function that makes such a module of ``(input_size,
              hidden_size, **options)``, so that those are varied too;
            - a function in the form of :func:`rnncells.reference.layer`, told by its parameter
              named ``weights``; packed rows always come with initial states.

        reference: the name of the layer's cell in :data:`rnncells.reference.CELLS`, or a
            :class:`rnncells.reference.Cell`: one's own step with its gates and states declared.
        sizes: (T, B) for a module, (T, B, I, H) for the others: time steps, batch, input and hidden
            size. By default four, small; and for 16 bits a long one besides.
        options: what a factory is told in turn: ``bias``, ``bidirectional``, ``num_layers``,
            ``proj_size`` of torch.nn's constructors. By default those that its signature has.
        dtypes: that the layer is converted to: also torch.float16 and torch.bfloat16. By default
            torch.float32 and torch.float64.
        devices: where the layer runs; the specification runs on the CPU. By default where the
            module is, or the CPU.
        lengths: how sequences of unequal lengths are given: ``"full"`` (they are not),
            ``"padded"`` (with ``lengths=``), ``"packed"`` and ``"sorted"`` (as a PackedSequence, in
            any order and the longest first). By default those that the layer has: see ``forward``
            for ``lengths``; torch.nn's layers and their subclasses take a PackedSequence.
        states: whether initial states are given, in turn.
        losses: which outputs the loss looks at, in turn: see :class:`Case`.
        parameters: gives the weights that the specification runs on, made from the module's
            parameters: for one layer the list that :func:`rnncells.reference.layer` takes (gates in
            the order that the cell declares, directions one after another, two biases or none), for
            a stack a list of such. By default torch.nn's names. It is called on a float64 copy of
            the module, and differentiated: the gradients are compared in the module's own
            parameters, not in the specification's. Those are what an optimiser is given; they
            follow from the specification's by the chain rule, whatever the layout, while the way
            back is open where two weights are made of one parameter, or one of two. So a parameter
            that nothing depends on has to come out with no gradient, too.
        call: runs a module that is called otherwise: ``call(module, x, states, lengths)`` is given
            x [T, B, I], a list of initial states [num_layers * D, B, width] or None, and lengths
            [B] or None, and returns y [T, B, D * P] and the last states.
        padding: what stands in the input behind a sequence's end. The specification does not read
            it; NaN shows who does. A number holds only to what the padding makes of the results.
        factor: loosens (or, below 1, tightens) every limit. The limits are
            :func:`rnncells.testing.allowance`'s, by :func:`rnncells.testing.size_of_terms`.
        seed: of what is drawn.
        cases: the very cases to run, in place of all the above that chooses them.

    Returns:
        The report. Of the options, lengths and dtypes that are chosen by default, those that the
        layer does not take, or refuses with NotImplementedError, are left out, and the report says
        which and why; any other exception is a failure of the case.

    Raises:
        TypeError: ``layer`` or ``reference`` is none of the above.
        ValueError: an argument does not fit the layer, or the layer's dropout is alive.
    """
    subject = _subject(layer, reference, parameters, call, padding)
    if cases is None:
        found = [str(d) for d in devices] if devices is not None else [_device(layer)]
        plan = make_plan(subject, sizes, options, dtypes, found, lengths, states, losses, seed)
    else:
        plan = Plan(_checked(cases, subject))
    outcomes = [(case, _outcome(subject, case, padding, factor)) for case in plan.cases]
    refused = plan.refused(outcomes)
    excused = {case for each in refused for case in each.cases}
    rows: list[Row] = []
    raised: list[Exception] = []
    for case, outcome in outcomes:
        if isinstance(outcome, list):
            rows += outcome
        elif case not in excused:
            raised.append(outcome)
            rows.append(Row(case, "call", math.inf, 0.0, f"raised {said(outcome)}"))
    return Report(
        f"{subject.title} against {name_of(reference)}",
        rows,
        [*plan.left_out, *refused],
        _call(reference, parameters, call, padding, factor),
        raised,
    )


def _outcome(subject: Subject, case: Case, padding: float, factor: float) -> list[Row] | Exception:
    """The rows of a case, or what the layer raised."""
    try:
        return run_case(subject, case, padding, factor)
    except Raised as failure:
        return failure.error


def _checked(cases: Sequence[Case], subject: Subject) -> Sequence[Case]:
    for case in cases:
        if subject.sized != bool(case.I and case.H):
            raise ValueError(
                f"cases: {'a' if subject.sized else 'no'} size I, H is needed; got {case!r}"
            )
    return cases


def _call(
    reference: str | Cell,
    parameters: Parameters | None,
    call: Call | None,
    padding: float,
    factor: float,
) -> str:
    """A format for the call that runs one case again."""
    told = {
        "parameters": "parameters" if parameters else "",
        "call": "call" if call else "",
        "padding": "" if math.isnan(padding) else str(padding),
        "factor": "" if factor == 1 else str(factor),
    }
    which = repr(reference) if isinstance(reference, str) else "reference"
    words = [f"layer, {which}", *(f"{k}={v}" for k, v in told.items() if v), "cases=[{case!r}]"]
    return f"parity_report({', '.join(words)})"


def _subject(
    layer: Layer,
    reference: str | Cell,
    parameters: Parameters | None,
    call: Call | None,
    padding: float,
) -> Subject:
    if isinstance(reference, str):
        if reference not in CELLS:
            raise ValueError(f"reference: unknown cell {reference!r}; known: {sorted(CELLS)}")
        cell = CELLS[reference]
    elif isinstance(reference, Cell):
        cell = reference
    else:
        raise TypeError(
            "reference: expected a cell's name or a rnncells.reference.Cell(step, gates, states), "
            f"got {type(reference).__name__}"
        )
    if not isinstance(layer, nn.Module) and not callable(layer):
        raise TypeError(
            "layer: expected a module, a factory of modules or a function, got "
            f"{type(layer).__name__}"
        )
    if (
        not isinstance(layer, (nn.Module, type))
        and "weights" in inspect.signature(layer).parameters
    ):
        if parameters or call:
            raise ValueError("parameters and call: they are for modules; the layer is a function")
        return FunctionSubject(layer, reference, padding)
    return ModuleSubject(layer, cell, parameters or torch_parameters, call, padding)


def _device(layer: Layer) -> str:
    if isinstance(layer, nn.Module):
        for parameter in layer.parameters():
            return str(parameter.device)
    return "cpu"
