"""Parity: holding an implementation of a recurrent layer against the float64 specification.

A :class:`Problem` is one layer's arguments with the gradients that its outputs receive;
:func:`evaluate` runs an implementation on it, forward and backward, in a dtype of choice;
:func:`assert_parity` compares what came out, each tensor by max|difference| / max|reference|, with
the tolerance that its sums justify.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.rnn import RNNBase

from rnncells import reference

Runner = Callable[..., tuple[Tensor, Sequence[Tensor]]]
Loss = Literal["y", "last", "both"]

TORCH_LAYERS: dict[str, type[RNNBase]] = {
    "rnn_tanh": nn.RNN,
    "rnn_relu": nn.RNN,
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}


@dataclass(frozen=True)
class Problem:
    """One layer's arguments, in the layout of :func:`rnncells.reference.layer`, all in float64.

    ``inputs`` holds ``x``, the initial states and the weights by name, in the order of the
    arguments; ``cotangents`` the gradients of the outputs ``y`` and the last states that the loss
    looks at.
    """

    cell: str
    bidirectional: bool
    inputs: dict[str, Tensor]
    cotangents: dict[str, Tensor]

    @property
    def state_names(self) -> list[str]:
        return [name for name in self.inputs if name in ("h_0", "c_0")]

    @property
    def weight_names(self) -> list[str]:
        return [name for name in self.inputs if name.startswith(("w_", "b_"))]

    @property
    def output_names(self) -> list[str]:
        return ["y", *(f"{state}_n" for state in reference.CELLS[self.cell].states)]


def make_problem(
    cell: str,
    T: int,
    B: int,
    I: int,
    H: int,
    *,
    bidirectional: bool = False,
    bias: bool = True,
    states: bool = True,
    loss: Loss = "both",
    kinks: bool = False,
    seed: int = 0,
) -> Problem:
    """Draws a problem; the values are representable in float32, so that every dtype computes on
    the same ones.

    Args:
        cell: a name in :data:`rnncells.reference.CELLS`.
        T, B, I, H: time steps, batch, input size, hidden size.
        bidirectional, bias: of the layer.
        states: whether initial states are given.
        loss: which outputs the loss looks at: the sequence, the last states, or both.
        kinks: let ReLU's arguments come near zero, where a rounding may change a gradient by all
            of its value. By default each unit is driven clearly above or clearly below zero by the
            first feature.
        seed: of the draw.
    """
    declared = reference.CELLS[cell]
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, bound: float = 1.0) -> Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float32)
        return (2 * bound * values - bound).float().double()

    D, rows, bound = 1 + bidirectional, len(declared.gates) * H, 1 / math.sqrt(H)
    inputs = {"x": uniform(T, B, I, bound=math.sqrt(3))}
    for state in declared.states if states else ():
        inputs[f"{state}_0"] = uniform(D, B, H)
    for suffix in ("", "_reverse")[:D]:
        inputs[f"w_ih{suffix}"] = uniform(rows, I, bound=bound)
        inputs[f"w_hh{suffix}"] = uniform(rows, H, bound=bound)
        if bias:
            inputs[f"b_ih{suffix}"] = uniform(rows, bound=bound)
            inputs[f"b_hh{suffix}"] = uniform(rows, bound=bound)
    if cell == "rnn_relu" and not kinks:
        _drive_units(inputs, I, H)

    cotangents = {"y": uniform(T, B, D * H)} if loss in ("y", "both") else {}
    if loss in ("last", "both"):
        cotangents |= {f"{state}_n": uniform(D, B, H) for state in declared.states}
    return Problem(cell, bidirectional, inputs, cotangents)


def _drive_units(inputs: dict[str, Tensor], I: int, H: int) -> None:
    """Makes the first feature near 1 with weights of +-2, and the rest small beside that."""
    inputs["x"][..., 0] = (1 + inputs["x"][..., 0] / 16).float().double()
    for name, value in inputs.items():
        if name.startswith("w_ih"):
            value.mul_(2.0 ** math.floor(math.log2(min(1.0, math.sqrt(H / I)) / 8)))
            value[0::2, 0], value[1::2, 0] = 2, -2
        elif name.startswith("w_hh"):
            value.div_(4)
        elif name.startswith("b_"):
            value.div_(8)


def evaluate(
    run: Runner,
    problem: Problem,
    dtype: torch.dtype = torch.float64,
    wrt: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Runs ``run``, forward and backward, on a problem.

    Args:
        run: an implementation with the signature of :func:`rnncells.reference.layer`.
        problem: its arguments.
        dtype: what they are converted to first.
        wrt: the names of the inputs that require a gradient; all by default, none for the forward
            alone.

    Returns:
        ``y``, ``h_n`` (and ``c_n``), and ``grad <name>`` for each input in ``wrt``; detached.
    """
    wanted = list(problem.inputs) if wrt is None else [n for n in problem.inputs if n in wrt]
    inputs = {name: value.to(dtype, copy=True) for name, value in problem.inputs.items()}
    for name in wanted:
        inputs[name].requires_grad_()
    y, last = run(
        inputs["x"],
        [inputs[name] for name in problem.state_names],
        [inputs[name] for name in problem.weight_names],
        problem.cell,
        problem.bidirectional,
    )
    outputs = dict(zip(problem.output_names, (y, *last), strict=True))
    found = {name: value.detach() for name, value in outputs.items()}
    if wanted:
        grads = torch.autograd.grad(
            [outputs[name] for name in problem.cotangents],
            [inputs[name] for name in wanted],
            [value.to(dtype) for value in problem.cotangents.values()],
        )
        found |= {f"grad {name}": grad for name, grad in zip(wanted, grads, strict=True)}
    return found


