"""Cells with activations that are chosen, peepholes, coupled gates and the reset before the
product, in the engine against the specification."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import _C, reference
from rnncells.autograd import run_layer
from rnncells.testing import Problem, assert_parity, evaluate, make_problem
from rnncells.testing.problem import call
from rnncells.variants import ENGINE_CELLS, Text, Varied, declare, reference_layer, write
from tests.test_parity import using

SEED = torch.tensor([77])
SMOOTH = ("tanh", "sigmoid", "silu", "softsign", "identity")
KINKED = ("relu", "hard_sigmoid")  # a rounding may change the gradient by all of its value

# Those that normalise a row of their own: test_layer_norm.
open_cells = pytest.mark.parametrize(
    "name", [name for name in ENGINE_CELLS if not _C.cells()[name]["middle"]]
)


def open_problem(name: str, *sizes: int, text: str = "", **options: Any) -> Problem:
    """make_problem's, with the values per unit where the cell has some."""
    declared = declare(name, text)
    problem = make_problem(declared, *sizes, **options)
    generator = torch.Generator().manual_seed(3)
    inputs: dict[str, Tensor] = {}
    suffixes = ("", "_reverse")[: 1 + problem.bidirectional]
    for suffix in suffixes:
        own = [n for n in problem.weight_names if n.endswith("_reverse") == bool(suffix)]
        inputs |= {n: problem.inputs[n] for n in own}
        for extra, times in declared.extras:
            values = torch.rand(times * sizes[3], generator=generator) - 0.5
            inputs[extra + suffix] = values.double()
    first = {n: v for n, v in problem.inputs.items() if n not in problem.weight_names}
    return replace(problem, inputs=first | inputs)


def engine(name: str, varied: Varied, **options: Any) -> Any:
    def run(x: Tensor, states: Any, weights: Any, _: Any, both: bool, *uneven: Any) -> Any:
        lengths, batch_sizes = uneven or (None, None)
        given = x, states, weights, name, both, lengths, batch_sizes
        return run_layer(*given, varied=varied, **options)

    return run


def specified(name: str, varied: Varied) -> Any:
    def run(x: Tensor, states: Any, weights: Any, _: Any, both: bool, *uneven: Any) -> Any:
        lengths, batch_sizes = uneven or (None, None)
        return reference_layer(x, states, weights, name, both, lengths, batch_sizes, varied)

    return run


def check(name: str, problem: Problem, varied: Varied, *dtypes: torch.dtype) -> None:
    half = dtypes[0].itemsize == 2
    problem = problem.rounded(dtypes[0]) if half else problem
    expected = evaluate(specified(name, varied), problem)
    for isa, threads in itertools.product(_C.supported_isas(), (1, 2)):
        with using(isa, threads) as note:
            for dtype in dtypes:
                actual = evaluate(engine(name, varied), problem, dtype)
                assert_parity(actual, expected, problem, dtype, note)


@open_cells
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (5, 3, 40, 17), (3, 33, 3, 65), (40, 2, 2, 7)])
@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
def test_own_activations(name: str, sizes: tuple[int, int, int, int], lengths: str) -> None:
    packed = lengths == "packed"
    problem = open_problem(
        name,
        *sizes,
        bidirectional=sizes[0] % 2 == 1,
        bias=sizes[1] != 3,
        states=packed or sizes[0] != 5,
        lengths=None if lengths == "full" else "draw",
        packed=packed,
    )
    check(name, problem, Varied(), torch.float32, torch.float64)


@open_cells
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("recurrent", ["sigmoid", "hard_sigmoid", "tanh"])
def test_activations(name: str, activation: str, recurrent: str) -> None:
    if name == "rnn_open" and recurrent != "sigmoid":
        return  # it has no gates
    gate = None if name == "rnn_open" else recurrent
    text = write(Text(activation=activation, recurrent_activation=gate))
    problem = open_problem(name, 5, 3, 4, 19, text=text, bidirectional=True)
    kinked = activation in KINKED or recurrent in KINKED
    dtypes = (torch.float64,) if kinked else (torch.float32, torch.float64)
    check(name, problem, Varied(text), *dtypes)


@open_cells
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(name: str, dtype: torch.dtype) -> None:
    check(name, open_problem(name, 5, 4, 3, 17, bidirectional=True), Varied(), dtype)


