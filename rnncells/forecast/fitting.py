"""From parameters and series to a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rnncells.forecast.appending import append, on_grid
from rnncells.forecast.checks import check_known, check_positive
from rnncells.forecast.fitted import Fitted, columns_of, with_calendar
from rnncells.forecast.incoming import check_length, read
from rnncells.forecast.options import Options
from rnncells.forecast.panel import Panel
from rnncells.forecast.scaler import SCALERS, Scaler, StandardScaler
from rnncells.forecast.training import Diverged, History, Training, fit
from rnncells.forecast.training.identity import digest, in_words

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["learn", "split"]


def split(
    panel: Panel, val: Any, options: Options, reading: Mapping[str, Any]
) -> tuple[Panel, list[int]]:
    """The series with what is to validate on, and where that begins in each.

    By default that is a tenth of each series, at least one horizon; nothing of one that would then
    be too short to train on.

    Raises:
        ValueError: steps that do not follow, or too many.
    """
    lengths, needed = panel.lengths.tolist(), options.context + options.horizon
    if val is None:
        stops = []
        for length in lengths:
            held = min(max(options.horizon, length // 10), length - needed)
            stops.append(length - held if held >= options.horizon else length)
        return panel, stops
    if isinstance(val, int):
        held = 0 if val == 0 else check_positive(val=val)[0]
        check_length(panel, "context + horizon + val", needed + held)
        return panel, [length - held for length in lengths]
    if panel.frequency is not None:
        reading = {**reading, "freq": panel.frequency.name}
    points = read(val, options.missing, reading)
    check_known("val", points.ids, panel.ids, "series of y,")
    if columns_of(points) != columns_of(panel):
        raise ValueError(f"val: expected y's columns, {columns_of(panel)}, got {points.columns}")
    return append(panel, on_grid(points, panel, "val")), lengths


def learn(
    options: Options,
    panel: Panel,
    stops: Sequence[int],
    reading: Mapping[str, Any],
    fabric: Fabric | None,
    checkpoint: str | Path | None,
) -> tuple[Fitted, History, Diverged | None]:
    """Train on the steps of each series before its stop, and validate on those after it.

    Returns:
        What was learned, and the error where training ended with one after some good epochs.

    Raises:
        ValueError: as :class:`rnncells.forecast.Windows` and :func:`rnncells.forecast.fit`.
        Diverged: before any epoch was good.
    """
    ready, columns = with_calendar(panel, options.calendar), columns_of(panel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = options.make_network(columns)
    static = None if panel.static is None else StandardScaler.fit(panel.static.double())
    scaler = _fit_scaler(options, ready.to(torch.float64), stops)
    frequency = None if panel.frequency is None else panel.frequency.name
    fitted = Fitted(options, columns, panel.ids, reading, frequency, scaler, static, net)
    train = fitted.windows(
        ready,
        options.steps,
        stop=stops,
        stride=options.stride,
        every_step=options.every_step,
        short="skip",
    )
    room = [last - stop for last, stop in zip(panel.lengths.tolist(), stops, strict=True)]
    validation = None
    if max(room) >= options.steps:
        validation = fitted.windows(ready, options.steps, start=stops, short="skip")
    try:
        history = fit(
            net,
            train,
            validation,
            options.make_training(),
            fabric=fabric,
            checkpoint=checkpoint,
            identity=None if checkpoint is None else _identity(options, panel),
        )
    except Diverged as error:
        if not error.history.train_loss:
            raise
        return fitted, error.history, error
    return fitted, history, None


def _identity(options: Options, panel: Panel) -> dict[str, str]:
    """What a checkpoint is of, besides how it was trained: parameters and the series as they came,
    because other scalers can make the same windows of other series."""
    told = {one.name for one in fields(Training)} | {"training"}
    parameters = {
        name: in_words(value) for name, value in options.get_params().items() if name not in told
    }
    stamps = f"{panel.frequency}, {panel.starts}"
    return {
        **parameters,
        "columns": repr(columns_of(panel)),
        "ids": sha256(repr(panel.ids).encode()).hexdigest()[:16],
        "stamps": sha256(stamps.encode()).hexdigest()[:16],
        "series": digest([panel.values, panel.offsets, panel.static]),
    }


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
