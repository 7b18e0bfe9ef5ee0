"""Streaming: a few rows of one layer, or of a cell, for inference, straight into the engine.

An operator takes longer to call than a step of a small layer takes to compute. So a call of at most
eight rows (time steps times sequences) in which nothing asks for gradients, and nothing watches the
operators, hands its tensors over as they are, by DLPack's functions for C. What they are is checked
there; whatever is no case for it goes the ordinary way, which also says what is wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from rnncells import _C

__all__ = ["make_plan"]

_places = {cell: place for place, cell in enumerate(_C.cells())}


def make_plan(cell: str, input_size: int, hidden_size: int, names: tuple[str, ...]) -> _C.Plan:
    """What a layer of one direction, or a cell, tells the engine of itself: of which cell it is,
    its sizes, and its parameters' names, weights before biases."""
    return _places[cell], input_size, hidden_size, names


def _in_forward_mode() -> bool:
    return forward_ad._current_level >= 0


_C.watch(
    Tensor,
    Parameter,
    torch.empty_like,
    (
        torch.is_grad_enabled,
        torch._C._is_any_autocast_enabled,
        torch._C._are_functorch_transforms_active,
        torch._C._len_torch_dispatch_stack,
        torch._C._get_tracing_state,
        torch._C._autograd._profiler_enabled,
        _in_forward_mode,
    ),
)
