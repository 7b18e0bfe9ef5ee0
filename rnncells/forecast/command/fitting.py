"""A forecaster as the command line asks for it, fitted on a file's series or loaded."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from rnncells.forecast.command.arguments import UsageError, head_for, parameters
from rnncells.forecast.command.series import Source
from rnncells.forecast.command.writing import say
from rnncells.forecast.forecaster import Forecaster
from rnncells.forecast.panel import Panel

__all__ = ["checked", "describe", "fit", "load", "told"]


def load(options: Namespace, *beside: str) -> Forecaster:
    """The forecaster of ``--load``.

    Args:
        options: what was parsed.
        beside: parameters that may be given with it.

    Raises:
        UsageError: parameters beside it, which belong to fitting.
        OSError, ValueError: its files.
    """
    given = sorted(set(parameters(options)) - set(beside))
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')}: belongs to fitting, and --load brings a model that "
            "was fitted"
        )
    return Forecaster.load(options.load)


def told(options: Namespace) -> dict[str, Any]:
    """The parameters that were given, the head wide enough for the levels.

    Raises:
        UsageError: no horizon, or parameters that are not allowed.
    """
    given = parameters(options)
    if "horizon" not in given:
        raise UsageError("the following arguments are required: --horizon")
    head = head_for(given.get("head", "quantile"), options.levels)
    if head != "quantile":
        given["head"] = head
    checked({"context": 1, **given})
    return given


def checked(given: dict[str, Any]) -> Forecaster:
    """A forecaster with these parameters.

    Raises:
        UsageError: they are not allowed.
    """
    try:
        model = Forecaster(**given)
        model.check()
        model.make_training()
    except (TypeError, ValueError) as error:
        name, _, words = str(error).partition(": ")
        raise UsageError(f"--{name.replace('_', '-')}: {words}") from None
    return model


def fit(given: dict[str, Any], source: Source, panel: Panel | None = None) -> Forecaster:
    """Fit on the file's series, or on this part of them.

    Raises:
        ValueError: series that are too short, or with missing values that nobody asked to mask.
        FloatingPointError: the training diverged.
    """
    panel = source.panel if panel is None else panel
    if given.get("missing", "error") == "error":
        source.check_values()
    horizon = given["horizon"]
    if "context" not in given:
        given = {**given, "context": _context(horizon, source.season, int(panel.lengths.min()))}
    held = int(source.panel.lengths.min()) - int(panel.lengths.min())
    what = "context + horizon" + (" + test" if held else "")
    source.check_length(what, given["context"] + horizon + held)
    say(f"fitting {len(panel)} series of {int(panel.lengths.sum())} steps, {_sizes(given)}")
    return checked(given).fit(panel)


def _context(horizon: int, season: int, shortest: int) -> int:
    """Two seasons or horizons, unless the shortest series then has too little to learn from."""
    return max(1, min(2 * max(season, horizon), shortest - 2 * horizon))


def _sizes(given: dict[str, Any]) -> str:
    return f"context {given['context']}, horizon {given['horizon']}"


def describe(model: Forecaster, source: Source) -> dict[str, Any]:
    """What a result depends on, for JSON."""
    fitted, history = model.fitted, model.history
    return {
        "data": source.table.path,
        "series": len(source.panel),
        "frequency": fitted.frequency,
        "season": source.season,
        "columns": vars(fitted.columns),
        "parameters": fitted.options.get_params(),
        "training": None if history is None else vars(history),
    }
