"""From parameters and series to a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rnncells.forecast.fitted import Fitted, columns_of, with_calendar
from rnncells.forecast.options import Options
from rnncells.forecast.panel import Panel
from rnncells.forecast.scaler import SCALERS, Scaler, StandardScaler
from rnncells.forecast.training import History, fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["hold_out", "learn"]


def hold_out(panel: Panel, context: int, horizon: int) -> list[int]:
    """Where training ends in each series and validation begins.

    A tenth of a series is held out, at least one horizon; nothing of one that would then be too
    short to train on.
    """
    stops = []
    for length in panel.lengths.tolist():
        room = length - context - horizon
        held = min(max(horizon, length // 10), room)
        stops.append(length - held if held >= horizon else length)
    return stops


def learn(
    options: Options,
    panel: Panel,
    stops: Sequence[int],
    reading: Mapping[str, Any],
    fabric: Fabric | None,
    checkpoint: str | Path | None,
) -> tuple[Fitted, History]:
    """Train on the steps of each series before its stop, and validate on those after it.

    Raises:
        ValueError, FloatingPointError: as :class:`rnncells.forecast.Windows` and
            :func:`rnncells.forecast.fit`.
    """
    ready, columns = with_calendar(panel, options.calendar), columns_of(panel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = options.make_network(columns)
    static = None if panel.static is None else StandardScaler.fit(panel.static.double())
    scaler = _fit_scaler(options, ready.to(torch.float64), stops)
    fitted = Fitted(options, columns, panel.ids, reading, scaler, static, net)
    every_step = options.mode in ("seq2seq", "recursive")
    train = fitted.windows(
        ready, options.steps, stop=stops, stride=options.stride, every_step=every_step, short="skip"
    )
    room = [last - stop for last, stop in zip(panel.lengths.tolist(), stops, strict=True)]
    validation = None
    if max(room) >= options.steps:
        validation = fitted.windows(ready, options.steps, start=stops, short="skip")
    history = fit(
        net, train, validation, options.make_training(), fabric=fabric, checkpoint=checkpoint
    )
    return fitted, history


def _fit_scaler(options: Options, panel: Panel, stops: Sequence[int]) -> Scaler:
    """Scales covariates over all series, and targets series by series or not at all."""
    part, targets = panel.cut(stop=stops), len(panel.targets)
    location = scale = part.values.new_empty(0)
    if targets < len(panel.columns):
        covariates = StandardScaler.fit(part.values[:, targets:])
        location, scale = covariates.location, covariates.scale
    if options.scaler not in SCALERS:
        plain = location.new_zeros(targets)
        return StandardScaler(torch.cat([plain, location]), torch.cat([plain + 1, scale]))
    own = SCALERS[options.scaler].fit(part.roles(part.targets), each=True)
    location, scale = (
        torch.cat([mine, every.expand(len(panel), -1)], dim=1)
        for mine, every in ((own.location, location), (own.scale, scale))
    )
    return type(own)(location, scale, own.ids)
