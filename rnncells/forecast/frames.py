"""Panels from long data frames, pandas' or polars': one row for each series and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rnncells.forecast.checks import check_choice, check_known
from rnncells.forecast.extras import require
from rnncells.forecast.origin import Origin
from rnncells.forecast.panel import Panel
from rnncells.forecast.rows import Rows, read_ids, read_numbers, read_stamps
from rnncells.forecast.spans import offsets_of
from rnncells.forecast.timegrid import Frequency, infer_frequency

__all__ = ["is_frame", "panel_from_frame"]


def is_frame(data: object) -> bool:
    """Whether it is a data frame of pandas or polars; neither is imported to find out."""
    return _library(data) in ("pandas", "polars") and type(data).__name__ == "DataFrame"


def _library(data: object) -> str:
    return type(data).__module__.partition(".")[0]


def panel_from_frame(
    frame: Any,
    *,
    id: str = "unique_id",
    time: str = "ds",
    target: str | Sequence[str] = "y",
    past: Sequence[str] = (),
    future: Sequence[str] = (),
    static: Sequence[str] = (),
    freq: str | int | None = None,
    gaps: Literal["error", "mask"] = "error",
) -> Panel:
    """A panel from a long frame; its rows may come in any order.

    Args:
        frame: pandas' or polars', a row for each series and time.
        id: the column that tells the series apart, with text or whole numbers; a frame without
            ``unique_id`` is one series.
        time: the column of stamps: dates, times (with a zone: UTC is the grid), ISO texts or whole
            numbers.
        target, past, future, static: columns by role; static ones are the same in all of a series'
            rows. Empty cells and NaN are missing values, and stay so.
        freq: the step from stamp to stamp, by default the one that most rows keep.
        gaps: rows that the grid lacks are refused, or added as missing values (``"mask"``).

    Raises:
        TypeError: not a frame, or columns without numbers.
        ValueError: an unknown column, an infinity, a stamp that is missing or there twice, stamps
            off the grid (mixed frequencies) or gaps in it, each with the row, counted from 0.
    """
    if not is_frame(frame):
        raise TypeError(f"frame: expected pandas' or polars' DataFrame, got {type(frame).__name__}")
    check_choice("gaps", gaps, ("error", "mask"))
    targets = (target,) if isinstance(target, str) else tuple(target)
    columns = (*targets, *past, *future)
    known = [str(column) for column in frame.columns]
    identified = id in known or id != "unique_id"
    check_known("time", [time], known, "column")
    check_known("id", [id] if identified else [], known, "column")
    check_known("target, past, future, static", (*columns, *static), known, "column")
    if len(frame) == 0:
        raise ValueError("frame: expected at least one row, got none")
    stamps, stamp_kind = read_stamps(frame[time], time)
    ids, codes = read_ids(frame[id], id) if identified else ((targets[0],), None)
    rows = Rows.of(ids, codes, stamps, stamp_kind.numbers)
    rows.refuse_duplicates(time)
    grid = Frequency.parse(freq) if freq is not None else infer_frequency(rows.series, rows.numbers)
    if (grid.kind == "number") != rows.numbers:
        raise ValueError(f"freq: expected one that fits the stamps in {time!r}, got {freq!r}")
    places = rows.places(grid, time, gaps)
    values = torch.column_stack([read_numbers(frame[name], name) for name in columns])
    fixed = [read_numbers(frame[name], name) for name in static]
    lengths = [int(place[-1]) + 1 for place in places]
    return Panel(
        _scatter(values, rows, places, lengths),
        offsets_of(lengths),
        ids,
        targets,
        tuple(past),
        tuple(future),
        _constant(fixed, static, rows) if static else None,
        tuple(static),
        tuple(int(stamps[0]) for stamps in rows.series),
        grid,
        Origin(
            _library(frame),
            "frame",
            names=(id if identified else None, time),
            zone=stamp_kind.zone,
            dates=stamp_kind.dates,
        ),
    )


def _scatter(values: Tensor, rows: Rows, places: list[Any], lengths: list[int]) -> Tensor:
    """The frame's rows at their places in the buffer; places that no row has are NaN."""
    buffer = values.new_full((sum(lengths), values.shape[1]), torch.nan)
    np = require("numpy")
    begins = offsets_of(lengths).tolist()
    there = np.concatenate([begin + place for begin, place in zip(begins, places, strict=False)])
    buffer[torch.from_numpy(there)] = values[torch.from_numpy(rows.order)]
    return buffer


def _constant(columns: list[Tensor], names: Sequence[str], rows: Rows) -> Tensor:
    kept = []
    for name, column in zip(names, columns, strict=True):
        ordered = column[torch.from_numpy(rows.order)]
        first = ordered[rows.begins[:-1]]
        change = ordered != first[torch.from_numpy(rows.codes)]
        if change.any():
            place = int(change.nonzero()[0])
            raise ValueError(
                f"static: expected one value of {name!r} in each series, got "
                f"{ordered[place].item():g} at {rows.where(place)} after "
                f"{first[rows.codes[place]].item():g}"
            )
        kept.append(first)
    return torch.column_stack(kept)
