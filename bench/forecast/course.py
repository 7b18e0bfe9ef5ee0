"""The series of the course on time series: a trend, a yearly season and noise, one day ahead.

1,461 days; the first 1,000 are to learn from, the rest to validate; windows of 30 days. As in the
course, a network keeps the weights of its best epoch on the validation days; settings were chosen
inside the first 1,000. The measure is the mean absolute error; the noise sets a floor of 4.01 to
any forecast of these days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from bench.forecast.rows import Model, Row, Run, Scores, fixed, trained
from rnncells.forecast import (
    LeastSquares,
    RecurrentNet,
    Training,
    Windows,
    differenced,
    mae,
    moving_average,
    naive,
    predict,
    trend_and_season,
)
from rnncells.forecast.networks import Cell, Layers

__all__ = ["JOB", "rows"]

JOB = "trend and season"
CONTEXT, SPLIT, YEAR = 30, 1000, 365
UNITS = (40, 40)
MAE = "validation MAE"
TRAINING = Training(epochs=200, batch_size=32, learning_rate=3e-3, patience=50, monitor=l1_loss)
STATEFUL = replace(TRAINING, epochs=300, batch_size=1, stateful=True)


class Days:
    """The series, cut into windows; those of a stateful network follow each other."""

    def __init__(self) -> None:
        self.series = trend_and_season()
        cut: Any = partial(Windows, self.series.float(), CONTEXT, 1)
        self.to_vector = cut(stop=SPLIT)
        self.to_sequence = cut(stop=SPLIT, every_step=True)
        self.validation = cut(start=SPLIT)
        self.following = cut(stop=SPLIT, stride=CONTEXT, every_step=True)
        # the first target is the first day of validation
        self.following_on = cut(start=SPLIT + CONTEXT - 1, stride=CONTEXT, every_step=True)
        self.truth = self.series[SPLIT:]

    def score(self, net: nn.Module) -> Scores:
        """The error of forecasts from windows."""
        return {MAE: mae(predict(net, self.validation)[:, 0].double(), self.truth)}

    @torch.no_grad()
    def score_stateful(self, net: nn.Module) -> Scores:
        """The error of forecasts from a state that has seen all days before."""
        forecasts = net(self.series.float()[None], every_step=True)[0, SPLIT - 1 : -1, 0]
        return {MAE: mae(forecasts.double(), self.truth)}

    def score_by_hand(self, forecast: Callable[[Tensor], Tensor], context: int) -> Scores:
        """The error of what needs no training."""
        x = Windows(self.series, context, 1, start=SPLIT).batch().x
        return {MAE: mae(forecast(x)[:, 0], self.truth)}


def rows(run: Run) -> Iterator[Row]:
    """The table, row by row."""
    days = Days()
    lines = baselines(days)
    yield from lines

    def net(cell: Cell, **options: Any) -> Callable[[Layers], nn.Module]:
        options = {"scale": 10.0} | options
        return lambda layers: RecurrentNet(cell, 1, UNITS, 1, layers=layers, **options)

    as_there: Any = {"residual": False, "scale": 200.0}
    model: Any = partial(Model, validation=days.validation, training=TRAINING)
    stateful: Any = partial(
        Model, train=days.following, validation=days.following_on, training=STATEFUL
    )
    for each in (
        model(
            "RNN, to vector, x 200", net("simple_rnn", **as_there), days.to_vector, published=5.33
        ),
        model("RNN, to vector", net("simple_rnn"), days.to_vector, published=5.33),
        model("RNN, to sequence", net("simple_rnn"), days.to_sequence, published=5.5),
        model("LSTM, to sequence", net("lstm"), days.to_sequence),
        model("GRU, to sequence", net("gru"), days.to_sequence),
        stateful("RNN, stateful", net("simple_rnn"), published=5.86),
        stateful("LSTM, stateful", net("lstm"), published=5.97),
    ):
        score = days.score_stateful if each.training.stateful else days.score
        yield from trained(JOB, each, score, run, lines[-1])


def baselines(days: Days) -> list[Row]:
    """What comes before any network; the line is the last."""
    train = Windows(days.series, CONTEXT, 1, stop=SPLIT).batch()
    line = LeastSquares.fit(train.x, train.y)
    smoothed = partial(differenced, horizon=1, season=YEAR, window=50, smooth=11)
    by_hand = days.score_by_hand
    return [
        fixed(JOB, "naive", by_hand(lambda x: naive(x, 1), 1), 5.94),
        fixed(
            JOB, "moving average, 30 days", by_hand(lambda x: moving_average(x, 1, 30), 30), 7.14
        ),
        fixed(JOB, "differenced by a year, smoothed", by_hand(smoothed, YEAR + 50), 4.57),
        fixed(JOB, "linear, least squares", by_hand(line, CONTEXT), 5.0, "in print: 5.0 to 5.2"),
    ]
