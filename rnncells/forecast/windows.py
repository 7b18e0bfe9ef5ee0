"""Windows over one series: a context to look at, a horizon to forecast."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as plain_integer

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rnncells.forecast.checks import Missing, check_columns, check_positive, check_series

__all__ = ["Windows"]


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """All windows of a series whose forecasts fall into one span of time.

    A window stands at its origin o, the first time step that it forecasts. Its context is the
    steps [o - context, o), all features; its horizon is [o, o + horizon), the target features.
    Every horizon lies whole in [start, stop), so that spans that do not overlap share no
    target; a context may begin before ``start``, because the past is known when one forecasts.
    (With ``every_step`` the forecasts made inside a context have targets there too, before
    ``start``: that is for training, not for scoring.)

    The series is not copied: a batch is gathered from views when it is asked for.

    Args:
        series: [time, features], floating point.
        context: steps that the model sees.
        horizon: steps that it forecasts.
        targets: the columns to forecast.
        start, stop: the span of the forecasts, by default the whole series.
        stride: steps from one origin to the next.
        every_step: also give the targets of a forecast made at each step of the context
            (sequence to sequence), not only at its end.
        missing: ``"error"`` refuses NaN; ``"skip"`` leaves out each window that touches one, in any
            feature of its context or any target of its horizon.

    Raises:
        TypeError: a series that is not a tensor in floating point, or targets that are not a
            sequence of integers.
        ValueError: a wrong rank, NaN or infinity, wrong sizes or columns, a series shorter than
            context + horizon, or a span in which no window fits.
    """

    def __init__(
        self,
        series: Tensor,
        context: int,
        horizon: int,
        targets: Sequence[int] = (0,),
        *,
        start: int = 0,
        stop: int | None = None,
        stride: int = 1,
        every_step: bool = False,
        missing: Missing = "error",
    ) -> None:
        check_series(series, missing)
        context, horizon, stride = check_positive(context=context, horizon=horizon, stride=stride)
        self.targets = check_columns(targets, series.shape[1])
        length = series.shape[0]
        stop = length if stop is None else stop
        if not 0 <= start < stop <= length:
            raise ValueError(
                f"start, stop: expected 0 <= start < stop <= {length}, got {start}, {stop}"
            )
        if length < context + horizon:
            raise ValueError(
                f"series: expected at least context + horizon = {context} + {horizon} time steps, "
                f"got {length}"
            )
        self.series, self.context, self.horizon = series, context, horizon
        self.every_step = every_step
        self.origins = self._find_origins(max(start, context), stop, stride)
        if len(self.origins) == 0:
            raise ValueError(
                f"series: expected at least one window of context {context} and horizon {horizon} "
                f"with forecasts in time steps {start} to {stop}, found none"
            )
        # views: [time - context + 1, context, features] and [time - horizon + 1, horizon, targets]
        self._contexts = series.unfold(0, context, 1).transpose(1, 2)
        self._horizons = series[:, list(self.targets)].unfold(0, horizon, 1).transpose(1, 2)

    def _find_origins(self, first: int, stop: int, stride: int) -> Tensor:
        origins = torch.arange(first, max(first, stop - self.horizon + 1), stride)
        gap = self.series.isnan()
        input_gaps = _running_count(gap.any(dim=1))
        target_gaps = _running_count(gap[:, list(self.targets)].any(dim=1))
        in_context = input_gaps[origins] - input_gaps[origins - self.context]
        in_horizon = target_gaps[origins + self.horizon] - target_gaps[origins]
        return origins[(in_context + in_horizon) == 0]

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One window: its context [context, features] and its target, see :meth:`batch`.

        Raises:
            TypeError: not an integer, such as a slice.
            IndexError: no window has this number.
        """
        try:
            number = plain_integer(index)
        except TypeError:
            raise TypeError(
                f"index: expected one window's number, got {index!r}; "
                "windows.batch([0, 1, 2]) gathers several"
            ) from None
        context, target = self.batch([number])
        return context[0], target[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        # torch's loader calls this once a batch where it exists, in place of once a window
        return self.batch(indices)

    def batch(self, indices: Sequence[int] | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gather windows, by default all.

        Returns:
            The contexts [batch, context, features], and the targets [batch, horizon, targets], or
            with ``every_step`` [batch, context, horizon, targets]: entry t holds the forecast
            due after the context's step t.
        """
        chosen = slice(None) if indices is None else torch.as_tensor(indices)
        origin = self.origins[chosen]
        x = self._contexts[origin - self.context]
        if not self.every_step:
            return x, self._horizons[origin]
        step = origin.unsqueeze(1) + torch.arange(1 - self.context, 1)
        return x, self._horizons[step]


def _running_count(flags: Tensor) -> Tensor:
    """[time] -> [time + 1]: how many flags are set before each step."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), flags.cumsum(0).cpu()])
