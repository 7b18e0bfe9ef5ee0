"""How the error grows with the steps ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rnncells.forecast.extras import require
from rnncells.forecast.plot.canvas import finish

__all__ = ["draw_error_by_horizon"]


def draw_error_by_horizon(
    axes: Any,
    errors: Mapping[str, Tensor],
    colours: Mapping[str, str],
    *,
    title: str,
    unit: str,
    step: str,
) -> None:
    """Draw the error against the steps ahead.

    Args:
        axes: matplotlib's.
        errors: for each label [horizon].
        colours: of each label; see :func:`colours_of`.
        title, unit: what is drawn, and in what.
        step: what one step is called on the axis.
    """
    for label, error in errors.items():
        ahead = range(1, len(error) + 1)
        axes.plot(ahead, error, color=colours[label], marker="o", markersize=3, label=label)
    ticker = require("matplotlib.ticker")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(steps=[1, 2, 3, 6, 10], integer=True))
    axes.set_xlabel(step)
    axes.set_ylim(bottom=0)
    finish(axes, title, unit, columns=2)
