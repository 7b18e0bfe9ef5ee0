"""``rnncells demo``: what the networks do on a real series, at once."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the subcommand to argparse's."""
    what = "train LSTM, GRU and SimpleRNN on a year of weather, against the baselines"
    parser = commands.add_parser("demo", help=what, description=what)
    parser.add_argument(
        "--out",
        default="demo-output",
        metavar="DIR",
        help="folder for the picture and the scores (default: %(default)s)",
    )
    parser.set_defaults(run=run, parser=parser)


def run(options: Namespace) -> None:
    """Run it."""
    from rnncells.forecast.demo import run_demo

    run_demo(options.out)
