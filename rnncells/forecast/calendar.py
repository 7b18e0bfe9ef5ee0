"""Inputs made from time stamps, known for ever ahead: the hour, the day of the week and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import torch
from torch import Tensor

from rnncells.forecast.checks import check_choice
from rnncells.forecast.extras import require
from rnncells.forecast.panel import Panel

__all__ = ["CALENDAR", "add_calendar", "calendar_columns", "calendar_of"]

Encoding = Literal["cycle", "one-hot"]


def _since(stamps: Any, unit: str) -> Any:
    """How far each stamp is into its day, month or year, in days."""
    begun = stamps.astype(f"M8[{unit}]").astype("M8[us]")
    return (stamps - begun).astype("int64") / 86_400e6


# each feature: of datetime64[us], from 0 up to its number of values; whole at the full hour or day
CALENDAR: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "minute": (60, lambda t: _since(t, "h") * 1440),
    "hour": (24, lambda t: _since(t, "D") * 24),
    "day_of_week": (7, lambda t: (t.astype("M8[us]").astype("int64") / 86_400e6 + 3) % 7),
    "day_of_month": (31, lambda t: _since(t, "M")),
    "day_of_year": (366, lambda t: _since(t, "Y")),
    "month": (12, lambda t: t.astype("M8[M]").astype("int64") % 12),
    "quarter": (4, lambda t: t.astype("M8[M]").astype("int64") % 12 // 3),
}


def add_calendar(panel: Panel, features: Sequence[str], encoding: Encoding = "cycle") -> Panel:
    """The panel with columns of the calendar among those known ahead.

    Args:
        panel: with stamps; where they have a time zone, its clock is read, else their own.
        features: among ``minute``, ``hour``, ``day_of_week`` (Monday is 0), ``day_of_month``,
            ``day_of_year``, ``month``, ``quarter`` (each from 0).
        encoding: ``"cycle"`` adds sine and cosine of the part of the cycle that has gone by,
            without a jump where the cycle ends (columns ``hour:sin``, ``hour:cos``); ``"one-hot"``
            a column of 0 and 1 for each value (``month:0`` to ``month:11``).

    Raises:
        ValueError: an unknown feature or encoding, columns there already, or no stamps.
    """
    names = calendar_columns(features, encoding)
    parts = [calendar_of(panel.stamps(one), names, panel.origin.zone) for one in panel.ids]
    columns = torch.cat(parts).to(panel.values.dtype)
    return replace(
        panel,
        values=torch.cat([panel.values, columns], dim=1),
        future=(*panel.future, *names),
    )


def calendar_columns(features: Sequence[str], encoding: Encoding = "cycle") -> tuple[str, ...]:
    """The names of the columns that :func:`add_calendar` adds.

    Raises:
        ValueError: an unknown feature or encoding.
    """
    check_choice("encoding", encoding, ("cycle", "one-hot"))
    names: list[str] = []
    for feature in features:
        check_choice("features", feature, CALENDAR)
        kinds = ("sin", "cos") if encoding == "cycle" else range(CALENDAR[feature][0])
        names += [f"{feature}:{kind}" for kind in kinds]
    return tuple(names)


def calendar_of(stamps: Any, names: Sequence[str], zone: str | None = None) -> Tensor:
    """The calendar's columns at these stamps, [time, names], float64.

    Args:
        stamps: NumPy's ``datetime64``, in UTC where ``zone`` is given.
        names: as :func:`calendar_columns` gives them.
        zone: the time zone whose clock is read.

    Raises:
        ValueError: stamps that are plain numbers.
    """
    if stamps.dtype.kind != "M":
        raise ValueError("panel: expected stamps with dates for the calendar, got plain numbers")
    local = stamps.astype("M8[us]") if zone is None else _local(stamps, zone)
    return torch.column_stack([torch.from_numpy(_column(local, name)) for name in names])


def is_calendar(name: str) -> bool:
    """Whether a column of this name is the calendar's."""
    return name.partition(":")[0] in CALENDAR and ":" in name


def _column(stamps: Any, name: str) -> Any:
    np = require("numpy")
    feature, _, kind = name.partition(":")
    cycle, of = CALENDAR[feature]
    value = of(stamps)
    if kind in ("sin", "cos"):
        return getattr(np, kind)(2 * math.pi * value / cycle)
    return (np.floor(value) == int(kind)).astype(np.float64)


def _local(stamps: Any, zone: str) -> Any:
    clock, epoch = ZoneInfo(zone), datetime(1970, 1, 1, tzinfo=UTC)
    ticks = stamps.astype("M8[us]").astype("int64").tolist()
    there = [(epoch + timedelta(microseconds=tick)).astimezone(clock) for tick in ticks]
    return require("numpy").array([time.replace(tzinfo=None) for time in there], "M8[us]")
