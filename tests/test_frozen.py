"""``layer.frozen()``: packs that outlive a call, only there, and never a stale one anywhere."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnncells
from rnncells import _C
from tests.kinds import Layer, kinds

# Rows that are read in place, that pay for no packing outside, and that do.
SIZES = [(1, 1), (2, 16), (9, 24)]


def frozen(layer: Any) -> AbstractContextManager[Any]:
    block: AbstractContextManager[Any] = layer.frozen()
    return block


def inference(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        y: Tensor = layer(x)[0]
    return y


def fused_adam(layer: nn.Module) -> None:
    """Changes the weights without a trace in their version or address."""
    optimizer = torch.optim.Adam(layer.parameters(), 0.1, fused=True)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def through_data(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.data.add_(0.1)


def through_numpy(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.detach().numpy()[...] += 0.1


def in_inference_mode(layer: nn.Module) -> None:
    with torch.inference_mode():
        for parameter in layer.parameters():
            parameter.add_(0.1)


CHANGES = [fused_adam, through_data, through_numpy, in_inference_mode]


@kinds
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_stale_is_used(
    kind: Layer, sizes: tuple[int, int], change: Callable[[nn.Module], None]
) -> None:
    layer, x = kind(5, 20), torch.randn(*sizes, 5)
    before = inference(layer, x)
    with frozen(layer):
        assert torch.allclose(inference(layer, x), before, atol=1e-6)
    for _ in range(2):
        change(layer)
        fresh = kind(5, 20)
        fresh.load_state_dict(layer.state_dict())
        expected = inference(fresh, x)
        assert not torch.allclose(expected, before, atol=1e-3)
        assert torch.equal(inference(layer, x), expected)
        with frozen(layer):
            assert torch.allclose(inference(layer, x), expected, atol=1e-6)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_same_bits(kind: Layer, isa: str, dtype: torch.dtype, bidirectional: bool) -> None:
    layer = kind(40, 37, num_layers=2, bidirectional=bidirectional, dtype=dtype)
    for T, B in SIZES:
        x = torch.randn(T, B, 40, dtype=dtype)
        expected = inference(layer, x)
        with frozen(layer):
            assert torch.equal(inference(layer, x), expected), (T, B)
            assert torch.equal(layer(x, lengths=[T] * B)[0], expected), "without a gradient"


def test_a_projection_and_lengths() -> None:
    layer, x = rnncells.LSTM(3, 9, proj_size=4), torch.randn(7, 5, 3)
    lengths = [7, 1, 4, 4, 2]
    expected = layer(x, lengths=lengths)[0]
    with layer.frozen(), layer.frozen():
        assert torch.equal(layer(x, lengths=lengths)[0], expected)


def test_weights_are_constants_inside() -> None:
    layer, x = rnncells.GRU(3, 20), torch.randn(9, 6, 3, requires_grad=True)
    expected = torch.autograd.grad(layer(x)[0].sum(), x)[0]
    with layer.frozen():
        y, _ = layer(x)
        assert not layer(x.detach())[0].requires_grad
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, expected)
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert layer(x.detach())[0].requires_grad


def test_a_change_inside_is_told() -> None:
    layer, x = rnncells.RNN(3, 20), torch.randn(9, 6, 3)
    with layer.frozen():
        layer(x)
        layer.load_state_dict(layer.state_dict())
        with pytest.raises(RuntimeError, match="a weight was changed in place inside the block"):
            layer(x)
    layer(x)


def by_assignment(layer: nn.Module, x: Tensor) -> None:
    layer.weight_hh_l0 = nn.Parameter(torch.zeros(20, 20))
    layer(x)


def by_assigned_state(layer: nn.Module, x: Tensor) -> None:
    state = {name: torch.zeros_like(value) for name, value in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)
    layer(x)


def by_functional_call(layer: nn.Module, x: Tensor) -> None:
    state = {name: torch.zeros_like(value) for name, value in layer.state_dict().items()}
    torch.func.functional_call(layer, state, x)


@pytest.mark.parametrize("replace", [by_assignment, by_assigned_state, by_functional_call])
@pytest.mark.parametrize("parametrised", [False, True])
def test_a_replacement_inside_is_told(
    replace: Callable[[nn.Module, Tensor], None], parametrised: bool
) -> None:
    layer: Any = rnncells.RNN(3, 20)
    x = torch.randn(9, 6, 3)
    if parametrised:
        nn.utils.parametrizations.weight_norm(layer, "weight_ih_l0")
    with layer.frozen():
        layer(x)
        with pytest.raises(RuntimeError, match="a parameter was replaced inside the block"):
            replace(layer, x)


def test_a_change_of_what_weights_are_made_of_is_told() -> None:
    """Autocast's copies, and what a parametrisation computes, have versions of their own."""
    message, x = "a weight was changed in place inside the block", torch.randn(9, 6, 3)
    layer: Any = rnncells.RNN(3, 20)
    with torch.autocast("cpu", torch.bfloat16), layer.frozen(), torch.no_grad():
        layer(x)
        layer.weight_hh_l0.add_(1)
        with pytest.raises(RuntimeError, match=message):
            layer(x)
    nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    with layer.frozen(), torch.no_grad():
        layer(x)
        layer.parametrizations.weight_hh_l0.original1.add_(1)
        with pytest.raises(RuntimeError, match=message):
            layer(x)


