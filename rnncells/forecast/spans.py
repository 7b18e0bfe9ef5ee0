"""Where series begin in one buffer, and spans of time steps in each."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

__all__ = ["Span", "offsets_of", "spans_of"]

Span = int | Sequence[int]


def offsets_of(lengths: Sequence[int]) -> Tensor:
    """[series] -> [series + 1], int64: where each series begins in the buffer, and the end."""
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def spans_of(lengths: Tensor, start: Span, stop: Span | None) -> list[tuple[int, int]]:
    """For each series the first step of a span, and the step after its last.

    Args:
        lengths: steps of each series, [series].
        start, stop: one step for all series, or one for each; below 0 from the series' end; steps
            past the end are at the end, and so is a ``stop`` of None.

    Raises:
        TypeError: something that is no step.
        ValueError: not one step for each series.
    """
    size: list[int] = lengths.tolist()
    first = _each("start", start, size)
    last = size if stop is None else _each("stop", stop, size)
    return list(zip(first, last, strict=True))


def _each(name: str, steps: Span, size: list[int]) -> list[int]:
    several: Any = steps.tolist() if hasattr(steps, "tolist") else steps
    try:
        one = not isinstance(several, list | tuple)
        given = [index(several)] * len(size) if one else [index(step) for step in several]
    except TypeError:
        raise TypeError(
            f"{name}: expected a time step or one for each series (panel.steps_at(stamp) gives "
            f"those at a date), got {steps!r}"
        ) from None
    if len(given) != len(size):
        raise ValueError(
            f"{name}: expected one step for each of {len(size)} series, got {len(given)}"
        )
    return [max(0, n + at) if at < 0 else min(n, at) for n, at in zip(size, given, strict=True)]