@open_cells
def test_with_masks_zoneout_and_resets(name: str) -> None:
    rates = (0.3, 0.2) if name.startswith("lstm") else (0.3,)
    text = write(Text(recurrent_dropout=0.3, zoneout=rates, activation="softsign"))
    problem = open_problem(name, 7, 5, 3, 19, text=text, bidirectional=True, lengths="draw")
    resets = torch.rand(7, 5) < 0.3
    check(name, problem, Varied(text, SEED, resets), torch.float32, torch.float64)


@open_cells
def test_recompute_has_the_same_bits(name: str) -> None:
    problem = open_problem(name, 60, 40, 3, 20, bidirectional=True, lengths="draw")
    for varied in (Varied(), Varied(write(Text(recurrent_dropout=0.3)), SEED)):
        expected = evaluate(engine(name, varied), problem, torch.float32)
        again = evaluate(engine(name, varied, recompute=True), problem, torch.float32)
        for key, value in again.items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", ["rnn_open", "lstm_open", "lstm_coupled"])
def test_projection(name: str) -> None:
    problem = open_problem(name, 6, 5, 3, 17, bidirectional=True, proj=5, lengths="draw")
    check(name, problem, Varied(), torch.float32, torch.float64)


@pytest.mark.parametrize(("name", "plain"), [("lstm_open", "lstm"), ("gru_open", "gru")])
def test_is_the_plain_cell_without_options(name: str, plain: str) -> None:
    """To the bit: an open cell is the plain one's mathematics."""
    _C.force_regime("units")
    try:
        problem = make_problem(plain, 9, 5, 3, 21)
        extra = {"peephole": torch.zeros(3 * 21).double()} if name == "lstm_open" else {}
        ours = replace(problem, inputs=problem.inputs | extra)
        run = engine(name, Varied())
        expected = evaluate(run_layer, problem, torch.float32)
        actual = evaluate(run, ours, torch.float32)
    finally:
        _C.force_regime("auto")
    for key in ("y", "h_n"):
        assert torch.equal(actual[key], expected[key]), key


@open_cells
# Along one direction drawn by chance; in the full grids along each.
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_derivatives(name: str, fast: bool) -> None:
    problem = open_problem(name, 3, 2, 2, 3, bidirectional=True)
    names = list(problem.inputs)
    leaves = [problem.inputs[n].detach().clone().requires_grad_() for n in names]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(names, tensors, strict=True))
        return tuple(call(engine(name, Varied()), problem, inputs).values())

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=fast)


@open_cells
@pytest.mark.parametrize("lengths", [None, [1, 3, 2]])
def test_opcheck(name: str, lengths: list[int] | None) -> None:
    problem = open_problem(name, 3, 3, 2, 5, bidirectional=True, lengths=lengths, padding=0.0)
    inputs = {n: value.clone().requires_grad_() for n, value in problem.inputs.items()}
    states = [inputs[n] for n in problem.state_names]
    weights = [inputs[n] for n in problem.weight_names]
    given = inputs["x"], states, weights, problem.lengths, None, name, True, True
    torch.library.opcheck(torch.ops.rnncells.layer_forward.default, given)


@pytest.mark.parametrize(
    ("cell", "text", "told"),
    [
        ("lstm", "activation=relu", "'activation' is unknown to the cell 'lstm'"),
        ("lstm_open", "activation=elu", "activation 'elu' is unknown; known: tanh, relu"),
    ],
)
def test_bad_text(cell: str, text: str, told: str) -> None:
    weights = [torch.randn(20, 4), torch.randn(20, 5), torch.randn(15)]
    weights = weights[: 3 if cell == "lstm_open" else 2]
    forward = torch.ops.rnncells.layer_forward.default
    with pytest.raises((RuntimeError, ValueError), match=told):
        forward(torch.randn(2, 3, 4), [], weights, None, None, cell, False, False, variant=text)


def test_values_per_unit_have_their_shape() -> None:
    weights = [torch.randn(20, 4), torch.randn(20, 5), torch.randn(3, 5)]
    forward = torch.ops.rnncells.layer_forward.default
    with pytest.raises(RuntimeError, match=r"the values per unit must have shape \[15\]"):
        forward(torch.randn(2, 3, 4), [], weights, None, None, "lstm_open", False, False)
    with pytest.raises(RuntimeError, match="and the cell's values per unit, got 1"):
        forward(torch.randn(2, 3, 4), [], weights[:1], None, None, "lstm_open", False, False)
