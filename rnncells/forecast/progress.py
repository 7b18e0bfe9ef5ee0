"""A progress bar for people: shown in a terminal, silent in a pipe, a file or a test."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from rnncells.forecast.extras import require

__all__ = ["Progress"]


class Progress:
    """A bar on stderr, as a context manager; where stderr is no terminal it does nothing.

    Args:
        label: what is going on.
        total: steps to the end.
        done: steps that were done before.
        show: with ``False`` it does nothing in a terminal too, as in all processes but one.
    """

    def __init__(self, label: str, total: int, done: int = 0, *, show: bool = True) -> None:
        self._bar: Any = None
        if show and sys.stderr is not None and sys.stderr.isatty():
            self._bar = require("tqdm").tqdm(
                total=total,
                initial=done,
                desc=label,
                leave=False,
                file=sys.stderr,
                mininterval=0,
            )

    def step(self, note: str) -> None:
        """One step done; ``note`` stands at the end of the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
