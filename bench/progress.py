"""A progress bar in a terminal; silence in a pipe."""

import sys
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import TypeVar

Item = TypeVar("Item")
BAR_WIDTH = 24


def with_progress(items: Sequence[Item], label: Callable[[Item], str]) -> Iterator[Item]:
    """Yield the items, and show which one is under way, how many are done and the time left."""
    start, shown = monotonic(), sys.stderr.isatty()
    for done, item in enumerate(items):
        if shown:
            filled = BAR_WIDTH * done // len(items)
            left = (
                f"{(monotonic() - start) / done * (len(items) - done):.0f} s left" if done else ""
            )
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            text = f"\r\033[K[{bar}] {done}/{len(items)} {label(item)}  {left}"
            print(text, end="", file=sys.stderr, flush=True)
        yield item
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
