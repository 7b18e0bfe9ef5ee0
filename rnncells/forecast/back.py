"""Forecasts in the type that the series came in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.ahead import stamps_ahead
from rnncells.forecast.extras import require
from rnncells.forecast.panel import Panel
from rnncells.forecast.windows import Windows

__all__ = ["give_back", "give_back_windows"]

Intervals = Mapping[int | float, tuple[Tensor, Tensor]]


def give_back(
    panel: Panel, forecast: Tensor, intervals: Intervals | None = None, name: str = "y_hat"
) -> Any:
    """Forecasts of the steps after a panel's end, as the panel's series came.

    Args:
        panel: up to the last step known; see :func:`rnncells.forecast.as_panel`.
        forecast: [series, horizon, targets], in the series' unit.
        intervals: for each level in percent the lower and the upper bound, each of the forecast's
            shape.
        name: the forecast's name, such as the model's.

    Returns:
        For a frame, a frame of the same library with its columns of ids and stamps, ``name``, and
        ``name-lo-80``, ``name-hi-80`` for each level; with several targets ``name_target``. For
        arrays and tensors their like: [horizon] for [time], [horizon, targets] for [time,
        features], [series, horizon, ...] for many, lists and dicts of such; with ``intervals`` a
        dict of them with the frame's names.

    Raises:
        ValueError: a forecast or bounds of another shape.
    """
    parts = _named(forecast, intervals, name, (len(panel), None, len(panel.targets)), "series")
    if panel.origin.form != "frame":
        back = {key: _arrays(panel, part) for key, part in parts.items()}
        return back[name] if intervals is None else back
    np, ids, horizon = require("numpy"), list(panel.ids), forecast.shape[1]
    stamps = {panel.origin.names[1]: np.concatenate(stamps_ahead(panel, horizon))}
    return _frame(panel, [one for one in ids for _ in range(horizon)], stamps, parts, name)


def give_back_windows(
    panel: Panel,
    windows: Windows,
    forecast: Tensor,
    intervals: Intervals | None = None,
    name: str = "y_hat",
) -> Any:
    """Forecasts of windows inside a panel, as in a backtest.

    Args:
        panel: in the series' unit.
        windows: over this panel, or over one scaled from it.
        forecast: [windows, horizon, targets], in the series' unit.
        intervals, name: as in :func:`give_back`.

    Returns:
        For a frame, a frame of the same library, a row for each window and step ahead: ids, stamps,
        ``cutoff`` (the last stamp of the window's context), the targets as they are in the panel,
        then the forecasts as in :func:`give_back`. For arrays and tensors [windows, horizon] where
        the series had no axis for features, else [windows, horizon, targets]; with ``intervals`` a
        dict of them.

    Raises:
        ValueError: a forecast or bounds of another shape.
    """
    shape = (len(windows), windows.horizon, len(panel.targets))
    parts = _named(forecast, intervals, name, shape, "windows")
    if panel.origin.form != "frame":
        back = {key: _like(panel, part) for key, part in parts.items()}
        return back[name] if intervals is None else back
    np, (frequency, starts) = require("numpy"), panel.grid()
    time = panel.origin.names[1]
    stamps: dict[str, list[Any]] = {time: [], "cutoff": []}
    for number, step in zip(windows.numbers.tolist(), windows.steps.tolist(), strict=True):
        cutoff, *ahead = frequency.stamps(starts[number], range(step - 1, step + windows.horizon))
        stamps[time] += ahead
        stamps["cutoff"] += [cutoff] * windows.horizon
    dtype = "int64" if frequency.kind == "number" else "M8[us]"
    read = {key: np.array(ticks, "int64").view(dtype) for key, ticks in stamps.items()}
    ids = [panel.ids[number] for number in windows.numbers.tolist() for _ in range(windows.horizon)]
    rows = windows.origins[:, None] + torch.arange(windows.horizon)
    truth = panel.values[rows][..., : len(panel.targets)]
    return _frame(panel, ids, read, parts, name, truth)


def _named(
    forecast: Tensor,
    intervals: Intervals | None,
    name: str,
    shape: tuple[int | None, ...],
    what: str,
) -> dict[str, Tensor]:
    """The forecast and its bounds by name, each checked for its shape."""
    parts = {name: forecast}
    for level, bounds in sorted((intervals or {}).items()):
        for side, bound in zip(("lo", "hi"), bounds, strict=True):
            parts[f"{name}-{side}-{level:g}"] = bound
    expected = [
        forecast.shape[1] if size is None and forecast.dim() > 1 else size for size in shape
    ]
    for key, part in parts.items():
        if list(part.shape) != expected:
            sizes = [size or "horizon" for size in shape]
            raise ValueError(
                f"forecast: expected [{what}, horizon, targets] = {sizes} in {key!r}, "
                f"got shape {list(part.shape)}"
            )
    return parts


def _like(panel: Panel, part: Tensor) -> Any:
    values = part.squeeze(2) if panel.origin.flat else part
    return values if panel.origin.kind == "tensor" else values.detach().cpu().numpy()


def _arrays(panel: Panel, part: Tensor) -> Any:
    form, each = panel.origin.form, _like(panel, part)
    if form == "many":
        return each
    if form == "dict":
        return dict(zip(panel.ids, each, strict=True))
    return list(each) if form == "list" else each[0]


def _frame(
    panel: Panel,
    ids: list[Any],
    stamps: Mapping[str, Any],
    parts: Mapping[str, Tensor],
    name: str,
    truth: Tensor | None = None,
) -> Any:
    identity = panel.origin.names[0]
    columns: dict[str, Any] = {} if identity is None else {identity: ids}
    columns |= {key: _stamps(panel, ticks) for key, ticks in stamps.items()}
    if truth is not None:
        columns |= {target: _flat(truth, n) for n, target in enumerate(panel.targets)}
    for number, target in enumerate(panel.targets):
        named = name if len(panel.targets) == 1 else f"{name}_{target}"
        columns |= {
            named + key.removeprefix(name): _flat(part, number) for key, part in parts.items()
        }
    return require(panel.origin.kind).DataFrame(columns)


def _flat(values: Tensor, target: int) -> Any:
    return values[:, :, target].detach().to("cpu", torch.float64).flatten().numpy()


def _stamps(panel: Panel, stamps: Any) -> Any:
    origin = panel.origin
    if stamps.dtype.kind != "M":
        return stamps
    if origin.kind == "polars":
        column = require("polars").Series(stamps.astype("M8[D]") if origin.dates else stamps)
        if origin.zone is None:
            return column
        return column.dt.replace_time_zone("UTC").dt.convert_time_zone(origin.zone)
    column = require("pandas").Series(stamps)
    if origin.zone is None:
        return column
    return column.dt.tz_localize("UTC").dt.tz_convert(origin.zone)
