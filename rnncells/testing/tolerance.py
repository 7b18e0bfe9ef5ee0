"""How far from the specification a result may be, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rnncells import reference
from rnncells.testing.arithmetic import CoarseArithmetic
from rnncells.testing.problem import HALF, LayerShape, Problem, evaluate

DRAWS = 8
_scales: WeakKeyDictionary[Problem, dict[torch.dtype, dict[str, float]]] = WeakKeyDictionary()


def relative_error(actual: Tensor, expected: Tensor, scale: float | None = None) -> float:
    """max|actual - expected| / scale, where the scale is max|expected| unless it is given.

    Infinite where the shapes differ, a value is not finite, or the scale is zero and the values
    differ.
    """
    if actual.shape != expected.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    difference = (actual.double() - expected.double()).abs().max().item()
    if difference == 0.0:
        return 0.0
    scale = expected.double().abs().max().item() if scale is None else scale
    return difference / scale if scale > 0 and math.isfinite(difference / scale) else math.inf


def size_of_terms(
    run: Callable[[CoarseArithmetic | None], Mapping[str, Tensor]], dtype: torch.dtype
) -> tuple[Mapping[str, Tensor], dict[str, float]]:
    """The results of the specification, and what an error of each in ``dtype`` is measured by.

    That is the result's largest element; or, where it is larger, the largest change in an element
    when the specification runs in :class:`~rnncells.testing.arithmetic.CoarseArithmetic`, divided
    by that arithmetic's eps. The change is as large as the terms that an element is summed from,
    and so does not vanish where they happen to cancel, as the few elements of a small gradient may
    all do at once; and it is large where a rounding carries far: through a unit that is saturated
    (1 - h² near h = 1), or over ReLU's kink, where a gradient jumps. It is no less than the
    smallest normal number of the dtype, below which the spacing of its numbers is constant.

    The arithmetic's eps is eight times the dtype's: what :func:`allowance` has for all but the
    sums. For float64 it is float32's, well above the specification's own roundings. One run is
    enough where a result has many elements; eight together, in one run or more, or all may happen
    to change little. Where 16 bits meet a kink, some argument is always within a rounding of it:
    then it takes eight runs, each of which carries about half of those over, and a change counts
    twice, as a jump by itself with other errors to come on top.

    Args:
        run: gives the results by name; exact ones for None, else from disturbed inputs and in the
            arithmetic.
        dtype: of the layer that is held against them.
    """
    expected = run(None)
    eps = 8 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    tiny = torch.finfo(dtype).tiny
    scales = {
        n: max(tiny, float(v.abs().max())) if v.numel() else tiny for n, v in expected.items()
    }
    least = min((value.numel() for value in expected.values() if value.numel()), default=DRAWS)
    seed, runs = 0, -(-DRAWS // least)
    while seed < runs:
        arithmetic = CoarseArithmetic(eps, seed)
        disturbed = run(arithmetic)
        jumps = dtype in HALF and arithmetic.kinks
        for name, value in expected.items():
            if value.numel():
                change = float((disturbed[name] - value).abs().max())
                scales[name] = max(scales[name], change / eps * (2 if jumps else 1))
        seed, runs = seed + 1, DRAWS if jumps else runs
    return expected, scales


def scale(name: str, problem: Problem, dtype: torch.dtype) -> float:
    """What an error of the result ``name`` of a problem, in ``dtype``, is measured by: the
    :func:`size_of_terms`."""

    def run(arithmetic: CoarseArithmetic | None) -> dict[str, Tensor]:
        if arithmetic is None:
            return evaluate(reference.layer, problem)
        inputs = arithmetic.disturbed(problem.inputs)
        cotangents = arithmetic.disturbed(problem.cotangents)
        moved = replace(problem, inputs=inputs, cotangents=cotangents)
        with arithmetic:
            return evaluate(reference.layer, moved)

    kept = _scales.setdefault(problem, {})
    if dtype not in kept:
        kept[dtype] = size_of_terms(run, dtype)[1]
    return kept[dtype][name]


def allowance(name: str, shapes: Sequence[LayerShape], dtype: torch.dtype) -> float:
    """How far from the specification the result ``name`` may be, relative to the size of its terms.

    ``8 * eps + sqrt(n) * eps'``, for each layer of a stack, where eps is the dtype's and eps' that
    of the arithmetic: float32's for 16 bits, else the dtype's.

    - Rounding in a sum of n terms is a random walk: about ``sqrt(n) * eps' / 2`` of the size of a
      term, and the :func:`scale` is no smaller than a term. The factor of two leaves room for an
      unlucky walk.
    - ``8 * eps`` are for the activations (each right to about 4 eps), and for what the recurrence
      carries on from the steps before. In 16 bits the activations are right, but what is stored is
      rounded: the hidden state at each step, by half an eps, of which the recurrence, a
      contraction by about 1/sqrt(3) with weights from U(-1/sqrt(H), 1/sqrt(H)), carries on 2.4
      times that in all; the same for the memory cell, and again backward: 5 eps. A layer that
      rounds every gate and product on the way stays within the rest, but one that sums in 16 bits
      does not: there eps' would be eps.
    - In a stack each layer adds its own errors to those that it passes on.

    n counts the terms that meet in one element:

    - outputs: the products over the input and the hidden size, I + P, and with a projection H;
    - gradients of input and initial states: those, and the products over the rows of the weights,
      D * gates * H, and with a projection P; and for the initial states the T factors that a
      gradient passes on its way back to them;
    - gradients of weights and biases: all these, and the sum over the time steps of all sequences.

    Args:
        name: ``y``, ``h_n`` and so on; or ``grad`` and the name of an input: ``x``, a state, which
            ends in ``_0``, or anything else for a parameter.
        shapes: of the layers.
        dtype: that the result is computed in.
    """
    storage = torch.finfo(dtype).eps
    arithmetic = torch.finfo(torch.float32).eps if dtype in HALF else storage
    total = 0.0
    for shape in shapes:
        terms = shape.inputs + shape.outputs + shape.projected * shape.units
        if name.startswith("grad "):
            terms += shape.directions * shape.gates * shape.units + shape.projected * shape.outputs
            if name.endswith("_0"):
                terms += shape.steps
            elif name != "grad x":
                terms += shape.rows
        total += 8 * storage + math.sqrt(terms) * arithmetic
    return total


def tolerance(name: str, problem: Problem, dtype: torch.dtype) -> float:
    """The :func:`allowance` of the result ``name`` of a problem, relative to its :func:`scale`."""
    return allowance(name, [problem.shape], dtype)


def reads_padding(name: str, value: Tensor | None, outside: Tensor | None) -> bool:
    """Whether a result has anything but zeros behind the sequences' ends.

    Args:
        name, value: of the result.
        outside: [T, B], true behind a sequence's end; None where nothing is padded.
    """
    if value is None or outside is None or name not in ("y", "grad x"):
        return False
    return value.shape[:2] == outside.shape and bool(value[outside.to(value.device)].any())


def assert_parity(
    actual: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    problem: Problem,
    dtype: torch.dtype,
    note: str = "",
) -> None:
    """Raises AssertionError, with a table of all results, where one is beyond its tolerance, or is
    not zero behind a sequence's end.

    Args:
        actual: what an implementation gave in ``dtype``, from :func:`evaluate`.
        expected: what the reference gave in float64: of the same results, or of more.
        problem: what both were run on.
        dtype: which ``actual`` must have, and which its tolerance comes from.
        note: what else the message should say, such as the ISA in use.
    """
    missing = sorted(actual.keys() - expected.keys())
    assert not missing, f"nothing to hold {missing} against"
    outputs = [name for name in expected if not name.startswith("grad ")]
    assert actual.keys() >= set(outputs), (sorted(actual), outputs)
    lines, failed = [], False
    for name, value in actual.items():
        error = relative_error(value, expected[name], scale(name, problem, dtype))
        limit = tolerance(name, problem, dtype)
        behind = reads_padding(name, value, problem.outside)
        bad = value.dtype != dtype or behind or not error <= limit
        failed |= bad
        lines.append(
            f"{'FAIL' if bad else 'ok':4} {name:20} {value.dtype} {list(value.shape)} "
            f"error {error:.2e} limit {limit:.2e}{'; not zero behind the end' * behind}"
        )
    assert not failed, "\n".join([f"{problem} {dtype} {note}", *lines])
