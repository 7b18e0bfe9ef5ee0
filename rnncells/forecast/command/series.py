"""From a file's columns to series, each of whose steps knows the row that it came from."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.checks import check_known
from rnncells.forecast.command.arguments import UsageError
from rnncells.forecast.command.reading import Table, read_table
from rnncells.forecast.options import Columns
from rnncells.forecast.origin import Origin
from rnncells.forecast.panel import Panel
from rnncells.forecast.rows import Rows
from rnncells.forecast.spans import offsets_of
from rnncells.forecast.timegrid import DAY, Frequency, infer_frequency

__all__ = ["Source", "read_series"]

HOUR = DAY // 24


@dataclass(frozen=True)
class Source:
    """Series that were read from a file.

    Attributes:
        panel: the series.
        table: the file.
        place: for each row of the panel's buffer the row in the table, -1 where the grid has a step
            that the file lacks.
        time, id: the columns of stamps, and of ids if there is one.
        form: how the stamps are written, None for ISO's way.
        season: its length in steps.
    """

    panel: Panel
    table: Table
    place: Tensor
    time: str
    id: str | None
    form: str | None
    season: int

    def row(self, place: int) -> int:
        """How the row behind a row of the buffer, or behind the last before it, is told."""
        while self.place[place] < 0:
            place -= 1
        return int(self.table.rows[int(self.place[place])])

    def check_length(self, what: str, steps: int) -> None:
        """Check that each series has so many steps.

        Raises:
            ValueError: one has fewer; with its rows.
        """
        panel = self.panel
        short = (panel.lengths < steps).nonzero().flatten().tolist()
        if not short:
            return
        first, last = panel.offsets[short[0]], panel.offsets[short[0] + 1] - 1
        rows = f"row {self.row(int(first))} to row {self.row(int(last))}"
        more = f" (and {len(short) - 1} more such series)" if len(short) > 1 else ""
        raise ValueError(
            f"{self.table.path}: expected at least {what} = {steps} time steps of each series, got "
            f"{int(panel.lengths[short[0]])} of {panel.ids[short[0]]!r}, {rows}{more}"
        )

    def check_values(self) -> None:
        """Check that no value is missing.

        Raises:
            ValueError: one is; with its row.
        """
        gaps = self.panel.values.isnan()
        if gaps.any():
            place, column = gaps.nonzero()[0].tolist()
            raise ValueError(
                f"{self.panel.columns[column]}: expected a value in each row, got none at row "
                f"{self.row(place)} ({int(gaps.sum())} in all); --missing mask marks them for the "
                "network, and `rnncells impute` fills them"
            )


def read_series(options: Namespace, gaps: str, columns: Columns | None = None) -> Source:
    """Read the file that the command line names.

    Args:
        options: what was parsed, see :func:`rnncells.forecast.command.arguments.add_data`.
        gaps: steps that the file lacks are refused (``"error"``) or added (``"mask"``).
        columns: of a model that was loaded: what is not said otherwise.

    Raises:
        OSError, ValueError, ImportError: a file or series that do not do, with the row.
    """
    table = read_table(options.data)
    columns = columns or Columns(tuple(options.target or ["y"]))
    chosen = Columns(
        *(
            tuple(getattr(options, option, None) or known)
            for option, known in (
                ("target", columns.targets),
                ("past", columns.past),
                ("future", columns.future),
                ("static", columns.static_names),
            )
        )
    )
    identity = options.id
    if identity is None and "unique_id" in table.columns:
        identity = "unique_id"
    _check_columns(table, options.time, identity, chosen)
    stamps, kind = table.stamps(options.time, options.time_format)
    ids, codes = ((chosen.targets[0],), None) if identity is None else table.ids(identity)
    rows = Rows.of(ids, codes, stamps, kind.numbers)
    grid, places = _places(rows, table, options, gaps)
    names = (*chosen.targets, *chosen.past, *chosen.future)
    values = torch.column_stack([table.numbers(name) for name in names])
    order = torch.from_numpy(rows.order)
    lengths = [int(each[-1]) + 1 for each in places]
    begins = offsets_of(lengths)
    there = torch.cat([torch.from_numpy(at) + begins[n] for n, at in enumerate(places)])
    place = torch.full((sum(lengths),), -1, dtype=torch.int64)
    place[there] = order
    buffer = values.new_full((sum(lengths), len(names)), torch.nan)
    buffer[there] = values[order]
    panel = Panel(
        buffer,
        begins,
        ids,
        chosen.targets,
        chosen.past,
        chosen.future,
        _static(table, chosen.static_names, rows) if chosen.static_names else None,
        chosen.static_names,
        tuple(int(each[0]) for each in rows.series),
        grid,
        Origin("numpy", "many", zone=kind.zone, dates=kind.dates),
    )
    season = options.season or _season(grid)
    return Source(panel, table, place, options.time, identity, options.time_format, season)


def _check_columns(table: Table, time: str, identity: str | None, chosen: Columns) -> None:
    asked = {
        "--time": [time],
        "--id": [] if identity is None else [identity],
        "--target": chosen.targets,
        "--past": chosen.past,
        "--future": chosen.future,
        "--static": chosen.static_names,
    }
    for option, names in asked.items():
        check_known(option, names, table.columns, "column")
    every = [name for names in asked.values() for name in names]
    for name in every:
        if every.count(name) > 1:
            raise UsageError(f"column {name!r} has two roles; expected one")


def _places(
    rows: Rows, table: Table, options: Namespace, gaps: str
) -> tuple[Frequency, Sequence[Any]]:
    told = replace(rows, order=table.rows[rows.order])  # rows as the file's reader sees them
    try:
        told.refuse_duplicates(options.time)
    except ValueError as error:
        raise ValueError(str(error).replace("id= names", "--id names")) from None
    grid = None if options.freq is None else Frequency.parse(_freq(options.freq))
    grid = grid or infer_frequency(rows.series, rows.numbers)
    if (grid.kind == "number") != rows.numbers:
        raise ValueError(
            f"--freq: expected one that fits the stamps in {options.time!r}, got {options.freq!r}"
        )
    try:
        return grid, told.places(grid, options.time, gaps)
    except ValueError as error:
        words, says, _ = str(error).partition("; say gaps=")
        if not says:
            raise
        advice = "--missing mask takes them as missing values, and `rnncells impute` fills them"
        raise ValueError(f"{words}; {advice}") from None


def _freq(name: str) -> str | int:
    return int(name) if name.isdigit() else name


def _static(table: Table, names: Sequence[str], rows: Rows) -> Tensor:
    """[series, names]."""
    order, codes = torch.from_numpy(rows.order), torch.from_numpy(rows.codes)
    found = []
    for name in names:
        values = table.numbers(name)[order]
        first = values[torch.from_numpy(rows.begins[:-1])]
        other = (values != first[codes]).nonzero().flatten()
        if len(other):
            raise ValueError(
                f"--static: expected one value of {name!r} in each series, got another at row "
                f"{table.rows[rows.order[int(other[0])]]}"
            )
        found.append(first)
    return torch.column_stack(found)


def _season(grid: Frequency) -> int:
    """Steps of the season that series of this frequency are most likely to have."""
    if grid.kind == "business":
        return 5 if grid.count == 1 else 1
    if grid.kind in ("month", "month end"):
        return max(1, 12 // grid.count)
    if grid.kind == "number":
        return 1
    if grid.count >= DAY:
        return {DAY: 7, 7 * DAY: 52}.get(grid.count, 1)
    # an hour of minutes, a day of quarters of an hour and of hours
    return max(1, (HOUR if grid.count < HOUR // 6 else DAY) // grid.count)
