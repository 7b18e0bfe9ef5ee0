"""The cells stand in for torch.nn's: signatures, parameters, initialisation, results.

Where results are compared, both sides are in float64 and take the same sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnncells

PAIRS = [
    pytest.param(rnncells.SimpleRNNCell, nn.RNNCell, {}, id="RNNCell"),
    pytest.param(rnncells.SimpleRNNCell, nn.RNNCell, {"nonlinearity": "relu"}, id="RNNCell-relu"),
    pytest.param(rnncells.LSTMCell, nn.LSTMCell, {}, id="LSTMCell"),
    pytest.param(rnncells.GRUCell, nn.GRUCell, {}, id="GRUCell"),
]
B, I, H = 4, 3, 5
Cell = Callable[..., Any]


def twins(ours: Cell, theirs: Cell, *args: Any, **options: Any) -> tuple[Any, Any]:
    """A cell of each side, made from the same seed."""
    torch.manual_seed(1)
    mine = ours(*args, **options)
    torch.manual_seed(1)
    return mine, theirs(*args, **options)


def close(mine: Tensor, other: Tensor) -> bool:
    """Values of size 1 to 10 from sums of fewer than 32 terms: a walk of sqrt(32) half-eps
    roundings in the products, and as many in the activations and their derivatives; 40 eps."""
    limit = 40 * torch.finfo(torch.float64).eps * max(1.0, other.abs().max().item())
    return mine.shape == other.shape and (mine - other).abs().max().item() <= limit


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_step_and_gradients_are_torch_nn(
    ours: Cell, theirs: Cell, options: dict[str, Any], bias: bool, batched: bool, given: bool
) -> None:
    mine, other = twins(ours, theirs, I, H, bias=bias, dtype=torch.float64, **options)
    lead = (B,) if batched else ()
    count = 2 if theirs is nn.LSTMCell else 1
    x = torch.randn(*lead, I, dtype=torch.float64)
    hx = [torch.randn(*lead, H, dtype=torch.float64) for _ in range(count if given else 0)]
    found = []
    for module in (mine, other):
        leaves = [value.clone().requires_grad_() for value in (x, *hx)]
        states = (tuple(leaves[1:]) if count == 2 else leaves[1]) if given else None
        after = module(leaves[0], states)
        assert isinstance(after, tuple) == (count == 2)
        after = list(after) if count == 2 else [after]
        loss = sum((k + 1) * state.sin().sum() for k, state in enumerate(after))
        wrt = [*leaves, *module.parameters()]
        found.append([*after, *torch.autograd.grad(loss, wrt)])
    for a, b in zip(*found, strict=True):
        assert close(a, b)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_torch_nn(
    ours: Cell, theirs: Cell, options: dict[str, Any], bias: bool
) -> None:
    mine, other = twins(ours, theirs, I, H, bias, **options)
    assert list(mine.state_dict()) == list(other.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value), name
    mine.load_state_dict(other.state_dict(), strict=True)
    other.load_state_dict(mine.state_dict(), strict=True)
    assert repr(mine).removeprefix("Simple") == repr(other)


@pytest.mark.parametrize(
    ("ours", "positional"),
    [
        (rnncells.RNNCell, (I, H, False, "relu", "cpu", torch.float64)),
        (rnncells.LSTMCell, (I, H, False, "cpu", torch.float64)),
        (rnncells.GRUCell, (I, H, False, "cpu", torch.float64)),
    ],
)
def test_positional_arguments(ours: Cell, positional: tuple[Any, ...]) -> None:
    cell = ours(*positional)
    assert (cell.input_size, cell.hidden_size, cell.bias) == (I, H, False)
    assert cell.bias_ih is None
    assert cell.bias_hh is None
    assert cell.weight_hh.dtype == torch.float64
    if ours is rnncells.RNNCell:
        assert cell.nonlinearity == "relu"


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_zero_batch(ours: Cell, theirs: Cell, options: dict[str, Any]) -> None:
    cell = ours(I, H, **options)
    after = cell(torch.randn(0, I))
    for state in after if isinstance(after, tuple) else (after,):
        assert state.shape == (0, H)


@pytest.mark.parametrize(
    ("layer", "cell"),
    [
        (rnncells.RNN, rnncells.RNNCell),
        (rnncells.LSTM, rnncells.LSTMCell),
        (rnncells.GRU, rnncells.GRUCell),
    ],
)
def test_a_loop_of_steps_is_the_layer(layer: Callable[..., Any], cell: Cell) -> None:
    whole, step = layer(I, H, dtype=torch.float64), cell(I, H, dtype=torch.float64)
    step.load_state_dict({k.removesuffix("_l0"): v for k, v in whole.state_dict().items()})
    x = torch.randn(6, B, I, dtype=torch.float64)
    state, outputs = None, []
    for x_t in x:
        state = step(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    assert close(torch.stack(outputs), whole(x)[0])
