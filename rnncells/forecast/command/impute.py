"""``rnncells impute``: a file's gaps filled, each filled value marked."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, get_args

from torch import Tensor

from rnncells.forecast.command import fitting
from rnncells.forecast.command.arguments import (
    UsageError,
    add_command,
    add_data,
    add_output,
    add_sizes,
    parameters,
)
from rnncells.forecast.command.filling import Filled, fill
from rnncells.forecast.command.series import Source, read_series
from rnncells.forecast.command.writing import (
    check_outputs,
    say,
    stamp_texts,
    warn,
    write_json,
    write_rows,
)
from rnncells.forecast.networks import Cell

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the subcommand to argparse's."""
    parser = add_command(
        commands,
        "impute",
        "fill missing values and steps by a network that reads each series from both sides",
        run,
    )
    add_data(parser, covariates=False)
    group = add_sizes(parser, horizon=False)
    group.add("--cell", choices=get_args(Cell), metavar="NAME", help="%(choices)s")
    add_output(
        parser,
        "CSV of the filled file, in place of stdout; y_filled holds 1 where y was filled",
        None,
    )


def run(options: Namespace) -> None:
    """Run it."""
    check_outputs(options.out)
    given = parameters(options)
    model = fitting.checked({"context": 1, **given})
    source = read_series(options, "mask")
    panel = source.panel
    marks = [f"{target}_filled" for target in panel.targets]
    there = [name for name in marks if name in source.table.columns]
    if there:
        raise UsageError(f"--target: the file has a column {there[0]!r}, which marks would take")
    missing = panel.values.isnan()
    found = None
    if missing.any():
        found = fill(panel, model, given.get("context"), given.get("stride"), source.season)
        _tell(found, int(missing.sum()))
    else:
        say("nothing is missing")
    values = panel.values if found is None else found.values
    if options.out or not options.json:
        write_rows([*source.table.columns, *marks], _rows(source, values, missing), options.out)
    if options.json:
        write_json(_record(source, values, missing, found))


def _tell(found: Filled, missing: int) -> None:
    say(f"{missing} values filled")
    if found.error is None or found.interpolated is None:
        return
    if found.error > found.interpolated:
        warn(
            f"the straight line between neighbours finds hidden values better "
            f"({found.interpolated:.3g} standard deviations off, the network {found.error:.3g}): "
            "more --epochs or another --context may help"
        )
    else:
        say(
            f"values that were hidden at the series' ends were found again to {found.error:.3g} "
            f"standard deviations; by the straight line to {found.interpolated:.3g}"
        )


def _rows(source: Source, values: Tensor, missing: Tensor) -> list[list[Any]]:
    """The file's rows by series and time, with those that it lacked."""
    panel, table = source.panel, source.table
    cells = {name: table.texts(name) for name in table.columns}
    columns = {target: number for number, target in enumerate(panel.targets)}
    places, marks = source.place.tolist(), missing.long().tolist()
    numbers = values.tolist()
    rows = []
    for place, (one, stamp) in enumerate(_keys(source)):
        row = places[place]
        key = {source.time: stamp} | ({} if source.id is None else {source.id: one})
        line: list[Any] = []
        for name in table.columns:
            number = columns.get(name)
            if number is not None and (row < 0 or marks[place][number]):
                line.append(numbers[place][number])
            else:
                line.append(cells[name][row] if row >= 0 else key.get(name, ""))
        rows.append([*line, *marks[place]])
    return rows


def _keys(source: Source) -> list[tuple[Any, str]]:
    """The id and the stamp of each row of the buffer."""
    panel = source.panel
    return [(one, text) for one in panel.ids for text in stamp_texts(source, panel.stamps(one))]


def _record(
    source: Source, values: Tensor, missing: Tensor, found: Filled | None
) -> dict[str, Any]:
    keys, panel = _keys(source), source.panel
    filled = []
    for place, column in missing.nonzero().tolist():
        one, stamp = keys[place]
        key = {source.time: stamp} if source.id is None else {source.id: one, source.time: stamp}
        value = values[place, column].item()
        filled.append({**key, "column": panel.targets[column], "value": value})
    return {
        "data": source.table.path,
        "frequency": panel.grid()[0].name,
        "rows_added": int((source.place < 0).sum()),
        "error": None if found is None else found.error,
        "error_of_straight_line": None if found is None else found.interpolated,
        "filled": filled,
    }
