"""``rnncells forecast``: a file's series, and what comes after them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.ahead import stamps_ahead
from rnncells.forecast.calendar import is_calendar
from rnncells.forecast.checks import check_known
from rnncells.forecast.command import fitting
from rnncells.forecast.command.arguments import (
    UsageError,
    add_command,
    add_data,
    add_levels,
    add_network,
    add_output,
)
from rnncells.forecast.command.pictures import draw_forecast
from rnncells.forecast.command.reading import Table, read_table
from rnncells.forecast.command.series import Source, read_series
from rnncells.forecast.command.writing import (
    check_outputs,
    say,
    stamp_texts,
    write_json,
    write_rows,
)
from rnncells.forecast.extras import require
from rnncells.forecast.forecaster import Forecaster
from rnncells.forecast.plot import look
from rnncells.forecast.rows import index_rows

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the subcommand to argparse's."""
    parser = add_command(
        commands, "forecast", "fit a network to a file's series, and forecast what follows", run
    )
    add_data(parser)
    parser.add_argument(
        "--ahead", metavar="FILE", help="the --future columns of the steps to forecast"
    )
    add_network(parser)
    add_levels(parser)
    group = parser.add_argument_group("a fitted model")
    group.add_argument("--save", metavar="DIR", help="keep it, without any data")
    group.add_argument("--load", metavar="DIR", help="forecast with it, without fitting")
    group.add_argument(
        "--unseen",
        choices=("error", "scale"),
        default="error",
        help="series that a loaded model never saw are refused (default), or scaled by themselves",
    )
    add_output(
        parser,
        "CSV of the forecasts, in place of stdout",
        "a picture of the forecasts and of the training",
    )
    parser.add_argument(
        "--look", metavar="FILE", help="a picture of the first series before any network"
    )


def run(options: Namespace) -> None:
    """Run it."""
    check_outputs(options.out, options.plot, options.look, folder=options.save)
    if options.plot or options.look:
        require("matplotlib")
    if options.load:
        loaded = fitting.load(options, "horizon")
        given = loaded.fitted.options.get_params()
    else:
        loaded, given = None, fitting.told(options)
    columns = None if loaded is None else loaded.fitted.columns
    gaps = "mask" if given.get("missing") == "mask" else "error"
    source = read_series(options, gaps, columns)
    if options.look:
        _look(source, options.look)
    steps = given["horizon"]
    if given.get("mode") == "recursive":
        steps = getattr(options, "horizon", steps)
    future = _future(source, steps, options.ahead)
    if loaded is None:
        model = fitting.fit(given, source)
    else:
        model = loaded
        source.check_length("context", given["context"])
        if given["missing"] == "error":
            source.check_values()
    if options.save:
        model.save(options.save)
        say(f"the model: {options.save}")
    found = _predict(model, source, future, options)
    if options.plot:
        draw_forecast(options.plot, source, found, model.history)
    _write(model, source, found, options)


def _predict(
    model: Forecaster, source: Source, future: Any, options: Namespace
) -> dict[str, Tensor]:
    """Forecasts and bounds by their names, [series, horizon, targets]."""
    horizon = getattr(options, "horizon", None)
    found = model.predict(
        source.panel, horizon, options.levels, future=future, unseen=options.unseen
    )
    found = {"y_hat": found} if options.levels is None else found
    return {name: torch.as_tensor(part) for name, part in found.items()}


def _future(source: Source, steps: int, path: str | None) -> Any:
    """[series, steps, columns] of what is known ahead."""
    names = [name for name in source.panel.future if not is_calendar(name)]
    if not names:
        return None
    if path is None:
        raise UsageError(
            f"--ahead: expected a file with {', '.join(names)} for the next {steps} steps"
        )
    table = read_table(path)
    ticks = _ticks(table, source, names)
    values = torch.column_stack([table.numbers(name) for name in names])
    chosen = []
    for one, stamps in zip(source.panel.ids, stamps_ahead(source.panel, steps), strict=True):
        texts = stamp_texts(source, stamps)
        for text, tick in zip(texts, stamps.astype("int64").tolist(), strict=True):
            key = (one if source.id is not None else None, tick)
            if key not in ticks or values[ticks[key]].isnan().any():
                of = f" of {one!r}" if source.id is not None else ""
                raise ValueError(
                    f"{path}: expected {', '.join(names)} of each of the next {steps} steps{of}, "
                    f"got none for {text}"
                )
            chosen.append(ticks[key])
    return values[chosen].unflatten(0, (len(source.panel), steps))


def _ticks(table: Table, source: Source, names: list[str]) -> Mapping[tuple[Any, int], int]:
    """Each row by its id and its stamp."""
    wanted = [source.time, *([] if source.id is None else [source.id]), *names]
    check_known("--ahead", wanted, table.columns, "column")
    stamps, kind = table.stamps(source.time, source.form)
    ids, codes = ((None,), [0] * len(stamps)) if source.id is None else table.ids(source.id)
    shown = stamps if kind.numbers else stamps.view("M8[us]")
    return index_rows([ids[code] for code in codes], shown, table.rows, f"--ahead: {source.time}")


def _write(model: Forecaster, source: Source, found: dict[str, Tensor], options: Namespace) -> None:
    panel, horizon = source.panel, found["y_hat"].shape[1]
    head = [*([] if source.id is None else [source.id]), source.time]
    columns = []
    for number, target in enumerate(panel.targets):
        named = "y_hat" if len(panel.targets) == 1 else f"y_hat_{target}"
        for name, part in found.items():
            head.append(named + name.removeprefix("y_hat"))
            columns.append(part[:, :, number].double().tolist())
    rows = []
    for number, (one, stamps) in enumerate(
        zip(panel.ids, stamps_ahead(panel, horizon), strict=True)
    ):
        for step, text in enumerate(stamp_texts(source, stamps)):
            key = [text] if source.id is None else [one, text]
            rows.append([*key, *(column[number][step] for column in columns)])
    if options.out or not options.json:
        write_rows(head, rows, options.out)
    if options.json:
        records = [dict(zip(head, row, strict=True)) for row in rows]
        write_json({**fitting.describe(model, source), "forecast": records})


def _look(source: Source, path: str) -> None:
    panel = source.panel
    stamps = panel.stamps()
    times = panel.times() if stamps.dtype.kind == "M" else stamps.tolist()
    series = panel.series(panel.ids[0])[:, 0]
    season = source.season if len(series) > source.season + 1 else 1
    name = f"{panel.targets[0]} of {panel.ids[0]}" if source.id else panel.targets[0]
    look(path, times, series, season, name=str(name))
