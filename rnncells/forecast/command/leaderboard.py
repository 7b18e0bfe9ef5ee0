"""``rnncells leaderboard``: every network and baseline on the same held-out steps of a file."""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from rnncells.forecast.command import fitting
from rnncells.forecast.command.arguments import (
    UsageError,
    add_command,
    add_data,
    add_levels,
    add_output,
    add_scaling,
    add_sizes,
    add_test,
    words,
)
from rnncells.forecast.command.least_squares import least_squares
from rnncells.forecast.command.pictures import draw_errors
from rnncells.forecast.command.scoring import Trial, baselines, test_steps
from rnncells.forecast.command.series import Source, read_series
from rnncells.forecast.command.writing import check_outputs, say, warn, write_json, write_rows
from rnncells.forecast.extras import require
from rnncells.forecast.panel import Panel

__all__ = ["NETWORKS", "add"]

NETWORKS: dict[str, dict[str, Any]] = {
    "simple-rnn": {"cell": "simple_rnn"},
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "conv-recurrent": {"model": "conv recurrent"},
    "wavenet": {"model": "wavenet"},
    "encoder-decoder": {"model": "encoder decoder"},
    "vector-to-sequence": {"model": "vector to sequence"},
    "dense": {"model": "dense"},
    "linear": {"model": "linear"},
}


def add(commands: Any) -> None:
    """Add the subcommand to argparse's."""
    parser = add_command(
        commands,
        "leaderboard",
        "put every network and baseline side by side on the end of each series",
        run,
    )
    add_data(parser)
    group = add_sizes(parser)
    add_scaling(group)
    parser.add_argument(
        "--models",
        type=words,
        default=list(NETWORKS),
        metavar="NAMES",
        help=f"the networks, by default all: {','.join(NETWORKS)}",
    )
    add_test(parser)
    add_levels(parser, [80])
    add_output(parser, "CSV of the scores by steps ahead", "a picture of the errors by steps ahead")


def run(options: Namespace) -> None:
    """Run it."""
    unknown = [name for name in options.models if name not in NETWORKS]
    if unknown:
        raise UsageError(f"--models: expected some of {', '.join(NETWORKS)}, got {unknown[0]!r}")
    check_outputs(options.out, options.plot)
    if options.plot:
        require("matplotlib")
    given = fitting.told(options)
    for name in options.models:
        fitting.checked({"context": 1, **_parameters(name, given)})
    source = read_series(options, given.get("missing", "error"))
    test = test_steps(options.test, source.panel, given["horizon"])
    source.check_length("horizon + test", given["horizon"] + test)
    train = source.panel.cut(stop=-test)
    trial = None
    for name, model, seconds in _fitted(options.models, given, source, train):
        begin, fitted = time.perf_counter(), model.fitted
        windows = fitted.backtest(source.panel, start=-test, stride=options.step)
        if trial is None:
            trial = Trial(source.panel, windows, train, source.season, options.levels[0])
        forecast, bounds = fitted.forecast(windows, options.levels)
        trial.add(name, forecast, bounds, seconds=seconds + time.perf_counter() - begin)
        say(f"{name}: {trial.scores[-1].seconds:.1f} s")
    if trial is None:
        raise FloatingPointError("no network could be trained")
    _baselines(trial, model.fitted, train)
    trial.scores.sort(key=_rank)
    if options.plot:
        draw_errors(options.plot, trial)
    if options.out:
        write_rows(*trial.rows(), options.out)
    if options.json:
        write_json({**fitting.describe(model, source), "test": test, **trial.record()})
    else:
        print(trial.table())


def _parameters(name: str, given: dict[str, Any]) -> dict[str, Any]:
    found = {**given, **NETWORKS[name]}
    if found.get("model") in ("wavenet", "linear"):
        found.pop("dropout", None)
    if found.get("model") == "wavenet":
        found.pop("num_layers", None)
    return found


def _fitted(
    names: list[str], given: dict[str, Any], source: Source, train: Panel
) -> Iterator[tuple[str, Any, float]]:
    for name in names:
        begin = time.perf_counter()
        try:
            model = fitting.fit(_parameters(name, given), source, train)
        except FloatingPointError as error:
            warn(f"{name} is left out: {error}")
            continue
        yield name, model, time.perf_counter() - begin


def _baselines(trial: Trial, fitted: Any, train: Panel) -> None:
    begin = time.perf_counter()
    found = least_squares(fitted, train, trial.windows)
    if found is None:
        warn("least squares is left out: no training window is without missing values")
    else:
        trial.add("least squares", found, seconds=time.perf_counter() - begin)
    for name, forecast in baselines(trial.past(), trial.windows.horizon, trial.season).items():
        trial.add(name, forecast)


def _rank(score: Any) -> tuple[str, float]:
    value = score.scores["mase"] if score.scores["mase"] is not None else score.scores["mae"]
    return score.target, math.inf if value is None or math.isnan(value) else value
