"""How to train, and what happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from rnncells.forecast.checks import check_positive
from rnncells.forecast.training.optimizing import OPTIMIZERS, SCHEDULES

__all__ = ["Diverged", "History", "Loss", "Training"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the training windows at most.
        batch_size: windows a step, in each process.
        learning_rate: of the optimizer; the highest, where it changes.
        clip_norm: the gradient's norm is cut down to this (R. Pascanu and others, "On the
            difficulty of training recurrent neural networks", 2013); None for no limit.
        patience: epochs without a better validation loss before training stops; None for never.
        loss: of (forecast, target), both of one shape, in place of a point head's own; for other
            heads None.
        monitor: of (point forecast, target): what early stopping goes by, in place of the loss.
        seed: of the order of the windows and of dropout.
        optimizer: ``"adam"``, ``"adamw"``, ``"nadam"``, ``"rmsprop"`` or ``"sgd"``, or a function
            of the parameters that gives one, with its own learning rate.
        optimizer_options: its further arguments, such as ``{"momentum": 0.9}``.
        schedule: of the learning rate over all epochs: ``"constant"``, ``"step"`` (a tenth after
            each third), ``"cosine"`` (to zero; I. Loshchilov and F. Hutter, "SGDR", 2017) or
            ``"one_cycle"`` (up, then down; L. Smith and N. Topin, "Super-convergence", 2018), or a
            function of the optimizer and the number of steps that gives one of torch's.
        warmup: steps in which the learning rate first rises from a hundredth to its value.
        loss_steps: with windows of ``every_step``, the steps of the context whose forecasts count
            in training, such as ``slice(-3, None)``; None for all.
        stateful: take the windows in order and carry the network's state, cut off from the
            gradient, from each to the one that follows it (truncated backpropagation through time;
            R. Williams and J. Peng, 1990). The windows must follow each other without overlap: a
            stride of the context's length. See
            :func:`rnncells.forecast.training.batches.consecutive`.
        checkpoint_every: steps from one checkpoint to the next, besides that of each epoch.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-3
    clip_norm: float | None = 1.0
    patience: int | None = 10
    loss: Loss | None = None
    monitor: Loss | None = None
    seed: int = 0
    optimizer: str | Callable[[Any], torch.optim.Optimizer] = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | Callable[[torch.optim.Optimizer, int], LRScheduler] = "constant"
    warmup: int = 0
    loss_steps: slice | None = None
    stateful: bool = False
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "warmup", "checkpoint_every"):
            value = getattr(self, name)
            if value is None or (name == "warmup" and value == 0):
                continue
            [size] = check_positive(**{name: value})
            object.__setattr__(self, name, size)  # a plain integer, as torch demands
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: expected a finite number above 0, got {value}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if not callable(value) and value not in known:
                raise ValueError(
                    f"{name}: expected one of {', '.join(known)}, or a function, got {value!r}"
                )
        if not isinstance(self.loss_steps, slice | None):
            raise TypeError(
                f"loss_steps: expected a slice, such as slice(-3, None), got {self.loss_steps!r}"
            )

    def as_text(self) -> dict[str, str]:
        """Each setting in words, functions by their names: to compare two runs."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: getattr(value, "__name__", type(value).__name__)
            if callable(value)
            else repr(value)
            for name, value in values.items()
        }


@dataclass
class History:
    """What happened in training: one loss an epoch; the weights are those of ``best_epoch``.

    Without validation windows there is no validation loss, and the last epoch is the best.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0


class Diverged(FloatingPointError):
    """A training whose loss, gradient or weights are not finite any more.

    Attributes:
        history: of the epochs that were good; without any, its ``train_loss`` is empty.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history
