"""Under CPU autocast the layers run in their weights' dtype, and so do their derivatives."""

import pytest
import torch
from torch import Tensor

import rnncells

LAYERS = [rnncells.SimpleRNN, rnncells.LSTM, rnncells.GRU]


def penalty_gradients(layer: torch.nn.Module, x: Tensor, autocast: bool) -> list[Tensor]:
    """Outputs, first and second derivatives of one layer."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)[0]
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        second = torch.autograd.grad(dx.square().sum(), list(layer.parameters()))
    return [y, dx, *second]


@pytest.mark.parametrize("kind", LAYERS)
def test_autocast_changes_no_bit(kind: type[torch.nn.Module]) -> None:
    layer = kind(3, 5)
    x = torch.randn(4, 2, 3, requires_grad=True)
    plain, cast = (penalty_gradients(layer, x, autocast) for autocast in (False, True))
    for expected, found in zip(plain, cast, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
