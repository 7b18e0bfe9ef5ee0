"""Scaling of each window by what its own context shows, undone exactly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from rnncells.forecast.checks import check_choice
from rnncells.forecast.heads.base import spread

__all__ = ["Kind", "WindowScaler"]

Kind = Literal["standard", "robust", "mean", "last"]


@dataclass(frozen=True)
class WindowScaler:
    """x -> (x - location) / scale, with location and scale of each window's own context.

    What RevIN does (T. Kim and others, "Reversible instance normalization for accurate time-series
    forecasting against distribution shift", 2022), without its affine part: a level that no
    training window had needs no extrapolation.

    Attributes:
        kind: ``"standard"`` takes the context's mean and standard deviation (over N), ``"robust"``
            its median and interquartile range, ``"mean"`` nothing and its mean absolute value,
            ``"last"`` its last value and its standard deviation.
    """

    kind: Kind = "standard"

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, get_args(Kind))

    def measure(self, context: Tensor) -> Tensor:
        """Location and scale: [batch, time, targets] -> [batch, 2, targets]; NaN is left out.

        Where a context is constant, its scale is its absolute value, or 1 if that is 0: what comes
        next then counts in parts of the level. A context without any value has 0 and 1.
        """
        size = context.abs().nanmean(dim=1)
        mean = context.nanmean(dim=1)
        if self.kind == "mean":
            location, scale = torch.zeros_like(size), size
        elif self.kind == "robust":
            low, location, high = _quartiles(context)
            scale = high - low
        else:
            location = mean if self.kind == "standard" else _last(context)
            scale = (context - mean.unsqueeze(1)).square().nanmean(dim=1).sqrt()
        # a constant's mean is rounded, and so leaves a deviation of some units in the last place
        highest = context.nan_to_num(nan=-torch.inf).amax(dim=1)
        flat = (context.nan_to_num(nan=torch.inf).amin(dim=1) == highest) | (scale == 0)
        scale = torch.where(flat, torch.where(size > 0, size, 1.0), scale)
        empty = size.isnan()
        return torch.stack(
            [torch.where(empty, 0.0, location), torch.where(empty, 1.0, scale)], dim=1
        )

    def transform(self, values: Tensor, level: Tensor) -> Tensor:
        """Scale ``values`` [batch, ..., targets] with ``level`` [batch, 2, targets]."""
        return (values - spread(level[:, 0], values)) / spread(level[:, 1], values)

    def inverse(self, values: Tensor, level: Tensor) -> Tensor:
        """Undo :meth:`transform`."""
        return values * spread(level[:, 1], values) + spread(level[:, 0], values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """From :meth:`to_dict`'s.

        Raises:
            TypeError, ValueError: other keys, or a kind that is not known.
        """
        return cls(**config)


def _quartiles(context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    share = torch.tensor([0.25, 0.5, 0.75], dtype=context.dtype, device=context.device)
    low, middle, high = context.nanquantile(share, dim=1)
    return low, middle, high


def _last(context: Tensor) -> Tensor:
    """The last value that is not missing, [batch, targets]."""
    step = torch.arange(context.shape[1], device=context.device)[:, None]
    last = torch.where(context.isnan(), 0, step).amax(dim=1, keepdim=True)
    return context.gather(1, last).squeeze(1)
