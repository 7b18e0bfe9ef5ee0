"""Forecasts in the type that the series came in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.ahead import stamps_ahead
from rnncells.forecast.extras import require
from rnncells.forecast.panel import Panel

__all__ = ["give_back"]

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
    parts = {name: forecast}
    for level, bounds in sorted((intervals or {}).items()):
        for side, bound in zip(("lo", "hi"), bounds, strict=True):
            parts[f"{name}-{side}-{level:g}"] = bound
    for part in parts.values():
        _check_shape(panel, part)
    if panel.origin.form == "frame":
        return _frame(panel, parts, forecast.shape[1], name)
    back = {key: _arrays(panel, part) for key, part in parts.items()}
    return back[name] if intervals is None else back


def _check_shape(panel: Panel, part: Tensor) -> None:
    expected = (len(panel), len(panel.targets))
    if part.dim() != 3 or (part.shape[0], part.shape[2]) != expected:
        raise ValueError(
            f"forecast: expected [series, horizon, targets] with {expected[0]} series and "
            f"{expected[1]} targets, got shape {list(part.shape)}"
        )


def _arrays(panel: Panel, part: Tensor) -> Any:
    origin = panel.origin
    values = part.squeeze(2) if origin.flat else part
    each: Any = values if origin.kind == "tensor" else values.detach().cpu().numpy()
    if origin.form == "many":
        return each
    if origin.form == "dict":
        return dict(zip(panel.ids, each, strict=True))
    return list(each) if origin.form == "list" else each[0]


def _frame(panel: Panel, parts: Mapping[str, Tensor], horizon: int, name: str) -> Any:
    np, library = require("numpy"), require(panel.origin.kind)
    identity, time = panel.origin.names
    columns: dict[str, Any] = {}
    if identity is not None:
        columns[identity] = [one for one in panel.ids for _ in range(horizon)]
    columns[time] = _stamps(panel, np.concatenate(stamps_ahead(panel, horizon)))
    for number, target in enumerate(panel.targets):
        for key, part in parts.items():
            named = key if len(panel.targets) == 1 else key.replace(name, f"{name}_{target}", 1)
            columns[named] = part[:, :, number].detach().to("cpu", torch.float64).flatten().numpy()
    return library.DataFrame(columns)


def _stamps(panel: Panel, stamps: Any) -> Any:
    origin = panel.origin
    if stamps.dtype.kind != "M":
        return stamps
    if origin.kind == "polars":
        column = require("polars").Series(stamps.astype("M8[D]") if origin.dates else stamps)
        zone = origin.zone
        return (
            column
            if zone is None
            else column.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        )
    column = require("pandas").Series(stamps)
    if origin.zone is None:
        return column
    return column.dt.tz_localize("UTC").dt.tz_convert(origin.zone)
