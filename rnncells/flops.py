"""What our layers cost, for ``torch.utils.flop_counter.FlopCounterMode``.

Importing this registers the operators, which count nothing until then. It is not imported with
rnncells: torch's counter loads Triton where there is one, which takes a quarter of a second.

Counted are the matrix products that the result requires, as torch counts its own: a multiplication
and an addition are two. Sizes are those of :mod:`rnncells.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.utils.flop_counter import register_flop_formula

__all__ = ["layer_backward_flops", "layer_forward_flops"]


@register_flop_formula(torch.ops.rnncells.layer_forward, get_raw=True)
def layer_forward_flops(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    *_: Any,
    **__: Any,
) -> int:
    """The products of one forward pass: every weight matrix, once for each row of the input."""
    return 2 * _rows(x, lengths) * sum(w.numel() for w in weights if w.dim() == 2)


@register_flop_formula(torch.ops.rnncells.layer_backward, get_raw=True)
def layer_backward_flops(
    grad_y: Tensor | None,
    grad_last: Sequence[Tensor],
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    y: Tensor,
    reserve: Tensor,
    cell: str,
    bidirectional: bool,
    needs: Sequence[int],
    **_: Any,
) -> int:
    """The products of BPTT: through weight_hh and weight_hr in any case, through weight_ih for the
    gradient of x, and one for each weight matrix whose gradient is needed."""
    each = len(weights) // (2 if bidirectional else 1)
    count = 0
    for place, (weight, needed) in enumerate(zip(weights, needs[-len(weights) :], strict=True)):
        if weight.dim() == 2:
            through = needs[0] if place % each == 0 else 1
            count += weight.numel() * (through + needed)
    return 2 * _rows(x, lengths) * count


def _rows(x: Tensor, lengths: Tensor | None) -> int:
    """The time steps of all sequences; of lengths without values, as many as there may be."""
    if lengths is None or lengths.is_meta or is_fake(lengths):
        return prod(x.shape[:-1])
    return int(lengths.sum())
