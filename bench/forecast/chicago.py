"""Chicago's daily ridership: the book's third edition, chapter 15.

Learn from 2016 to 2018, validate on January to May 2019, test from June 2019 on; windows of 56
days, in millions of riders. In training and validation a window lies whole in its span; to test,
its context may begin before. A network keeps the weights of its best epoch on the validation span,
with a patience of 50; nothing else looks there: settings were chosen inside the training span, on
January to May and on June to October of 2018. The measure is the mean absolute error of the
forecasts of rail, in riders.

The test span holds the spring of 2020, when nine in ten riders stayed at home; the part before
that is told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from bench.forecast.rows import Model, Row, Run, Scores, fixed, in_print, trained
from rnncells.forecast import (
    Batch,
    LeastSquares,
    Panel,
    RecurrentNet,
    Training,
    Windows,
    mae,
    predict,
    read_chicago_ridership,
    seasonal_naive,
)
from rnncells.forecast.networks import Cell, Layers

__all__ = ["AHEAD", "FILE", "RAIL", "TYPES", "rows"]

FILE = "cta_ridership_daily.csv"
RAIL, TYPES, AHEAD = "Chicago, rail alone", "Chicago, with bus and type of day", "Chicago, 14 days"
CONTEXT, WEEK, MILLION = 56, 7, 1e6
TRAIN, VALID, TEST, PANDEMIC = "2016-01-01", "2019-01-01", "2019-06-01", "2020-03-01"
VALIDATION = "validation MAE"
ELSEWHERE = "in print; March to May 2019, fitted anew each day"
# the book's: plain gradient descent with momentum
BOOK = Training(
    epochs=500,
    batch_size=32,
    learning_rate=0.05,
    optimizer="sgd",
    optimizer_options={"momentum": 0.9},
    patience=50,
    monitor=l1_loss,
)
OURS = Training(epochs=500, batch_size=32, learning_rate=3e-3, patience=50, monitor=l1_loss)


class Ridership:
    """A panel in millions of riders, cut into windows.

    Args:
        panel: days, the targets among its first columns.
        horizon: days to forecast.
        target: the column that is scored.
    """

    def __init__(self, panel: Panel, horizon: int = 1, target: str = "rail") -> None:
        self.panel, self.horizon = panel.to(torch.float32), horizon
        self.column = panel.targets.index(target)
        first, valid, test, pandemic = (
            panel.steps_at(stamp)[0] for stamp in (TRAIN, VALID, TEST, PANDEMIC)
        )
        self.to_vector = self._windows(first + CONTEXT, valid)
        self.to_sequence = self._windows(first + CONTEXT, valid, every_step=True)
        self.validation = self._windows(valid + CONTEXT, test)
        self.held_out = {
            VALIDATION: self.validation,
            "test MAE, to February 2020": self._windows(test, pandemic),
            "test MAE, with the pandemic": self._windows(test, None),
        }

    def _windows(self, start: int, stop: int | None, every_step: bool = False) -> Windows:
        return Windows(
            self.panel, CONTEXT, self.horizon, start=start, stop=stop, every_step=every_step
        )

    def model(
        self,
        name: str,
        net: Callable[[Layers], nn.Module],
        training: Training,
        published: float | None = None,
    ) -> Model:
        """A network that learns from these windows: to sequence where its name says so."""
        train = self.to_sequence if "to sequence" in name else self.to_vector
        return Model(name, net, train, training, self.validation, published)

    def score(self, net: nn.Module) -> Scores:
        """The errors of a network's forecasts, and on the validation span those day by day."""
        return self._errors({name: predict(net, part) for name, part in self.held_out.items()})

    def score_by_hand(self, forecast: Callable[[Batch], Tensor]) -> Scores:
        """The errors of what needs no training."""
        return self._errors({name: forecast(part.batch()) for name, part in self.held_out.items()})

    def _errors(self, forecasts: dict[str, Tensor]) -> Scores:
        found, target = {}, slice(self.column, self.column + 1)
        for name, part in self.held_out.items():
            truth = part.batch().y[..., target].double()
            forecast = forecasts[name][..., target].double()
            found[name] = MILLION * mae(forecast, truth)
            if name == VALIDATION and self.horizon > 1:
                days = MILLION * (forecast - truth).abs().mean(dim=(0, 2))
                found |= {f"day {day}": error for day, error in enumerate(days.tolist(), 1)}
        return found


def rows(run: Run, folder: Path) -> Iterator[Row]:
    """The three tables, from the city's file in a folder.

    Raises:
        OSError, ValueError: as :func:`rnncells.forecast.read_chicago_ridership`.
    """
    yield from tables(run, read_chicago_ridership(folder / FILE))


def tables(run: Run, panel: Panel) -> Iterator[Row]:
    """The three tables, from the city's panel."""
    values = panel.values.clone()
    values[:, : len(panel.targets)] /= MILLION
    riders = panel.with_values(values)
    yield from rail_alone(run, Ridership(riders.roles(["rail"])))
    yield from with_types(run, riders)
    yield from two_weeks(run, riders)


