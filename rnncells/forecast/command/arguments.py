"""What the commands are told: of the file, of the network, and of where results go."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_args

from rnncells.forecast.heads import QuantileHead
from rnncells.forecast.models import MODELS
from rnncells.forecast.networks import Cell
from rnncells.forecast.options import HEADS, Mode, Options
from rnncells.forecast.scaler import SCALERS
from rnncells.forecast.window_scaler import Kind

__all__ = [
    "EPILOG",
    "UsageError",
    "add_command",
    "add_data",
    "add_levels",
    "add_network",
    "add_output",
    "add_scaling",
    "add_sizes",
    "add_test",
    "head_for",
    "parameters",
    "positive",
    "words",
]

EPILOG = """exit status:
  0    fine
  1    the data, a file or a package does not do: one line on stderr says what, and in which row
  2    wrong use: an unknown option, or one that does not fit the others
  130  interrupted

Results go to stdout, all else to stderr, and progress is shown in a terminal alone. Rows of a CSV
file are told by their line (the head is row 1), those of a Parquet file are counted from 0."""

Parser = argparse.ArgumentParser


class UsageError(Exception):
    """Options that do not fit each other."""


def add_command(commands: Any, name: str, what: str, run: Callable[..., None]) -> Parser:
    """A subcommand's parser; what it runs is given what was parsed."""
    parser: Parser = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def words(text: str) -> list[str]:
    """Names with commas between them."""
    found = [word.strip() for word in text.split(",")]
    if not all(found) or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"expected names, each once, as in a,b, got {text!r}")
    return found


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def _sizes(text: str) -> int | tuple[int, ...]:
    sizes = tuple(positive(part.strip()) for part in text.split(","))
    return sizes[0] if len(sizes) == 1 else sizes


def _levels(text: str) -> list[float]:
    try:
        levels = sorted({float(part) for part in text.split(",")})
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 100 for level in levels):
        raise argparse.ArgumentTypeError(
            f"expected per cent between 0 and 100, as in 80,95, got {text!r}"
        )
    return [int(level) if level == int(level) else level for level in levels]


def _patience(text: str) -> int | None:
    return None if text == "none" else positive(text)


def add_data(parser: Parser, *, covariates: bool = True) -> None:
    """The file and its columns."""
    parser.add_argument("data", help="a CSV or Parquet file (.gz too), or - for CSV on stdin")
    group = parser.add_argument_group("the file's columns")
    group.add_argument("--time", default="ds", metavar="COLUMN", help="of stamps (default: ds)")
    group.add_argument(
        "--time-format", metavar="FORMAT", help="of the stamps, as %%m/%%d/%%Y; by default ISO 8601"
    )
    group.add_argument(
        "--target", type=words, metavar="COLUMNS", help="to forecast, one or a,b (default: y)"
    )
    group.add_argument(
        "--id", metavar="COLUMN", help="tells series apart (default: unique_id, where it is there)"
    )
    if covariates:
        for role, what in (
            ("past", "known up to now"),
            ("future", "known ahead too"),
            ("static", "the same in all of a series' rows"),
        ):
            group.add_argument(f"--{role}", type=words, metavar="COLUMNS", help=what)
    group.add_argument(
        "--freq", metavar="FREQ", help="h, 15min, D, B, W, MS, ...; by default as most stamps are"
    )
    group.add_argument(
        "--season", type=positive, metavar="STEPS", help="by default the frequency's: 24 for h"
    )


def add_sizes(parser: Parser, *, horizon: bool = True) -> Any:
    """How far is looked, and how the training goes: what all networks are told."""
    group: Any = parser.add_argument_group("the network and its training")
    group = _Group(group)
    if horizon:
        group.add("--horizon", type=positive, metavar="STEPS", help="steps to forecast")
    group.add(
        "--context",
        type=positive,
        metavar="STEPS",
        help="steps that it sees; by default two seasons or horizons, or what the series allow",
    )
    group.add("--hidden-size", type=_sizes, metavar="UNITS", help="of each layer, or 64,32")
    group.add("--num-layers", type=positive, metavar="N", help="where one size is given")
    group.add("--dropout", type=float, metavar="SHARE", help="of units, in training")
    group.add("--epochs", type=positive, metavar="N", help="at most")
    group.add("--batch-size", type=positive, metavar="WINDOWS", help="a step of training")
    group.add("--learning-rate", type=float, metavar="RATE")
    group.add("--patience", type=_patience, metavar="EPOCHS", help="without gain, or none")
    group.add("--stride", type=positive, metavar="STEPS", help="between training windows")
    group.add("--seed", type=int, metavar="N")
    return group


