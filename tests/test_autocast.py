"""Under CPU autocast layers and cells run in autocast's dtype, and their derivatives come back in
the dtype of what they belong to.

That is what torch's own layers do on CUDA. On the CPU torch.nn is not of one mind: the last test
holds what it does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnncells

PAIRS = [
    pytest.param(rnncells.RNN, nn.RNN, id="RNN"),
    pytest.param(rnncells.LSTM, nn.LSTM, id="LSTM"),
    pytest.param(rnncells.GRU, nn.GRU, id="GRU"),
    pytest.param(rnncells.RNNCell, nn.RNNCell, id="RNNCell"),
    pytest.param(rnncells.LSTMCell, nn.LSTMCell, id="LSTMCell"),
    pytest.param(rnncells.GRUCell, nn.GRUCell, id="GRUCell"),
]
pairs = pytest.mark.parametrize(("ours", "theirs"), PAIRS)
layers = pytest.mark.parametrize(("ours", "theirs"), PAIRS[:3])
halves = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
Kind = Callable[..., Any]
T, B, I, H = 4, 2, 3, 5


def tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, PackedSequence):
        return [values.data]
    return [tensor for value in values for tensor in tensors(value)]


def make(kind: Kind, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, Tensor, Any]:
    """A module, an input and initial states for it."""
    module = kind(I, H, **options).to(dtype)
    layer = isinstance(module, nn.RNNBase)
    x = torch.randn((T, B, I) if layer else (B, I), dtype=dtype)
    state = torch.randn((1, B, H) if layer else (B, H), dtype=dtype)
    return module, x, (state, state) if "LSTM" in type(module).__name__ else state


def gradients(module: Any, outputs: list[Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    loss = torch.stack([y.float().square().sum() for y in outputs]).sum()
    return torch.autograd.grad(loss, [*inputs, *module.parameters()])


def cast(values: Any, dtype: torch.dtype) -> Any:
    if isinstance(values, tuple):
        return tuple(cast(value, dtype) for value in values)
    return values.detach().to(dtype).requires_grad_()


@pairs
@halves
@pytest.mark.parametrize("given", [False, True])
def test_as_if_all_were_of_that_dtype(
    ours: Kind, theirs: Kind, half: torch.dtype, given: bool
) -> None:
    module, x, hx = make(ours)
    low = copy.deepcopy(module).to(half)
    found = []
    for one, dtype in ((module, torch.float32), (low, half)):
        args = (cast(x, dtype), cast(hx, dtype)) if given else (cast(x, dtype),)
        with torch.autocast("cpu", half, enabled=one is module):
            outputs = tensors(one(*args))
        found.append((outputs, gradients(one, outputs, tensors(args))))
    (outputs, grads), (expected, expected_grads) = found
    for a, b in zip(outputs, expected, strict=True):
        assert a.dtype == half
        assert torch.equal(a, b)
    for a, b in zip(grads, expected_grads, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b.float())


@pairs
@halves
def test_close_to_float32(ours: Kind, theirs: Kind, half: torch.dtype) -> None:
    module, x, hx = make(ours)
    x, hx = cast(x, torch.float32), cast(hx, torch.float32)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", half, enabled=enabled):
            outputs = tensors(module(x, hx))
        found.append([*outputs, *gradients(module, outputs, tensors((x, hx)))])
    for a, b in zip(*found, strict=True):
        # Weights, inputs and states are rounded (half an eps each) through 4 steps forward and 4
        # back, and gradients are sums of some such values.
        limit = 16 * torch.finfo(half).eps * max(1.0, a.abs().max().item())
        assert (a - b.float()).abs().max().item() <= limit


@layers
@halves
def test_packed_stacked_and_padded(ours: Kind, theirs: Kind, half: torch.dtype) -> None:
    layer, x, _ = make(ours, num_layers=2, bidirectional=True, dropout=0.5)
    packed = pack_padded_sequence(x, [4, 2])
    with torch.autocast("cpu", half):
        runs = [layer(packed), layer(x, lengths=[4, 2]), layer(x)]
    for run in runs:
        assert all(y.dtype == half for y in tensors(run))


@pairs
@halves
def test_float64_stays(ours: Kind, theirs: Kind, half: torch.dtype) -> None:
    module, x, hx = make(ours, torch.float64)
    other = theirs(I, H).double()
    with torch.autocast("cpu", half):
        assert all(y.dtype == torch.float64 for y in tensors(module(x, hx)))
        assert all(y.dtype == torch.float64 for y in tensors(other(x, hx)))
        for wrong in ((x.float(), None), (x, cast(hx, torch.float32))):
            with pytest.raises((RuntimeError, ValueError), match="dtype"):
                module(*wrong)


@pairs
def test_mixed_dtypes_meet(ours: Kind, theirs: Kind) -> None:
    module, x, hx = make(ours)
    with torch.autocast("cpu", torch.bfloat16):
        expected = tensors(module(x, hx))
        for given in (x.bfloat16(), x.half().float()):
            assert all(y.dtype == torch.bfloat16 for y in tensors(module(given, hx)))
        found = tensors(module(x.bfloat16(), cast(hx, torch.bfloat16)))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        with torch.autocast("cpu", enabled=False):
            assert all(y.dtype == torch.float32 for y in tensors(module(x, hx)))


@pairs
def test_autocast_of_another_device_changes_nothing(ours: Kind, theirs: Kind) -> None:
    module, x, hx = make(ours)
    expected = tensors(module(x, hx))
    torch.set_autocast_enabled("cuda", True)  # as torch.autocast does where there is a GPU
    try:
        found = tensors(module(x, hx))
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    meta = module.to("meta")
    with torch.autocast("cpu", torch.bfloat16):  # meta tensors are on no device that casts
        assert all(y.dtype == torch.float32 for y in tensors(meta(x.to("meta"))))


@pairs
def test_second_derivative(ours: Kind, theirs: Kind) -> None:
    module, x, _ = make(ours)
    x.requires_grad_()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = tensors(module(x))[0]
            (dx,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        second = torch.autograd.grad(
            dx.square().sum(), list(module.parameters()), allow_unused=True, materialize_grads=True
        )
        found.append(second)
    for a, b in zip(*found, strict=True):
        assert b.dtype == torch.float32
        # As for the first derivative, with two passes more, and sums of products of gradients.
        limit = 64 * torch.finfo(torch.bfloat16).eps * max(1.0, a.abs().max().item())
        assert (a - b).abs().max().item() <= limit


@pairs
def test_what_torch_nn_does_on_the_cpu(ours: Kind, theirs: Kind) -> None:
    """bfloat16 out of RNN and of LSTM on tensors; the input's dtype out of all others."""
    other, x, hx = make(theirs)
    with torch.autocast("cpu", torch.bfloat16):
        found = {y.dtype for y in tensors(other(x, hx))}
        rounded = theirs in (nn.RNN, nn.RNNCell, nn.LSTM)
        assert found == {torch.bfloat16 if rounded else torch.float32}
        if isinstance(other, nn.RNNBase):
            packed = {y.dtype for y in tensors(other(pack_padded_sequence(x, [4, 2]), hx))}
            assert packed == {torch.bfloat16 if theirs is nn.RNN else torch.float32}
