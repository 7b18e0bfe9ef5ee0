"""``python -m rnncells.forecast demo``: forecasting from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m rnncells.forecast", description="Time-series forecasting on rnncells."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="train LSTM, GRU and SimpleRNN on a year of weather, against the baselines"
    )
    demo.add_argument(
        "--out",
        default="demo-output",
        metavar="DIR",
        help="folder for the picture and the scores (default: %(default)s)",
    )
    options = parser.parse_args(arguments)

    from rnncells.forecast.demo import run_demo

    try:
        run_demo(options.out)
    except (ImportError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
