"""The exact least-squares line on a network's own windows: inputs, scaling and all."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncells.forecast.baselines import LeastSquares
from rnncells.forecast.batch import Batch
from rnncells.forecast.fitted import Fitted, with_calendar
from rnncells.forecast.panel import Panel
from rnncells.forecast.windows import Windows

__all__ = ["least_squares"]

MOST = 2**25  # values in the windows that it is fitted on: a quarter of a gigabyte
WINDOWS = 20_000  # at most


def least_squares(fitted: Fitted, train: Panel, windows: Windows) -> Tensor | None:
    """Forecast windows by the line that fits those of the training part best.

    Where these are many, it is fitted on every second or third of them, or fewer.

    Args:
        fitted: the network whose inputs it takes.
        train: the series up to the test.
        windows: to forecast, those of ``fitted``.

    Returns:
        [windows, horizon, targets] in the series' unit; None where no training window is whole.
    """
    options = fitted.options
    ready = with_calendar(train, options.calendar)
    whole = fitted.windows(ready, options.horizon, short="skip")
    columns = options.context * whole.features + options.horizon * len(whole.known)
    stride = -(-len(whole) // max(1, min(WINDOWS, MOST // columns)))
    batch = whole.batch(torch.arange(0, len(whole), stride))
    x, y = _inputs(batch), batch.y
    if batch.observed is not None:
        kept = batch.observed.flatten(1).all(dim=1)
        x, y = x[kept], y[kept]
    if len(x) == 0:
        return None
    line = LeastSquares.fit(x, y)
    parts = torch.arange(len(windows)).split(4096)
    forecast = torch.cat([line(_inputs(windows.batch(part))) for part in parts])
    [found] = fitted.in_units([forecast], windows)
    return found


def _inputs(batch: Batch) -> Tensor:
    """All that a network is given, as one row: [windows, values, 1]."""
    parts = [part.flatten(1) for part in (batch.x, batch.future, batch.static) if part is not None]
    return torch.cat(parts, dim=1).unsqueeze(2)
