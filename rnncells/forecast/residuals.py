"""The classical look at a series or at a model's residuals: autocorrelation."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_positive

__all__ = ["autocorrelation"]


def autocorrelation(series: Tensor, lags: int) -> Tensor:
    """The autocorrelation r_k = c_k / c_0 at lags 0 to ``lags``; r_0 is 1.

    c_k is the sum of (y_t - m) (y_(t + k) - m) over all t, divided by the number of values, with
    the mean m; pairs with a NaN are left out of the sum. Residuals without any structure left stay
    within 1.96 / sqrt(values) at 19 lags of 20.

    Source: G. E. P. Box and G. M. Jenkins, "Time series analysis: forecasting and control" (1970),
    section 2.1.5.

    Args:
        series: [time].
        lags: the longest lag, below the series' length.

    Returns:
        [lags + 1], float64.

    Raises:
        TypeError: not a tensor.
        ValueError: a wrong rank, too many lags, an infinity, or a series that is constant or empty.
    """
    [lags] = check_positive(lags=lags)
    require_tensor("series", series)
    if series.dim() != 1:
        raise ValueError(f"series: expected rank 1, [time], got shape {list(series.shape)}")
    if series.isinf().any():
        raise ValueError("series: expected finite values, got an infinity")
    if lags >= len(series):
        raise ValueError(f"lags: expected fewer than the series' {len(series)} steps, got {lags}")
    values = series.double()
    known = ~values.isnan()
    if not known.any() or values[known].min() == values[known].max():
        raise ValueError("series: expected values that vary, got a constant series or none")
    centred = torch.where(known, values - values.nanmean(), 0.0)
    covariance = [centred[: len(centred) - k] @ centred[k:] for k in range(lags + 1)]
    return torch.stack(covariance) / covariance[0]
