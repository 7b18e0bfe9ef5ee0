"""What the benchmarks' command lines have in common."""

import argparse
from pathlib import Path
from typing import Any

import torch

from bench import machine, results
from bench.layers import CELLS, Shape


def make_parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of ``python -m bench.name``, which has ``--out``."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=results.DEFAULT_FOLDER, help="results' folder")
    return parser


def add_cells(parser: argparse.ArgumentParser) -> None:
    """Add ``--cells``, all where none is named."""
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    parser.add_argument("--threads", type=int, default=1, help="threads of torch's pool (1)")


def add_grid(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, ``--shapes``, None where none is named, and ``--cells``."""
    add_threads(parser)
    parser.add_argument(
        "--shapes", nargs="+", type=Shape.parse, metavar="T,B,I,H", help="instead of the grid"
    )
    add_cells(parser)


def start(threads: int) -> dict[str, Any]:
    """Set the threads of torch's pool; return the facts of the machine, and print them."""
    torch.set_num_threads(threads)
    facts = machine.facts()
    print(machine.describe(facts), flush=True)
    return facts
