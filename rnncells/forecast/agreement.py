"""Whether a model and the windows it is to see belong together, asked before anything runs."""

from __future__ import annotations

import torch
from torch import nn

from rnncells.forecast.windows import Windows

__all__ = ["check_agreement"]

ADVICE = {torch.float32: "series.float()", torch.float64: "series.double()"}


def check_agreement(model: nn.Module, windows: Windows, name: str) -> None:
    """Check the windows against the model's dtype, and its horizon and targets where it has them.

    Raises:
        TypeError: not windows, or their series is of another dtype than the model.
        ValueError: the windows hold another horizon or other targets.
    """
    if not isinstance(windows, Windows):
        raise TypeError(
            f"{name}: expected Windows, as from Windows(series, context, horizon), "
            f"got {type(windows).__name__}"
        )
    horizon, targets = getattr(model, "horizon", None), getattr(model, "targets", None)
    if isinstance(horizon, int) and horizon != windows.horizon:
        raise ValueError(
            f"{name}: expected the model's horizon, {horizon}, got windows of horizon "
            f"{windows.horizon}"
        )
    if isinstance(targets, list | tuple) and tuple(targets) != windows.targets:
        raise ValueError(
            f"{name}: expected the model's targets, {tuple(targets)}, got windows of targets "
            f"{windows.targets}"
        )
    _check_dtype(model, windows, name)


def _check_dtype(model: nn.Module, windows: Windows, name: str) -> None:
    series = windows.series.dtype
    for parameter in model.parameters():
        # for a model in half precision, it is Fabric that converts the inputs
        if parameter.dtype != series and parameter.dtype in ADVICE:
            theirs, ours = (
                str(dtype).removeprefix("torch.") for dtype in (series, parameter.dtype)
            )
            raise TypeError(
                f"{name}: the series is {theirs}, the model {ours}: "
                f"convert the series with {ADVICE[parameter.dtype]}"
            )
