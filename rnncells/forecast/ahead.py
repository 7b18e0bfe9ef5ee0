"""What lies ahead of a panel's end: more steps, with the covariates that are known there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.arrays import read_many
from rnncells.forecast.calendar import calendar_of, is_calendar
from rnncells.forecast.checks import check_known, check_positive
from rnncells.forecast.frames import is_frame
from rnncells.forecast.panel import Panel
from rnncells.forecast.rows import index_rows, read_numbers, read_stamps
from rnncells.forecast.spans import offsets_of

__all__ = ["look_ahead", "stamps_ahead"]


def look_ahead(panel: Panel, horizon: int, future: Any = None) -> Panel:
    """Each series with ``horizon`` more steps, in which only the future columns are known.

    Targets and past columns are NaN there; the calendar's columns are worked out. The forecasts'
    windows are then ``Windows(ahead, context, horizon, start=-horizon, ahead=True)``.

    Args:
        panel: up to the last step known.
        horizon: steps ahead.
        future: values of the panel's other future columns: a long frame with the panel's columns of
            ids and stamps (rows beyond the horizon are left aside), or an array or tensor [horizon,
            columns] for one series, [series, horizon, columns] or a list of them for many.

    Raises:
        ValueError: a column, a series, a step or a value that is missing, a stamp twice in a
            series, a wrong shape, or values for a panel without such columns.
    """
    [horizon] = check_positive(horizon=horizon)
    ahead = panel.values.new_full((len(panel), horizon, len(panel.columns)), torch.nan)
    made = [name for name in panel.future if is_calendar(name)]
    given = [name for name in panel.future if not is_calendar(name)]
    if future is not None and not given:
        raise ValueError(
            "future: expected none, because the series have no columns known ahead but the "
            f"calendar's, got {type(future).__name__}"
        )
    if given and future is None:
        raise ValueError(
            f"future: expected values of {', '.join(given)} for the next {horizon} steps, got none"
        )
    for names, values in ((made, _calendar(panel, horizon, made)), (given, None)):
        if not names:
            continue
        if values is None:
            values = _read(panel, horizon, given, future)
            _refuse_missing(panel, values, given)
        for place, name in enumerate(names):
            ahead[:, :, panel.columns.index(name)] = values[:, :, place].to(ahead.dtype)
    parts = [
        part
        for number in range(len(panel))
        for part in (panel.values[panel.rows(number)], ahead[number])
    ]
    return replace(
        panel,
        values=torch.cat(parts),
        offsets=offsets_of((panel.lengths + horizon).tolist()),
    )


def stamps_ahead(panel: Panel, horizon: int) -> list[Any]:
    """For each series the next ``horizon`` stamps (``datetime64[us]`` or integers).

    Raises:
        ValueError: the panel has no stamps.
    """
    frequency, starts = panel.grid()
    lengths = panel.lengths.tolist()
    stamps = [
        frequency.stamps(start, range(length, length + horizon))
        for start, length in zip(starts, lengths, strict=True)
    ]
    return stamps if frequency.kind == "number" else [each.view("M8[us]") for each in stamps]


def _calendar(panel: Panel, horizon: int, names: list[str]) -> Tensor | None:
    if not names:
        return None
    zone = panel.origin.zone
    return torch.stack([calendar_of(each, names, zone) for each in stamps_ahead(panel, horizon)])


def _read(panel: Panel, horizon: int, names: list[str], future: Any) -> Tensor:
    if is_frame(future):
        return _read_frame(panel, horizon, names, future)
    parts, _ = read_many(future, "future")
    shapes = [list(part.shape) for part in parts]
    expected = [horizon, len(names)]
    if len(parts) != len(panel) or any(shape != expected for shape in shapes):
        raise ValueError(
            f"future: expected {len(panel)} series of shape {expected} ({', '.join(names)}), "
            f"got {len(parts)} of shape {shapes[0]}"
        )
    return torch.stack(parts)


def _refuse_missing(panel: Panel, values: Tensor, names: list[str]) -> None:
    gap = values.isnan()
    if gap.any():
        number, step, column = gap.nonzero()[0].tolist()
        raise ValueError(
            f"future: expected all values, got a NaN of {names[column]!r} at step {step} ahead of "
            f"series {panel.ids[number]!r} ({int(gap.sum())} in all)"
        )


def _read_frame(panel: Panel, horizon: int, names: list[str], frame: Any) -> Tensor:
    identity, time = panel.origin.names
    columns = [time, *names] if identity is None else [identity, time, *names]
    check_known("future", columns, [str(column) for column in frame.columns], "column")
    stamps, kind = read_stamps(frame[time], time)
    ids = frame[identity].to_numpy().tolist() if identity else [panel.ids[0]] * len(stamps)
    shown = stamps if kind.numbers else stamps.view("M8[us]")
    row = index_rows(ids, shown, range(len(stamps)), "future")
    values = torch.column_stack([read_numbers(frame[name], name) for name in names])
    chosen = []
    for one, ahead in zip(panel.ids, stamps_ahead(panel, horizon), strict=True):
        for stamp, tick in zip(ahead, ahead.astype("int64").tolist(), strict=True):
            if (one, tick) not in row:
                raise ValueError(
                    f"future: expected a row for each of the next {horizon} steps, "
                    f"series {one!r} has none for {stamp}"
                )
            chosen.append(row[one, tick])
    return values[chosen].unflatten(0, (len(panel), horizon))
