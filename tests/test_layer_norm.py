"""Layer norm inside the loop, in the engine against the specification."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rnncells
from rnncells import _C, reference
from rnncells.testing import Problem, evaluate
from rnncells.testing.problem import call
from rnncells.variants import Text, Varied, declare, write
from tests.kinds import KINDS, Layer, kinds
from tests.test_open_cells import engine, open_problem, specified
from tests.test_parity import using

NORMED = [
    ("rnn_open", "gates"),
    ("rnn_open", "preactivation"),
    ("lstm_normed", "gates"),
    ("lstm_open", "preactivation"),
    ("lstm_coupled", "preactivation"),
    ("gru_open", "gates"),
    ("gru_normed", "preactivation"),
]
SEED = torch.tensor([5])
normed = pytest.mark.parametrize(("name", "norm"), NORMED)


def with_norm(name: str, norm: str, *sizes: int, **options: Any) -> Problem:
    """A problem with layer norm's scales and shifts, and the peepholes, zero, that the engine's
    open LSTMs take last."""
    problem = open_problem(name, *sizes, text=write(Text(layer_norm=norm)), **options)
    inputs = dict(problem.inputs)
    for key in inputs:
        if key.startswith("norm") and "shift" not in key:
            inputs[key] = inputs[key] + 1
    return replace(problem, inputs=inputs)


def run_engine(name: str, varied: Varied, **options: Any) -> Any:
    """The engine, given zero peepholes where it takes some."""
    run = engine(name, varied, **options)
    values = _C.cells()[name]["unit_parameters"]

    def with_zeros(x: Tensor, states: Any, weights: Any, cell: Any, both: bool, *rest: Any) -> Any:
        if values:
            each = len(weights) // (1 + both)
            zeros = x.new_zeros(values * weights[1].shape[1])
            parts = [weights[d : d + each] for d in range(0, len(weights), each)]
            weights = [weight for part in parts for weight in (*part, zeros)]
        return run(x, states, weights, cell, both, *rest)

    return with_zeros


def run_specified(name: str, varied: Varied) -> Any:
    run = specified(name, varied)
    values = _C.cells()[name]["unit_parameters"]

    def with_zeros(x: Tensor, states: Any, weights: Any, cell: Any, both: bool, *rest: Any) -> Any:
        if values:
            each = len(weights) // (1 + both)
            zeros = x.new_zeros(values * weights[1].shape[1])
            parts = [weights[d : d + each] for d in range(0, len(weights), each)]
            weights = [weight for part in parts for weight in (*part, zeros)]
        return run(x, states, weights, cell, both, *rest)

    return with_zeros


def close(actual: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> None:
    """A norm divides by a standard deviation, here down to a hundredth, and its gradient does so
    again where norms follow each other: rounding errors grow so much. Held to a thousand eps of the
    largest value."""
    eps = 1000 * torch.finfo(dtype).eps
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        error = float((actual[name].double() - value.double()).abs().max()) / scale
        assert error <= eps, f"{name}: {error:.2e} above {eps:.2e}"


def check(name: str, problem: Problem, varied: Varied) -> None:
    expected = evaluate(run_specified(name, varied), problem)
    for isa, threads in itertools.product(_C.supported_isas(), (1, 2)):
        with using(isa, threads):
            for dtype in (torch.float64, torch.float32):
                close(evaluate(run_engine(name, varied), problem, dtype), expected, dtype)


@normed
@pytest.mark.parametrize("sizes", [(1, 1, 1, 2), (6, 3, 4, 17), (3, 17, 40, 33), (40, 3, 2, 7)])
@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
def test_parity(name: str, norm: str, sizes: tuple[int, int, int, int], lengths: str) -> None:
    packed = lengths == "packed"
    problem = with_norm(
        *(name, norm, *sizes),
        bidirectional=sizes[0] != 3,
        bias=sizes[1] != 3,
        states=packed or sizes[0] != 6,
        lengths=None if lengths == "full" else "draw",
        packed=packed,
    )
    check(name, problem, Varied(write(Text(layer_norm=norm))))


@normed
def test_with_masks_zoneout_and_resets(name: str, norm: str) -> None:
    rates = (0.3, 0.2) if name.startswith("lstm") else (0.3,)
    text = Text(recurrent_dropout=0.3, zoneout=rates, activation="softsign", layer_norm=norm)
    problem = with_norm(name, norm, 7, 5, 3, 19, bidirectional=True, lengths="draw")
    check(name, problem, Varied(write(text), SEED, torch.rand(7, 5) < 0.3))


@normed
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(name: str, norm: str, dtype: torch.dtype) -> None:
    """Within what rounding h at each step does to the specification itself."""
    varied = Varied(write(Text(layer_norm=norm)))
    problem = with_norm(name, norm, 5, 4, 3, 17, bidirectional=True).rounded(dtype)
    expected = evaluate(run_specified(name, varied), problem)
    for isa in _C.supported_isas():
        with using(isa, 1):
            actual = evaluate(run_engine(name, varied), problem, dtype)
        for key, value in expected.items():
            scale = max(1.0, float(value.abs().max()))
            error = float((actual[key].double() - value).abs().max()) / scale
            assert error <= 40 * torch.finfo(dtype).eps, (key, error)


@normed
def test_recompute_and_threads_change_no_bit(name: str, norm: str) -> None:
    problem = with_norm(name, norm, 60, 40, 3, 20, bidirectional=True, lengths="draw")
    varied = Varied(write(Text(layer_norm=norm, recurrent_dropout=0.3)), SEED)
    with using(_C.get_isa(), 1):
        expected = evaluate(run_engine(name, varied), problem, torch.float32)
    for threads in (1, 2, 3):
        with using(_C.get_isa(), threads):
            run = run_engine(name, varied, recompute=threads != 2)
            for key, value in evaluate(run, problem, torch.float32).items():
                assert torch.equal(value, expected[key]), (key, threads)


@normed
# Along one direction drawn by chance; in the full grids along each.
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_derivatives(name: str, norm: str, fast: bool) -> None:
    problem = with_norm(name, norm, 3, 2, 2, 3, bidirectional=True)
    names = list(problem.inputs)
    leaves = [problem.inputs[n].detach().clone().requires_grad_() for n in names]
    varied = Varied(write(Text(layer_norm=norm)))

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(names, tensors, strict=True))
        return tuple(call(run_engine(name, varied), problem, inputs).values())

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=fast)


@kinds
@pytest.mark.parametrize("norm", ["gates", "preactivation"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers(kind: Layer, norm: str, bidirectional: bool) -> None:
    layer: Any = kind(3, 7, 2, bidirectional=bidirectional, layer_norm=norm, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    y, _ = layer(x)
    cell = {"RNN_TANH": "rnn_tanh"}.get(layer.mode, layer.mode.lower())
    below = x
    each = len(list(layer.parameters())) // 2
    for k in range(2):
        weights = list(layer.parameters())[k * each : (k + 1) * each]
        variant = reference.Variant(layer_norm=norm)
        below, _ = reference.layer(below, [], weights, cell, bidirectional, variant=variant)
    torch.testing.assert_close(y, below)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@kinds
def test_starts_as_ones_and_zeros_and_is_saved(kind: Layer) -> None:
    layer: Any = kind(3, 7, layer_norm="preactivation", init="keras")
    assert torch.equal(layer.norm_l0, torch.ones_like(layer.norm_l0))
    assert torch.equal(layer.norm_shift_l0, torch.zeros_like(layer.norm_shift_l0))
    again: Any = kind(3, 7, layer_norm="preactivation")
    again.load_state_dict(layer.state_dict())
    x = torch.randn(6, 4, 3)
    assert torch.equal(layer(x)[0], again(x)[0])


@kinds
def test_compiled_and_frozen(kind: Layer) -> None:
    layer: Any = kind(3, 7, layer_norm="gates")
    x = torch.randn(6, 4, 3)
    expected = layer(x)[0]
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0], expected)
    with torch.no_grad(), layer.frozen():
        assert torch.equal(layer(x)[0], expected)


def test_the_seeds_cell() -> None:
    """LNSimpleRNNCell: one norm on the sum, before tanh, is torch's LayerNorm by hand."""
    layer: Any = rnncells.SimpleRNN(3, 5, layer_norm="preactivation")
    x = torch.randn(4, 2, 3)
    h = torch.zeros(2, 5)
    for t in range(4):
        total = torch.nn.functional.linear(x[t], layer.weight_ih_l0, layer.bias_ih_l0)
        total = total + torch.nn.functional.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)
        scale, shift = layer.norm_l0, layer.norm_shift_l0
        h = torch.tanh(torch.nn.functional.layer_norm(total, (5,), scale, shift))
    torch.testing.assert_close(layer(x)[1][0], h)


