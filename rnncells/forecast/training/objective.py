"""What a batch costs: the network called on it, and its head's loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.batch import Batch
from rnncells.forecast.checks import check_same_shape
from rnncells.forecast.heads import Head, PointHead
from rnncells.forecast.networks.recurrent import map_state
from rnncells.forecast.training.settings import Loss, Training

__all__ = ["Objective", "arguments", "cut_state", "head_of"]


class Objective:
    """The loss of a network's forecasts, in training and in validation.

    Args:
        model: the network.
        training: its loss, its monitor, and the steps that count.

    Raises:
        ValueError: a loss of points for a head that gives none.
    """

    def __init__(self, model: Any, training: Training) -> None:
        self.model, self.training, self.head = model, training, head_of(model)
        if training.loss is not None and not isinstance(self.head, PointHead):
            raise ValueError(
                f"loss: {type(self.head).__name__} has a loss of its own; expected none, or a "
                "PointHead"
            )

    def __call__(
        self, forward: Callable[..., Any], batch: Batch, state: Any = None
    ) -> tuple[Tensor, Any]:
        """The loss of a batch in training, and the state behind it where one is carried.

        Args:
            forward: the model as it is called, such as Fabric's wrapper.
            batch: windows.
            state: from the batch before, or nothing.
        """
        more = self._teacher(batch)
        output, state = self._run(forward, batch, state, **more)
        y, observed = self._due(batch)
        if self.training.loss_steps is not None:
            if y.dim() != 4:
                raise ValueError("loss_steps: expected windows with every_step")
            steps = self.training.loss_steps
            output, y = output[:, steps], y[:, steps]
            observed = None if observed is None else observed[:, steps]
        if self.training.loss is None:
            return self.head.loss(output, y, observed, batch.level), state
        return _masked(self.training.loss, output, y, observed), state

    def measure(
        self, forward: Callable[..., Any], batch: Batch, state: Any = None
    ) -> tuple[Tensor, int, Any]:
        """The loss (or monitor) of a batch in validation, how many values it is the mean of, and
        the state."""
        output, state = self._run(forward, batch, state)
        y, observed = self._due(batch)
        weight = y.numel() if observed is None else int(observed.sum())
        if self.training.monitor is not None:
            point = self.head.fed_back(self.head.point(output), batch.level)
            loss = _masked(self.training.monitor, point, y, observed)
        elif self.training.loss is not None:
            loss = _masked(self.training.loss, output, y, observed)
        else:
            loss = self.head.loss(output, y, observed, batch.level)
        return loss, weight, state

    def _run(
        self, forward: Callable[..., Any], batch: Batch, state: Any, **more: Any
    ) -> tuple[Any, Any]:
        more |= arguments(batch, self.head)
        every_step = batch.y.dim() == 4
        if not self.training.stateful:
            return forward(batch.x, every_step, **more), None
        output, state = forward(batch.x, every_step, state=state, return_state=True, **more)
        return output, map_state(Tensor.detach, state)

    def _teacher(self, batch: Batch) -> dict[str, Tensor]:
        """The targets, as often as the network wants to see them."""
        chance = getattr(self.model, "teacher_forcing", 0.0)
        if chance == 0 or batch.observed is not None or torch.rand(()).item() >= chance:
            return {}
        return {"teacher": batch.y}

    def _due(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Targets, and which of them were observed, after the steps that have a forecast."""
        y, observed, context = batch.y, batch.observed, batch.x.shape[1]
        if y.dim() == 4 and y.shape[1] == context and hasattr(self.model, "output_steps"):
            steps = self.model.output_steps(context)
            y, observed = y[:, steps], None if observed is None else observed[:, steps]
        return y, observed


def arguments(batch: Batch, head: Head, last: bool = False) -> dict[str, Tensor]:
    """What a network is given besides x, only what there is.

    Args:
        batch: windows.
        head: the network's.
        last: of what is known ahead of every step, take what is known ahead of the last.
    """
    future = batch.future
    if future is not None and last and future.dim() == 4:
        future = future[:, -1]
    level = batch.level if head.in_counts else None
    given = {"future": future, "static": batch.static, "level": level}
    return {name: value for name, value in given.items() if value is not None}


def cut_state(state: Any, rows: int) -> Any:
    """The first rows of a state, where the last series have ended."""
    return map_state(lambda part: part[:, :rows], state)


def head_of(model: Any) -> Head:
    """A network's head; a model that has none gives points."""
    head = getattr(model, "head", None)
    return head if isinstance(head, Head) else PointHead()


def _masked(loss: Loss, output: Tensor, y: Tensor, observed: Tensor | None) -> Tensor:
    check_same_shape(output, y)  # most losses would broadcast, and train on nonsense
    if observed is None:
        return loss(output, y)
    if not observed.any():
        return output.sum() * 0
    return loss(output[observed], y[observed])
