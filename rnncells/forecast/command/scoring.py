"""Forecasts from many cut-offs in a file's series, held against what came: model by model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.baselines import differenced, moving_average, naive, seasonal_naive
from rnncells.forecast.command.writing import aligned, warn
from rnncells.forecast.metrics import mae, mase, rmse, seasonal_scales, smape
from rnncells.forecast.panel import Panel
from rnncells.forecast.scores import coverage
from rnncells.forecast.windows import Windows

__all__ = ["ModelScore", "Trial", "baselines", "test_steps"]

Bounds = Mapping[int | float, tuple[Tensor, Tensor]]
SHOWN = 8  # steps ahead that a table for people has


@dataclass(frozen=True)
class ModelScore:
    """One model's scores on one target.

    Attributes:
        model, target: their names.
        scores: ``mae``, ``rmse``, ``mase``, ``smape`` and ``coverage`` over all steps; None for
            what it does not tell.
        by_step: the same for each step ahead.
        seconds: of fitting and forecasting.
    """

    model: str
    target: str
    scores: dict[str, float | None]
    by_step: dict[str, list[float | None]]
    seconds: float


@dataclass
class Trial:
    """The same cut-offs for every model.

    Attributes:
        panel: the series, whole.
        windows: at the cut-offs.
        train: the part before the test, from which MASE's scale is taken.
        season: in steps.
        level: of the intervals whose coverage is told, in per cent.
        scores: of what was added.
    """

    panel: Panel
    windows: Windows
    train: Panel
    season: int
    level: int | float | None = None
    scores: list[ModelScore] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = self.windows.origins[:, None] + torch.arange(self.windows.horizon)
        self.truth = self.panel.values[rows][..., : len(self.panel.targets)].double()
        self.observed = ~self.truth.isnan()
        self._first: Tensor | None = None
        self._scale: Tensor | None = None
        try:
            self._scale = seasonal_scales(self.train, self.season)[self.windows.numbers]
        except ValueError as error:
            warn(f"no MASE: {error}")

    def past(self) -> Tensor:
        """The contexts [windows, context, targets]; a missing value is the last seen before it, or
        the first after it."""
        context = self.windows.context
        rows = self.windows.origins[:, None] + torch.arange(-context, 0)
        values = self.panel.values[rows][..., : len(self.panel.targets)].double()
        step = torch.arange(context)[:, None]
        first = torch.where(values.isnan(), context - 1, step).amin(dim=1, keepdim=True)
        seen = torch.where(values.isnan(), 0, step).cummax(dim=1).values
        return values.gather(1, torch.maximum(seen, first))

    def add(
        self, model: str, forecast: Tensor, bounds: Bounds | None = None, *, seconds: float = 0.0
    ) -> None:
        """Score forecasts [windows, horizon, targets], and their intervals."""
        self._first = forecast if self._first is None else self._first
        sides = None if bounds is None or self.level is None else bounds[self.level]
        for number, target in enumerate(self.panel.targets):
            one = slice(number, number + 1)
            steps = [
                self._measure(forecast, sides, (slice(None), slice(step, step + 1), one))
                for step in range(forecast.shape[1])
            ]
            self.scores.append(
                ModelScore(
                    model,
                    target,
                    self._measure(forecast, sides, (slice(None), slice(None), one)),
                    {name: [step[name] for step in steps] for name in steps[0]},
                    seconds,
                )
            )

    def residuals(self) -> Tensor:
        """Truth less forecast one step ahead of the model added first, at the cut-offs in the first
        series, of its first target."""
        assert self._first is not None
        first = self.windows.numbers == self.windows.numbers[0]
        return (self.truth - self._first)[first, 0, 0]

    def _measure(
        self, forecast: Tensor, sides: tuple[Tensor, Tensor] | None, part: tuple[slice, ...]
    ) -> dict[str, float | None]:
        y, z, there = self.truth[part], forecast.double()[part], self.observed[part]
        names = ("mae", "rmse", "mase", "smape", "coverage")
        found: dict[str, float | None] = dict.fromkeys(names)
        if not there.any():
            return found
        y = y.nan_to_num(nan=0.0)
        found |= {"mae": mae(z, y, there), "rmse": rmse(z, y, there), "smape": smape(z, y, there)}
        if self._scale is not None:
            found["mase"] = mase(z, y, self._scale[:, :, part[2]], there)
        if sides is not None:
            low, high = (side.double()[part] for side in sides)
            found["coverage"] = coverage(low, high, y, there)
        return found

    def table(self) -> str:
        """For people: each model's scores, and its MAE by steps ahead."""
        several = len(self.panel.targets) > 1
        head = ["MAE", "RMSE", "MASE", "sMAPE"]
        head += [] if self.level is None else [f"in {self.level:g} %"]
        rows = [
            [*self._key(score, several), *list(score.scores.values())[: len(head)], score.seconds]
            for score in self.scores
        ]
        keys = ["model", "target"][: 1 + several]
        steps = _chosen(self.windows.horizon)
        named = [f"MAE at step {steps[0]}", *map(str, steps[1:])]
        ahead = [
            [*self._key(score, several), *(score.by_step["mae"][step - 1] for step in steps)]
            for score in self.scores
        ]
        return "\n".join(
            [
                aligned([*keys, *head, "seconds"], rows, len(keys)),
                "",
                aligned([*keys, *named], ahead, len(keys)),
            ]
        )

    @staticmethod
    def _key(score: ModelScore, several: bool) -> list[str]:
        return [score.model, score.target][: 1 + several]

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """For a CSV file: a row for each model, target and step ahead."""
        names = list(self.scores[0].by_step)
        rows = [
            [score.model, score.target, step + 1, *(score.by_step[name][step] for name in names)]
            for score in self.scores
            for step in range(self.windows.horizon)
        ]
        return ["model", "target", "step", *names], rows

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "cutoffs": len(self.windows),
            "level": self.level,
            "scores": [
                {
                    "model": score.model,
                    "target": score.target,
                    **score.scores,
                    "seconds": score.seconds,
                    "by_step": score.by_step,
                }
                for score in self.scores
            ],
        }


def baselines(past: Tensor, horizon: int, season: int) -> dict[str, Tensor]:
    """What every network must be held against: [windows, context, targets] -> [windows, horizon,
    targets] by name. Those that need more of the past than there is are left out."""
    context = past.shape[1]
    found = {"naive": naive(past, horizon)}
    window = min(context, season if season > 1 else 5)
    if 1 < season <= context:
        found["seasonal naive"] = seasonal_naive(past, horizon, season)
    if 1 < season <= context // 2:
        found["differenced"] = differenced(past, horizon, season, window)
    found["moving average"] = moving_average(past, horizon, window)
    return found


def test_steps(test: int | None, panel: Panel, horizon: int) -> int:
    """Steps held out at the end of each series.

    Raises:
        ValueError: fewer than one horizon.
    """
    steps = max(horizon, int(panel.lengths.min()) // 5) if test is None else test
    if steps < horizon:
        raise ValueError(f"--test: expected at least one horizon of {horizon} steps, got {steps}")
    return steps


def _chosen(horizon: int) -> list[int]:
    spaced = torch.linspace(1, horizon, min(horizon, SHOWN)).round()
    return sorted({int(step) for step in spaced.tolist()})
