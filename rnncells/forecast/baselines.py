"""Forecasts that every network must be held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_positive

__all__ = ["LeastSquares", "differenced", "moving_average", "naive", "seasonal_naive"]


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
    _check_length(past, season, f"one season of {season} time steps")
    step = torch.arange(horizon, device=past.device) % season
    return past[:, past.shape[1] - season + step]


def moving_average(past: Tensor, horizon: int, window: int) -> Tensor:
    """The mean of the last steps: [batch, time, targets] -> [batch, horizon, targets].

    Args:
        past: [batch, time, targets].
        horizon: steps to forecast, all alike.
        window: steps averaged.

    Raises:
        ValueError: a wrong rank, horizon or window, or a past shorter than the window.
    """
    horizon, window = check_positive(horizon=horizon, window=window)
    _check_windows(past)
    _check_length(past, window, f"one window of {window} time steps")
    return past[:, -window:].mean(dim=1, keepdim=True).expand(-1, horizon, -1)


def differenced(past: Tensor, horizon: int, season: int, window: int, smooth: int = 1) -> Tensor:
    """Last season's value, smoothed, and the mean change from season to season of the last steps.

    The forecast of step t is mean(y_(t - season - k) ... y_(t - season + k)) + mean(y_u -
    y_(u - season)), with 2 k + 1 = ``smooth`` and u over the last ``window`` steps; beyond the
    first season it repeats. Source: the course's "moving average forecast after differencing, plus
    smoothed past".

    Args:
        past: [batch, time, targets].
        horizon: steps to forecast.
        season: its length in time steps.
        window: steps over which the change is averaged.
        smooth: steps over which last season's value is averaged, odd; 1 leaves it as it is.

    Raises:
        ValueError: a wrong rank or size, an even ``smooth`` or one that reaches beyond the last
            step, or a past shorter than ``season + max(window, smooth // 2)``.
    """
    horizon, season, window, smooth = check_positive(
        horizon=horizon, season=season, window=window, smooth=smooth
    )
    _check_windows(past)
    half, last = smooth // 2, min(horizon, season) - 1
    if smooth % 2 == 0 or last + half >= season:
        raise ValueError(
            f"smooth: expected an odd number that stays before the forecast, at most "
            f"{2 * (season - last - 1) + 1} for horizon {horizon} and season {season}, got {smooth}"
        )
    needed = season + max(window, half)
    _check_length(past, needed, f"season + max(window, smooth // 2) = {needed} time steps")
    change = (past[:, -window:] - past[:, -window - season : -season]).mean(dim=1, keepdim=True)
    begin = past.shape[1] - season - half
    smoothed = past[:, begin : begin + last + smooth].unfold(1, smooth, 1).mean(dim=-1)
    step = torch.arange(horizon, device=past.device) % season
    return smoothed[:, step] + change


def _check_length(past: Tensor, steps: int, what: str) -> None:
    if past.shape[1] < steps:
        raise ValueError(f"past: expected at least {what}, got {past.shape[1]}")


@dataclass(frozen=True)
class LeastSquares:
    """A linear model on the flattened window with an intercept, fitted in closed form.

    Every value of the context, each feature at each step, and every value that is known ahead has a
    weight for each value of the horizon. Where columns depend on each other, the solution of
    smallest norm is taken. With ``ridge`` the squared weights times it are added to the sum of
    squared errors (A. E. Hoerl and R. W. Kennard, "Ridge regression", Technometrics 12, 1970); the
    intercept is free.

    Attributes:
        weight: [context * features + horizon * known, horizon * targets], float64.
        intercept: [horizon * targets], float64.
        horizon: steps that it forecasts.
    """

    weight: Tensor
    intercept: Tensor
    horizon: int

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, ridge: float = 0.0, future: Tensor | None = None) -> Self:
        """Minimise the sum of squared errors over the windows.

        Args:
            x: contexts [batch, context, features].
            y: targets [batch, horizon, targets].
            ridge: weight of the squared weights, at least 0.
            future: what is known ahead [batch, horizon, known], if anything is.

        Raises:
            ValueError: wrong ranks, different numbers of windows, NaN or infinity, or a ridge
                below 0.
        """
        _check_windows(y, "y")
        flat = _flat(x, future)
        if len(x) != len(y):
            raise ValueError(f"y: expected {len(x)} windows, as many as x, got {len(y)}")
        if not (ridge >= 0 and ridge < torch.inf):
            raise ValueError(f"ridge: expected a finite number of at least 0, got {ridge}")
        inputs, outputs = flat.double(), y.flatten(1).double()
        for name, values in (("x", inputs), ("y", outputs)):
            if not values.isfinite().all():
                raise ValueError(f"{name}: expected finite values, got a NaN or an infinity")
        # centred, the intercept drops out of the normal equations
        centre_x, centre_y = inputs.mean(dim=0), outputs.mean(dim=0)
        # below the inputs' own rounding noise, a direction is none
        noise = torch.finfo(x.dtype).eps * max(inputs.shape)
        a, b = inputs - centre_x, outputs - centre_y
        if ridge > 0:  # the penalty is that of so many more windows with a target of 0
            a = torch.cat([a, ridge**0.5 * torch.eye(a.shape[1], dtype=a.dtype)])
            b = torch.cat([b, b.new_zeros(a.shape[1], b.shape[1])])
        weight = torch.linalg.lstsq(a, b, rcond=noise, driver="gelsd").solution
        return cls(weight, centre_y - centre_x @ weight, y.shape[1])

    def __call__(self, x: Tensor, future: Tensor | None = None) -> Tensor:
        """Forecast: contexts [batch, context, features], and what is known ahead [batch, horizon,
        known] if it was in fit, -> [batch, horizon, targets], float64.

        Raises:
            ValueError: another window than the model was fitted on.
        """
        flat = _flat(x, future)
        if flat.shape[1] != len(self.weight):
            names, sizes = "context * features", f"{x.shape[1]} * {x.shape[2]}"
            if future is not None:
                names += " + horizon * known"
                sizes += f" + {future.shape[1]} * {future.shape[2]}"
            raise ValueError(f"x: expected {names} = {len(self.weight)}, as in fit, got {sizes}")
        forecast = flat.double() @ self.weight + self.intercept
        return forecast.unflatten(1, (self.horizon, -1))


def _flat(x: Tensor, future: Tensor | None) -> Tensor:
    """[batch, values]: all that a linear model sees of each window."""
    _check_windows(x, "x")
    if future is None:
        return x.flatten(1)
    _check_windows(future, "future")
    if len(future) != len(x):
        raise ValueError(f"future: expected {len(x)} windows, as many as x, got {len(future)}")
    return torch.cat([x.flatten(1), future.flatten(1)], dim=1)
