"""The classical look at a series, before any network: itself, its changes, its memory, its season.

The four parts that R. J. Hyndman and G. Athanasopoulos, "Forecasting: principles and practice",
third edition (2021), chapters 2 and 9, look at before they model.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.checks import check_positive
from rnncells.forecast.plot.canvas import COLOURS, dated, finish, picture
from rnncells.forecast.plot.residuals import draw_autocorrelation

__all__ = ["draw_season", "draw_series", "look"]


def look(
    path: str | PathLike[str],
    times: Sequence[Any],
    series: Tensor,
    season: int,
    *,
    name: str,
    lags: int | None = None,
) -> None:
    """Write a picture of a series in four parts: itself, its difference from the season before,
    the autocorrelation of both, and the season's shape.

    Args:
        path: of the PNG.
        times: the stamps, or numbers of the steps.
        series: [time], as long as ``times``; NaN leaves a gap.
        season: its length in steps; 1 for none.
        name: of the series, for the titles.
        lags: the longest lag, by default three seasons or 40, whichever is more, as far as the
            series goes.

    Raises:
        ValueError: a series not longer than its season, or without two values that differ.
        ImportError: matplotlib is not installed.
    """
    [season] = check_positive(season=season)
    values = series.double()
    if len(values) <= season + 1:
        raise ValueError(
            f"series: expected more than season + 1 = {season + 1} steps, got {len(values)}"
        )
    change = values[season:] - values[:-season]
    longest = min(lags or max(3 * season, 40), len(change) - 1)
    step = "the step before" if season == 1 else f"{season} steps before"
    with picture(path, rows=(2.6, 2.6, 2.2, 2.2, 2.6)) as axes:
        draw_series(axes[0], times, values, title=name, unit=name)
        draw_series(axes[1], times[season:], change, title=f"less {step}", unit="change")
        for place, (part, what) in enumerate(((values, name), (change, "its changes")), start=2):
            _correlate(axes[place], part, longest, what)
        draw_season(axes[4], values, season, title="by step of the season", unit=name)


def draw_series(axes: Any, times: Sequence[Any], series: Tensor, *, title: str, unit: str) -> None:
    """Draw a series [time] at its stamps, or numbers of steps; NaN leaves a gap."""
    axes.plot(times, series, color="black", linewidth=0.9)
    dated(axes, times)
    finish(axes, title, unit)


def draw_season(axes: Any, series: Tensor, season: int, *, title: str, unit: str) -> None:
    """Draw the median of each step of the season, and the half of the values around it.

    Args:
        axes: matplotlib's.
        series: [time], NaN where a value is missing; its first step is the season's first.
        season: its length in steps.
        title, unit: what is drawn, and in what.
    """
    lacking = -len(series) % season
    whole = torch.cat([series.double(), torch.full((lacking,), torch.nan, dtype=torch.float64)])
    share = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = whole.view(-1, season).nanquantile(share, dim=0)
    steps = range(season)
    axes.fill_between(steps, low, high, color=COLOURS[1], alpha=0.2, linewidth=0, label="half")
    axes.plot(steps, middle, color=COLOURS[1], marker="o", markersize=3, label="median")
    axes.set_xlabel("step of the season")
    finish(axes, title, unit, columns=2)


def _correlate(axes: Any, series: Tensor, lags: int, name: str) -> None:
    known = series[~series.isnan()]
    if len(known) == 0 or known.min() == known.max():
        axes.text(0.5, 0.5, "constant", ha="center", va="center", transform=axes.transAxes)
        finish(axes, f"autocorrelation of {name}", "")
        return
    draw_autocorrelation(axes, series, lags, title=f"autocorrelation of {name}", step="steps")
