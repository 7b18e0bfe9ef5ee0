"""What every head has: from a network's numbers to a forecast, and the loss that teaches it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from rnncells.forecast.checks import check_percents

__all__ = ["Head", "check_levels", "mean_observed", "spread"]


class Head(ABC):
    """How a forecast is told: as points, quantiles or a distribution.

    A network gives a head ``size`` numbers for each step of the horizon and each target; what the
    head makes of them, its *output*, is one tensor [..., horizon, targets, *own], which the head
    alone can read. A head has no weights.

    Attributes:
        size: numbers that it asks of a network for each value to forecast.
        in_counts: whether its forecasts are in the series' own units even where a window is scaled
            by itself (:attr:`rnncells.forecast.batch.Batch.level`).
    """

    size: int = 1
    in_counts: bool = False

    @abstractmethod
    def __call__(
        self, raw: Tensor, base: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """The output.

        Args:
            raw: [..., horizon, targets, size], any real numbers.
            base: [..., 1, targets], what the forecast is counted from; nothing is zero.
            level: [batch, 2, targets], the location and scale taken off each window.
        """

    @abstractmethod
    def loss(
        self,
        output: Tensor,
        y: Tensor,
        observed: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """The mean loss over the targets that were observed, zero where none was.

        Args:
            output: what a call gave.
            y: [..., horizon, targets].
            observed: bool, of y's shape; None where all are.
            level: as in the call.
        """

    @abstractmethod
    def point(self, output: Tensor) -> Tensor:
        """One value each: [..., horizon, targets]."""

    def quantiles(self, output: Tensor, levels: Sequence[float]) -> Tensor:
        """The quantiles of these levels, each in (0, 1): [..., horizon, targets, levels].

        Raises:
            TypeError: a head that knows no quantiles.
            ValueError: a level that is not within its range.
        """
        raise TypeError(f"{type(self).__name__} has no quantiles: train with a head that has")

    def samples(self, output: Tensor, count: int) -> Tensor:
        """Draws, each value by itself, from torch's random state: [count, ..., horizon, targets].

        Raises:
            TypeError: a head that has no distribution.
        """
        raise TypeError(f"{type(self).__name__} has no distribution: train with a head that has")

    def intervals(self, output: Tensor, levels: Sequence[float]) -> Tensor:
        """Central intervals: level 80 is from the 10% to the 90% quantile.

        Args:
            output: what a call gave.
            levels: per cent, each in (0, 100).

        Returns:
            [..., horizon, targets, levels, 2], low and high.

        Raises:
            TypeError: a head that knows no quantiles.
            ValueError: a level that is not in (0, 100), or that it cannot tell.
        """
        levels = check_percents(levels)
        low = [(1 - level / 100) / 2 for level in levels]
        both = self.quantiles(output, [*low, *(1 - one for one in low)])
        return torch.stack(both.split(len(low), dim=-1), dim=-1)

    def fed_back(self, values: Tensor, level: Tensor | None) -> Tensor:
        """A forecast [batch, ..., targets] in the units of the network's inputs."""
        if not self.in_counts or level is None:
            return values
        return (values - spread(level[:, 0], values)) / spread(level[:, 1], values)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """[batch, targets] -> [batch, 1, ..., targets], of the rank and the dtype of ``like``."""
    for _ in range(like.dim() - 2):  # no view of len(values), which an exporter takes for constant
        values = values.unsqueeze(1)
    return values.to(like.dtype)  # a level in float64 must not widen a network's float32


def check_levels(levels: Sequence[float]) -> list[float]:
    """Check that there are levels and that each lies in (0, 1).

    Raises:
        ValueError: none, or one outside.
    """
    found = [float(level) for level in levels]
    if not found or any(not 0 < level < 1 for level in found):
        raise ValueError(f"levels: expected numbers between 0 and 1, at least one, got {found}")
    return found


def mean_observed(loss: Tensor, observed: Tensor | None) -> Tensor:
    """The mean of losses over what was observed; zero, with gradients of zero, where none was."""
    if observed is None:
        return loss.mean()
    # where, not a product: what is not observed may be infinite
    kept = torch.where(observed, loss, 0.0)
    return kept.sum() / observed.sum().clamp(min=1)
