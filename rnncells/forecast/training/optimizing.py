"""Optimizers and learning-rate schedules, torch's own, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

if TYPE_CHECKING:
    from rnncells.forecast.training.settings import Training

__all__ = ["OPTIMIZERS", "SCHEDULES", "make_optimizer", "make_schedule"]

Schedule = Callable[[torch.optim.Optimizer, int], LRScheduler]

OPTIMIZERS = {
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
}
FUSED = ("adam", "adamw", "sgd")  # one kernel for all parameters, on the CPU too


def _step(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    return lr_scheduler.StepLR(optimizer, max(1, steps // 3), gamma=0.1)


def _one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    rates = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)


SCHEDULES: dict[str, Schedule | None] = {
    "constant": None,
    "step": _step,
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "one_cycle": _one_cycle,
}


def make_optimizer(
    model: nn.Module, training: Training, fused: bool = True
) -> torch.optim.Optimizer:
    """The optimizer of ``training``; fused where it can be, unless ``fused`` is False."""
    if callable(training.optimizer):
        return training.optimizer(model.parameters())
    options: dict[str, Any] = dict(training.optimizer_options)
    if fused and training.optimizer in FUSED and not _chosen(options):
        options["fused"] = True
    make = getattr(torch.optim, OPTIMIZERS[training.optimizer])
    found: torch.optim.Optimizer = make(model.parameters(), lr=training.learning_rate, **options)
    return found


def _chosen(options: dict[str, Any]) -> bool:
    """Whether somebody has said how the optimizer is to be run."""
    return any(name in options for name in ("fused", "foreach", "differentiable", "capturable"))


def make_schedule(
    optimizer: torch.optim.Optimizer, training: Training, steps: int
) -> LRScheduler | None:
    """The schedule of ``training`` over this many steps; None where the rate never changes."""
    make = training.schedule if callable(training.schedule) else SCHEDULES[training.schedule]
    if training.warmup == 0:
        return None if make is None else make(optimizer, steps)
    warmup = min(training.warmup, steps)
    parts: list[LRScheduler] = [
        lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup)
    ]
    if make is None or warmup == steps:
        return parts[0]
    parts.append(make(optimizer, steps - warmup))
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[warmup])
