"""Scaling of each window by its own context."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import WindowScaler
from rnncells.forecast.window_scaler import Kind

NAN = float("nan")
KINDS: list[Kind] = ["standard", "robust", "mean", "last"]


@pytest.mark.parametrize(
    ("kind", "location", "scale"),
    # of 1, 2, 3, 4, 10: mean 4, deviation sqrt(50 / 5), quartiles 2, 3, 4
    [("standard", 4, 10**0.5), ("robust", 3, 2), ("mean", 0, 4), ("last", 10, 10**0.5)],
)
def test_measures_by_hand(kind: Kind, location: float, scale: float) -> None:
    context = torch.tensor([1.0, 2, 3, 4, 10], dtype=torch.float64)
    gappy = torch.tensor([NAN, 1, 2, NAN, 3, 4, 10, NAN], dtype=torch.float64)
    for values in (context, gappy):
        level = WindowScaler(kind).measure(values[None, :, None])
        assert level.shape == (1, 2, 1)
        assert level.flatten().tolist() == [location, pytest.approx(scale, rel=1e-15)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_undone_exactly(kind: Kind, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    values = 100 * torch.randn(6, 1, 2, dtype=dtype) + torch.randn(6, 30, 2, dtype=dtype)
    scaler = WindowScaler(kind)
    level = scaler.measure(values[:, :20])
    for part in (values, values.unsqueeze(2)):
        back = scaler.inverse(scaler.transform(part, level), level)
        # four operations, each rounded by half a unit of the largest value
        tolerance = 4 * torch.finfo(dtype).eps * values.abs().max().item()
        assert_close(back, part, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_contexts_are_scaled_by_their_level(kind: Kind, dtype: torch.dtype) -> None:
    # 0.1 is no binary number: its mean is rounded, and leaves a deviation that means nothing
    context = torch.tensor([0.1, -7.0, 0.0], dtype=dtype)[:, None, None].expand(3, 50, 1)
    location, scale = WindowScaler(kind).measure(context).unbind(dim=1)
    expected = [0, 0, 0] if kind == "mean" else [0.1, -7, 0]
    tolerance = 50 * torch.finfo(dtype).eps  # a sum of 50 terms
    assert location.flatten().tolist() == pytest.approx(expected, rel=tolerance, abs=0)
    assert scale.flatten().tolist() == pytest.approx([0.1, 7, 1], rel=tolerance, abs=0)


def test_a_context_without_values_is_left_as_it_is() -> None:
    for kind in KINDS:
        level = WindowScaler(kind).measure(torch.full((1, 4, 1), NAN))
        assert level.flatten().tolist() == [0, 1]


def test_plain_values_and_back() -> None:
    scaler = WindowScaler("robust")
    assert scaler.to_dict() == {"kind": "robust"}
    assert WindowScaler.from_dict(scaler.to_dict()) == scaler
    with pytest.raises(ValueError, match=r"kind: .* got 'robst' \(did you mean 'robust'\?\)"):
        WindowScaler.from_dict({"kind": "robst"})
