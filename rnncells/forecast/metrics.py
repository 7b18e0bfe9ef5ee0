"""How far forecasts are from the truth.

Sources: R. J. Hyndman and A. B. Koehler, "Another look at measures of forecast accuracy",
International Journal of Forecasting 22 (2006), for all three.
"""

from __future__ import annotations

from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_positive, check_same_shape, check_series

__all__ = ["mae", "mase", "rmse", "seasonal_scale"]


def mae(forecast: Tensor, truth: Tensor) -> float:
    """Mean absolute error, mean |forecast - truth|, over all elements, in the series' unit.

    Raises:
        TypeError: forecasts or truth are not a tensor.
        ValueError: forecasts and truth (any shape) differ in shape, or are empty.
    """
    check_same_shape(forecast, truth)
    return (forecast.double() - truth.double()).abs().mean().item()


def rmse(forecast: Tensor, truth: Tensor) -> float:
    """Root mean squared error, sqrt(mean (forecast - truth)^2), in the series' unit.

    Raises:
        TypeError: forecasts or truth are not a tensor.
        ValueError: forecasts and truth (any shape) differ in shape, or are empty.
    """
    check_same_shape(forecast, truth)
    return (forecast.double() - truth.double()).square().mean().sqrt().item()


def seasonal_scale(series: Tensor, season: int) -> float:
    """The seasonal naive forecast's MAE inside the training part: mean |y_t - y_(t - season)|.

    Pairs with a NaN are left out.

    Args:
        series: one target [time], of the training part only.
        season: its length in time steps; 1 for a series without one.

    Raises:
        TypeError: not a tensor in floating point.
        ValueError: a wrong rank, an infinity, no pair a season apart, or a scale of zero.
    """
    [season] = check_positive(season=season)
    require_tensor("series", series)
    if series.dim() != 1:
        raise ValueError(f"series: expected rank 1, [time], got shape {list(series.shape)}")
    check_series(series.unsqueeze(1), missing="skip")
    change = (series[season:] - series[:-season]).double().abs()
    change = change[~change.isnan()]
    if len(change) == 0:
        raise ValueError(
            f"series: expected two values {season} steps apart, found none in {len(series)} steps"
        )
    scale = change.mean().item()
    if scale == 0:
        raise ValueError("series: expected a change from season to season, got none; MASE divides")
    return scale


def mase(forecast: Tensor, truth: Tensor, scale: float) -> float:
    """Mean absolute scaled error: MAE / ``scale``, with ``scale`` from :func:`seasonal_scale`.

    Raises:
        TypeError: forecasts or truth are not a tensor.
        ValueError: forecasts and truth differ in shape or are empty, or a scale that is not above
            zero.
    """
    if not scale > 0:
        raise ValueError(f"scale: expected a number above 0, got {scale}")
    return mae(forecast, truth) / scale
