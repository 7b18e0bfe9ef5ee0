"""Several quantiles at once, which never cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rnncells.forecast.heads.base import Head, check_levels, mean_observed

__all__ = ["QuantileHead"]


@dataclass(frozen=True)
class QuantileHead(Head):
    """Quantiles by the pinball loss (R. Koenker and G. Bassett, "Regression quantiles", 1978).

    They are monotone by construction: the median is the network's first number, and each of the
    others lies a softplus beyond its neighbour. The output is [..., horizon, targets, levels].

    Args:
        quantile_levels: rising, each in (0, 1), with 0.5 among them: the point forecast.

    Raises:
        ValueError: levels that do not rise, lie outside, or lack 0.5.
    """

    quantile_levels: tuple[float, ...] = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)

    def __post_init__(self) -> None:
        levels = tuple(check_levels(self.quantile_levels))
        if list(levels) != sorted(set(levels)) or 0.5 not in levels:
            raise ValueError(
                f"quantile_levels: expected rising levels with 0.5 among them, got {levels}"
            )
        object.__setattr__(self, "quantile_levels", levels)

    @property
    def size(self) -> int:  # type: ignore[override]
        """One number a level."""
        return len(self.quantile_levels)

    @property
    def _median(self) -> int:
        return self.quantile_levels.index(0.5)

    def __call__(
        self, raw: Tensor, base: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """The quantiles in rising order."""
        climb = F.pad(F.softplus(raw[..., 1:]).cumsum(-1), (1, 0))
        centre = raw[..., :1] if base is None else raw[..., :1] + base.unsqueeze(-1)
        return centre + (climb - climb[..., self._median, None])

    def loss(
        self,
        output: Tensor,
        y: Tensor,
        observed: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """The pinball loss, the mean over levels and over what was observed."""
        check_parameters(self, output, y)
        above = y.unsqueeze(-1) - output
        levels = output.new_tensor(self.quantile_levels)
        return mean_observed(torch.maximum(levels * above, (levels - 1) * above).mean(-1), observed)

    def point(self, output: Tensor) -> Tensor:
        """The median."""
        return output[..., self._median]

    def quantiles(self, output: Tensor, levels: Sequence[float]) -> Tensor:
        """The quantiles; between two that were learned, on the line that joins them.

        Raises:
            ValueError: a level outside of those that were learned.
        """
        wanted = output.new_tensor(check_levels(levels))
        low, high = self.quantile_levels[0], self.quantile_levels[-1]
        edge = 1e-6  # 1 - 0.9 is not 0.1
        if wanted.min() < low - edge or wanted.max() > high + edge:
            raise ValueError(
                f"levels: this head has learned quantiles from {low} to {high}, got "
                f"{[round(level, 6) for level in levels]}"
            )
        return self._between(output, wanted.expand(*output.shape[:-1], len(wanted)))

    def samples(self, output: Tensor, count: int) -> Tensor:
        """Draws from the lines between the quantiles; the tails beyond the outermost are cut off
        at them, so that extremes are too rare."""
        chance = torch.rand(*output.shape[:-1], count, dtype=output.dtype, device=output.device)
        return self._between(output, chance).movedim(-1, 0)

    def _between(self, output: Tensor, wanted: Tensor) -> Tensor:
        """Interpolate: wanted levels [..., n] -> quantiles [..., n]."""
        if self.size == 1:
            return output.expand_as(wanted)
        levels = output.new_tensor(self.quantile_levels)
        right = torch.bucketize(wanted.contiguous(), levels).clamp(1, len(levels) - 1)
        share = (wanted - levels[right - 1]) / (levels[right] - levels[right - 1])
        below, above = output.gather(-1, right - 1), output.gather(-1, right)
        return below + share.clamp(0, 1) * (above - below)


def check_parameters(head: Head, output: Tensor, y: Tensor) -> None:
    """Check that an output [..., size] belongs to targets [...].

    Raises:
        ValueError: it does not.
    """
    if output.shape != (*y.shape, head.size):
        raise ValueError(
            f"output: expected the shape of y and {head.size} numbers for each value, "
            f"{[*y.shape, head.size]}, got {list(output.shape)}"
        )
