"""Many steps ahead from a network that forecasts few: its forecast becomes its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rnncells.forecast.checks import check_positive
from rnncells.forecast.networks.base import Network, check_count
from rnncells.forecast.networks.dense import refuse_every_step

__all__ = ["Recursive"]


class Recursive(nn.Module):
    """Forecasts ``horizon`` steps with a one-step network, one at a time.

    What it forecasts is fed back as the next row of the context, with what is known ahead and, in
    the columns that tell what was there, ones. A network with a state goes on from it; another sees
    a window of the same length that moves on. Errors add up from step to step, as the network is
    used on its own forecasts, which it has not seen in training unless it is trained through this
    module.

    Args:
        net: a network of horizon 1 whose rows are targets, known columns, and ``masks``: a column
            that is known of the past only has no value to go on with.
        horizon: steps that are forecast.
        masks: columns at the end of a row that hold 1 where there was a value.

    Raises:
        TypeError: ``net`` is no network.
        ValueError: a network of another horizon or with other columns.
    """

    teacher_forcing = 0.0

    def __init__(self, net: Network, horizon: int, masks: int = 0) -> None:
        super().__init__()
        if not isinstance(net, Network):
            raise TypeError(f"net: expected a Network, such as RecurrentNet, got {type(net)}")
        [self.horizon] = check_positive(horizon=horizon)
        self.masks = check_count("masks", masks)
        if net.horizon != 1:
            raise ValueError(f"net: expected one of horizon 1, got horizon {net.horizon}")
        targets = len(net.targets)
        if sorted(net.targets) != list(range(targets)):
            raise ValueError(f"net: expected the targets in the first columns, got {net.targets}")
        if net.features != targets + net.known + self.masks:
            raise ValueError(
                f"net: expected rows of targets, known columns and masks, {targets} + {net.known} "
                f"+ {self.masks}, got {net.features} columns; a column that is known of the past "
                "only cannot be fed back"
            )
        self.net, self.head, self.targets = net, net.head, net.targets
        self.features, self.known, self.static = net.features, net.known, net.static

    def forward(
        self,
        x: Tensor,
        every_step: bool = False,
        *,
        future: Tensor | None = None,
        static: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Any:
        """Forecast from windows: the head's output [batch, horizon, targets, ...], each step's from
        the point forecasts of those before.

        Raises:
            ValueError: ``every_step``, or a shape that does not fit.
        """
        refuse_every_step(self, every_step)
        return self._run(x, future, static, level, self.head.point)

    @torch.no_grad()
    def paths(
        self,
        x: Tensor,
        count: int,
        *,
        future: Tensor | None = None,
        static: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """Draw whole futures: each step is drawn given those drawn before it.

        Returns:
            [count, batch, horizon, targets].

        Raises:
            TypeError: the network's head has no distribution.
            ValueError: a shape that does not fit.
        """
        [count] = check_positive(count=count)
        drawn: list[Tensor] = []

        def draw(output: Tensor) -> Tensor:
            drawn.append(self.head.samples(output, 1)[0])
            return drawn[-1]

        many = [
            None if part is None else part.repeat(count, *[1] * (part.dim() - 1))
            for part in (x, future, static, level)
        ]
        assert many[0] is not None
        self._run(many[0], many[1], many[2], many[3], draw)
        return torch.cat(drawn, dim=1).unflatten(0, (count, -1))

    def _run(
        self,
        x: Tensor,
        future: Tensor | None,
        static: Tensor | None,
        level: Tensor | None,
        choose: Callable[[Tensor], Tensor],
    ) -> Tensor:
        if future is not None and future.shape[1:] != (self.horizon, self.known):
            raise ValueError(
                f"future: expected shape {[len(x), self.horizon, self.known]}, "
                f"got {list(future.shape)}"
            )
        # with a state one row is enough, unless the forecast is counted from a row further back
        carries = getattr(self.net, "carries_state", False) and self.net.season <= 1
        more: dict[str, Any] = {"return_state": True, "state": None} if carries else {}
        outputs: list[Tensor] = []
        for step in range(self.horizon):
            ahead = None if future is None else future[:, step : step + 1]
            output = self.net(x, future=ahead, static=static, level=level, **more)
            if carries:
                output, more["state"] = output
            outputs.append(output)
            row = self._row(self.head.fed_back(choose(output), level), ahead)
            x = row if carries else torch.cat([x[:, 1:], row], dim=1)
        return torch.cat(outputs, dim=1)

    def _row(self, values: Tensor, ahead: Tensor | None) -> Tensor:
        """The next row of the context, [batch, 1, features]."""
        order = sorted(range(len(self.targets)), key=self.targets.__getitem__)
        parts = [values[..., order]] + ([] if ahead is None else [ahead])
        if self.masks:
            parts.append(values.new_ones(len(values), 1, self.masks))
        return torch.cat(parts, dim=2)
