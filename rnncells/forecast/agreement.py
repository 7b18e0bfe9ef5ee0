"""Whether a model and the windows it is to see belong together, asked before anything runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rnncells.forecast.training.batches import gather

__all__ = ["check_agreement"]

ADVICE = {torch.float32: "series.float()", torch.float64: "series.double()"}


def check_agreement(model: nn.Module, windows: Any, name: str) -> None:
    """Check the first window against the model's dtype, and its horizon and targets if it has them.

    Raises:
        TypeError: not windows, or windows of another dtype than the model.
        ValueError: no windows, or windows of another horizon or other targets.
    """
    if not (hasattr(windows, "batch") or isinstance(windows, Dataset)):
        raise TypeError(
            f"{name}: expected Windows, as from Windows(series, context, horizon), "
            f"got {type(windows).__name__}"
        )
    if len(windows) == 0:
        raise ValueError(f"{name}: expected at least one window, got none")
    x, y = gather(windows, torch.zeros(1, dtype=torch.int64))[:2]
    if x.dim() != 3 or y.dim() not in (3, 4):
        raise ValueError(
            f"{name}: expected x [batch, time, features] and y [batch, horizon, targets] or "
            f"[batch, time, horizon, targets], got {list(x.shape)} and {list(y.shape)}"
        )
    horizon = getattr(model, "horizon", None)
    if isinstance(horizon, int) and horizon != y.shape[-2]:
        raise ValueError(
            f"{name}: expected the model's horizon, {horizon}, got windows of horizon {y.shape[-2]}"
        )
    _check_targets(model, windows, y, name)
    _check_dtype(model, x, name)


def _check_targets(model: nn.Module, windows: Any, y: Tensor, name: str) -> None:
    ours, theirs = getattr(model, "targets", None), getattr(windows, "targets", None)
    if not isinstance(ours, list | tuple):
        return
    if isinstance(theirs, tuple) and tuple(ours) != theirs:
        raise ValueError(
            f"{name}: expected the model's targets, {tuple(ours)}, got windows of targets {theirs}"
        )
    if len(ours) != y.shape[-1]:
        raise ValueError(
            f"{name}: expected {len(ours)} targets, the model's, got windows of {y.shape[-1]}"
        )


def _check_dtype(model: nn.Module, x: Tensor, name: str) -> None:
    for parameter in model.parameters():
        # for a model in half precision, it is Fabric that converts the inputs
        if parameter.dtype != x.dtype and parameter.dtype in ADVICE:
            theirs, ours = (str(one).removeprefix("torch.") for one in (x.dtype, parameter.dtype))
            raise TypeError(
                f"{name}: the series is {theirs}, the model {ours}: "
                f"convert the series with {ADVICE[parameter.dtype]}"
            )
