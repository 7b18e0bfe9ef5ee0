"""A row of a table: who forecast, what was published, and what came out here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from rnncells.forecast import Training, fit
from rnncells.forecast.networks import Layers, RecurrentStack

__all__ = ["Model", "Row", "Run", "Scores", "fixed", "in_print", "trained"]

Scores = dict[str, float]  # by the name of the measure; the first is the table's own


@dataclass
class Row:
    """One line of a table.

    Attributes:
        job: the table.
        model: who forecasts.
        published: the figure printed for it, if any, in the first measure.
        line: the exact least-squares line on the same inputs, in the first measure.
        scores: each measure's mean over the seeds.
        each: the first measure, seed by seed; empty where nothing is drawn.
        seconds: of an epoch, ours and torch.nn's, and the ratio; None where it was not timed.
        note: what the reader should know.
    """

    job: str
    model: str
    published: float | None = None
    line: float | None = None
    scores: Scores = field(default_factory=dict)
    each: list[float] = field(default_factory=list)
    seconds: dict[str, float] | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Model:
    """A network, and how it is trained.

    Attributes:
        name: in the table.
        net: makes it, on our layers or on torch.nn's.
        train: the windows to learn from.
        training: how.
        validation: the windows that decide when to stop; None to take the last epoch's weights.
        published: the figure printed for it.
        note: what the reader should know.
    """

    name: str
    net: Callable[[Layers], nn.Module]
    train: Any
    training: Training
    validation: Any = None
    published: float | None = None
    note: str = ""

    def make(self, seed: int, layers: Layers = "rnncells") -> nn.Module:
        """The network with the weights of this seed, the same on either's layers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.net(layers)


@dataclass(frozen=True)
class Run:
    """How a table is made.

    Attributes:
        seeds: each network is trained once for each; none: it is timed alone.
        epochs: at most so many, for a quick look; None for as many as the job says.
        timing: also time an epoch on our layers and on torch.nn's.
        only: train only networks with these words in their name; None for all.
    """

    seeds: Sequence[int] = (0, 1, 2)
    epochs: int | None = None
    timing: bool = False
    only: str | None = None

    def training(self, training: Training, seed: int) -> Training:
        """The job's training, for one seed."""
        epochs = min(training.epochs, self.epochs or training.epochs)
        return replace(training, epochs=epochs, seed=seed)


def in_print(job: str, figures: Mapping[str, float], note: str = "") -> Iterator[Row]:
    """Rows of figures that stand in print and are not made again here."""
    for model, figure in figures.items():
        yield Row(job, model, figure, note=note)


def fixed(job: str, model: str, scores: Scores, figure: float | None = None, note: str = "") -> Row:
    """The row of a forecast in which nothing is drawn by chance."""
    return Row(job, model, figure, scores=scores, note=note)


def trained(
    job: str, model: Model, score: Callable[[nn.Module], Scores], run: Run, line: Row
) -> Iterator[Row]:
    """Train a network once for each seed, and score each: one row, or none where nobody asked.

    Args:
        job: the table.
        model: the network.
        score: of a trained network, its measures.
        run: seeds and the like.
        line: the least-squares line's.
    """
    if run.only is not None and run.only not in model.name:
        return
    found = []
    for seed in run.seeds:
        net = model.make(seed)
        label = f"{job}: {model.name}, seed {seed}"
        training = run.training(model.training, seed)
        fit(net, model.train, model.validation, training, label=label)
        found.append(score(net))
    seconds = time_epochs(model) if run.timing else None
    row = Row(job, model.name, model.published, seconds=seconds, note=model.note)
    if found:
        row.scores = {name: statistics.fmean(one[name] for one in found) for name in found[0]}
        first = next(iter(row.scores))
        row.line, row.each = line.scores[first], [one[first] for one in found]
    yield row


def time_epochs(model: Model, rounds: int = 3) -> dict[str, float] | None:
    """Seconds of an epoch, ours and torch.nn's in turn, from the same weights on the same batches,
    validation and Fabric included; None for a network without recurrent layers.

    A ratio is taken within each round; all three are medians.
    """
    if not any(isinstance(part, RecurrentStack) for part in model.make(0).modules()):
        return None
    training = replace(model.training, epochs=1, patience=None)

    def epoch(layers: Layers) -> float:
        return fit(
            model.make(0, layers), model.train, model.validation, training, label="timing"
        ).seconds

    epoch("rnncells")  # what is used for the first time is slow: no round pays for it
    taken = [(epoch("rnncells"), epoch("torch")) for _ in range(rounds)]
    ours, theirs = (statistics.median(side) for side in zip(*taken, strict=True))
    ratio = statistics.median(torchs / mine for mine, torchs in taken)
    return {"ours": ours, "torch.nn": theirs, "ratio": ratio}
