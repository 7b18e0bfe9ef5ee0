"""IndRNN and sLSTM in the engine beyond what every cell is tested for: dropout, zoneout and resets,
shared units, ties, zeros and numbers that overflow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import _C, reference
from rnncells.autograd import run_layer
from rnncells.testing import Problem, assert_parity, evaluate, make_problem
from rnncells.testing.problem import call
from rnncells.variants import Text, Varied, write
from tests.test_open_cells import KINKED, SEED, check, engine, open_problem
from tests.test_parity import using

names = pytest.mark.parametrize("name", ["indrnn", "slstm"])
I, H = 3, 5


def text_of(name: str, **options: Any) -> str:
    """With a smooth activation, where there is one."""
    return write(Text(activation="tanh" if name == "indrnn" else None, **options))


@names
@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
def test_with_masks_and_zoneout(name: str, lengths: str) -> None:
    packed = lengths == "packed"
    text = text_of(name, recurrent_dropout=0.3, zoneout=(0.3,))
    uneven: Any = None if lengths == "full" else "draw"
    options: dict[str, Any] = {"bidirectional": True, "lengths": uneven, "packed": packed}
    problem = open_problem(name, 7, 5, 3, 19, text=text, **options)
    check(name, problem, Varied(text, SEED), torch.float32, torch.float64)


@names
def test_with_resets(name: str) -> None:
    text = text_of(name, recurrent_dropout=0.3)
    problem = open_problem(name, 7, 5, 3, 19, text=text, bidirectional=True)
    resets = torch.rand(7, 5) < 0.3
    check(name, problem, Varied(text, SEED, resets), torch.float32, torch.float64)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_activations_of_indrnn(activation: str) -> None:
    text = write(Text(activation=activation))
    problem = open_problem("indrnn", 5, 3, 4, 19, text=text, bidirectional=True)
    dtypes = (torch.float64,) if activation in KINKED else (torch.float32, torch.float64)
    check("indrnn", problem, Varied(text), *dtypes)


def test_projection_of_slstm() -> None:
    problem = make_problem("slstm", 6, 5, 3, 17, bidirectional=True, proj=5, lengths="draw")
    check("slstm", problem, Varied(), torch.float32, torch.float64)


@names
def test_recompute_has_the_same_bits(name: str) -> None:
    text = text_of(name, recurrent_dropout=0.3, zoneout=(0.2,))
    problem = open_problem(name, 60, 40, 3, 20, text=text, bidirectional=True, lengths="draw")
    for varied in (Varied(text_of(name)), Varied(text, SEED)):
        expected = evaluate(engine(name, varied), problem, torch.float32)
        again = evaluate(engine(name, varied, recompute=True), problem, torch.float32)
        for key, value in again.items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", ["indrnn", "slstm", "lstm_open", "lstm_coupled"])
def test_units_shared_by_threads(name: str) -> None:
    """One sequence, and more panels of units than one: the gradients of values per unit too."""
    problem = open_problem(name, 9, 1, 3, 300)
    expected = evaluate(reference.layer, problem)
    for isa in _C.supported_isas():
        with using(isa, 1):
            alone = evaluate(engine(name, Varied()), problem, torch.float64)
        with using(isa, 2) as note:
            for _ in range(5):
                shared = evaluate(engine(name, Varied()), problem, torch.float64)
                assert all(torch.equal(shared[key], alone[key]) for key in alone), note
        assert_parity(alone, expected, problem, torch.float64, isa)


@names
def test_derivatives_under_dropout(name: str) -> None:
    text = text_of(name, recurrent_dropout=0.3, zoneout=(0.3,))
    problem = open_problem(name, 3, 2, 2, 3, text=text, bidirectional=True)
    keys = list(problem.inputs)
    leaves = [problem.inputs[n].detach().clone().requires_grad_() for n in keys]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(keys, tensors, strict=True))
        return tuple(call(engine(name, Varied(text, SEED)), problem, inputs).values())

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@names
@pytest.mark.parametrize("lengths", [None, [1, 3, 2]])
def test_opcheck(name: str, lengths: list[int] | None) -> None:
    problem = make_problem(name, 3, 3, 2, 5, bidirectional=True, lengths=lengths, padding=0.0)
    inputs = {n: value.clone().requires_grad_() for n, value in problem.inputs.items()}
    states = [inputs[n] for n in problem.state_names]
    weights = [inputs[n] for n in problem.weight_names]
    given = inputs["x"], states, weights, problem.lengths, None, name, True, True
    torch.library.opcheck(torch.ops.rnncells.layer_forward.default, given)


def step_of_slstm(dtype: torch.dtype, **gates: float) -> tuple[list[Tensor], list[Tensor]]:
    """Weights of zero, and biases that give the gates' arguments; states of 1."""
    bias = torch.cat([torch.full((H,), gates.get(gate, 0.0)) for gate in "ifzo"])
    weights = [torch.zeros(4 * H, I), torch.zeros(4 * H, H), bias, torch.zeros(4 * H)]
    states = [torch.ones(1, 1, H) for _ in range(4)]
    return [s.to(dtype) for s in states], [w.to(dtype).requires_grad_() for w in weights]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tie_of_the_stabiliser_is_shared(dtype: torch.dtype, isa: str) -> None:
    """Where log s(f~) + m is i~ to the bit, half of the gradient of m' goes to each, as in torch's
    maximum: s(60) is 1."""
    states, weights = step_of_slstm(dtype, i=0.25, f=60.0)
    states[3] = torch.full((1, 1, H), 0.25, dtype=dtype).requires_grad_()
    x = torch.zeros(1, 1, I, dtype=dtype)
    for run in (run_layer, reference.layer):
        _, (_, _, _, m) = run(x, states, weights, "slstm")
        of_m, of_bias = torch.autograd.grad(m.sum(), [states[3], weights[2]])
        assert m.eq(0.25).all()
        assert of_m.eq(0.5).all()
        assert of_bias[:H].eq(0.5).all()


