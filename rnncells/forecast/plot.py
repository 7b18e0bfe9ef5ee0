"""Pictures of forecasts, written as PNG without a screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import cycle
from os import PathLike
from typing import Any

from torch import Tensor

from rnncells.forecast.extras import require
from rnncells.forecast.residuals import autocorrelation

__all__ = [
    "colours_of",
    "draw_autocorrelation",
    "draw_error_by_horizon",
    "draw_forecasts",
    "draw_residuals",
    "picture",
]

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


def _finish(axes: Any, title: str, unit: str, columns: int = 1) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, ncols=columns)


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
    _finish(axes, title, unit, columns=len(forecasts) + 2)


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
    _finish(axes, title, unit, columns=2)


def draw_residuals(
    axes: Any, times: Sequence[Any], residuals: Tensor, *, title: str, unit: str
) -> None:
    """Draw what a forecast left over, step by step, with its mean and two standard deviations.

    Args:
        axes: matplotlib's.
        times: the stamps, or numbers of the steps.
        residuals: truth less forecast [time], as long as ``times``; NaN is left out.
        title, unit: what is drawn, and in what.
    """
    kept = residuals[~residuals.isnan()].double()
    mean, deviation = kept.mean().item(), kept.std(correction=0).item()
    axes.plot(times, residuals, color=COLOURS[1], linewidth=0.8, label="truth less forecast")
    axes.axhline(mean, color="black", linewidth=1, label=f"mean {mean:.3g}")
    band = (mean - 2 * deviation, mean + 2 * deviation)
    axes.axhspan(*band, color="grey", alpha=0.15, label="two standard deviations")
    _finish(axes, title, unit, columns=3)


def draw_autocorrelation(axes: Any, series: Tensor, lags: int, *, title: str, step: str) -> None:
    """Draw a series' autocorrelation, and the band in which noise stays at 19 lags of 20.

    Args:
        axes: matplotlib's.
        series: [time], a series or a model's residuals; see
            :func:`rnncells.forecast.autocorrelation`.
        lags: the longest lag.
        title: what is drawn.
        step: what one step is called on the axis.

    Raises:
        ValueError: as :func:`rnncells.forecast.autocorrelation`.
    """
    correlation = autocorrelation(series, lags)
    bound = 1.96 / int((~series.isnan()).sum()) ** 0.5
    axes.vlines(range(lags + 1), 0, correlation, color=COLOURS[1], linewidth=1.5)
    axes.plot(
        range(lags + 1), correlation, "o", color=COLOURS[1], markersize=3, label="correlation"
    )
    axes.axhspan(-bound, bound, color="grey", alpha=0.2, label="95 % of noise")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"lag, {step}")
    _finish(axes, title, "autocorrelation", columns=2)
