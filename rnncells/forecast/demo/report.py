"""What the demo tells: text, a table, a file of numbers and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta, timezone
from pathlib import Path
from typing import Literal

import torch

from rnncells.forecast.demo.compare import NETWORKS, OURS, Comparison
from rnncells.forecast.demo.task import Task
from rnncells.forecast.plot import colours_of, draw_error_by_horizon, draw_forecasts, picture
from rnncells.forecast.table import Score, format_table

__all__ = ["describe", "draw", "summarise", "write_numbers"]

UNIT = "°C"
DAY = 24
NEW_YORK = timezone(timedelta(hours=-5), "EST")  # in winter, when the held-out part lies
DAYS_DRAWN = 8


def describe(task: Task) -> str:
    """What is forecast, from what, and where the parts begin."""
    settings, times = task.settings, task.series.times()
    missing = int(task.temperature.isnan().sum())
    lines = [
        f"Temperature at LaGuardia Airport, New York, {settings.horizon} hours ahead from the last "
        f"{settings.context} hours",
        f"{len(times)} hourly observations (NOAA/FAA, public domain), {missing} of them missing: "
        "windows that touch one are left out",
    ]
    for part, (start, stop) in task.spans.items():
        name = {"train": "training", "validation": "validation", "test": "held out"}[part]
        count = len(task.windows(part))
        lines.append(
            f"  {name:<10}  {times[start]:%d %b %Y} to {times[stop - 1]:%d %b %Y}"
            f"  {count:5d} windows"
        )
    return "\n".join(lines)


def summarise(comparison: Comparison) -> str:
    """The table on the held-out part, who won there, and how this run's training times compare."""
    seconds = {(s.model, s.layers): s.seconds for s in comparison.scores if s.seconds is not None}
    ratios = [
        f"{model} {seconds[model, 'torch.nn'] / seconds[model, OURS]:.1f}x" for model in NETWORKS
    ]
    return "\n".join(
        [
            "On the held-out part (MASE: over the seasonal naive forecast's MAE in training):",
            "",
            format_table(comparison.scores, UNIT),
            "",
            *(_winner(comparison.scores, measure) for measure in ("mae", "rmse")),
            "",
            "Training time of this one run in one thread, torch.nn's layers over ours: "
            f"{', '.join(ratios)}",
            "(one run on a machine that may have been busy is no benchmark)",
        ]
    )


def _winner(scores: Sequence[Score], measure: Literal["mae", "rmse"]) -> str:
    def error(score: Score) -> float:
        value: float = getattr(score, measure)
        return value

    line = next(score for score in scores if score.model == "least squares")
    best = min((score for score in scores if score.model in NETWORKS), key=error)
    network = f"{best.model} on {best.layers}"
    if error(best) < error(line):
        first, second = f"a network ({network})", "the least-squares line"
        low, high = error(best), error(line)
    else:
        first, second = "the least-squares line", f"every network (the best: {network})"
        low, high = error(line), error(best)
    return f"By {measure.upper()}, {first} beat {second}: {low:.3f} against {high:.3f} {UNIT}"


def write_numbers(comparison: Comparison, path: Path) -> None:
    """Write the scores and what they depend on as JSON."""
    task, settings = comparison.task, comparison.task.settings
    times = task.series.times()
    training = asdict(settings.training)
    training["loss"] = getattr(settings.training.loss, "__name__", "huber_loss")
    record = {
        "series": "hourly temperature at LaGuardia Airport, 2013",
        "unit": UNIT,
        "settings": {**asdict(settings), "training": training},
        "spans": {part: [str(times[i]) for i in (a, b - 1)] for part, (a, b) in task.spans.items()},
        "held_out_windows": len(comparison.test),
        "mase_scale": task.mase_scale,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "scores": [asdict(score) for score in comparison.scores],
    }
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(comparison: Comparison, path: Path) -> None:
    """Draw a week in the middle of the held-out part, and each model's error by hours ahead."""
    test = comparison.test
    times = [stamp.astimezone(NEW_YORK) for stamp in comparison.task.series.times()]
    # the network to show is chosen as one would in earnest: on the validation part
    ours = {model: comparison.validation_loss[model, OURS] for model in NETWORKS}
    best = min(ours, key=lambda model: ours[model])
    daily = [i for i, o in enumerate(test.origins.tolist()) if times[o].hour == 0]
    middle = max(0, len(daily) // 2 - DAYS_DRAWN // 2)
    shown = daily[middle : middle + DAYS_DRAWN]
    origins = test.origins[shown]
    first, last = int(origins[0]) - DAY, int(origins[-1]) + test.horizon
    chosen = {
        model: forecast
        for (model, layers), forecast in comparison.forecasts.items()
        if layers in ("", OURS)
    }
    colours = colours_of([best, *(model for model in chosen if model != best)])
    with picture(path, rows=(4.2, 3.8)) as (above, below):
        draw_forecasts(
            above,
            times[first:last],
            comparison.task.temperature[first:last],
            [int(origin) - first for origin in origins],
            {model: chosen[model][shown] for model in (best, "seasonal naive")},
            colours,
            title=f"LaGuardia Airport, {times[first]:%Y}, held-out part: forecasts made each "
            f"midnight (New York) for the next {test.horizon} hours",
            unit=f"temperature, {UNIT}",
        )
        draw_error_by_horizon(
            below,
            {
                model: (forecast - comparison.truth).abs().mean(dim=0)
                for model, forecast in chosen.items()
            },
            colours,
            title=f"Mean absolute error over all {len(test)} held-out windows",
            unit=f"MAE, {UNIT}",
            step="hours ahead",
        )
