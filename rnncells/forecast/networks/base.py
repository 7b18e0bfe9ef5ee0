"""What every network has: what it reads, what it forecasts, and the way from units to a head."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, cat, nn

from rnncells.forecast.checks import check_columns, check_positive
from rnncells.forecast.heads import Head, PointHead

__all__ = ["Job", "Network", "SequenceNetwork", "check_count"]


class Job(TypedDict, total=False):
    """What the networks share: what is known, and how the forecast is told.

    Keys:
        targets: the columns of x that are forecast; (0,) where nothing is said.
        known: columns that are known ahead, 0 or more: the width of ``future``.
        static: features that stay the same in a series, 0 or more.
        head: how a forecast is told; a point where nothing is said.
        residual: count the forecast from the target's last value (by default), or with a number
            from its value so many steps before, a season: what is learned is the change, and a
            level that training never saw needs no extrapolation.
        scale: what the network's numbers are multiplied by, 1 where nothing is said: for series
            that are not scaled.
    """

    targets: Sequence[int]
    known: int
    static: int
    head: Head
    residual: bool | int
    scale: float


class Network(nn.Module):
    """The base of all networks: ``horizon`` steps from windows [batch, time, features].

    Args:
        features: columns of x, the context.
        horizon: steps that are forecast at once.
        targets, known, static, head, residual, scale: see :class:`Job`.

    Raises:
        TypeError: targets that are not a sequence of integers, or a head that is none.
        ValueError: a size or a column that is not allowed.
    """

    teacher_forcing = 0.0  # how often training shows the targets to the network

    def __init__(
        self,
        features: int,
        horizon: int,
        *,
        targets: Sequence[int] = (0,),
        known: int = 0,
        static: int = 0,
        head: Head | None = None,
        residual: bool | int = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.features, self.horizon = check_positive(features=features, horizon=horizon)
        self.targets = list(check_columns(targets, self.features))
        self.known, self.static = check_count("known", known), check_count("static", static)
        self.head = PointHead() if head is None else head
        if not isinstance(self.head, Head):
            raise TypeError(f"head: expected a Head, such as PointHead(), got {head!r}")
        if not (math.isfinite(scale) and scale != 0):
            raise ValueError(f"scale: expected a finite number other than 0, got {scale}")
        self.season, self.scale = check_count("residual", int(residual)), float(scale)

    @property
    def numbers(self) -> int:
        """Numbers that the head asks for at each step of the horizon."""
        return len(self.targets) * self.head.size

    def output_steps(self, context: int) -> slice:
        """The steps of a context of this length after which there is a forecast."""
        return slice(None)

    def check(
        self, x: Tensor, future: Tensor | None, static: Tensor | None, every_step: bool
    ) -> None:
        """Check the shapes of what forward is given.

        Raises:
            ValueError: one does not fit.
        """
        if x.dim() != 3 or x.shape[2] != self.features:
            raise ValueError(
                f"x: expected shape [batch, time, {self.features}], got {list(x.shape)}"
            )
        if x.shape[1] < self.season:
            raise ValueError(
                f"x: expected at least {self.season} time steps, from which the forecast is "
                f"counted (residual), got {x.shape[1]}"
            )
        batch = x.shape[0]  # not len(x), which an exporter takes for a constant
        ahead = [batch, self.horizon, self.known]
        if every_step:
            ahead.insert(1, self._ahead_steps(x, future))
        _check_covariate("future", future, self.known, ahead)
        _check_covariate("static", static, self.static, [batch, self.static])

    def _ahead_steps(self, x: Tensor, future: Tensor | None) -> int:
        """Steps that ``future`` should have: of the whole context, or of the forecasts alone."""
        context = x.shape[1]
        forecasts = len(range(context)[self.output_steps(context)])
        given = forecasts if future is None or future.dim() != 4 else future.shape[1]
        return given if given in (context, forecasts) else context

    def base(self, x: Tensor, steps: slice | None = None) -> Tensor | None:
        """What forecasts from x are counted from: the targets' last season, repeated.

        Args:
            x: contexts [batch, time, features].
            steps: for the forecasts after each of these steps, not after the last alone. Where no
                whole season has gone by, the value at that step stands in.

        Returns:
            [batch, horizon, targets], or with ``steps`` [batch, steps, horizon, targets]; the
            horizon's axis is 1 where all are counted from one value. Nothing without a residual.
        """
        if self.season == 0:
            return None
        values = x[..., self.targets]
        if self.season == 1:
            return values[:, -1:] if steps is None else values[:, steps].unsqueeze(2)
        back = torch.arange(self.horizon, device=x.device) % self.season + 1 - self.season
        if steps is None:
            return values[:, x.shape[1] - 1 + back]
        now = torch.arange(x.shape[1], device=x.device)[steps, None]
        return values[:, torch.where(now + back < 0, now, now + back)]

    def tell(self, numbers: Tensor, base: Tensor | None, level: Tensor | None) -> Tensor:
        """The head's output.

        Args:
            numbers: [..., horizon * targets * head.size].
            base: [..., horizon or 1, targets], what is added, or nothing.
            level: [batch, 2, targets], or nothing.
        """
        raw = numbers.unflatten(-1, (-1, len(self.targets), self.head.size))
        if self.scale != 1.0:
            raw = raw * self.scale
        return self.head(raw, base, level if self.head.in_counts else None)


class SequenceNetwork(Network):
    """A causal network: what it says after a step depends on the context up to that step alone.

    A subclass turns rows into hidden units; a linear layer, the same after each step, turns these
    and what is known ahead into the head's numbers.

    Args:
        units: hidden units that :meth:`encode` gives; nothing where its units are the numbers.
    """

    def __init__(self, units: int | None, features: int, horizon: int, **job: Any) -> None:
        super().__init__(features, horizon, **job)
        self.output: nn.Module = nn.Identity()
        if units is not None:
            ahead = self.horizon * self.known
            self.output = nn.Linear(units + ahead, self.horizon * self.numbers)

    @abstractmethod
    def encode(self, rows: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Hidden units after each step of :meth:`output_steps`: rows [batch, time, features +
        static] -> [batch, steps, units]; and the state behind the last, if it has one."""

    def forward(
        self,
        x: Tensor,
        every_step: bool = False,
        *,
        future: Tensor | None = None,
        static: Tensor | None = None,
        level: Tensor | None = None,
        state: Any = None,
        return_state: bool = False,
    ) -> Any:
        """Forecast from windows.

        Args:
            x: contexts [batch, time, features].
            every_step: give the forecast made after each step (of :meth:`output_steps`), not only
                after the last.
            future: what is known ahead, [batch, horizon, known], or with ``every_step`` [batch,
                time or steps, horizon, known].
            static: [batch, static].
            level: [batch, 2, targets], for heads that count.
            state: what an earlier call returned, for a network that has one: x goes on from there.
            return_state: also return the state behind the last step.

        Returns:
            The head's output: for points [batch, horizon, targets], or with ``every_step`` [batch,
            steps, horizon, targets]; and the state where it was asked for.

        Raises:
            ValueError: a shape that does not fit.
        """
        self.check(x, future, static, every_step)
        rows = x
        if static is not None:
            rows = cat([x, static.unsqueeze(1).expand(-1, x.shape[1], -1)], dim=-1)
        hidden, state = self.encode(rows, state)
        steps = self.output_steps(x.shape[1]) if every_step else None
        if steps is None:
            hidden = hidden[:, -1]
        elif future is not None and future.shape[1] != hidden.shape[1]:
            future = future[:, steps]
        if future is not None:
            hidden = cat([hidden, future.flatten(-2)], dim=-1)
        output = self.tell(self.output(hidden), self.base(x, steps), level)
        return (output, state) if return_state else output


def check_count(name: str, count: int) -> int:
    """Check that a number of columns is 0 or more.

    Raises:
        ValueError: it is not.
    """
    return 0 if count == 0 else check_positive(**{name: count})[0]


def _check_covariate(name: str, given: Tensor | None, columns: int, expected: list[int]) -> None:
    if (given is None) != (columns == 0):
        was = "none" if given is None else f"one of shape {list(given.shape)}"
        raise ValueError(f"{name}: the network has {columns} such columns, got {was}")
    if given is not None and list(given.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {list(given.shape)}")
