"""The values that a layer's parameters start with: ``init`` and ``forget_bias``."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import rnncells
from tests.kinds import KINDS, kinds

I, H, P = 3, 8, 5
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}


def assert_orthonormal_columns(value: Tensor) -> None:
    # Each entry is a sum of at most 32 products of numbers below 1, in float32.
    square = value.detach().float().mT @ value.detach().float()
    torch.testing.assert_close(square, torch.eye(len(square)), rtol=0, atol=1e-5)


@kinds
def test_torchs_own(kind: Any) -> None:
    torch.manual_seed(2)
    default = kind(I, H, 2, bidirectional=True)
    torch.manual_seed(2)
    named = kind(I, H, 2, bidirectional=True, init="torch")
    for a, b in zip(default.parameters(), named.parameters(), strict=True):
        assert torch.equal(a, b)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_orthogonal(kind: Any, dtype: torch.dtype) -> None:
    """The recurrent weights of each gate; everything else is torch's, number for number."""
    layer = kind(I, H, 2, init="orthogonal", dtype=dtype)
    for name, value in layer.named_parameters():
        assert value.dtype == dtype
        if not name.startswith("weight_hh"):
            assert value.abs().max() <= 1 / math.sqrt(H)
            assert value.std() > 0.2 / math.sqrt(H)
            continue
        for gate in value.detach().float().chunk(GATES[kind.__name__]):
            if dtype == torch.bfloat16:  # entries below 1 are off by up to 2^-9, eight in a sum
                error = (gate @ gate.mT - torch.eye(H)).abs().max()
                assert error <= 2 * 8 * 2**-9
            else:
                assert_orthonormal_columns(gate)
                assert_orthonormal_columns(gate.mT)


def test_orthogonal_with_a_projection() -> None:
    layer = rnncells.LSTM(I, H, proj_size=P, init="orthogonal")
    weight: Any = layer.weight_hh_l0
    for gate in weight.chunk(4):  # [H, P]
        assert_orthonormal_columns(gate)


@kinds
def test_keras(kind: Any) -> None:
    layer = kind(I, H, 2, bidirectional=True, init="keras")
    gates = GATES[kind.__name__]
    for name, value in layer.named_parameters():
        if name.startswith("weight_ih"):
            bound = math.sqrt(6 / (value.shape[1] + gates * H))
            assert 0.8 * bound < value.abs().max() <= bound
        elif name.startswith("weight_hh"):
            assert_orthonormal_columns(value)
        else:
            expected = torch.zeros(gates * H)
            if kind is rnncells.LSTM and name.startswith("bias_ih"):
                expected[H : 2 * H] = 1
            assert torch.equal(value, expected)


@pytest.mark.parametrize("init", ["torch", "orthogonal", "keras"])
def test_a_forget_bias_is_added(init: str) -> None:
    """And drawn anew with the rest; in the stack, both directions."""
    torch.manual_seed(4)
    plain = rnncells.LSTM(I, H, 2, bidirectional=True, init=init, forget_bias=0.0)
    torch.manual_seed(4)
    layer = rnncells.LSTM(I, H, 2, bidirectional=True, init=init, forget_bias=1.5)
    for _ in range(2):
        for (name, a), b in zip(layer.named_parameters(), plain.parameters(), strict=True):
            expected = b.detach().clone()
            if name.startswith("bias_ih"):
                expected[H : 2 * H] += 1.5
            assert torch.equal(a, expected)
        for one in (layer, plain):
            torch.manual_seed(5)
            one.reset_parameters()


def test_without_a_bias_and_on_the_meta_device() -> None:
    for kind in KINDS:
        layer = kind(I, H, bias=False, init="keras")
        assert not any(name.startswith("bias") for name, _ in layer.named_parameters())
        for init in ("orthogonal", "keras"):
            assert kind(I, H, init=init, device="meta").weight_hh_l0.is_meta


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        (rnncells.GRU, {"init": "xavier"}, ValueError, "init: expected one of 'torch', .*'xavier'"),
        (rnncells.GRU, {"init": None}, ValueError, "init: expected one of .* got None"),
        (rnncells.GRU, {"forget_bias": 1.0}, ValueError, "forget_bias: only an LSTM .* not GRU"),
        (rnncells.LSTM, {"forget_bias": "1"}, TypeError, "forget_bias: .* got str"),
        (rnncells.LSTM, {"forget_bias": True}, TypeError, "forget_bias: .* got bool"),
        (rnncells.LSTM, {"forget_bias": 1.0, "bias": False}, ValueError, "forget_bias: .* no bias"),
        (
            rnncells.LSTM,
            {"stateless": True},
            TypeError,
            ".*unexpected keyword argument 'stateless'",
        ),
    ],
)
def test_what_is_refused(kind: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        kind(I, H, **options)