def torch_layer(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    cell: str,
    bidirectional: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """torch.nn's layer of the cell, with the signature of :func:`rnncells.reference.layer`."""
    layer = TORCH_LAYERS[cell](
        input_size=x.shape[2],
        hidden_size=weights[1].shape[1],
        bias=len(weights) == (8 if bidirectional else 4),
        bidirectional=bidirectional,
        dtype=x.dtype,
        **torch_options(cell),
    )
    names = [name for name, _ in layer.named_parameters()]
    hx = (tuple(states) if cell == "lstm" else states[0]) if states else None
    y, last = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x, hx))
    return y, list(last) if cell == "lstm" else [last]


def torch_options(cell: str) -> dict[str, Any]:
    """What torch.nn's constructors are told besides the class."""
    return {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}


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


def scale(name: str, expected: Mapping[str, Tensor]) -> float:
    """What an error of the result ``name`` is measured by: the largest element of the reference's.

    A weight's gradient is a sum over time and batch, and where it has few elements all of them may
    cancel; so the gradients of one direction's weights and biases, sums over the same gradients of
    the gates, share the largest element among them.
    """
    names = [name]
    if name.startswith(("grad w_", "grad b_")):
        reverse = name.endswith("_reverse")
        weights = [other for other in expected if other.startswith(("grad w_", "grad b_"))]
        names = [other for other in weights if other.endswith("_reverse") == reverse]
    return max(expected[n].abs().max().item() if expected[n].numel() else 0.0 for n in names)


def tolerance(name: str, problem: Problem, dtype: torch.dtype) -> float:
    """How far from the reference the result ``name`` may be, relative to its :func:`scale`.

    Rounding in a sum of n terms is a random walk: about ``sqrt(n) * eps / 2`` of the size of a
    term, and the scale is no smaller than a term. The factor 4 leaves room for an unlucky walk:
    ``2 * sqrt(n) * eps``. On top come ``16 * eps`` for the activations (each right to about
    4 eps) and for what the recurrence carries on from the steps before. n counts the terms that
    meet in one element:

    - outputs: the products over the input and the hidden size, I + H;
    - gradients of input and initial states: those, and the products over the rows of the weights,
      D * gates * H;
    - gradients of weights and biases: all these, and the sum over time and batch, T * B.
    """
    T, B, I = problem.inputs["x"].shape
    rows, H = problem.inputs["w_hh"].shape
    terms = I + H
    if name.startswith("grad"):
        terms += rows * (1 + problem.bidirectional)
    if name.startswith(("grad w_", "grad b_")):
        terms += T * B
    return (16 + 2 * math.sqrt(terms)) * torch.finfo(dtype).eps


def assert_parity(
    actual: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    problem: Problem,
    dtype: torch.dtype,
    note: str = "",
) -> None:
    """Raises AssertionError, with a table of all results, where one is beyond its tolerance.

    Args:
        actual: what an implementation gave in ``dtype``, from :func:`evaluate`.
        expected: what the reference gave in float64.
        problem: what both were run on.
        dtype: which ``actual`` must have, and which its tolerance comes from.
        note: what else the message should say, such as the ISA in use.
    """
    assert actual.keys() == expected.keys(), (sorted(actual), sorted(expected))
    lines, failed = [], False
    for name, value in actual.items():
        error = relative_error(value, expected[name], scale(name, expected))
        limit = tolerance(name, problem, dtype)
        bad = value.dtype != dtype or not error <= limit
        failed |= bad
        lines.append(
            f"{'FAIL' if bad else 'ok':4} {name:20} {value.dtype} {list(value.shape)} "
            f"error {error:.2e} limit {limit:.2e}"
        )
    T, B, I = problem.inputs["x"].shape
    head = f"{problem.cell} T={T} B={B} I={I} H={problem.inputs['w_hh'].shape[1]}"
    assert not failed, "\n".join(
        [f"{head} bidirectional={problem.bidirectional} {dtype} {note}", *lines]
    )
