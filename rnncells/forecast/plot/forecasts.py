"""Forecasts beside the truth: one origin after another, or beyond the end with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from torch import Tensor

from rnncells.forecast.extras import require
from rnncells.forecast.plot.canvas import COLOURS, dated, finish

__all__ = ["draw_forecasts", "draw_intervals"]

Intervals = Mapping[int | float, tuple[Tensor, Tensor]]


def draw_forecasts(
    axes: Any,
    times: Sequence[datetime],
    truth: Tensor,
    origins: Sequence[int],
    forecasts: Mapping[str, Tensor],
    colours: Mapping[str, str],
    *,
    title: str,
    unit: str,
) -> None:
    """Draw the truth, and forecasts one origin after another.

    Args:
        axes: matplotlib's.
        times: the stamps to draw.
        truth: [time], as long as ``times``.
        origins: where in ``times`` each forecast begins.
        forecasts: for each label [origins, horizon].
        colours: of each label; see :func:`colours_of`.
        title, unit: what is drawn, and in what.
    """
    axes.plot(times, truth, color="black", linewidth=2.2, label="truth")
    for label, values in forecasts.items():
        for number, (origin, line) in enumerate(zip(origins, values, strict=True)):
            axes.plot(
                times[origin : origin + len(line)],
                line,
                color=colours[label],
                linewidth=1.5,
                label=label if number == 0 else None,
            )
    for number, origin in enumerate(origins):
        axes.axvline(
            times[origin],
            color="grey",
            linewidth=0.8,
            linestyle=":",
            label="forecast made" if number == 0 else None,
        )
    dates = require("matplotlib.dates")
    axes.xaxis.set_major_locator(dates.DayLocator(tz=times[0].tzinfo))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%a %d %b", tz=times[0].tzinfo))
    axes.set_xlim(times[0], times[-1])
    finish(axes, title, unit, columns=len(forecasts) + 2)


def draw_intervals(
    axes: Any,
    times: Sequence[Any],
    truth: Tensor,
    forecast: Tensor,
    intervals: Intervals | None = None,
    *,
    title: str,
    unit: str,
) -> None:
    """Draw the end of a series, the forecast that follows it, and its intervals, wide ones pale.

    Args:
        axes: matplotlib's.
        times: the stamps, or numbers of the steps: those of the truth, then the forecast's.
        truth: [time]; NaN leaves a gap.
        forecast: [horizon].
        intervals: for each level in per cent the lower and the upper bound, [horizon] each.
        title, unit: what is drawn, and in what.

    Raises:
        ValueError: other stamps than the truth and the forecast have steps.
    """
    end = len(truth)
    if len(times) != end + len(forecast):
        raise ValueError(
            f"times: expected {end} + {len(forecast)} stamps, as truth and forecast have steps, "
            f"got {len(times)}"
        )
    ahead = times[end:]
    axes.plot(times[:end], truth, color="black", linewidth=1.5, label="series")
    for level, (low, high) in sorted((intervals or {}).items(), reverse=True):
        axes.fill_between(
            ahead, low, high, color=COLOURS[1], alpha=0.2, linewidth=0, label=f"{level:g} %"
        )
    dot = {"marker": "o", "markersize": 3} if len(forecast) < 3 else {}
    axes.plot(ahead, forecast, color=COLOURS[1], linewidth=1.8, label="forecast", **dot)
    dated(axes, times)
    finish(axes, title, unit, columns=4)
