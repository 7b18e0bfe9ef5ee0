"""Missing values from both sides: a network that has learned to find what was hidden from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from rnncells.forecast.batch import Batch
from rnncells.forecast.checks import check_positive, check_series
from rnncells.forecast.networks.base import Network
from rnncells.forecast.networks.recurrent import (
    Cell,
    RecurrentJob,
    RecurrentStack,
    split_options,
)

__all__ = ["HiddenValues", "ImputationNet", "Imputed", "impute"]


class ImputationNet(Network):
    """Recurrent layers in both directions that tell each value of a window from all others.

    It reads values, 0 where there is none, and a mask, 1 where there is one (after W. Cao and
    others, "BRITS: bidirectional recurrent imputation for time series", 2018).

    Args:
        features: columns of the series.
        hidden_size: units of each layer in each direction.
        cell: of the recurrent layers.
        options: of the recurrent layers, see :class:`rnncells.forecast.networks.StackOptions`, and
            of :class:`rnncells.forecast.networks.Job` the head.
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        *,
        cell: Cell = "gru",
        **options: Unpack[RecurrentJob],
    ) -> None:
        layers, job = split_options(options)
        if set(job) - {"head"}:
            raise ValueError(f"job: expected a head alone, got {', '.join(sorted(job))}")
        [features] = check_positive(features=features)
        super().__init__(2 * features, 1, targets=range(features), residual=False, **job)
        layers["layer_options"] = {**(layers.get("layer_options") or {}), "bidirectional": True}
        self.recurrent = RecurrentStack(cell, 2 * features, hidden_size, **layers)
        self.output = nn.Linear(self.recurrent.width, self.numbers)

    def forward(self, x: Tensor, every_step: bool = True) -> Any:
        """Values and masks [batch, time, 2 * features] -> the head's output at each step, for
        points [batch, time, 1, features].

        Raises:
            ValueError: a wrong rank or number of columns.
        """
        self.check(x, None, None, every_step)
        hidden, _ = self.recurrent(x)
        return self.tell(self.output(hidden), None, None)


class HiddenValues(Dataset[Batch]):
    """Windows of series from which some of the values that are there are hidden, to be found.

    A batch's x holds values and masks [batch, context, 2 * features], y all values [batch, context,
    1, features], and ``observed`` tells those that were there and were hidden: the loss counts
    these alone. Hidden values come in runs, as outages do.

    Args:
        series: [time, features], or several; NaN where a value is missing. Scaled.
        context: steps of a window.
        stride: steps from one window to the next.
        rate: the share of the values that is hidden, about, in (0, 1).
        run: the length of a run, in steps.
        seed: hide the same values each time; nothing draws anew from torch's random state.

    Raises:
        TypeError: a series that is not a tensor in floating point.
        ValueError: wrong sizes, an infinity, or a series shorter than ``context``.
    """

    def __init__(
        self,
        series: Tensor | Sequence[Tensor],
        context: int,
        *,
        stride: int = 1,
        rate: float = 0.15,
        run: int = 1,
        seed: int | None = None,
    ) -> None:
        context, stride, self.run = check_positive(context=context, stride=stride, run=run)
        if not 0 < rate < 1:
            raise ValueError(f"rate: expected a share between 0 and 1, got {rate}")
        self.series = [series] if isinstance(series, Tensor) else list(series)
        self.context, self.rate, self.seed = context, rate, seed
        origins = []
        for number, one in enumerate(self.series):
            check_series(one, "skip", f"series {number}")
            if len(one) < context:
                raise ValueError(f"series {number}: expected {context} steps, got {len(one)}")
            start = torch.arange(0, len(one) - context + 1, stride)
            origins.append(torch.stack([torch.full_like(start, number), start], dim=1))
        if not origins:
            raise ValueError("series: expected at least one, got none")
        self.origins = torch.cat(origins)

    def __len__(self) -> int:
        return len(self.origins)

    def batch(self, indices: Sequence[int] | Tensor) -> Batch:
        """Gather windows, and hide values in them."""
        chosen = self.origins[torch.as_tensor(indices)].tolist()
        values = torch.stack([self.series[k][o : o + self.context] for k, o in chosen])
        there = ~values.isnan()
        hidden = self._hide(values.shape, indices) & there
        y = values.nan_to_num(nan=0.0)
        seen = there & ~hidden
        x = torch.cat([torch.where(seen, y, 0.0), seen.to(y.dtype)], dim=2)
        return Batch(x, y.unsqueeze(2), observed=hidden.unsqueeze(2))

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.batch(indices)

    def _hide(self, shape: torch.Size, indices: Sequence[int] | Tensor) -> Tensor:
        """Bool [batch, context, features]: runs that begin by chance."""
        if self.seed is None:
            chance = torch.rand(shape)
        else:  # of the window's number, not of the batch that it comes in
            order = torch.Generator()
            chance = torch.stack(
                [
                    torch.rand(shape[1:], generator=order.manual_seed(self.seed + 7919 * int(k)))
                    for k in indices
                ]
            )
        begins = (chance < 1 - (1 - self.rate) ** (1 / self.run)).float().transpose(1, 2)
        return F.max_pool1d(F.pad(begins, (self.run - 1, 0)), self.run, 1).transpose(1, 2) > 0


class Imputed(NamedTuple):
    """A series without gaps.

    Attributes:
        values: [time, features]; what was there is as it was.
        filled: bool [time, features]: True where the value is the network's.
    """

    values: Tensor
    filled: Tensor


@torch.no_grad()
def impute(net: ImputationNet, series: Tensor) -> Imputed:
    """Fill the missing values of a series, NaN, with what the network tells; nothing else changes.

    Args:
        net: trained on :class:`HiddenValues` of series scaled alike.
        series: [time, features], scaled.

    Raises:
        TypeError: a series that is not a tensor in floating point.
        ValueError: another number of features, an infinity, or a column without any value.
    """
    check_series(series, "skip")
    missing = series.isnan()
    if 2 * series.shape[1] != net.features:
        raise ValueError(f"series: expected {net.features // 2} features, got {series.shape[1]}")
    if missing.all(dim=0).any():
        column = int(missing.all(dim=0).nonzero()[0])
        raise ValueError(f"series: feature {column} has no value at all to go by")
    known = series.nan_to_num(nan=0.0)
    was_training = net.training
    net.eval()
    output = net(torch.cat([known, (~missing).to(series.dtype)], dim=1).unsqueeze(0))
    net.train(was_training)
    return Imputed(torch.where(missing, net.head.point(output)[0, :, 0], series), missing)
