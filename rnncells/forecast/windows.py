"""Windows over one or many series: a context to look at, a horizon to forecast."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as plain_integer
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rnncells.forecast.batch import Batch
from rnncells.forecast.checks import Missing, check_choice, check_columns, check_positive
from rnncells.forecast.panel import Panel
from rnncells.forecast.placing import find_origins, panel_of, running_count
from rnncells.forecast.spans import Span
from rnncells.forecast.window_scaler import WindowScaler

__all__ = ["Windows"]


class Windows(Dataset[Batch]):
    """All windows of the series whose forecasts fall into one span of time.

    A window stands at its origin o, the first time step that it forecasts. Its context is the
    steps [o - context, o), all features; its horizon is [o, o + horizon), the target features.
    Every horizon lies whole in [start, stop), so that spans that do not overlap share no
    target; a context may begin before ``start``, because the past is known when one forecasts.
    (With ``every_step`` the forecasts made inside a context have targets there too, before
    ``start``: that is for training, not for scoring.) No window reaches from one series into
    another.

    The series are not copied: a batch is gathered from views when it is asked for.

    Args:
        series: a panel, whose columns know their roles; or one series [time, features], floating
            point, with nothing known ahead.
        context: steps that the model sees.
        horizon: steps that it forecasts.
        targets: the columns of a tensor to forecast, by default the first.
        start, stop: the span of the forecasts, by default the whole series: one step for all
            series, or a cut-off for each (such as ``panel.steps_at("2019-06-01")``); below 0 from
            the end of each series.
        stride: steps from one origin to the next.
        every_step: also give the targets of a forecast made at each step of the context (sequence
            to sequence), not only at its end; a slice chooses among the steps, as ``slice(3, None,
            2)`` does for a convolution of width 4 and stride 2.
        missing: ``"error"`` refuses NaN; ``"skip"`` leaves out each window that touches one, in any
            feature of its context, any target of its horizon or any covariate known ahead;
            ``"mask"`` marks them (see :class:`Batch`) and leaves out the windows without a target.
        short: series in which no window fits are refused, or left out (``"skip"``) and told in
            :attr:`left_out`.
        scaler: scales the targets of each window by its own context (see :attr:`Batch.level`).
        ahead: the horizon's targets are not known yet: none is looked at, y is 0 and unobserved.

    Attributes:
        series: the buffer [rows, features], the series one after another.
        targets, known: its columns to forecast, and those known ahead.
        masked: the columns of x that have a column of marks at the end.
        features: columns of x, the marks included.
        origins: each window's origin, a row of the buffer; [windows].
        numbers, steps: the number of each window's series, and its origin's time step in it.
        ids: the ids of the series.
        left_out: the ids of those without a window.

    Raises:
        TypeError: a series that is not a tensor in floating point, or targets that are not a
            sequence of integers.
        ValueError: a wrong rank, NaN or infinity, wrong sizes or columns, series shorter than
            context + horizon, or a span in which no window fits.
    """

    def __init__(
        self,
        series: Tensor | Panel,
        context: int,
        horizon: int,
        targets: Sequence[int] | None = None,
        *,
        start: Span = 0,
        stop: Span | None = None,
        stride: int = 1,
        every_step: bool | slice = False,
        missing: Missing = "error",
        short: Literal["error", "skip"] = "error",
        scaler: WindowScaler | None = None,
        ahead: bool = False,
    ) -> None:
        check_choice("short", short, ("error", "skip"))
        panel = panel_of(series, missing, ahead)
        self.context, self.horizon, self.stride = check_positive(
            context=context, horizon=horizon, stride=stride
        )
        self.series, self.ids, self.static = panel.values, panel.ids, panel.static
        columns = len(panel.columns)
        self.known = tuple(range(columns - len(panel.future), columns))
        if isinstance(series, Tensor):
            self.targets = check_columns((0,) if targets is None else targets, columns)
        elif targets is None:
            self.targets = tuple(range(len(panel.targets)))
        else:
            raise ValueError("targets: a panel knows its own; panel.roles(...) changes them")
        self.missing, self.every_step = missing, every_step is not False
        self._steps = every_step if isinstance(every_step, slice) else slice(None)
        self.scaler, self.ahead = scaler, ahead
        if len(range(self.context)[self._steps]) == 0:
            raise ValueError(
                f"every_step: expected at least one step of the context's {self.context}, "
                f"got {every_step}"
            )
        mask = [column for column in range(columns) if column not in self.known]
        self.masked = tuple(mask) if missing == "mask" else ()
        self.features = columns + len(self.masked)
        origins = find_origins(panel, self.context, self.horizon, start, stop, self.stride, short)
        self.origins = origins[self._whole(origins)]
        if len(self.origins) == 0:
            raise ValueError(
                f"series: expected at least one window of context {context} and horizon {horizon} "
                f"with forecasts in time steps {start} to {stop}, found none"
            )
        self.numbers = torch.searchsorted(panel.offsets, self.origins, right=True) - 1
        there = set(self.numbers.tolist())
        self.left_out = tuple(one for n, one in enumerate(panel.ids) if n not in there)
        self.steps = self.origins - panel.offsets[self.numbers]
        # views: [rows - steps + 1, steps, columns]
        self._contexts = self._view(range(columns), self.context)
        self._horizons = self._view(self.targets, self.horizon)
        self._known = self._view(self.known, self.horizon) if self.known else None

    def _view(self, columns: Sequence[int], steps: int) -> Tensor:
        first, last = columns[0], columns[-1] + 1
        side_by_side = list(columns) == list(range(first, last))
        part = self.series[:, first:last] if side_by_side else self.series[:, list(columns)]
        return part.unfold(0, steps, 1).transpose(1, 2)

    def _whole(self, origins: Tensor) -> Tensor:
        """Which windows there are, by what is missing in them."""
        gap = self.series.isnan()
        known, targets = gap[:, list(self.known)], gap[:, list(self.targets)]
        if self.missing != "mask":
            broken = _inside(gap.any(dim=1), origins - self.context, self.context)
            broken += _inside(known.any(dim=1), origins, self.horizon)
            if not self.ahead:
                broken += _inside(targets.any(dim=1), origins, self.horizon)
        else:
            broken = _inside(known.any(dim=1), origins - self.context, self.context + self.horizon)
            empty = _inside((~targets).any(dim=1), origins, self.horizon) == 0
            if not self.ahead:
                broken += empty
        if self.missing == "error" and broken.any():
            raise ValueError(
                f"series: expected all values in the contexts and of the covariates known ahead, "
                f"got a NaN in {int((broken > 0).sum())} of {len(origins)} windows"
            )
        return broken == 0

    @property
    def dtype(self) -> torch.dtype:
        """Of the batches' values."""
        return self.series.dtype

    @property
    def pieces(self) -> list[int]:
        """How many windows follow each other one stride apart in a series, in the windows' order.

        With a stride of ``context``, the contexts of a piece join without gap or overlap, and a
        network may carry its state from each to the next.
        """
        follows = (self.numbers.diff() == 0) & (self.origins.diff() == self.stride)
        ends = (~follows).nonzero().flatten() + 1
        return ends.diff(prepend=ends.new_zeros(1), append=ends.new_tensor([len(self)])).tolist()

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, index: int) -> Batch:
        """One window: as :meth:`batch` gives it, without the axis of the batch.

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
        x, y, *rest = self.batch([number])
        return Batch(x[0], y[0], *(None if part is None else part[0] for part in rest))

    def __getitems__(self, indices: list[int]) -> Batch:
        # torch's loader calls this once a batch where it exists, in place of once a window
        return self.batch(indices)

    def batch(self, indices: Sequence[int] | Tensor | None = None) -> Batch:
        """Gather windows, by default all.

        Returns:
            The contexts x [batch, context, features], the targets y [batch, horizon, targets], or
            with ``every_step`` [batch, steps, horizon, targets]: entry t holds the forecast due
            after the context's step t; and what else there is, see :class:`Batch`.
        """
        chosen = slice(None) if indices is None else torch.as_tensor(indices)
        origin = self.origins[chosen]
        x = self._contexts[origin - self.context]
        ends = origin
        if self.every_step:
            ends = origin.unsqueeze(1) + torch.arange(1 - self.context, 1)[self._steps]
        y, level = self._horizons[ends], None
        if self.scaler is not None:
            columns = list(self.targets)
            level = self.scaler.measure(x[..., columns])
            x[..., columns] = self.scaler.transform(x[..., columns], level)
            y = self.scaler.transform(y, level)
        observed = None
        if self.ahead:
            y, observed = torch.zeros_like(y), torch.zeros_like(y, dtype=torch.bool)
        elif self.missing == "mask":
            observed = ~y.isnan()
            y = y.nan_to_num(nan=0.0)
        if self.masked:
            marks = (~x[..., list(self.masked)].isnan()).to(x.dtype)
            x = torch.cat([x.nan_to_num(nan=0.0), marks], dim=-1)
        return Batch(
            x,
            y,
            None if self._known is None else self._known[ends],
            None if self.static is None else self.static[self.numbers[chosen]],
            observed,
            level,
        )


def _inside(flags: Tensor, first: Tensor, steps: int) -> Tensor:
    """How many of the flags [rows] are set in rows [first, first + steps)."""
    count = running_count(flags)
    return count[first + steps] - count[first]