def add_network(parser: Parser) -> None:
    """All that may be said of a forecaster, under its names; :func:`parameters` reads it."""
    group = add_sizes(parser)
    group.add("--model", choices=_hyphens(MODELS), help="%(choices)s", metavar="NAME")
    group.add("--cell", choices=get_args(Cell), metavar="NAME", help="%(choices)s")
    group.add("--mode", choices=_hyphens(get_args(Mode)), metavar="NAME", help="%(choices)s")
    group.add("--head", choices=_hyphens(HEADS), metavar="NAME", help="%(choices)s")
    add_scaling(group)


def add_scaling(group: Any) -> None:
    """How values are scaled, made and left out."""
    scalers = [*SCALERS, *(f"window {kind}" for kind in get_args(Kind)), "none"]
    group.add("--scaler", choices=_hyphens(scalers), metavar="NAME", help="%(choices)s")
    group.add("--calendar", type=words, metavar="FEATURES", help="hour,day_of_week,month,...")
    group.add(
        "--missing",
        choices=("error", "mask"),
        help="empty cells and gaps in time are refused (default), or masked",
    )


class _Group:
    """A group of options of which only those come back that were given: the rest is the
    forecaster's own to say."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def add(self, name: str, **options: Any) -> None:
        default = getattr(Options(), name[2:].replace("-", "_"), None)
        if name not in ("--context", "--horizon", "--model", "--mode", "--calendar", "--missing"):
            options["help"] = f"{options.get('help', '')} (default: {default})".strip()
        elif name == "--model":
            options["help"] += f" (default: {default})"
        self._group.add_argument(name, default=argparse.SUPPRESS, **options)


def add_levels(parser: Parser, default: list[float] | None = None) -> None:
    """The intervals."""
    shown = "none" if default is None else ",".join(f"{level:g}" for level in default)
    parser.add_argument(
        "--levels",
        type=_levels,
        default=default,
        metavar="PERCENT",
        help=f"central intervals, as 80,95 (default: {shown})",
    )


def add_test(parser: Parser) -> None:
    """What is held out, and how often it is forecast."""
    group = parser.add_argument_group("the test")
    group.add_argument(
        "--test",
        type=positive,
        metavar="STEPS",
        help="held out at the end of each series (default: a fifth of the shortest)",
    )
    group.add_argument(
        "--step", type=positive, default=1, metavar="STEPS", help="between cut-offs (default: 1)"
    )


def add_output(parser: Parser, out: str, plot: str | None) -> None:
    """Where results go."""
    group = parser.add_argument_group("results")
    group.add_argument("--json", action="store_true", help="on stdout, for programs")
    group.add_argument("--out", metavar="FILE", help=out)
    if plot is not None:
        group.add_argument("--plot", metavar="FILE", help=plot)


def parameters(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of a forecaster's parameters."""
    known = Options().get_params()
    found = {name: value for name, value in vars(options).items() if name in known}
    for name in ("model", "mode", "head", "scaler"):
        if name in found:
            found[name] = None if found[name] == "none" else found[name].replace("-", " ")
    return found


def head_for(head: Any, levels: list[float] | None) -> Any:
    """The head, with further quantiles where these levels need them.

    Raises:
        UsageError: a head that tells no intervals.
    """
    if levels is None:
        return head
    if head == "point":
        raise UsageError("--levels: head 'point' tells no intervals; quantile does")
    plain = QuantileHead().quantile_levels
    low = [round((1 - level / 100) / 2, 9) for level in levels]
    if head != "quantile" or min(low) >= plain[0]:
        return head
    return QuantileHead(tuple(sorted({*plain, *low, *(round(1 - share, 9) for share in low)})))


def _hyphens(names: Any) -> list[str]:
    return [name.replace(" ", "-") for name in names]
