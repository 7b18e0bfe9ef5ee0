"""How far point forecasts are from the truth.

All take forecasts and truth of one shape, and ``observed``, a mask of that shape: where it is False
the target is missing and is left out. Each returns the mean over all that is left, computed in
float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_positive, check_same_shape, check_series
from rnncells.forecast.panel import Panel

__all__ = [
    "last_time_step_mse",
    "mae",
    "mape",
    "mase",
    "mse",
    "observed_only",
    "rmse",
    "seasonal_scale",
    "seasonal_scales",
    "smape",
]


def observed_only(
    forecast: Tensor, truth: Tensor, observed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Forecasts and truth in float64, [values], without what is missing.

    Raises:
        TypeError: something that is not a tensor, or a mask that is not of bool.
        ValueError: different shapes, or nothing left.
    """
    check_same_shape(forecast, truth)
    if observed is None:
        return forecast.double().flatten(), truth.double().flatten()
    check_mask(observed, truth)
    return forecast.double()[observed], truth.double()[observed]


def check_mask(observed: Tensor, truth: Tensor) -> None:
    """Raises TypeError or ValueError where ``observed`` is no mask of the truth, or all False."""
    require_tensor("observed", observed)
    if observed.dtype != torch.bool:
        raise TypeError(f"observed: expected a mask of bool, got {observed.dtype}")
    if observed.shape != truth.shape:
        raise ValueError(
            f"observed: expected the shape of truth, {list(truth.shape)}, "
            f"got {list(observed.shape)}"
        )
    if not observed.any():
        raise ValueError("observed: expected at least one observed value, got none")


def mae(forecast: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """Mean absolute error, mean |forecast - truth|, in the series' unit.

    Source: R. J. Hyndman and A. B. Koehler, "Another look at measures of forecast accuracy",
    International Journal of Forecasting 22 (2006), section 2.1.

    Raises:
        TypeError: something that is not a tensor.
        ValueError: different shapes, or nothing to average.
    """
    forecast, truth = observed_only(forecast, truth, observed)
    return (forecast - truth).abs().mean().item()


def mse(forecast: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """Mean squared error, mean (forecast - truth)^2, in the unit's square.

    Source: Hyndman and Koehler (2006), section 2.1.

    Raises:
        TypeError, ValueError: as :func:`mae`.
    """
    forecast, truth = observed_only(forecast, truth, observed)
    return (forecast - truth).square().mean().item()


def rmse(forecast: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """Root mean squared error, sqrt(mean (forecast - truth)^2), in the series' unit.

    Source: Hyndman and Koehler (2006), section 2.1.

    Raises:
        TypeError, ValueError: as :func:`mae`.
    """
    return mse(forecast, truth, observed) ** 0.5


def mape(forecast: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """Mean absolute percentage error, 100 mean |forecast - truth| / |truth|, in percent.

    Source: Hyndman and Koehler (2006), section 2.2.

    Raises:
        TypeError: as :func:`mae`.
        ValueError: as :func:`mae`, or a truth of 0, for which it is not defined.
    """
    forecast, truth = observed_only(forecast, truth, observed)
    if (truth == 0).any():
        raise ValueError(
            f"truth: expected no 0, by which MAPE divides, got {int((truth == 0).sum())} of them"
        )
    return 100 * ((forecast - truth) / truth).abs().mean().item()


def smape(forecast: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """Symmetric mean absolute percentage error, 200 mean |f - y| / (|f| + |y|), in percent.

    From 0 to 200. Where forecast and truth both are 0, the error is 0.

    Source: S. Makridakis, E. Spiliotis and V. Assimakopoulos, "The M4 competition: 100,000 time
    series and 61 forecasting methods", International Journal of Forecasting 36 (2020), section 2.

    Raises:
        TypeError, ValueError: as :func:`mae`.
    """
    forecast, truth = observed_only(forecast, truth, observed)
    error, size = (forecast - truth).abs(), forecast.abs() + truth.abs()
    return 200 * torch.where(size == 0, 0.0, error / size).mean().item()


def seasonal_scale(series: Tensor, season: int) -> float:
    """The seasonal naive forecast's MAE inside the training part: mean |y_t - y_(t - season)|.

    Pairs with a NaN are left out. Source: Hyndman and Koehler (2006), equation (3); with a season,
    Makridakis and others (2020), section 2.

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


def seasonal_scales(panel: Panel, season: int) -> Tensor:
    """:func:`seasonal_scale` of each series and target of a training part.

    Returns:
        [series, 1, targets], float64: as :func:`mase` takes it beside forecasts [series, horizon,
        targets].

    Raises:
        ValueError: as :func:`seasonal_scale`, with the series and the target.
    """
    scales = torch.empty(len(panel), 1, len(panel.targets), dtype=torch.float64)
    for number, one in enumerate(panel.ids):
        for target, name in enumerate(panel.targets):
            try:
                scales[number, 0, target] = seasonal_scale(panel.series(one)[:, target], season)
            except ValueError as error:
                raise ValueError(f"{error} (series {one!r}, column {name!r})") from None
    return scales


def mase(
    forecast: Tensor, truth: Tensor, scale: float | Tensor, observed: Tensor | None = None
) -> float:
    """Mean absolute scaled error, mean |forecast - truth| / scale.

    Source: Hyndman and Koehler (2006), equation (3); with a season, Makridakis and others (2020).

    Args:
        forecast, truth, observed: see above.
        scale: from :func:`seasonal_scale`; or one for each series, a tensor that broadcasts to the
            truth's shape, such as [series, 1] or :func:`seasonal_scales`'.

    Raises:
        TypeError: forecasts or truth are not a tensor.
        ValueError: forecasts and truth differ in shape or are empty, or a scale that is not above
            zero, or that does not broadcast.
    """
    check_same_shape(forecast, truth)
    if not isinstance(scale, Tensor):
        if not scale > 0:
            raise ValueError(f"scale: expected a number above 0, got {scale}")
        return mae(forecast, truth, observed) / scale
    if not (scale > 0).all():
        raise ValueError("scale: expected numbers above 0, got some that are not")
    try:
        scale = scale.double().expand(truth.shape)
    except RuntimeError:
        raise ValueError(
            f"scale: expected one that broadcasts to {list(truth.shape)}, got {list(scale.shape)}"
        ) from None
    return mae(forecast.double() / scale, truth.double() / scale, observed)


def last_time_step_mse(forecast: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """MSE of the forecasts made after the last step only, of a network that makes one at each.

    Source: A. Géron, "Hands-on machine learning with Scikit-Learn, Keras, and TensorFlow", second
    edition (2019), chapter 15.

    Args:
        forecast, truth, observed: [batch, steps, ...], such as [batch, steps, horizon, targets].

    Raises:
        TypeError, ValueError: as :func:`mae`; fewer than two axes.
    """
    check_same_shape(forecast, truth)
    if truth.dim() < 2:
        raise ValueError(f"truth: expected [batch, steps, ...], got shape {list(truth.shape)}")
    last = None if observed is None else observed[:, -1]
    return mse(forecast[:, -1], truth[:, -1], last)
