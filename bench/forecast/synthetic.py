"""Synthetic waves, one and ten steps ahead: the book's second edition, chapter 15.

10,000 series of 50 steps and the one or ten that follow; 7,000 to learn from, 2,000 to validate,
1,000 to test. Every network is trained for 20 epochs and keeps its last weights: the validation
series decide nothing. Settings were chosen on the training series alone, 1,400 of them held out.

The measure is the mean squared error of what is forecast after the last step. Networks learn from
the forecasts after every step of the context (sequence to sequence) unless the row says "to
vector". One step ahead they forecast the change, ten steps ahead the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor, nn

from bench.forecast.rows import Model, Row, Run, Scores, fixed, trained
from rnncells.forecast import (
    ConvRecurrentNet,
    EncoderDecoder,
    LeastSquares,
    PointHead,
    RecurrentNet,
    Recursive,
    Training,
    VectorToSequence,
    WaveNet,
    Windows,
    generate_time_series,
    mse,
    naive,
    panel_from_arrays,
    predict,
)
from rnncells.forecast.networks import Cell, Layers

__all__ = ["ONE", "TEN", "rows"]

ONE, TEN = "synthetic, one step", "synthetic, ten steps"
VALIDATION, TEST = "validation MSE", "test MSE"
CONTEXT, UNITS = 50, (20, 20)
MSE = PointHead("mse")
TRAINING = Training(
    epochs=20, batch_size=32, learning_rate=1e-2, schedule="one_cycle", patience=None
)


class Waves:
    """The series, cut into windows.

    Args:
        count: series; seven in ten are for training, two for validation.
        steps: to forecast.
    """

    def __init__(self, count: int, steps: int) -> None:
        series = generate_time_series(count, CONTEXT + steps)
        train, validation, test = series.tensor_split([7 * count // 10, 9 * count // 10])
        self.steps = steps
        self.to_vector = windows(train, steps)
        self.to_sequence = windows(train, steps, every_step=True)
        self.one_ahead = windows(train, 1, every_step=True, stop=CONTEXT + 1)
        self.held_out = {VALIDATION: windows(validation, steps), TEST: windows(test, steps)}

    def score(self, net: nn.Module) -> Scores:
        """The errors of a network's forecasts."""
        return {
            name: mse(predict(net, held_out), held_out.batch().y)
            for name, held_out in self.held_out.items()
        }

    def score_recursive(self, net: nn.Module) -> Scores:
        """The errors of a one-step network that goes on from its own forecasts."""
        return self.score(Recursive(net, self.steps).eval())  # type: ignore[arg-type]

    def score_by_hand(self, forecast: Callable[[Tensor], Tensor]) -> Scores:
        """The errors of what needs no training."""
        batches = {name: held_out.batch() for name, held_out in self.held_out.items()}
        return {
            name: mse(forecast(batch.x.double()), batch.y.double())
            for name, batch in batches.items()
        }


def windows(series: Tensor, steps: int, **options: object) -> Windows:
    """All windows of series [series, time, 1]."""
    return Windows(panel_from_arrays(series), CONTEXT, steps, **options)  # type: ignore[arg-type]


def rows(run: Run, count: int = 10_000) -> Iterator[Row]:
    """Both tables, row by row."""
    yield from one_step(Waves(count, 1), run)
    yield from ten_steps(Waves(count, 10), run)


def baselines(job: str, waves: Waves, figures: tuple[float, float]) -> list[Row]:
    """The last value again, and the line through all 50, fitted exactly."""
    batch = waves.to_vector.batch()
    line = LeastSquares.fit(batch.x.double(), batch.y.double())
    last = waves.score_by_hand(lambda x: naive(x, waves.steps))
    return [
        fixed(job, "naive", last, figures[0]),
        fixed(
            job,
            "linear, least squares",
            waves.score_by_hand(line),
            figures[1],
            "published: by gradient descent",
        ),
    ]


def recurrent(cell: Cell, steps: int, *, residual: bool) -> Callable[[Layers], nn.Module]:
    """Two layers of 20 units and a dense one."""
    return lambda layers: RecurrentNet(
        cell, 1, UNITS, steps, residual=residual, head=MSE, layers=layers
    )


def one_step(waves: Waves, run: Run) -> Iterator[Row]:
    """The table of one step ahead."""
    lines = baselines(ONE, waves, (0.0202, 0.0042))
    yield from lines

    def neuron(layers: Layers) -> nn.Module:
        return RecurrentNet(
            "simple_rnn", 1, 1, 1, dense=False, residual=False, head=MSE, layers=layers
        )

    def no_dense(layers: Layers) -> nn.Module:
        return RecurrentNet("simple_rnn", 1, (*UNITS, 1), 1, dense=False, head=MSE, layers=layers)

    model = partial(Model, train=waves.to_sequence, training=TRAINING)
    ahead = partial(recurrent, steps=1, residual=True)
    for each in (
        model("SimpleRNN(1), to vector", neuron, train=waves.to_vector, published=0.0109),
        model("deep RNN 20-20-1", no_dense, published=0.0029),
        model("deep RNN 20-20, Dense", ahead("simple_rnn"), published=0.0026),
        model("LSTM 20-20", ahead("lstm")),
        model("GRU 20-20", ahead("gru")),
    ):
        yield from trained(ONE, each, waves.score, run, lines[-1])


def ten_steps(waves: Waves, run: Run) -> Iterator[Row]:
    """The table of ten steps ahead."""
    lines = baselines(TEN, waves, (0.2570, 0.0187))
    yield from lines

    def convolutional(layers: Layers) -> nn.Module:
        return ConvRecurrentNet(
            1, UNITS, 10, kernel=4, stride=2, residual=False, head=MSE, layers=layers
        )

    def encoder_decoder(layers: Layers) -> nn.Module:
        return EncoderDecoder(1, 20, 10, residual=False, head=MSE, layers=layers)

    def vector_to_sequence(layers: Layers) -> nn.Module:
        return VectorToSequence(1, 20, 10, context=CONTEXT, residual=False, head=MSE, layers=layers)

    def wavenet(_: Layers, gated: bool = False) -> nn.Module:
        return WaveNet(1, 10, gated=gated, residual=False, head=MSE)

    model = partial(Model, training=TRAINING)
    ahead = partial(recurrent, steps=10, residual=False)
    recursive = model(
        "deep RNN, recursive",
        recurrent("simple_rnn", 1, residual=True),
        waves.one_ahead,
        published=0.0275,
    )
    yield from trained(TEN, recursive, waves.score_recursive, run, lines[-1])
    sequence, vector = waves.to_sequence, waves.to_vector
    for each in (
        model("deep RNN, to vector", ahead("simple_rnn"), vector, published=0.0085),
        model("deep RNN", ahead("simple_rnn"), sequence, published=0.0096),
        model("LSTM 20-20", ahead("lstm"), sequence, published=0.0086),
        model("GRU 20-20", ahead("gru"), sequence, published=0.0103),
        model(
            "Conv1D, GRU 20-20",
            convolutional,
            sequence,
            published=0.0080,
            note="targets [:, 3::2]",
        ),
        model("WaveNet", wavenet, sequence, published=0.0072),
        model("WaveNet, gated", partial(wavenet, gated=True), sequence),
        model("encoder-decoder, GRU 20, to vector", encoder_decoder, vector),
        model("vector to sequence, GRU 20, to vector", vector_to_sequence, vector),
    ):
        yield from trained(TEN, each, waves.score, run, lines[-1])
