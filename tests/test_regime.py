"""Which values stand in the lanes of a vector: the choice, and that little depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import rnncells
from rnncells import _C, reference
from rnncells.autograd import run_layer
from rnncells.testing import assert_parity, evaluate, make_problem

SIZES = [(5, 32, 1, 20), (3, 17, 40, 9), (2, 64, 33, 24), (1, 16, 3, 33)]


@pytest.fixture(autouse=True)
def choose_again() -> Iterator[None]:
    yield
    _C.force_regime("auto")


@pytest.mark.parametrize(
    ("cell", "sizes", "training", "expected"),
    [
        ("lstm", (50, 32, 1, 20), True, "batch"),
        ("gru", (50, 256, 1, 20), False, "batch"),
        ("gru", (60, 48, 7, 37), True, "batch"),
        # The lanes are filled as well by the units,
        ("lstm", (100, 64, 16, 64), True, "units"),
        ("lstm", (100, 64, 128, 128), False, "units"),
        # or better.
        ("lstm", (50, 8, 1, 20), True, "units"),
        ("lstm", (50, 40, 1, 20), True, "units"),
        # No reserve: the forward pass goes its own way.
        ("rnn_tanh", (50, 256, 1, 20), True, "batch"),
        ("rnn_tanh", (100, 64, 16, 64), True, "units"),
        # Few rows: the weights are read as they are,
        ("lstm", (1, 1, 32, 64), False, "depth"),
        ("gru", (2, 4, 32, 64), False, "depth"),
        ("gru", (9, 1, 32, 64), False, "units"),
        ("lstm", (1, 1, 32, 64), True, "depth"),
        # or pay for no packing; a backward pass does.
        ("lstm", (1, 9, 32, 64), False, "batch"),
        ("lstm", (1, 16, 32, 64), False, "batch"),
        ("lstm", (1, 16, 32, 64), True, "units"),
        ("rnn_relu", (4, 16, 32, 64), False, "batch"),
        ("rnn_relu", (5, 16, 32, 64), False, "units"),
        # Two products a step.
        ("mgu", (50, 32, 1, 20), True, "units"),
    ],
    ids=str,
)
def test_choice(cell: str, sizes: tuple[int, int, int, int], training: bool, expected: str) -> None:
    assert _C.regime(cell, *sizes, training) == expected


def test_the_choice_can_be_forced() -> None:
    for regime in ("units", "batch", "depth"):
        _C.force_regime(regime)
        assert _C.regime("lstm", 7, 5, 3, 64, True) == regime
    assert _C.regime("mgu", 7, 5, 3, 64, True) == "units"
    with pytest.raises(
        ValueError, match="unknown regime 'lanes'; known: auto, units, batch, depth"
    ):
        _C.force_regime("lanes")
    with pytest.raises(ValueError, match="unknown cell 'nobody'"):
        _C.regime("nobody", 7, 5, 3, 64, True)


@pytest.mark.parametrize("value", ["units", "batch", "", "wide"])
def test_the_environment_forces_it(value: str) -> None:
    code = "from rnncells import _C; print(_C.regime('lstm', 7, 5, 3, 64, True))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"RNNCELLS_REGIME": value},
    )
    if value == "wide":
        assert "ImportError: rnncells: unknown regime 'wide'" in done.stderr
        assert "(environment variable RNNCELLS_REGIME)" in done.stderr
    else:
        assert done.stdout.strip() == (value or "units")


def run(layer: torch.nn.Module, x: Tensor, isa: str | None = None) -> list[Tensor]:
    """Output, last state and gradients; the backward pass with another instruction set."""
    x = x.clone().requires_grad_()
    y, last = layer(x)
    if isa is not None:
        _C.set_isa(isa)
    wanted = [x, *layer.parameters()]
    found = torch.autograd.grad(y.square().sum(), wanted)
    return [y.detach(), *(last if isinstance(last, tuple) else [last]), *found]


@pytest.mark.parametrize("kind", [rnncells.RNN, rnncells.LSTM, rnncells.GRU])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_outputs_have_the_same_bits(
    kind: type[torch.nn.Module], isa: str, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    T, B, I, H = sizes
    layer, x = kind(I, H, dtype=dtype), torch.randn(T, B, I, dtype=dtype)
    found = []
    for regime in ("units", "batch"):
        _C.force_regime(regime)
        with torch.inference_mode():
            inference = layer(x)[0]
        y, *rest = run(layer, x)
        assert torch.equal(inference, y)
        found.append([y, *rest])
    states = len(found[0]) - 1 - len(list(layer.parameters())) - 1
    for units, batch in zip(*(some[: 1 + states] for some in found), strict=True):
        assert torch.equal(units, batch)


@pytest.mark.parametrize("kind", [rnncells.LSTM, rnncells.GRU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reserve_is_the_same_for_every_width(
    kind: type[torch.nn.Module], dtype: torch.dtype, isa: str
) -> None:
    """Forward with one instruction set, backward with another."""
    _C.force_regime("batch")
    layer, x = kind(3, 20, dtype=dtype), torch.randn(4, 27, 3, dtype=dtype)
    expected = run(layer, x)
    for other in _C.supported_isas():
        _C.set_isa(isa)
        for found, wanted in zip(run(layer, x, other), expected, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (3, 2, 17, 15), (2, 1, 64, 33), (1, 3, 7, 130)], ids=str
)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_lanes_along_the_depth(
    cell: str,
    isa: str,
    sizes: tuple[int, int, int, int],
    bidirectional: bool,
    dtype: torch.dtype,
) -> None:
    """The sums are in another order, and nothing else differs."""
    problem = make_problem(cell, *sizes, bidirectional=bidirectional, states=sizes[0] != 2)
    problem = problem.rounded(dtype)
    expected = evaluate(reference.layer, problem)
    _C.force_regime("depth")
    assert_parity(evaluate(run_layer, problem, dtype), expected, problem, dtype, isa)

    def inference(*arguments: Any) -> Any:
        with torch.inference_mode():
            return run_layer(*arguments)

    found = evaluate(inference, problem, dtype, wrt=())
    for name, value in evaluate(run_layer, problem, dtype).items():
        assert name not in found or torch.equal(found[name], value)


def test_other_strides_are_not_read_along_the_depth() -> None:
    _C.force_regime("depth")
    layer, x = rnncells.GRU(6, 5), torch.randn(2, 3, 12)[..., ::2]
    with torch.inference_mode():
        expected = layer(x.contiguous())[0]
        weight = layer.get_parameter("weight_hh_l0")
        layer.register_parameter("weight_hh_l0", torch.nn.Parameter(weight.t().clone().t()))
        torch.testing.assert_close(layer(x)[0], expected)
