"""A point forecast: one number, and how far it may be off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from rnncells.forecast.checks import check_same_shape
from rnncells.forecast.heads.base import Head, mean_observed

__all__ = ["PointHead", "PointLoss"]

PointLoss = Literal["huber", "mse", "mae"]

LOSSES: dict[PointLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "huber": partial(F.huber_loss, reduction="none"),
    "mse": partial(F.mse_loss, reduction="none"),
    "mae": partial(F.l1_loss, reduction="none"),
}


@dataclass(frozen=True)
class PointHead(Head):
    """One number for each value: its output is the forecast, [..., horizon, targets].

    Args:
        error: ``"huber"`` (quadratic to 1, linear beyond; P. Huber, "Robust estimation of a
            location parameter", 1964), ``"mse"`` or ``"mae"``.

    Raises:
        ValueError: another error.
    """

    error: PointLoss = "huber"

    def __post_init__(self) -> None:
        if self.error not in LOSSES:
            raise ValueError(
                f"error: expected one of {', '.join(get_args(PointLoss))}, got {self.error!r}"
            )

    def __call__(
        self, raw: Tensor, base: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """The raw numbers, counted from ``base``."""
        value = raw.squeeze(-1)
        return value if base is None else base + value

    def loss(
        self,
        output: Tensor,
        y: Tensor,
        observed: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """The mean error over what was observed."""
        check_same_shape(output, y)  # or the loss would broadcast, and train on nonsense
        return mean_observed(LOSSES[self.error](output, y), observed)

    def point(self, output: Tensor) -> Tensor:
        """The output itself."""
        return output