def test_nothing_memorised(isa: str) -> None:
    """Where n is 0 the old m is no part of the new one, wherever it is."""
    problem = make_problem("slstm", 4, 3, I, H)
    for n in (problem.inputs["n_0"], problem.inputs["c_0"]):
        n[..., ::2] = 0
    problem.inputs["m_0"][..., ::2] = 50.0
    expected = evaluate(reference.layer, problem)
    for dtype in (torch.float32, torch.float64):
        assert_parity(evaluate(run_layer, problem, dtype), expected, problem, dtype)


@pytest.mark.parametrize("size", [-1e4, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_slstm_does_not_overflow(size: float, dtype: torch.dtype, isa: str) -> None:
    problem = make_problem("slstm", 6, 3, I, H, states=False)
    problem.inputs["b_ih"][:H] = size
    inputs = {n: v.to(dtype).requires_grad_() for n, v in problem.inputs.items()}
    weights = [inputs[n] for n in problem.weight_names]
    y, _ = run_layer(inputs["x"], [], weights, "slstm")
    assert y.abs().max() < 1
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), weights))


@pytest.mark.parametrize("gate", "ifzo")
@pytest.mark.parametrize("memorised", [True, False])
def test_nan_flows(gate: str, memorised: bool, isa: str) -> None:
    """To whatever states it reaches in the specification."""
    states, weights = step_of_slstm(torch.float32, **{gate: math.nan})
    if not memorised:
        states[2].zero_()
    x = torch.zeros(1, 1, I)
    y, last = run_layer(x, states, weights, "slstm")
    expected, right = reference.layer(x, states, weights, "slstm")
    for ours, theirs in zip([y, *last], [expected, *right], strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_indrnn_reads_no_other_unit(isa: str) -> None:
    problem: Problem = make_problem("indrnn", 5, 2, I, 40)
    inputs = {n: v.float() for n, v in problem.inputs.items()}
    bad = inputs | {"h_0": inputs["h_0"].clone()}
    bad["h_0"][..., 7] = math.nan
    right, found = (call(run_layer, problem, given)["y"] for given in (inputs, bad))
    assert found[..., 7].isnan().all()
    rest = [j for j in range(40) if j != 7]
    assert torch.equal(found[..., rest], right[..., rest])


def test_weight_hh_of_indrnn() -> None:
    """One value a unit, wherever it lies; another shape is refused."""
    x, w, u = torch.randn(4, 2, I), torch.randn(H, I), torch.randn(2 * H)
    expected, _ = run_layer(x, [], [w, u[::2].clone()], "indrnn")
    assert torch.equal(run_layer(x, [], [w, u[::2]], "indrnn")[0], expected)
    for shape, told in (((H, H), "must have one dimension, got"), ((H + 1,), "weight_ih must")):
        with pytest.raises(RuntimeError, match=told):
            run_layer(x, [], [w, torch.randn(shape)], "indrnn")
