"""What a forecast left over, and whether there is anything in it still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rnncells.forecast.plot.canvas import COLOURS, dated, finish
from rnncells.forecast.residuals import autocorrelation

__all__ = ["draw_autocorrelation", "draw_residuals"]


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
    dated(axes, times)
    finish(axes, title, unit, columns=3)


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
    finish(axes, title, "autocorrelation", columns=2)
