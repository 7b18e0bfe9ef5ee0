"""One case: what the layer gives, what the specification gives, and how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from rnncells.testing.arithmetic import CoarseArithmetic
from rnncells.testing.case import Case
from rnncells.testing.problem import cast
from rnncells.testing.report import Row
from rnncells.testing.shapes import WrongShape
from rnncells.testing.subject import Subject, Trial
from rnncells.testing.tolerance import (
    allowance,
    reads_padding,
    relative_error,
    size_of_terms,
)


class Raised(Exception):
    """What a layer raised in a case."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _raised() -> Iterator[None]:
    """Tells what a layer raises from what the suite does."""
    try:
        yield
    except WrongShape:
        raise
    except Exception as error:
        raise Raised(error) from error


def run_case(subject: Subject, case: Case, padding: float, factor: float) -> list[Row]:
    """Runs one case.

    Args:
        subject, case: what is run on what.
        padding: as it was drawn, for what is said of a value that is not finite.
        factor: of every limit.

    Returns:
        A row for each output, and for the gradient of each input and parameter; or one that says
        which outputs are of wrong shapes: then nothing else is computed.

    Raises:
        Raised: the layer raised.
    """
    try:
        trial = subject.trial(case)
    except NotImplementedError as error:
        raise Raised(error) from error
    leaves = {name: cast(v, case.dtype, case.device) for name, v in trial.inputs.items()}
    if case.strided:
        leaves["x"] = torch.stack([leaves["x"], leaves["x"]], dim=-1)[..., 0]
    for leaf in leaves.values():
        leaf.requires_grad_()
    cotangents = {n: cast(v, case.dtype, case.device) for n, v in trial.cotangents.items()}
    try:
        with _raised():
            outputs = trial.layer(leaves)
    except WrongShape as error:
        return [Row(case, "shape", math.inf, 0.0, str(error))]
    with _raised():
        actual = _results(outputs, leaves | trial.parameters, cotangents)
    expected, scales = _expect(trial, case.dtype)
    detached = [name for name in cotangents if not outputs[name].requires_grad]
    rows = []
    for name, wanted in expected.items():
        limit = factor * allowance(name, trial.shapes, case.dtype)
        size = scales[name]
        distance, note = _compare(actual[name], wanted, size, limit, case)
        if name in detached:
            distance, note = math.inf, "detached: no gradient goes back from it"
        elif reads_padding(name, actual[name], trial.outside):
            distance, note = math.inf, f"not zero behind a sequence's end; {note}".rstrip("; ")
        if "not finite" in note and trial.outside is not None and math.isnan(padding):
            note += "; is the padding, NaN, read?"
        rows.append(Row(case, name, distance, limit, note))
    return rows


def _expect(trial: Trial, dtype: torch.dtype) -> tuple[Mapping[str, Tensor], dict[str, float]]:
    """What the specification gives, and what an error of each result is measured by."""
    originals = {name: value.detach().clone() for name, value in trial.twins.items()}

    def run(arithmetic: CoarseArithmetic | None) -> dict[str, Tensor]:
        inputs, cotangents, parameters = trial.inputs, trial.cotangents, originals
        if arithmetic is not None:
            inputs, cotangents = arithmetic.disturbed(inputs), arithmetic.disturbed(cotangents)
            parameters = arithmetic.disturbed(parameters)
        with torch.no_grad():
            for name, value in parameters.items():
                trial.twins[name].copy_(value)
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        with arithmetic or nullcontext():
            found = _results(trial.specification(leaves), leaves | trial.twins, cotangents)
        return {name: _or_zeros(value, name, leaves | trial.twins) for name, value in found.items()}

    return size_of_terms(run, dtype)


def _or_zeros(value: Tensor | None, name: str, leaves: Mapping[str, Tensor]) -> Tensor:
    return torch.zeros_like(leaves[name.removeprefix("grad ")]) if value is None else value


def _results(
    outputs: Mapping[str, Tensor], leaves: Mapping[str, Tensor], cotangents: Mapping[str, Tensor]
) -> dict[str, Tensor | None]:
    """Outputs and gradients, detached; None for a gradient that autograd finds no way to."""
    found: dict[str, Tensor | None] = {name: value.detach() for name, value in outputs.items()}
    live = [name for name in cotangents if outputs[name].requires_grad]
    grads: Sequence[Tensor | None] = [None] * len(leaves)
    if live:
        grads = torch.autograd.grad(
            [outputs[name] for name in live],
            list(leaves.values()),
            [cotangents[name].to(outputs[name].dtype) for name in live],
            allow_unused=True,
        )
    return found | {f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)}


def _compare(
    actual: Tensor | None, expected: Tensor, size: float, limit: float, case: Case
) -> tuple[float, str]:
    """The error of a tensor, and what there is to say of it."""
    if actual is None:
        return (math.inf, "no gradient") if expected.any() else (0.0, "none, and none is right")
    if actual.dtype != case.dtype:
        return math.inf, f"{actual.dtype}, expected {case.dtype}"
    if actual.device.type != torch.device(case.device).type:
        return math.inf, f"on {actual.device}, expected {case.device}"
    actual = actual.cpu().double()
    if not actual.isfinite().all():
        return math.inf, "not finite"
    error = relative_error(actual, expected, size)
    if error <= limit:
        return error, ""
    worst = int((actual - expected).abs().argmax())
    place = [int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape)]
    got, want = actual.flatten()[worst].item(), expected.flatten()[worst].item()
    return error, f"worst at {place}: {got:.6g}, expected {want:.6g}"
