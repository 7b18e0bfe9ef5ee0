"""The training loop, on Lightning Fabric: ours to read, and at home on any device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rnncells.forecast.agreement import check_agreement
from rnncells.forecast.checks import check_positive, check_same_shape
from rnncells.forecast.early_stopping import EarlyStopping
from rnncells.forecast.extras import require
from rnncells.forecast.progress import Progress
from rnncells.forecast.windows import Windows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["History", "Training", "fit", "predict"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the training windows at most.
        batch_size: windows a step.
        learning_rate: Adam's.
        clip_norm: the gradient's norm is cut down to this (R. Pascanu and others, "On the
            difficulty of training recurrent neural networks", 2013).
        patience: epochs without a better validation loss before training stops.
        loss: of (forecast, target), both of one shape.
        seed: of the order of the windows and of dropout.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-3
    clip_norm: float = 1.0
    patience: int = 10
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.huber_loss
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            [size] = check_positive(**{name: getattr(self, name)})
            object.__setattr__(self, name, size)  # a plain integer, as torch's loader demands
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: expected a finite number above 0, got {value}")


@dataclass
class History:
    """What happened in training: one loss an epoch; the weights are those of ``best_epoch``."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0


def fit(
    model: nn.Module,
    train: Windows,
    validation: Windows,
    training: Training | None = None,
    *,
    fabric: Fabric | None = None,
    label: str = "training",
) -> History:
    """Train ``model`` in place and leave it, in eval mode, with its best weights.

    The best weights are those with the lowest ``training.loss`` on the validation windows. torch's
    global random state is as before afterwards.

    Args:
        model: called as ``model(x, every_step)``; see :class:`rnncells.forecast.RecurrentNet`.
        train: windows to learn from; with ``every_step``, from the forecasts of all steps.
        validation: windows that decide when to stop.
        training: how to train.
        fabric: devices and precision, by default one process on the CPU.
        label: what the progress bar says; it is shown in a terminal only.

    Raises:
        FloatingPointError: a loss or a gradient is NaN or infinite; the model then holds its best
            weights so far.
        TypeError: ``train`` or ``validation`` are not windows, or not in the model's dtype.
        ValueError: the windows have another horizon or other targets than the model, or its
            forecasts another shape than the targets.
        ImportError: lightning-fabric is not installed.
    """
    training = training or Training()
    check_agreement(model, train, "train")
    check_agreement(model, validation, "validation")
    if fabric is None:
        fabric = require("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return _fit(model, train, validation, training, fabric, label)


def _fit(
    model: nn.Module,
    train: Windows,
    validation: Windows,
    training: Training,
    fabric: Fabric,
    label: str,
) -> History:
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    wrapped, optimizer = fabric.setup(model, optimizer)
    order = torch.Generator().manual_seed(training.seed)
    batches = _loader(fabric, train, training.batch_size, shuffle=True, generator=order)
    checks = _loader(fabric, validation, 4 * training.batch_size)
    history, stopping = History(), EarlyStopping(training.patience)
    begin = time.perf_counter()
    try:
        with Progress(label, training.epochs) as progress:
            for epoch in range(training.epochs):
                history.train_loss.append(
                    _train_epoch(fabric, wrapped, optimizer, batches, training, epoch)
                )
                loss = _validate(wrapped, checks, training.loss)
                _require_finite("validation loss", loss, training, f"epoch {epoch}")
                history.validation_loss.append(loss)
                progress.step(f"validation loss {loss:.4f}, best {min(loss, stopping.best):.4f}")
                if stopping.update(loss, epoch, model):
                    break
    finally:
        stopping.restore(model)
        model.eval()
    history.best_epoch = stopping.best_epoch or 0
    history.seconds = time.perf_counter() - begin
    return history


def _first(samples: Any) -> Any:
    return samples  # Windows has put the batch together already


def _loader(fabric: Fabric, windows: Windows, batch_size: int, **options: Any) -> DataLoader[Batch]:
    loader = DataLoader(windows, batch_size, collate_fn=_first, **options)
    ready: DataLoader[Batch] = fabric.setup_dataloaders(loader)  # type: ignore[assignment]
    return ready


def _train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: DataLoader[Batch],
    training: Training,
    epoch: int,
) -> float:
    model.train()
    total = 0.0
    for step, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        loss = _loss_of(model, x, y, training.loss)
        fabric.backward(loss)
        norm = fabric.clip_gradients(
            model, optimizer, max_norm=training.clip_norm, error_if_nonfinite=False
        )
        assert norm is not None  # it is None only where gradients are clipped by value
        for name, value in (("loss", loss.item()), ("gradient's norm", float(norm))):
            _require_finite(name, value, training, f"epoch {epoch}, step {step}")
        optimizer.step()
        total += loss.item()
    return total / len(batches)


def _loss_of(
    model: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    forecast = model(x, every_step=y.dim() == 4)
    check_same_shape(forecast, y)  # most losses would broadcast, and train on nonsense
    return loss(forecast, y)


@torch.no_grad()
def _validate(
    model: nn.Module, batches: DataLoader[Batch], loss: Callable[[Tensor, Tensor], Tensor]
) -> float:
    model.eval()
    total, count = 0.0, 0
    for x, y in batches:
        total += _loss_of(model, x, y, loss).item() * len(x)
        count += len(x)
    return total / count


def _require_finite(name: str, value: float, training: Training, where: str) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"training diverged in {where}: the {name} is {value}; the learning rate "
            f"({training.learning_rate}) may be too high, or the windows hold extreme values "
            "(are they scaled?). The model keeps its best weights so far"
        )


@torch.no_grad()
def predict(model: nn.Module, windows: Windows, batch_size: int = 256) -> Tensor:
    """Forecast every window, without gradients and in eval mode: [windows, horizon, targets].

    Raises:
        TypeError: ``windows`` are not windows, or not in the model's dtype.
        ValueError: the windows have another horizon or other targets than the model.
    """
    [batch_size] = check_positive(batch_size=batch_size)
    check_agreement(model, windows, "windows")
    was_training = model.training
    model.eval()
    index = torch.arange(len(windows))
    forecasts = [model(windows.batch(part)[0]) for part in index.split(batch_size)]
    model.train(was_training)
    return torch.cat(forecasts)
