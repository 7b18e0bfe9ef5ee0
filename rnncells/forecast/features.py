"""Inputs made from a series: covariates carried over short gaps."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_positive

__all__ = ["carry_forward"]


def carry_forward(column: Tensor, limit: int) -> Tensor:
    """Fill each NaN with the last value seen, at most ``limit`` steps old, else leave it.

    It looks only back, so a forecaster at work could do the same. Meant for covariates: a target
    that is missing stays missing.

    Args:
        column: [time], floating point.
        limit: the oldest value taken, in time steps, at least 1.

    Raises:
        TypeError: a column that is not a tensor.
        ValueError: a column that is not of rank 1, or a limit below one.
    """
    [limit] = check_positive(limit=limit)
    require_tensor("column", column)
    if column.dim() != 1:
        raise ValueError(f"column: expected rank 1, [time], got shape {list(column.shape)}")
    step = torch.arange(len(column), device=column.device)
    seen = torch.where(column.isnan(), -1, step).cummax(0).values
    near = (seen >= 0) & (step - seen <= limit)
    return torch.where(near, column[seen.clamp(min=0)], column)
