"""One layer call: the operator with a lean autograd node around it.

An operator with registered autograd costs about twice as much per call as an autograd Function
around the same operator below autograd; so eager calls take the Function, and everything that has
to see through a call (torch.compile, torch.export, torch.func) takes the operator itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rnncells.ops import gradients, layer_backward, layer_forward

BelowAutograd = torch._C._AutoDispatchBelowAutograd


class _LayerFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, bidirectional: bool, states: int, x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        given, weights = list(tensors[:states]), list(tensors[states:])
        with BelowAutograd():
            y, last, reserve = layer_forward(x, given, weights, cell, bidirectional, True)
        ctx.cell, ctx.bidirectional, ctx.states = cell, bidirectional, states
        ctx.save_for_backward(x, *tensors, y, reserve)
        ctx.set_materialize_grads(False)
        return (y, *last)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_y, *grad_last = grads
        x, *tensors, y, reserve = ctx.saved_tensors
        given, weights = tensors[: ctx.states], tensors[ctx.states :]
        saved = x, given, weights, y, reserve, ctx.cell, ctx.bidirectional
        needs = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # someone will derive the gradient
            found = gradients(layer_backward, saved, grad_y, grad_last, needs)
        else:
            with BelowAutograd():
                found = gradients(layer_backward, saved, grad_y, grad_last, needs)
        return (None, None, None, *found)


def run_layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str,
    bidirectional: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Run one recurrent layer, all its directions, over whole sequences.

    Args:
        x: the input, [T, B, I], any strides.
        states: one [D, B, H] tensor for each state of the cell (hidden state first), or none for
            zeros.
        weights: for each direction weight_ih [gates * H, I], weight_hh [gates * H, H] and, with
            biases, bias_ih and bias_hh [gates * H].
        cell: a name in ``rnncells.reference.CELLS``.
        bidirectional: whether a second direction (D = 2) runs from the last time step to the first.

    Returns:
        The output [T, B, D * H] and the last states, [D, B, H] each. Differentiable, also twice.

    Raises:
        RuntimeError: a tensor has the wrong shape, dtype (float32 and float64 are supported) or
            device (the CPU is).
        NotImplementedError: an input carries a forward-mode tangent.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        save = torch.is_grad_enabled()
        y, last, _ = layer_forward(x, list(states), list(weights), cell, bidirectional, save)
        return y, last
    inputs = (x, *states, *weights)
    if forward_ad._current_level >= 0:
        _refuse_tangents(inputs)
    if torch.is_grad_enabled() and any([t.requires_grad for t in inputs]):
        y, *last = _LayerFunction.apply(cell, bidirectional, len(states), *inputs)
        return y, last
    with BelowAutograd():
        y, last, _ = layer_forward(x, list(states), list(weights), cell, bidirectional, False)
    return y, last


def _refuse_tangents(tensors: Sequence[Tensor]) -> None:
    if any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError(
            "rnncells: forward-mode differentiation is not supported; an input carries a tangent"
        )