def network(
    cell: Cell, features: int, horizon: int = 1, **options: Any
) -> Callable[[Layers], nn.Module]:
    """Recurrent layers, 32 units where nothing else is said, and a dense one."""
    options = {"hidden_size": 32} | options
    return lambda layers: RecurrentNet(cell, features, horizon=horizon, layers=layers, **options)


def next_type(panel: Panel) -> Panel:
    """As in the book: a day's row holds the type of the day after, and nothing else is known."""
    first = len(panel.columns) - len(panel.future)
    values = panel.values.clone()
    values[:-1, first:] = panel.values[1:, first:]
    return replace(panel.with_values(values), past=(*panel.past, *panel.future), future=())


def baselines(
    job: str, data: Ridership, figures: tuple[float | None, float | None], note: str = ""
) -> list[Row]:
    """Last week's days again, and the line, fitted with a little ridge."""
    batch = data.to_vector.batch()
    line = LeastSquares.fit(batch.x, batch.y, ridge=1.0, future=batch.future)
    targets = slice(0, len(data.panel.targets))

    def week(batch: Batch) -> Tensor:
        return seasonal_naive(batch.x[..., targets], data.horizon, WEEK)

    linear = data.score_by_hand(lambda batch: line(batch.x, batch.future))
    return [
        fixed(job, "the week before", data.score_by_hand(week), figures[0]),
        fixed(job, "linear, ridge 1", linear, figures[1], note),
    ]


def rail_alone(run: Run, data: Ridership) -> Iterator[Row]:
    """One day ahead from rail alone."""
    lines = baselines(RAIL, data, (41_274, 37_866))
    yield from lines
    yield from in_print(RAIL, {"SARIMA (1, 0, 0) (0, 1, 1, 7)": 32_041}, ELSEWHERE)
    neuron = network("simple_rnn", 1, hidden_size=1, dense=False, residual=False)
    three = network("simple_rnn", 1, num_layers=3, residual=False)
    for model in (
        data.model("SimpleRNN(1)", neuron, at_rate(0.02), 102_787),
        data.model("RNN 32", network("simple_rnn", 1, residual=False), BOOK, 29_015),
        data.model("RNN, three layers of 32", three, at_rate(0.01), 31_211),
        data.model("RNN 32, to sequence", network("simple_rnn", 1), OURS),
        data.model("LSTM 32, to sequence", network("lstm", 1), OURS),
        data.model("GRU 32, to sequence", network("gru", 1), OURS),
    ):
        yield from trained(RAIL, model, data.score, run, lines[-1])


def with_types(run: Run, riders: Panel) -> Iterator[Row]:
    """One day ahead from rail, bus and the type of each day, the next one's included."""
    panel = riders.roles(["rail"], ["bus"], riders.future)
    data, book = Ridership(panel), Ridership(next_type(panel))
    rail, bus = (Ridership(next_type(riders), target=target) for target in ("rail", "bus"))
    lines = baselines(TYPES, data, (41_274, None))
    yield from lines
    one = network("simple_rnn", 5, residual=False)
    two = network("simple_rnn", 5, targets=(0, 1), residual=False)
    for source, model in (
        (book, book.model("RNN 32", one, BOOK, 22_062)),
        (rail, rail.model("RNN 32 for both, rail", two, at_rate(0.02), 25_330)),
        (bus, bus.model("RNN 32 for both, bus", two, at_rate(0.02), 26_369)),
        (data, data.model("LSTM 32, to sequence", network("lstm", 5, known=3), OURS)),
        (data, data.model("GRU 32, to sequence", network("gru", 5, known=3), OURS)),
    ):
        line = baselines(TYPES, bus, (None, None))[-1] if source is bus else lines[-1]
        yield from trained(TYPES, model, source.score, run, line)


def two_weeks(run: Run, riders: Panel) -> Iterator[Row]:
    """Fourteen days ahead: the mean over all of them, and each."""
    panel = riders.roles(["rail"], ["bus"], riders.future)
    data, book = Ridership(panel, 14), Ridership(next_type(panel), 14)
    lines = baselines(AHEAD, data, (None, None), "knows the types of all 14 days, too")
    yield from lines
    plain = network("simple_rnn", 5, 14, residual=False)
    lstm, known = network("lstm", 5, 14), network("lstm", 5, 14, known=3)
    gru = network("gru", 5, 14)
    for source, model in (
        (book, book.model("RNN 32, to vector", plain, at_rate(0.02), 35_017)),
        (book, book.model("RNN 32, to sequence", plain, at_rate(0.1), 31_385)),
        (book, book.model("LSTM 32, to sequence", lstm, OURS)),
        (book, book.model("GRU 32, to sequence", gru, OURS)),
        (data, data.model("LSTM 32, to sequence, all types known", known, OURS)),
    ):
        yield from trained(AHEAD, model, source.score, run, lines[-1])


def at_rate(rate: float) -> Training:
    """The book's training at another learning rate."""
    return replace(BOOK, learning_rate=rate)
