"""The network without memory: a window as one long row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor, cat, nn

from rnncells.forecast.checks import check_positive
from rnncells.forecast.networks.base import Job, Network

__all__ = ["DenseNet"]


class DenseNet(Network):
    """Dense layers on the flattened window; with no hidden layer, a linear model.

    Args:
        features: columns of the input.
        context: steps of a window; a dense layer takes no other number.
        horizon: steps that are forecast.
        hidden: units of one hidden layer after another, with ReLU; () for a linear model.
        dropout: chance of dropping a hidden unit.
        job: see :class:`rnncells.forecast.networks.Job`.
    """

    def __init__(
        self,
        features: int,
        context: int,
        horizon: int,
        hidden: Sequence[int] = (),
        *,
        dropout: float = 0.0,
        **job: Unpack[Job],
    ) -> None:
        super().__init__(features, horizon, **job)
        [self.context] = check_positive(context=context)
        width = self.context * self.features + self.horizon * self.known + self.static
        steps: list[nn.Module] = []
        for units in hidden:
            [units] = check_positive(hidden=units)
            steps += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*steps, nn.Linear(width, self.horizon * self.numbers))

    def forward(
        self,
        x: Tensor,
        every_step: bool = False,
        *,
        future: Tensor | None = None,
        static: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Any:
        """Forecast from windows [batch, context, features]: the head's output after the last step.

        Raises:
            ValueError: ``every_step``, windows of another length, or a shape that does not fit.
        """
        refuse_every_step(self, every_step)
        self.check(x, future, static, every_step)
        if x.shape[1] != self.context:
            raise ValueError(f"x: expected {self.context} time steps, got {x.shape[1]}")
        parts = [part.flatten(1) for part in (x, future, static) if part is not None]
        return self.tell(self.layers(cat(parts, dim=1)), self.base(x), level)


def refuse_every_step(network: nn.Module, every_step: bool) -> None:
    """Refuse forecasts at every step for a network that needs a whole window.

    Raises:
        ValueError: it was asked for them.
    """
    if every_step:
        raise ValueError(
            f"every_step: {type(network).__name__} forecasts after a whole window only; "
            "expected windows without every_step"
        )
