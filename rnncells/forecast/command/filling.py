"""Missing values of series found by a network that reads them from both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.extras import require
from rnncells.forecast.networks import HiddenValues, ImputationNet, impute
from rnncells.forecast.options import Options
from rnncells.forecast.panel import Id, Panel
from rnncells.forecast.scaler import StandardScaler
from rnncells.forecast.training import History, fit

__all__ = ["Filled", "fill"]

SHORTEST = 24  # context, where the series have as much


@dataclass(frozen=True)
class Filled:
    """Series without gaps, and how well values that were there were found again.

    Attributes:
        values: [rows, targets] of the panel's buffer.
        history: of the training.
        error: mean absolute error over values that were hidden at the series' ends, which neither
            training nor the choice of the weights nor the scaler saw, in standard deviations of
            the part to learn from; None where no series was long enough to try.
        interpolated: that of the straight line between the neighbours.
    """

    values: Tensor
    history: History
    error: float | None
    interpolated: float | None


def fill(
    panel: Panel, options: Options, context: int | None, stride: int | None, season: int
) -> Filled:
    """Train on values that are hidden from the network, in runs as long as the gaps are, and fill.

    Args:
        panel: targets alone, NaN where a value is missing.
        options: sizes and training; the rest of them is not looked at.
        context: steps of a training window, by default two seasons.
        stride: steps between training windows, by default an eighth of their length.
        season: in steps.

    Raises:
        ValueError: a series without any value, or all of them shorter than the context.
    """
    longest = int(panel.lengths.max())
    context = min(longest, max(2 * season, SHORTEST)) if context is None else context
    if context > longest:
        raise ValueError(
            f"--context: expected at most {longest} steps, the longest series', got {context}"
        )
    stride = max(1, context // 8) if stride is None else stride
    run = max(1, min(context // 4, round(_mean_gap(panel))))
    stops = [_stops(panel, one, context) for one in panel.ids]
    scaler = StandardScaler.fit(panel.to(torch.float64), stop=[a for a, _ in stops], each=True)
    scaled = scaler.transform_panel(panel.to(torch.float64)).to(torch.float32)
    train, check, test = _windows(scaled, stops, context, stride, run, options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = ImputationNet(
            len(panel.targets),
            options.hidden_size,  # type: ignore[arg-type]
            cell=options.cell,
            num_layers=options.num_layers,
            dropout=options.dropout,
        )
    history = fit(net, train, check, options.make_training())
    error, interpolated = (None, None) if test is None else _try(net, test)
    parts = [impute(net, scaled.series(one)).values for one in panel.ids]
    back = scaler.inverse_panel(scaled.with_values(torch.cat(parts).double())).values
    return Filled(
        torch.where(panel.values.isnan(), back, panel.values), history, error, interpolated
    )


def _stops(panel: Panel, identity: Id, context: int) -> tuple[int, int]:
    """Where the part of a series that is learned from ends, and where that which chooses the
    weights does; the rest is to measure on. Each of the two is a tenth, at least a context, of
    series of five contexts and more, and nothing of those that are shorter."""
    series = panel.series(identity)
    length, held = len(series), max(context, len(series) // 10)
    first = length - 2 * held
    if length < 5 * context or series[:first].isnan().all(dim=0).any():
        return length, length
    return first, length - held


def _windows(
    scaled: Panel, stops: list[tuple[int, int]], context: int, stride: int, run: int, seed: int
) -> tuple[HiddenValues, HiddenValues | None, HiddenValues | None]:
    """To learn from, to choose the weights by and to measure on: no two of them share a step."""
    parts: list[list[Tensor]] = [[], [], []]
    for one, (first, second) in zip(scaled.ids, stops, strict=True):
        series = scaled.series(one)
        cuts = (series[:first], series[first:second], series[second:])
        for several, part in zip(parts, cuts, strict=True):
            if len(part) >= context:
                several.append(part)
    train = HiddenValues(parts[0], context, stride=stride, run=run)
    check, test = (
        HiddenValues(part, context, stride=max(1, context // 2), run=run, seed=seed + number)
        if part
        else None
        for number, part in enumerate(parts[1:])
    )
    return train, check, test


def _mean_gap(panel: Panel) -> float:
    """The mean length of a run of missing values, 1 where there is none."""
    gaps = panel.values.isnan()
    begins = gaps.clone()
    begins[1:] &= ~gaps[:-1]
    begins[panel.offsets[:-1]] = gaps[panel.offsets[:-1]]
    return float(gaps.sum() / begins.sum()) if gaps.any() else 1.0


def _try(net: ImputationNet, test: HiddenValues) -> tuple[float | None, float | None]:
    batch = test.batch(torch.arange(len(test)))
    assert batch.observed is not None
    hidden = batch.observed.squeeze(2)
    if not hidden.any():
        return None, None
    with torch.no_grad():
        found = net.head.point(net(batch.x)).squeeze(2)
    truth = batch.y.squeeze(2)
    line = _interpolate(batch.x)
    return tuple((part - truth)[hidden].abs().mean().item() for part in (found, line))  # type: ignore[return-value]


def _interpolate(x: Tensor) -> Tensor:
    """The straight line between neighbours: values and masks [batch, time, 2 n] -> [batch, time,
    n]; 0, the mean, where a window has none."""
    np = require("numpy")
    values, seen = x.chunk(2, dim=2)
    found: Any = torch.zeros_like(values)
    step = np.arange(values.shape[1])
    for window in range(len(values)):
        for column in range(values.shape[2]):
            there = seen[window, :, column].bool()
            if there.any():
                known = values[window, there, column].numpy()
                line = np.interp(step, step[there.numpy()], known)
                found[window, :, column] = torch.from_numpy(line)
    return found
