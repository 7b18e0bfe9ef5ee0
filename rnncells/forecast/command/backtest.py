"""``rnncells backtest``: one network on steps that are held out, beside the baselines."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from rnncells.forecast.command import fitting
from rnncells.forecast.command.arguments import (
    add_command,
    add_data,
    add_levels,
    add_network,
    add_output,
    add_test,
)
from rnncells.forecast.command.pictures import draw_trial
from rnncells.forecast.command.scoring import Trial, baselines, test_steps
from rnncells.forecast.command.series import read_series
from rnncells.forecast.command.writing import check_outputs, warn, write_json, write_rows
from rnncells.forecast.extras import require
from rnncells.forecast.heads import PointHead

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the subcommand to argparse's."""
    parser = add_command(
        commands,
        "backtest",
        "forecast the end of each series from many cut-offs, beside the baselines",
        run,
    )
    add_data(parser)
    add_network(parser)
    add_test(parser)
    add_levels(parser)
    parser.add_argument(
        "--load", metavar="DIR", help="take this model as it is (it must not have seen the test)"
    )
    add_output(
        parser,
        "CSV of the scores by steps ahead",
        "a picture of the errors by steps ahead and of what is left over",
    )


def run(options: Namespace) -> None:
    """Run it."""
    check_outputs(options.out, options.plot)
    if options.plot:
        require("matplotlib")
    if options.load:
        loaded = fitting.load(options)
        given = loaded.fitted.options.get_params()
    else:
        loaded, given = None, fitting.told(options)
    columns = None if loaded is None else loaded.fitted.columns
    source = read_series(options, "mask" if given.get("missing") == "mask" else "error", columns)
    panel, begin = source.panel, time.perf_counter()
    test = test_steps(options.test, panel, given["horizon"])
    source.check_length("horizon + test", given["horizon"] + test)
    train = panel.cut(stop=-test)
    if loaded is None:
        model = fitting.fit(given, source, train)
    else:
        model = loaded
        source.check_length("context + horizon", given["context"] + given["horizon"])
        if given["missing"] == "error":
            source.check_values()
    fitted = model.fitted
    windows = fitted.backtest(fitted.read(panel), start=-test, stride=options.step)
    levels = options.levels or (None if isinstance(fitted.head, PointHead) else [80])
    forecast, bounds = fitted.forecast(windows, levels)
    trial = Trial(panel, windows, train, source.season, None if levels is None else levels[0])
    trial.add(name_of(given), forecast, bounds, seconds=time.perf_counter() - begin)
    for name, found in baselines(trial.past(), windows.horizon, source.season).items():
        trial.add(name, found)
    if source.season > windows.context:
        warn(f"a season of {source.season} steps is longer than the context: no seasonal naive")
    if options.plot:
        draw_trial(options.plot, trial, model.history)
    if options.out:
        write_rows(*trial.rows(), options.out)
    if options.json:
        write_json({**fitting.describe(model, source), "test": test, **trial.record()})
    else:
        print(trial.table())


def name_of(given: dict[str, Any]) -> str:
    """A network's name in a table."""
    model = given.get("model", "recurrent")
    return str(given.get("cell", "gru") if model == "recurrent" else model)
