"""A picture on a file, without a screen, and what all its parts share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from os import PathLike
from typing import Any

from rnncells.forecast.extras import require

__all__ = ["COLOURS", "colours_of", "dated", "finish", "picture"]

# Okabe and Ito's palette: told apart by readers who do not see all colours
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """One colour for each label, so that a model looks the same in each part of a picture."""
    return dict(zip(labels, cycle(COLOURS), strict=False))


@contextmanager
def picture(path: str | PathLike[str], rows: Sequence[float]) -> Iterator[list[Any]]:
    """Axes below each other, of these heights in inches; written to ``path`` (PNG) at the end.

    It goes round pyplot, so that no window opens and no state of the caller's figures changes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = require("matplotlib.figure").Figure(figsize=(11, sum(rows)), layout="constrained")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": list(rows)})
    yield list(axes[:, 0])
    figure.savefig(path, format="png", dpi=120)


def finish(axes: Any, title: str, unit: str, columns: int = 1) -> None:
    """Title, unit, grid, and a legend where anything has a label."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9, ncols=columns)


def dated(axes: Any, times: Sequence[Any]) -> None:
    """Ticks at whole days, months or years, where the steps have dates."""
    if len(times) == 0 or not hasattr(times[0], "year"):
        return
    dates = require("matplotlib.dates")
    locator = dates.AutoDateLocator(tz=times[0].tzinfo)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=times[0].tzinfo))
