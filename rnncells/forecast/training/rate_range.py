"""How high a learning rate may be, found by trying."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from rnncells.forecast.agreement import check_agreement
from rnncells.forecast.checks import check_positive
from rnncells.forecast.extras import require
from rnncells.forecast.training.batches import gather
from rnncells.forecast.training.run import Run
from rnncells.forecast.training.settings import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["RateRange", "rate_range"]

MEMORY = 0.9  # of the smoothed loss, a step
TOO_MUCH = 4.0  # times the lowest loss: training has diverged


class RateRange(NamedTuple):
    """What a range test has seen.

    Attributes:
        rates: the learning rates tried, rising.
        losses: the training loss at each, smoothed.
        suggestion: a tenth of the rate at the lowest loss: high, and still safe.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float


def rate_range(
    model: nn.Module,
    train: Any,
    training: Training | None = None,
    *,
    low: float = 1e-5,
    high: float = 1.0,
    steps: int = 100,
    fabric: Fabric | None = None,
) -> RateRange:
    """The learning-rate range test (L. Smith, "Cyclical learning rates", 2017).

    A copy of the model is trained while the learning rate rises from step to step by one factor;
    the test ends where the loss runs away. The model and torch's random state stay as they are.

    Args:
        model, train, training, fabric: as in :func:`rnncells.forecast.training.fit`, in one
            process.
        low, high: the first rate, and the last.
        steps: from one to the other.

    Raises:
        TypeError, ValueError: windows that do not fit the model, or no rising range.
        FloatingPointError: the loss is not finite at the lowest rate.
    """
    [steps] = check_positive(steps=steps)
    if not (0 < low < high < math.inf):
        raise ValueError(f"low, high: expected 0 < low < high, got {low}, {high}")
    if fabric is None:
        fabric = require("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    training = replace(training or Training(), schedule="constant", warmup=0, stateful=False)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        check_agreement(model, train, "train")
        torch.manual_seed(training.seed)
        run = Run(copy.deepcopy(model), train, None, training, fabric, None)
        return _try_rates(run, low, high, steps)


def _try_rates(run: Run, low: float, high: float, steps: int) -> RateRange:
    rates: list[float] = []
    losses: list[float] = []
    smooth = 0.0
    run.model.train()
    epochs = chain.from_iterable(run.parts(epoch) for epoch in count())
    for step, part in enumerate(islice(epochs, steps)):
        rate = low * (high / low) ** (step / max(1, steps - 1))
        for group in run.inner.param_groups:
            group["lr"] = rate
        batch = gather(run.train, part.indices, run.fabric.device)
        loss = run.take(batch, look=False).item()
        smooth = MEMORY * smooth + (1 - MEMORY) * loss
        value = smooth / (1 - MEMORY ** (step + 1))
        if not math.isfinite(value):
            break
        rates.append(rate)
        losses.append(value)
        if value > TOO_MUCH * min(losses):
            break
    if not losses:
        raise FloatingPointError(f"the loss is not finite at the lowest rate, {low}")
    return RateRange(rates, losses, rates[losses.index(min(losses))] / 10)
