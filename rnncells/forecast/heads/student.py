"""Quantiles of Student's t, which torch does not have."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["student_quantiles"]

CELLS = 512  # of the table over 1 / freedom; a line in one is off by 1e-5 of the quantile at most
NODES = 256  # of Simpson's rule


def student_quantiles(level: float, freedom: Tensor) -> Tensor:
    """The quantile of this level in (0, 1) for each number of degrees of freedom, at least 2.

    Read from a table over 1 / freedom, from 1/2 (freedom 2) to 0 (normal), made once a level.

    Returns:
        Of the shape and dtype of ``freedom``.
    """
    if level == 0.5:
        return torch.zeros_like(freedom)
    table = _table(max(level, 1 - level)).to(freedom)
    place = (2 * CELLS) / freedom.clamp(min=2)
    left = place.floor().clamp(max=CELLS - 1)
    low = table[left.long()]
    value = low + (place - left) * (table[left.long() + 1] - low)
    return value if level > 0.5 else -value


@lru_cache(maxsize=64)
def _table(level: float) -> Tensor:
    """Quantiles for 1 / freedom = 0 (normal), ..., 1/2, float64, level above 1/2."""
    freedom = (2 * CELLS) / torch.arange(1, CELLS + 1, dtype=torch.float64)
    normal = torch.special.ndtri(torch.tensor(level, dtype=torch.float64))
    # the quantile falls with freedom: it lies between the normal's and that of freedom 2
    heaviest = (2 * level - 1) / math.sqrt(2 * level * (1 - level))
    low, high = normal.expand_as(freedom), torch.full_like(freedom, heaviest)
    for _ in range(60):
        middle = (low + high) / 2
        under = _above_the_median(middle, freedom) < level - 0.5
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return torch.cat([normal[None], (low + high) / 2])


def _above_the_median(t: Tensor, freedom: Tensor) -> Tensor:
    """The chance of a value between 0 and t: with t = sqrt(freedom) tan(a), the integral over a of
    cos(a)^(freedom - 1), by Simpson's rule."""
    angle = (t / freedom.sqrt()).atan().unsqueeze(-1)
    nodes = torch.arange(NODES + 1, dtype=torch.float64)
    weights = 2.0 + 2.0 * (nodes % 2)
    weights[[0, -1]] = 1.0
    density = (angle * nodes / NODES).cos() ** (freedom.unsqueeze(-1) - 1)
    integral = (density * weights).sum(-1) * angle.squeeze(-1) / (3 * NODES)
    half = freedom / 2
    constant = (torch.lgamma(half + 0.5) - torch.lgamma(half)).exp() / math.sqrt(math.pi)
    return constant * integral
