"""One layer call: the operator with the autograd node that suits the caller.

An operator with registered autograd costs about twice as much per call as an autograd Function
around the same operator below autograd, so eager calls take a lean Function. torch.compile and
torch.export trace the operator itself, and torch's ONNX exporter gets ONNX's. torch.func needs
Functions of its own form. Forward-mode differentiation runs through the reference, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import Function, forward_ad

from rnncells import batched, variants  # noqa: F401  batched registers rules
from rnncells.onnx import is_exporting, onnx_layer, refuse
from rnncells.ops import differentiate_twice, gradients, layer_backward, layer_forward
from rnncells.variants import PLAIN, Varied, is_varied

BelowAutograd = torch._C._AutoDispatchBelowAutograd
BEFORE_X = 9  # arguments of the Functions for torch.func before x


# Cell, whether bidirectional, whether to recompute, the variant, lengths, batch sizes, and how many
# tensors are states. One argument: each costs.
EagerCall = tuple[str, bool, bool, Varied, Tensor | None, Tensor | None, int]


class _EagerLayer(Function):
    @staticmethod
    def forward(ctx: Any, call: EagerCall, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        cell, bidirectional, recompute, varied, lengths, batch_sizes, states = call
        given, weights = list(tensors[:states]), list(tensors[states:])
        inputs = x, given, weights, lengths, batch_sizes
        told = varied is not PLAIN and is_varied(varied)
        # Each argument costs: the last ones are given where they say something.
        rest = (False, recompute, None, *varied) if told or recompute else ()
        with BelowAutograd():
            y, last, reserve = layer_forward(*inputs, cell, bidirectional, True, False, *rest)
        ctx.call = cell, bidirectional, recompute, varied.variant if told else None, states
        # The caller may change the output in place: saved as itself it would be refused then.
        ctx.changes, ctx.unchanged = _changes_of(y), y._version
        drawn = varied[1:] if told else ()
        ctx.save_for_backward(lengths, batch_sizes, y.data, reserve, x, *tensors, *drawn)
        ctx.set_materialize_grads(False)
        return (y, *last)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_y, *grad_last = grads
        lengths, batch_sizes, y, reserve, x, *tensors = ctx.saved_tensors
        cell, bidirectional, recompute, variant, states = ctx.call
        varied = PLAIN
        if variant is not None:
            *tensors, seed, resets = tensors
            varied = Varied(variant, seed, resets)
        inputs = x, tensors[:states], tensors[states:], lengths, batch_sizes
        if ctx.changes._version != ctx.unchanged:
            with BelowAutograd():
                y, _, _ = layer_forward(*inputs, cell, bidirectional, False, **varied._asdict())
        saved = *inputs, y, reserve, cell, bidirectional
        needs = _asked_for(ctx)
        backward: Any = layer_backward
        if recompute or variant is not None:
            backward = partial(layer_backward, recompute=recompute, **varied._asdict())
        if torch.is_grad_enabled():  # someone will derive the gradient
            found = gradients(backward, saved, grad_y, grad_last, needs)
        else:
            with BelowAutograd():
                found = gradients(backward, saved, grad_y, grad_last, needs)
        return (None, *found)


_nothing = torch.empty(0)


def _changes_of(tensor: Tensor) -> Tensor:
    """A tensor without memory whose version counts the changes in place of another one."""
    counter = tensor.detach()
    plain = tensor.is_cpu and type(tensor) is Tensor
    counter.data = _nothing if plain else tensor.new_empty(0)
    return counter


def _asked_for(ctx: Any) -> list[bool]:
    """Which of x, the states and the weights this backward pass wants a gradient of.

    Some require a gradient and are not among what torch.autograd.grad, or backward(inputs=...), was
    called for.
    """
    needs = ctx.needs_input_grad[1:]
    return [
        need and node is not None and _will_run(node)
        for need, (node, _) in zip(needs, ctx.next_functions, strict=True)
    ]


def _will_run(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # it says so of a leaf whose gradient is collected, and outside backward
        return True


class _TransformedLayer(Function):
    """The same for torch.func, which wants the context set up apart from the forward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        cell: str,
        bidirectional: bool,
        recompute: bool,
        variant: str,
        lengths: Tensor | None,
        batch_sizes: Tensor | None,
        seed: Tensor | None,
        resets: Tensor | None,
        states: int,
        x: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        given, weights = list(tensors[:states]), list(tensors[states:])
        inputs = x, given, weights, lengths, batch_sizes
        save, tidy, rowwise = True, True, True
        y, last, reserve = layer_forward(
            *inputs,
            *(cell, bidirectional, save, tidy, rowwise, recompute, None),
            *(variant, seed, resets),
        )
        return (y, *last, reserve)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.cell, ctx.bidirectional, ctx.recompute, ctx.variant, *rest = inputs
        lengths, batch_sizes, seed, resets, ctx.states, *tensors = rest
        ctx.mark_non_differentiable(output[-1])
        kept = lengths, batch_sizes, seed, resets
        ctx.save_for_backward(*kept, output[0], output[-1], *tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        lengths, batch_sizes, seed, resets, y, reserve, *tensors = ctx.saved_tensors
        needs = [int(needed) for needed in ctx.needs_input_grad[BEFORE_X:]]
        found = iter(
            _TransformedBackward.apply(
                ctx.cell,
                ctx.bidirectional,
                ctx.recompute,
                ctx.variant,
                lengths,
                batch_sizes,
                seed,
                resets,
                ctx.states,
                needs,
                reserve,
                y,
                *grads[:-1],
                *tensors,
            )
        )
        gradients_of = (next(found) if needed else None for needed in needs)
        return (*[None] * BEFORE_X, *gradients_of)


class _TransformedBackward(Function):
    """BPTT for torch.func: ``tensors`` are the gradients of y and of each last state, x, the
    initial states, the weights."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        cell: str,
        bidirectional: bool,
        recompute: bool,
        variant: str,
        lengths: Tensor | None,
        batch_sizes: Tensor | None,
        seed: Tensor | None,
        resets: Tensor | None,
        states: int,
        needs: list[int],
        reserve: Tensor,
        y: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        split = len(tensors) - len(needs)  # x, states and weights come last, one need each
        grad_y, *grad_last = tensors[:split]
        x, *rest = tensors[split:]
        given, weights = rest[:states], rest[states:]
        saved = x, given, weights, lengths, batch_sizes, y, reserve, cell, bidirectional
        varied = Varied(variant, seed, resets)._asdict()
        options = {"rowwise": True, "recompute": recompute, **varied}
        return tuple(layer_backward(grad_y, grad_last, *saved, needs, **options))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.cell, ctx.bidirectional, _, ctx.variant, *rest = inputs
        lengths, batch_sizes, seed, resets, ctx.states, ctx.needs, *tensors = rest
        ctx.save_for_backward(lengths, batch_sizes, seed, resets, *tensors[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        lengths, batch_sizes, seed, resets, *tensors = ctx.saved_tensors
        split = len(tensors) - len(ctx.needs)
        found = differentiate_twice(
            ctx.cell,
            ctx.bidirectional,
            lengths,
            batch_sizes,
            ctx.states,
            ctx.needs,
            tensors[:split],
            tensors[split:],
            grads,
            varied=Varied(ctx.variant, seed, resets),
        )
        return (*[None] * (BEFORE_X + 3), *found)


def run_layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str,
    bidirectional: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    recompute: bool = False,
    packed: Tensor | None = None,
    varied: Varied = PLAIN,
) -> tuple[Tensor, list[Tensor]]:
    """Run one recurrent layer, all its directions, over whole sequences.

    Args:
        x: the input, [T, B, I], any strides; or packed, [N, I]: the rows of each time step one
            after another, as PackedSequence has them.
        states: the hidden state [D, B, P] and every other state of the cell [D, B, H]; or none, for
            zeros, which a packed ``x`` does not allow. P is H without a projection.
        weights: for each direction weight_ih [gates * H, I], weight_hh [gates * H, P], with biases
            bias_ih and bias_hh [gates * H], and with a projection weight_hr [P, H].
        cell: a name in ``rnncells.reference.CELLS``.
        bidirectional: whether a second direction (D = 2) runs from the last time step to the first.
        lengths: [B], int64 on the CPU or beside ``x``, from 1 to T: the time steps of each sequence
            of a padded ``x``, of which nothing else is read.
        batch_sizes: [T], int64 on the CPU: for a packed ``x`` the rows of each time step.
        recompute: keep the states alone for BPTT, which then runs the forward pass once more.
        packed: what ``layer_pack`` made of the weights, for calls that keep nothing.
        varied: what the call does besides the plain recurrence.

    Returns:
        The output [T, B, D * P] or [N, D * P], zero behind a sequence's end, and the last states of
        each sequence, of the shapes of ``states``. Differentiable, also twice, under torch.func's
        grad, vjp and vmap, and in forward mode.

    Raises:
        RuntimeError: a tensor has the wrong shape, dtype (float32, float64, float16 and bfloat16
            are supported) or device, or lengths are out of range.
        NotImplementedError: ONNX, to which torch is exporting, has no operator for the layer.
    """
    if torch.compiler.is_compiling():
        if is_exporting():
            if is_varied(varied):
                refuse("zoneout, dropout in training, other activations, resets, or cell states")
            return onnx_layer(x, states, weights, cell, bidirectional, lengths, batch_sizes)
        # An exported program serves inference first: trained, it runs the forward pass once more.
        # (Of is_exporting() itself Dynamo of torch 2.11 says that it is true always.)
        save = torch.is_grad_enabled() and not torch.compiler._is_exporting_flag
        save = save and any([t.requires_grad for t in (x, *states, *weights)])  # noqa: C419
        given = x, list(states), list(weights), lengths, batch_sizes, cell, bidirectional, save
        options: dict[str, Any] = {"recompute": True} if save and recompute else {}
        if is_varied(varied):
            options |= varied._asdict()
        y, last, _ = layer_forward(*given, **options)
        # A copy for the caller to change in place, as backward reads y; Inductor drops it again.
        return y.clone() if save else y, last
    if _in_forward_mode(x, states, weights):
        own = None if lengths is None else lengths.to(x.device)
        return variants.reference_layer(
            x, states, weights, cell, bidirectional, own, batch_sizes, varied
        )
    if torch._C._are_functorch_transforms_active():
        y, *last, _ = _TransformedLayer.apply(
            *(cell, bidirectional, recompute, varied.variant),
            *(lengths, batch_sizes, varied.seed, varied.resets),
            len(states),
            x,
            *states,
            *weights,
        )
        return y.clone(), last  # the caller may change it in place, and backward reads y
    inputs = (x, *states, *weights)
    if torch.is_grad_enabled() and any([t.requires_grad for t in inputs]):  # noqa: C419  quicker
        call = cell, bidirectional, recompute, varied, lengths, batch_sizes, len(states)
        y, *last = _EagerLayer.apply(call, *inputs)
        return y, last
    given = x, list(states), list(weights), lengths, batch_sizes, cell, bidirectional, False
    with BelowAutograd():
        if varied is not PLAIN and is_varied(varied):
            y, last, _ = layer_forward(*given, packed=packed, **varied._asdict())
        elif packed is None:
            y, last, _ = layer_forward(*given)
        else:
            y, last, _ = layer_forward(*given, packed=packed)
    return y, last


def _in_forward_mode(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    if forward_ad._current_level < 0:
        return False
    if torch._C._are_functorch_transforms_active():
        interpreters = retrieve_all_functorch_interpreters()
        return any(i.key() == torch._C._functorch.TransformType.Jvp for i in interpreters)
    inputs = (x, *states, *weights)
    return any(forward_ad.unpack_dual(t).tangent is not None for t in inputs)