def test_another_dtype_inside_is_told() -> None:
    layer, x = rnncells.RNN(3, 20), torch.randn(9, 6, 3)
    message = "the weights were packed in torch.float32 on cpu, and this call runs in torch.float64"
    with layer.frozen(), pytest.raises(RuntimeError, match=message):
        layer(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)[0]
        with layer.frozen():
            assert torch.equal(layer(x)[0], expected)


@pytest.mark.skipif(len(_C.supported_isas()) < 2, reason="this processor has one instruction set")
def test_another_instruction_set_inside_is_told() -> None:
    layer, x = rnncells.RNN(3, 20), torch.randn(9, 6, 3)
    before, other = _C.get_isa(), _C.supported_isas()[0]
    try:
        with layer.frozen():
            _C.set_isa(other)
            message = f"packed for the instruction set {before}, and {other} is in use"
            with pytest.raises(RuntimeError, match=message):
                layer(x)
    finally:
        _C.set_isa(before)


def test_the_block_ends_with_an_error_too() -> None:
    layer, x = rnncells.RNN(3, 20), torch.randn(9, 6, 3)

    def fail() -> None:
        with layer.frozen():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    before = layer(x)[0]
    through_data(layer)
    assert not torch.equal(layer(x)[0], before)


def pickled(layer: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickled])
def test_copies_are_not_frozen(copy_of: Callable[[Any], Any]) -> None:
    layer, x = rnncells.RNN(3, 20), torch.randn(9, 6, 3)
    with layer.frozen():
        other = copy_of(layer)
        through_data(other)
        assert not torch.equal(other(x)[0], layer(x)[0])


def test_compiled_and_traced_inside() -> None:
    layer, x = rnncells.GRU(3, 20), torch.randn(9, 6, 3)
    expected = layer(x)[0]
    with layer.frozen(), torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x)[0], expected)
        torch.testing.assert_close(torch.jit.trace(layer, x)(x)[0], expected)


def test_opcheck() -> None:
    layer = rnncells.LSTM(3, 9, bidirectional=True)
    weights = [parameter.detach() for parameter in layer.parameters()]
    torch.library.opcheck(torch.ops.rnncells.layer_pack.default, (weights, "lstm", True))
    packed = torch.ops.rnncells.layer_pack(weights, "lstm", True)
    given: Any = torch.randn(9, 6, 3), [], weights, None, None, "lstm", True, False
    forward = torch.ops.rnncells.layer_forward.default
    torch.library.opcheck(forward, given, {"packed": packed})


def test_another_pack_is_refused() -> None:
    layer = rnncells.LSTM(3, 9)
    weights = [parameter.detach() for parameter in layer.parameters()]
    given: Any = torch.randn(9, 6, 3), [], weights, None, None, "lstm", False, False
    packed = torch.ops.rnncells.layer_pack(weights, "lstm", False)
    for wrong in (packed[:, 64:], packed.to(torch.int32), packed[0], torch.zeros_like(packed)):
        with pytest.raises(
            RuntimeError, match=r"rnncells: (packed is not|the weights were packed)"
        ):
            torch.ops.rnncells.layer_forward(*given, packed=wrong)
