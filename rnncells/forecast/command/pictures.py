"""The commands' pictures, put together from the parts in :mod:`rnncells.forecast.plot`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.ahead import stamps_ahead
from rnncells.forecast.command.scoring import Trial
from rnncells.forecast.command.series import Source
from rnncells.forecast.plot import (
    colours_of,
    draw_autocorrelation,
    draw_error_by_horizon,
    draw_intervals,
    draw_learning_curves,
    draw_residuals,
    picture,
)
from rnncells.forecast.training import History

__all__ = ["draw_errors", "draw_forecast", "draw_trial"]

SERIES = 4  # that a picture shows
PAST = 5  # horizons of a series before its forecast
LAGS = 48


def draw_forecast(
    path: str, source: Source, found: dict[str, Tensor], history: History | None
) -> None:
    """The end of the first series and targets, what is forecast, and the losses of the training."""
    panel, horizon = source.panel, found["y_hat"].shape[1]
    shown = [(s, t) for s in range(len(panel)) for t in range(len(panel.targets))][:SERIES]
    heights = [2.8] * len(shown) + ([2.4] if history is not None else [])
    with picture(path, heights) as axes:
        for place, (number, target) in zip(axes, shown, strict=False):
            one = panel.ids[number]
            past = min(int(panel.lengths[number]), max(PAST * horizon, 2 * source.season))
            name = panel.targets[target]
            draw_intervals(
                place,
                _times(source, number, past, horizon),
                panel.series(one)[-past:, target],
                found["y_hat"][number, :, target],
                _bounds(found, number, target),
                title=f"{one}" if source.id is not None else name,
                unit=name,
            )
        if history is not None:
            draw_learning_curves(axes[-1], history, title="training")


def draw_errors(path: str, trial: Trial) -> None:
    """The error by steps ahead of every model."""
    with picture(path, [5]) as (axes,):
        _draw_errors(axes, trial)


def draw_trial(path: str, trial: Trial, learned: History | None) -> None:
    """The error by steps ahead of every model, what the first one left over, and its training."""
    residuals = trial.residuals()
    heights = [3.4, 2.4, 2.4] + ([2.4] if learned is not None else [])
    with picture(path, heights) as axes:
        _draw_errors(axes[0], trial)
        first = trial.scores[0].model
        draw_residuals(
            axes[1],
            range(len(residuals)),
            residuals,
            title=f"{first}, one step ahead, cut-off by cut-off of the first series",
            unit="truth less forecast",
        )
        known = residuals[~residuals.isnan()]
        if len(known) > 2 and known.min() < known.max():
            draw_autocorrelation(
                axes[2],
                residuals,
                min(LAGS, len(residuals) - 1),
                title="what was left over, with itself some cut-offs later",
                step="cut-offs",
            )
        if learned is not None:
            draw_learning_curves(axes[3], learned, title="training")


def _draw_errors(axes: Any, trial: Trial) -> None:
    target = trial.panel.targets[0]
    errors = {score.model: score.by_step["mae"] for score in trial.scores if score.target == target}
    draw_error_by_horizon(
        axes,
        {
            name: torch.tensor([math.nan if one is None else one for one in each])
            for name, each in errors.items()
        },
        colours_of(errors),
        title=f"{target}: mean absolute error over {len(trial.windows)} forecasts",
        unit="MAE",
        step="steps ahead",
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _times(source: Source, number: int, past: int, horizon: int) -> list[Any]:
    panel = source.panel
    one = panel.select([panel.ids[number]]).cut(start=-past)
    if panel.stamps().dtype.kind != "M":
        return [*one.stamps().tolist(), *stamps_ahead(one, horizon)[0].tolist()]
    ahead = stamps_ahead(one, horizon)[0].astype("M8[us]").tolist()
    return [*(time.replace(tzinfo=None) for time in one.times()), *ahead]


def _bounds(
    found: dict[str, Tensor], number: int, target: int
) -> dict[int | float, tuple[Tensor, Tensor]]:
    names = [name for name in found if name.startswith("y_hat-lo-")]
    levels = [name.removeprefix("y_hat-lo-") for name in names]
    return {
        float(level): (
            found[f"y_hat-lo-{level}"][number, :, target],
            found[f"y_hat-hi-{level}"][number, :, target],
        )
        for level in levels
    }