def test_every_layer_has_its_cell() -> None:
    for kind, norm in itertools.product(KINDS, ("gates", "preactivation")):
        layer: Any = kind(3, 5, layer_norm=norm)
        variant = layer._variant
        declared = declare(variant.cell, variant.inference).variant
        assert declared is not None
        assert declared.layer_norm == norm


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("GRU", {"layer_norm": "batch"}, "layer_norm: expected None, 'gates' or 'preactivation'"),
        ("GRU", {"layer_norm": "gates", "reset_after": False}, "reset_after=False exclude"),
        ("LSTM", {"layer_norm": "gates", "peephole": True}, "peephole=True exclude"),
        ("LSTM", {"layer_norm": "gates", "coupled": True}, "coupled=True exclude"),
        ("LSTM", {"layer_norm": "gates", "proj_size": 2}, "layer_norm= and proj_size= exclude"),
    ],
)
def test_bad_options(kind: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        getattr(rnncells, kind)(3, 5, **options)


def test_the_operator_says_what_it_lacks() -> None:
    weights = [torch.randn(20, 4), torch.randn(20, 5)]
    forward = torch.ops.rnncells.layer_forward.default
    for cell, text in (("lstm_normed", ""), ("gru_normed", "layer_norm=gates")):
        with pytest.raises((RuntimeError, ValueError), match="has another layer norm, or none"):
            forward(torch.randn(2, 3, 4), [], weights, None, None, cell, False, False, variant=text)
