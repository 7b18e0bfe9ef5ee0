"""From words on the command line to an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rnncells.forecast.command import backtest, demo, forecast, impute, leaderboard
from rnncells.forecast.command.arguments import EPILOG, UsageError

__all__ = ["main"]

COMMANDS = (forecast, backtest, impute, leaderboard, demo)
TOLD = (ValueError, OSError, ImportError, FloatingPointError, NotImplementedError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after the program's name, by default those of this process.

    Returns:
        The exit status: 0, or 1 where the data, a file or a package does not do, with one line
        on stderr.

    Raises:
        SystemExit: 2 for a wrong use, after a line on stderr; 0 after ``--help``.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except UsageError as error:
        options.parser.error(str(error))
    except BrokenPipeError:  # whoever read along, as head does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _fail(options, "interrupted", 130)
    except TOLD as error:
        return _fail(options, _words(error), 1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnncells",
        description="Time-series forecasting on fused recurrent layers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _version() -> str:
    from rnncells import __version__

    return f"rnncells {__version__}"


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(options: argparse.Namespace, words: str, status: int) -> int:
    print(f"{options.parser.prog}: {words}", file=sys.stderr)
    return status
