"""Readers for published series that do not ship with the package: give the path of your copy."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import TextIO

import torch

from rnncells.forecast.arrays import panel_from_arrays
from rnncells.forecast.panel import Panel

__all__ = ["read_chicago_ridership", "read_m4"]

DAY_TYPES = ("W", "A", "U")  # a weekday, a Saturday, a Sunday or holiday


def read_chicago_ridership(path: str | PathLike[str]) -> Panel:
    """Chicago's daily bus and rail boardings: two targets, and the type of day, known ahead.

    The columns ``bus`` and ``rail`` count boardings; ``W``, ``A`` and ``U`` hold 1 on weekdays, on
    Saturdays, and on Sundays and holidays, else 0. Rows that are there twice, alike, count once.

    Args:
        path: the City of Chicago's "CTA - Ridership - Daily Boarding Totals", CSV with the columns
            service_date (month/day/year), day_type, bus and rail_boardings; .gz is fine.

    Raises:
        OSError: the file cannot be read.
        ValueError: another file: a column, a number or a day that is missing, or a day twice with
            different numbers; with the line.
    """
    days: dict[datetime, list[float]] = {}
    for line, row in _rows(path, ("service_date", "day_type", "bus", "rail_boardings")):
        try:
            day = datetime.strptime(row["service_date"], "%m/%d/%Y")
            types = [float(row["day_type"] == kind) for kind in DAY_TYPES]
            values = [float(row["bus"]), float(row["rail_boardings"]), *types]
        except ValueError as error:
            raise ValueError(f"path: line {line} of {path}: {error}") from None
        if days.setdefault(day, values) != values:
            raise ValueError(
                f"path: line {line} of {path}: {day:%Y-%m-%d} again, with other numbers"
            )
    first = min(days)
    for number, day in enumerate(sorted(days)):
        if day != first + timedelta(days=number):
            raise ValueError(
                f"path: {path} has no row for {first + timedelta(days=number):%Y-%m-%d}"
            )
    table = torch.tensor([days[day] for day in sorted(days)], dtype=torch.float64)
    names = ["bus", "rail", *DAY_TYPES]
    panel = panel_from_arrays(table, ids=["Chicago"], targets=names, start=first, freq="D")
    return panel.roles(["bus", "rail"], future=DAY_TYPES)


def read_m4(path: str | PathLike[str]) -> Panel:
    """A file of the M4 competition: series of unequal lengths, float64, without stamps.

    Args:
        path: such as Hourly-train.csv: a head, then one series a line, its id first, empty cells
            at its end; .gz is fine.

    Raises:
        OSError: the file cannot be read.
        ValueError: another file: cells without a number, or a gap in a series; with the line.
    """
    series = {}
    with _opened(path) as file:
        for line, (name, *cells) in enumerate(csv.reader(file), start=1):
            if line == 1:
                continue
            while cells and not cells[-1]:
                cells.pop()
            try:
                series[name] = torch.tensor([float(cell) for cell in cells], dtype=torch.float64)
            except ValueError as error:
                raise ValueError(f"path: line {line} of {path}: {error}") from None
    if not series:
        raise ValueError(f"path: expected a head and at least one series in {path}, got none")
    return panel_from_arrays(series)


def _opened(path: str | PathLike[str]) -> TextIO:
    if Path(path).suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return open(path, encoding="utf-8", newline="")


def _rows(
    path: str | PathLike[str], columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    with _opened(path) as file:
        reader = csv.DictReader(file)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"path: expected the columns {', '.join(columns)} in {path}")
        found = False
        for row in reader:
            found = True
            yield reader.line_num, row
        if not found:
            raise ValueError(f"path: expected at least one day in {path}, got none")
