"""Forecasts that every network must be held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_positive

__all__ = ["LeastSquares", "naive", "seasonal_naive"]


def _check_windows(windows: Tensor, name: str = "past") -> None:
    require_tensor(name, windows)
    if windows.dim() != 3 or 0 in windows.shape:
        raise ValueError(
            f"{name}: expected rank 3, [batch, time, features], none of them 0, "
            f"got shape {list(windows.shape)}"
        )


def naive(past: Tensor, horizon: int) -> Tensor:
    """The last value again: [batch, time, targets] -> [batch, horizon, targets].

    Raises:
        ValueError: a wrong rank or horizon.
    """
    return seasonal_naive(past, horizon, season=1)


def seasonal_naive(past: Tensor, horizon: int, season: int) -> Tensor:
    """The last season again, and again: [batch, time, targets] -> [batch, horizon, targets].

    Raises:
        ValueError: a wrong rank, horizon or season, or a past shorter than the season.
    """
    horizon, season = check_positive(horizon=horizon, season=season)
    _check_windows(past)
    if past.shape[1] < season:
        raise ValueError(
            f"past: expected at least one season of {season} time steps, got {past.shape[1]}"
        )
    step = torch.arange(horizon, device=past.device) % season
    return past[:, past.shape[1] - season + step]


@dataclass(frozen=True)
class LeastSquares:
    """A linear model on the flattened window with an intercept, fitted in closed form.

    Every value of the context, each feature at each step, has a weight for each value of the
    horizon. Where columns depend on each other, the solution of smallest norm is taken.

    Attributes:
        weight: [context * features, horizon * targets], float64.
        intercept: [horizon * targets], float64.
        horizon: steps that it forecasts.
    """

    weight: Tensor
    intercept: Tensor
    horizon: int

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> Self:
        """Minimise the sum of squared errors over the windows.

        Args:
            x: contexts [batch, context, features].
            y: targets [batch, horizon, targets].

        Raises:
            ValueError: wrong ranks, different numbers of windows, or NaN or infinity.
        """
        _check_windows(x, "x")
        _check_windows(y, "y")
        if len(x) != len(y):
            raise ValueError(f"y: expected {len(x)} windows, as many as x, got {len(y)}")
        inputs, outputs = x.flatten(1).double(), y.flatten(1).double()
        for name, values in (("x", inputs), ("y", outputs)):
            if not values.isfinite().all():
                raise ValueError(f"{name}: expected finite values, got a NaN or an infinity")
        # centred, the intercept drops out of the normal equations
        centre_x, centre_y = inputs.mean(dim=0), outputs.mean(dim=0)
        # below the inputs' own rounding noise, a direction is none
        noise = torch.finfo(x.dtype).eps * max(inputs.shape)
        fitted = torch.linalg.lstsq(
            inputs - centre_x, outputs - centre_y, rcond=noise, driver="gelsd"
        )
        weight = fitted.solution
        return cls(weight, centre_y - centre_x @ weight, y.shape[1])

    def __call__(self, x: Tensor) -> Tensor:
        """Forecast: contexts [batch, context, features] -> [batch, horizon, targets], float64.

        Raises:
            ValueError: another window than the model was fitted on.
        """
        _check_windows(x, "x")
        if x.shape[1] * x.shape[2] != len(self.weight):
            raise ValueError(
                f"x: expected context * features = {len(self.weight)}, as in fit, "
                f"got {x.shape[1]} * {x.shape[2]}"
            )
        flat = x.flatten(1).double() @ self.weight + self.intercept
        return flat.unflatten(1, (self.horizon, -1))
