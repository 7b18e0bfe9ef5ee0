"""M4 Hourly: one network for all 414 series, two days ahead.

The competition's training part; the last 48 hours of each series are held out, and everything else
is learned from: settings were chosen on the 48 hours before those. The figures in print are on the
official test part, the 48 hours after, and so beside ours for their size alone; the seasonal naive
forecast is there in both.

Each window is scaled by its own context, and its forecast counted from the day before. The measure
is the competition's MASE, the mean absolute error over that of the seasonal naive forecast in the
training part, and its sMAPE in per cent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.forecast.rows import Model, Row, Run, Scores, fixed, in_print, trained
from rnncells.forecast import (
    ConvRecurrentNet,
    DenseNet,
    LeastSquares,
    Panel,
    PointHead,
    Training,
    Windows,
    WindowScaler,
    mase,
    predict,
    read_m4,
    seasonal_naive,
    seasonal_scales,
    smape,
)
from rnncells.forecast.networks import Layers

__all__ = ["FILE", "JOB", "rows"]

FILE, JOB = "m4_hourly_train.csv.gz", "M4 Hourly"
DAY, HORIZON, CONTEXT = 24, 48, 336
MASE, SMAPE = "MASE", "sMAPE"
IN_PRINT = {
    "Theta": 2.455,
    "the competition's RNN": 3.048,
    "the competition's MLP": 2.607,
    "the winner: smoothing and LSTM": 0.893,
}


UNITS = 128
FORECAST: Any = {"residual": DAY, "head": PointHead("mae")}
TRAINING = Training(
    epochs=8, batch_size=64, learning_rate=3e-3, schedule="one_cycle", patience=None
)


class Hourly:
    """The series, cut into windows.

    Args:
        panel: hours, one target.
        stride: hours from one training window to the next.
    """

    def __init__(self, panel: Panel, stride: int) -> None:
        before = panel.cut(stop=-HORIZON)
        self.scales = seasonal_scales(before, DAY)
        self.scaler = WindowScaler("standard")
        self.panel = panel.to(torch.float32)
        self.train = self._windows(stop=-HORIZON, stride=stride)
        self.held_out = self._windows(start=-HORIZON)
        self.truth = Windows(panel, CONTEXT, HORIZON, start=-HORIZON).batch().y

    def _windows(self, **where: int) -> Windows:
        return Windows(self.panel, CONTEXT, HORIZON, scaler=self.scaler, **where)  # type: ignore[arg-type]

    def score(self, net: nn.Module) -> Scores:
        """The measures of a network's forecasts."""
        return self.measures(predict(net, self.held_out))

    def measures(self, forecast: Tensor) -> Scores:
        """The measures of scaled forecasts [series, horizon, 1]."""
        level = self.held_out.batch().level
        assert level is not None
        hours = self.scaler.inverse(forecast.double(), level.double())
        return {MASE: mase(hours, self.truth, self.scales), SMAPE: smape(hours, self.truth)}


def rows(run: Run, folder: Path) -> Iterator[Row]:
    """The table, from the competition's file in a folder.

    Raises:
        OSError, ValueError: as :func:`rnncells.forecast.read_m4`.
    """
    yield from table(run, read_m4(folder / FILE))


def table(run: Run, panel: Panel, stride: int = 5) -> Iterator[Row]:
    """The table, from the competition's series."""
    hourly = Hourly(panel, stride)
    ahead, train = hourly.held_out.batch().x, hourly.train.batch()
    line = LeastSquares.fit(train.x, train.y, ridge=1.0)
    day = hourly.measures(seasonal_naive(ahead, HORIZON, DAY))
    linear = fixed(JOB, "linear, one line for all", hourly.measures(line(ahead)))
    yield fixed(JOB, "seasonal naive, a day", day, 1.193)
    yield linear
    yield from in_print(JOB, IN_PRINT, "in print; on the official test part")

    def days(layers: Layers) -> nn.Module:
        """A convolution makes one row of each day, which a recurrent layer reads."""
        options: Any = {"filters": UNITS, "kernel": DAY, "stride": DAY} | FORECAST
        return ConvRecurrentNet(1, UNITS, HORIZON, cell="gru", layers=layers, **options)

    def dense(_: Layers) -> nn.Module:
        return DenseNet(1, CONTEXT, HORIZON, (2 * UNITS, 2 * UNITS), **FORECAST)

    for name, net in (("GRU over days", days), ("dense, two layers", dense)):
        yield from trained(JOB, Model(name, net, hourly.train, TRAINING), hourly.score, run, linear)
