"""The demo from its series to its files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import torch

from rnncells.forecast.datasets import load_laguardia
from rnncells.forecast.demo.compare import Comparison
from rnncells.forecast.demo.report import describe, draw, summarise, write_numbers
from rnncells.forecast.demo.task import DemoSettings, Task
from rnncells.forecast.extras import require

__all__ = ["run_demo"]


@contextmanager
def _one_thread() -> Iterator[None]:
    # the order of sums, and so the last digits, then depend on no machine's number of cores; and
    # steps this small gain little from threads and lose much where a core is busy elsewhere
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_demo(out: str | PathLike[str], settings: DemoSettings | None = None) -> Comparison:
    """Train, score, print the table, and write picture, table and numbers into ``out``.

    It trains in one thread, and the same numbers come out on each run, seconds aside.

    Raises:
        ImportError: lightning-fabric or matplotlib is not installed.
        OSError: ``out`` cannot be made or written to.
    """
    begin = time.perf_counter()
    for module in ("lightning_fabric", "matplotlib"):  # told now, not after a minute of training
        require(module)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    task = Task(load_laguardia(), settings or DemoSettings())
    text = describe(task)
    print(text, end="\n\n", flush=True)
    comparison = Comparison(task)
    with _one_thread():
        comparison.run_baselines()
        comparison.run_networks()
        write_numbers(comparison, folder / "scores.json")
    summary = summarise(comparison)
    print(summary, end="\n\n")
    (folder / "scores.txt").write_text(f"{text}\n\n{summary}\n", encoding="utf-8")
    draw(comparison, folder / "forecast.png")
    print(f"Done in {time.perf_counter() - begin:.0f} s. The picture: {folder / 'forecast.png'}")
    print(f"The table: {folder / 'scores.txt'}, {folder / 'scores.json'}")
    return comparison
