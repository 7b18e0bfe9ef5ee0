"""Which row of a packed sequence is whose."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["places_of_rows", "turned_rows"]


def places_of_rows(batch_sizes: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The time step and the sequence of each of so many rows, both [N] on the CPU, of a packed
    sequence with ``batch_sizes`` [T]. No size depends on values, so that it can be compiled."""
    row = torch.arange(rows, device=batch_sizes.device)
    ends = batch_sizes.cumsum(0)
    step = torch.searchsorted(ends, row, right=True)
    return step, row - (ends - batch_sizes)[step]


def turned_rows(x: Tensor, batch_sizes: Tensor) -> Tensor:
    """Packed rows ``x`` [N, I], of which ``batch_sizes`` [T] belong to each step, with each
    sequence turned round in time."""
    step, sequence = places_of_rows(batch_sizes, x.shape[0])
    # A sequence is as long as there are steps of more rows than its place; these do not grow.
    behind = torch.searchsorted(batch_sizes.flip(0), sequence, right=True)
    lengths = batch_sizes.shape[0] - behind
    first = batch_sizes.cumsum(0) - batch_sizes
    return x[(first[lengths - 1 - step] + sequence).to(x.device)]
