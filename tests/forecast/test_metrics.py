"""Metrics against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rnncells.forecast import (
    as_panel,
    last_time_step_mse,
    mae,
    mape,
    mase,
    mse,
    rmse,
    seasonal_scale,
    seasonal_scales,
    smape,
)

NAN = float("nan")
FORECAST = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TRUTH = torch.tensor([[1.0, 4.0], [6.0, 0.0]])  # errors 0, 2, 3, 4
METRICS = [mae, mse, rmse, mape, smape, last_time_step_mse, lambda f, t: mase(f, t, 1.0)]


def test_errors_by_hand() -> None:
    assert mae(FORECAST, TRUTH) == 2.25
    assert mse(FORECAST, TRUTH) == 29 / 4
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


@pytest.mark.parametrize("metric", METRICS)
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


@pytest.mark.parametrize("metric", METRICS)
def test_arrays_are_no_tensors(metric: Callable[[Any, Any], float]) -> None:
    array = pytest.importorskip("numpy").ones((2, 2))
    with pytest.raises(TypeError, match="forecast: expected a Tensor, got ndarray"):
        metric(array, TRUTH)
    with pytest.raises(TypeError, match="truth: expected a Tensor, got ndarray"):
        metric(FORECAST, array)


def test_array_is_no_series() -> None:
    with pytest.raises(TypeError, match="series: expected a Tensor, got ndarray"):
        seasonal_scale(pytest.importorskip("numpy").ones(9), 1)


def test_percentages_by_hand() -> None:
    forecast, truth = torch.tensor([1.0, 3.0, -2.0]), torch.tensor([2.0, 2.0, -1.0])
    assert mape(forecast, truth) == pytest.approx(100 * (0.5 + 0.5 + 1) / 3, rel=1e-15)
    assert smape(forecast, truth) == pytest.approx(200 * (1 / 3 + 1 / 5 + 1 / 3) / 3, rel=1e-15)
    assert smape(torch.tensor([0.0, 1.0]), torch.tensor([0.0, -1.0])) == 100
    with pytest.raises(ValueError, match="truth: expected no 0, by which MAPE divides, got 1"):
        mape(FORECAST, TRUTH)


def test_what_is_missing_is_left_out() -> None:
    truth = torch.tensor([[1.0, 4.0], [6.0, NAN]])
    observed = ~truth.isnan()
    assert mae(FORECAST, truth, observed) == 5 / 3
    assert mse(FORECAST, truth, observed) == 13 / 3
    assert rmse(FORECAST, truth, observed) == math.sqrt(13 / 3)
    assert mape(FORECAST, truth, observed) == pytest.approx(100 * (2 / 4 + 3 / 6) / 3, rel=1e-15)
    assert smape(FORECAST, truth, observed) == pytest.approx(200 * (2 / 6 + 3 / 9) / 3, rel=1e-15)
    assert mase(FORECAST, truth, 5.0, observed) == pytest.approx(1 / 3, rel=1e-15)
    assert last_time_step_mse(FORECAST, truth, observed) == 4


@pytest.mark.parametrize("metric", [mae, mse, rmse, mape, smape])
def test_a_missing_truth_without_a_mask_is_seen(metric: Callable[..., float]) -> None:
    assert math.isnan(metric(FORECAST, torch.full((2, 2), NAN)))


@pytest.mark.parametrize("metric", [mae, mse, rmse, mape, smape])
def test_bad_masks(metric: Callable[..., float]) -> None:
    with pytest.raises(TypeError, match="observed: expected a mask of bool"):
        metric(FORECAST, TRUTH, torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"observed: expected the shape of truth, \[2, 2\]"):
        metric(FORECAST, TRUTH, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="observed: expected at least one observed value"):
        metric(FORECAST, TRUTH, torch.zeros(2, 2, dtype=torch.bool))


def test_last_time_step_by_hand() -> None:
    forecast, truth = torch.zeros(2, 3, 2, 1), torch.zeros(2, 3, 2, 1)
    truth[:, :2] = 100
    truth[0, 2, 0] = 2
    assert last_time_step_mse(forecast, truth) == 1
    with pytest.raises(ValueError, match=r"truth: expected \[batch, steps, ...\]"):
        last_time_step_mse(torch.ones(3), torch.ones(3))


def test_each_series_has_its_own_scale() -> None:
    panel = as_panel({"a": [1.0, 2.0, 4.0], "b": [10.0, 40.0, 10.0]})
    scales = seasonal_scales(panel, 1)
    assert scales.tolist() == [[[1.5]], [[30]]]
    forecast = torch.tensor([[[3.0], [6.0]], [[60.0], [0.0]]])
    assert mase(forecast, torch.zeros(2, 2, 1), scales) == (2 + 4 + 2 + 0) / 4
    with pytest.raises(ValueError, match=r"MASE divides \(series 'c', column 'y'\)"):
        seasonal_scales(as_panel({"a": [1.0, 2.0], "c": [3.0, 3.0]}), 1)
    with pytest.raises(ValueError, match=r"scale: expected one that broadcasts to \[2, 2, 1\]"):
        mase(forecast, torch.zeros(2, 2, 1), torch.ones(3))
    with pytest.raises(ValueError, match="scale: expected numbers above 0"):
        mase(forecast, torch.zeros(2, 2, 1), torch.zeros(2, 1, 1))
