"""Metrics against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rnncells.forecast import mae, mase, rmse, seasonal_scale

NAN = float("nan")
FORECAST = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TRUTH = torch.tensor([[1.0, 4.0], [6.0, 0.0]])  # errors 0, 2, 3, 4


def test_errors_by_hand() -> None:
    assert mae(FORECAST, TRUTH) == 2.25
    assert rmse(FORECAST, TRUTH) == math.sqrt(29 / 4)
    assert mase(FORECAST, TRUTH, scale=4.5) == 0.5


def test_integers_do_not_wrap() -> None:
    forecast = torch.tensor([1, 2], dtype=torch.uint8)
    assert mae(forecast, torch.tensor([2, 5], dtype=torch.uint8)) == 2.0


def test_seasonal_scale_by_hand() -> None:
    series = torch.tensor([1.0, 2.0, 4.0, 6.0, 5.0])
    assert seasonal_scale(series, season=2) == (3 + 4 + 1) / 3
    assert seasonal_scale(series, season=1) == (1 + 2 + 2 + 1) / 4


def test_seasonal_scale_leaves_missing_pairs_out() -> None:
    series = torch.tensor([1.0, NAN, 4.0, 6.0, 5.0])
    assert seasonal_scale(series, season=2) == (3 + 1) / 2


def test_seasonal_naive_has_a_mase_of_one_on_its_own_series() -> None:
    series = torch.randn(100, dtype=torch.float64)
    scale = seasonal_scale(series, season=7)
    assert mase(series[:-7], series[7:], scale) == 1


@pytest.mark.parametrize("metric", [mae, rmse, lambda f, t: mase(f, t, 1.0)])
def test_shapes_are_never_broadcast(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match=r"expected the shape of truth, \[2, 2\], got \[2\]"):
        metric(FORECAST[0], TRUTH)
    with pytest.raises(ValueError, match="truth: expected at least one value"):
        metric(FORECAST[:0], TRUTH[:0])


def test_bad_scale() -> None:
    for scale in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match="scale: expected a number above 0"):
            mase(FORECAST, TRUTH, scale)


@pytest.mark.parametrize(
    ("series", "season", "message"),
    [
        (torch.ones(3, 1), 1, "expected rank 1"),
        (torch.arange(3.0), 3, "expected two values 3 steps apart, found none in 3 steps"),
        (torch.tensor([1.0, NAN, 2.0]), 1, "found none"),
        (torch.ones(5), 2, "expected a change from season to season"),
        (torch.tensor([1.0, float("inf")]), 1, "an infinity"),
        (torch.arange(3.0), 0, "season: expected an integer"),
    ],
)
def test_bad_series(series: torch.Tensor, season: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seasonal_scale(series, season)


@pytest.mark.parametrize("metric", [mae, rmse, lambda f, t: mase(f, t, 1.0)])
def test_arrays_are_no_tensors(metric: Callable[[Any, Any], float]) -> None:
    array = pytest.importorskip("numpy").ones((2, 2))
    with pytest.raises(TypeError, match="forecast: expected a Tensor, got ndarray"):
        metric(array, TRUTH)
    with pytest.raises(TypeError, match="truth: expected a Tensor, got ndarray"):
        metric(FORECAST, array)


def test_array_is_no_series() -> None:
    with pytest.raises(TypeError, match="series: expected a Tensor, got ndarray"):
        seasonal_scale(pytest.importorskip("numpy").ones(9), 1)
