"""The operators as Python sees them: fake kernels and autograd.

``torch.ops.rnncells.layer_forward(x, states, weights, lengths, batch_sizes, cell, bidirectional,
save, tidy=True, rowwise=False, recompute=False, packed=None, variant='', seed=None, resets=None)``
runs one layer with all its directions over whole sequences and returns ``(y, last, reserve)``.
``torch.ops.rnncells.layer_backward(grad_y, grad_last, x, states, weights, lengths, batch_sizes, y,
reserve, cell, bidirectional, needs, rowwise=False, recompute=False, variant='', seed=None,
resets=None)`` is BPTT and returns the
gradients asked for. ``torch.ops.rnncells.layer_pack(weights, cell, bidirectional)`` returns the
weights as layer_forward reads them, for ``packed``.
Shapes (T time steps, B sequences, I inputs, H units, P outputs: H, or the projection's rows; D
directions, R reserve slots of the cell):

- x [T, B, I] with any strides, or packed, [N, I]: the rows of each time step one after another;
  y and grad_y [T, B, D * P] or [N, D * P];
- states, last, grad_last: the hidden state [D, B, P], every other [D, B, H]; or none (zeros), which
  a packed x does not allow;
- weights: for each direction weight_ih [gates * H, I], weight_hh [gates * H, P] (of a cell without
  a recurrent product [gates * H]), with biases bias_ih and bias_hh [gates * H], with a projection
  weight_hr [P, H], with layer norm its scales and shifts in the order of
  ``reference.declaration``, and for a cell that has K learned values per unit besides these [K *
  H];
- lengths: the B sequences' numbers of time steps, 1 to T, int64, on the CPU, or on CUDA beside x,
  where nobody waits to check them: one out of range counts as the nearest that is not; None where
  all have T. Behind a sequence's end x is not read, y and the gradient of x are zero;
- batch_sizes: for a packed x the rows of its T time steps, which do not grow, int64, on the CPU;
- reserve [D, T, B, R * H] or [D, N, R * H] (with a projection (R + 1) * H), or [0] where ``save``
  is false; with lengths its last rows are of no time step: zero, or without ``tidy`` as they come;
- what stands where in the reserve is the engine's business, and depends on the sizes; with
  ``rowwise``, for both operators, it is a row of R * H for each row of x, so that it can be split
  and joined along the batch;
- with ``recompute``, for both operators, it has the states besides the hidden state and no more,
  [D, T, B, (states - 1) * H] or [D, N, (states - 1) * H], and layer_backward runs the forward pass
  once more, a few time steps at a time;
- packed: uint8, what layer_pack made of these very weights, in the instruction set in use; where
  the engine's choice reads weights as they are, it does so;
- variant: what :mod:`rnncells.variants` writes; zoneout takes as many more slots of the reserve as
  the cell has states, for what the cell made of them;
- seed: one int64, with which the variant's masks are drawn (``layer_draw`` draws the same); None:
  no dropout, and zoneout's expectation;
- resets: bool [T, B], where a sequence's states start anew, as in ``reference.layer``; not for a
  packed x;
- needs: 0 or 1 for x, each state and each weight.

With ``states=all`` in the variant ``last`` and ``grad_last`` go on with each state besides the
hidden one after every time step, [T, B, D * H] or [N, D * H]; with ``outputs=last`` and without
``save`` y is working space, [min(T, 2), B, D * P].

float32, float64, float16 and bfloat16, on the CPU and, where the CUDA engine was built, on CUDA.
There nothing of either operator waits for the device, and both work in a CUDA graph; the reserve
has a row for each row of x always, and with ``recompute`` nothing in it: [D, T, B, 0] or [D, N, 0],
and BPTT runs the whole forward pass once more; layer_pack packs nothing, [D, 0], since the kernels
pack the weights on the chip in every call, and ``packed`` is ignored. Errors are RuntimeErrors that
name the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rnncells import _C, cuda, variants  # noqa: F401  cuda registers its kernels

CELLS: dict[str, dict[str, int]] = _C.cells()

layer_forward = torch.ops.rnncells.layer_forward.default
layer_backward = torch.ops.rnncells.layer_backward.default
layer_pack = torch.ops.rnncells.layer_pack.default
layer_draw = torch.ops.rnncells.layer_draw.default

Forward = tuple[Tensor, list[Tensor], Tensor]


def unit_count(cell: str, weights: Sequence[Tensor]) -> int:
    """H, read off the weights of a layer."""
    return weights[0].shape[0] // CELLS[cell]["gates"]


def output_count(cell: str, weights: Sequence[Tensor]) -> int:
    """P, read off the weights of a layer."""
    if CELLS[cell]["per_unit_recurrence"]:
        return unit_count(cell, weights)
    return weights[1].shape[1]


def is_projected(cell: str, weights: Sequence[Tensor], directions: int) -> bool:
    """Whether there is a projection, read off the number of weights: layer norm adds 2 or 4."""
    facts = CELLS[cell]
    last = bool(facts["unit_parameters"]) and not facts["per_unit_recurrence"]
    return (len(weights) // directions - last) % 2 == 1


def on_cuda(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


@torch.library.register_fake("rnncells::layer_forward")
def _forward_fake(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    cell: str,
    bidirectional: bool,
    save: bool,
    tidy: bool = True,
    rowwise: bool = False,
    recompute: bool = False,
    packed: Tensor | None = None,
    variant: str = "",
    seed: Tensor | None = None,
    resets: Tensor | None = None,
) -> Forward:
    facts, directions = CELLS[cell], 2 if bidirectional else 1
    units, outputs = unit_count(cell, weights), output_count(cell, weights)
    batch = x.shape[1] if batch_sizes is None else states[0].shape[1]
    steps = x.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    said = variants.read(variant)
    rows = (min(steps, 2), batch) if said.last_only and not save else x.shape[:-1]
    y = x.new_empty((*rows, directions * outputs))
    widths = [outputs] + [units] * (facts["states"] - 1)
    last = [x.new_empty((directions, batch, width)) for width in widths]
    if said.whole_states:
        last += [x.new_empty((*x.shape[:-1], directions * units)) for _ in widths[1:]]
    if not save:
        return y, last, x.new_empty((0,))
    slots = facts["reserve"] + is_projected(cell, weights, directions)
    if any(said.zoneout):
        slots += facts["states"]
    if recompute:
        slots = 0 if on_cuda(x) else facts["states"] - 1
    return y, last, x.new_empty((directions, *x.shape[:-1], slots * units))


@torch.library.register_fake("rnncells::layer_backward")
def _backward_fake(
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
    rowwise: bool = False,
    recompute: bool = False,
    variant: str = "",
    seed: Tensor | None = None,
    resets: Tensor | None = None,
) -> list[Tensor]:
    inputs = [x, *states, *weights]
    return [x.new_empty(t.shape) for t, needed in zip(inputs, needs, strict=True) if needed]


@torch.library.register_fake("rnncells::layer_draw")
def _draw_fake(
    seed: Tensor, purpose: int, stream: int, sizes: Sequence[int], rate: float
) -> Tensor:
    return seed.new_empty(sizes, dtype=torch.bool)


@torch.library.register_fake("rnncells::layer_pack")
def _pack_fake(weights: Sequence[Tensor], cell: str, bidirectional: bool) -> Tensor:
    directions = 2 if bidirectional else 1
    if on_cuda(weights[0]):
        return weights[0].new_empty((directions, 0), dtype=torch.uint8)
    units, outputs = unit_count(cell, weights), output_count(cell, weights)
    inputs = weights[0].shape[1]
    projected = is_projected(cell, weights, directions)
    size = _C.packed_bytes(cell, inputs, units, outputs, projected, str(weights[0].dtype)[6:])
    return weights[0].new_empty((directions, size), dtype=torch.uint8)


def gradients(
    backward: Callable[..., list[Tensor]],
    saved: Sequence[Any],
    grad_y: Tensor | None,
    grad_last: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Call ``backward`` for the gradients needed of x, each state and each weight.

    ``saved`` holds layer_backward's arguments from x to bidirectional. Outputs without a gradient
    count as zero; where none has one, so have the inputs.
    """
    if not any(needs) or (grad_y is None and all(g is None for g in grad_last)):
        return [None] * len(needs)
    given = _with_zeros(saved, grad_last)
    found = iter(backward(grad_y, given, *saved, [int(needed) for needed in needs]))
    return [next(found) if needed else None for needed in needs]


def _with_zeros(saved: Sequence[Any], grad_last: Sequence[Tensor | None]) -> list[Tensor]:
    """Zeros for those that are missing; none where all are."""
    there = [g for g in grad_last if g is not None]
    if len(there) in (0, len(grad_last)):
        return there
    x, states, weights, _, batch_sizes, *_, cell, bidirectional = saved
    units, outputs = unit_count(cell, weights), output_count(cell, weights)
    count, directions = CELLS[cell]["states"], 2 if bidirectional else 1
    batch = x.shape[1] if batch_sizes is None else states[0].shape[1]
    sizes = [(directions, batch, outputs), *[(directions, batch, units)] * (count - 1)]
    sizes += [(*x.shape[:-1], directions * units)] * (len(grad_last) - count)
    return [
        there[0].new_zeros(size) if g is None else g
        for g, size in zip(grad_last, sizes, strict=True)
    ]


def _forward_context(ctx: Any, inputs: tuple[Any, ...], output: Forward) -> None:
    x, states, weights, lengths, batch_sizes, *rest = inputs
    ctx.cell, ctx.bidirectional, ctx.kept, _, ctx.rowwise, ctx.recompute, _, *varied = rest
    ctx.variant, seed, resets = varied
    y, _, reserve = output
    ctx.counts = len(states), len(weights)
    ctx.save_for_backward(lengths, batch_sizes, seed, resets, y, reserve, x, *states, *weights)
    ctx.set_materialize_grads(False)


def _forward_gradient(
    ctx: Any, grad_y: Tensor | None, grad_last: Sequence[Tensor | None], grad_reserve: Tensor | None
) -> tuple[Any, ...]:
    lengths, batch_sizes, seed, resets, y, reserve, x, *rest = ctx.saved_tensors
    varied = {"variant": ctx.variant, "seed": seed, "resets": resets}
    states, weights = rest[: ctx.counts[0]], rest[ctx.counts[0] :]
    arguments = x, states, weights, lengths, batch_sizes
    if not ctx.kept:
        save, tidy = True, True
        # y too: with outputs=last what there is of it is working space.
        y, _, reserve = layer_forward(
            *arguments,
            ctx.cell,
            ctx.bidirectional,
            save,
            tidy,
            ctx.rowwise,
            ctx.recompute,
            **varied,
        )
        if variants.read(ctx.variant).last_only:
            grad_y = None
    need_x, need_states, need_weights, *_ = ctx.needs_input_grad
    needs = [need_x, *_flags(need_states, states), *_flags(need_weights, weights)]
    saved = *arguments, y, reserve, ctx.cell, ctx.bidirectional
    options = {"rowwise": ctx.rowwise, "recompute": ctx.recompute, **varied}
    backward = partial(layer_backward, **options)
    found = gradients(backward, saved, grad_y, grad_last or [], needs)
    split = 1 + len(states)
    nothing = [None] * (len(ctx.needs_input_grad) - 3)
    return found[0], found[1:split], found[split:], *nothing


def _flags(needed: Any, tensors: Sequence[Tensor]) -> list[bool]:
    """Whether each tensor of a list argument needs a gradient."""
    return list(needed) if isinstance(needed, (list, tuple)) else [bool(needed)] * len(tensors)


def _backward_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad_y, grad_last, x, states, weights, lengths, batch_sizes, _, _, *rest = inputs
    ctx.cell, ctx.bidirectional, needs, _, _, ctx.variant, seed, resets = rest
    ctx.needs = list(needs)
    ctx.counts = len(grad_last), len(states), len(weights)
    ctx.has_grad_y = grad_y is not None
    ctx.save_for_backward(
        lengths,
        batch_sizes,
        seed,
        resets,
        *([grad_y] if ctx.has_grad_y else []),
        *grad_last,
        x,
        *states,
        *weights,
    )


def differentiate_twice(
    cell: str,
    bidirectional: bool,
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    states: int,
    needs: Sequence[int],
    grad_outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor],
    has_grad_y: bool = True,
    varied: variants.Varied = variants.PLAIN,
) -> list[Tensor]:
    """Derive BPTT, by differentiating the reference twice.

    Args:
        cell, bidirectional, lengths, batch_sizes: as for the operators; ``states`` tensors of
            ``inputs`` are states.
        needs: which inputs' gradients BPTT was asked for.
        grad_outputs: what it was given: the gradients of y (unless ``has_grad_y`` is false) and of
            each last state, or of none of them.
        inputs: x, the states, the weights.
        grads: the gradients of what it returned.
        varied: the call's variant, seed and resets.

    Returns:
        The gradients of ``grad_outputs`` and of ``inputs``. y and the reserve are functions of the
        inputs, and their share is in those.
    """

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given, weights = list(rest[:states]), list(rest[states:])
        own = None if lengths is None else lengths.to(x.device)
        y, last = variants.reference_layer(
            x, given, weights, cell, bidirectional, own, batch_sizes, varied
        )
        outputs = [y, *last] if has_grad_y else list(last)
        return tuple(outputs[: len(grad_outputs)])

    def bptt(*tensors: Tensor) -> list[Tensor]:
        pull = torch.func.vjp(run, *tensors[len(grad_outputs) :])[1]
        found = pull(tensors[: len(grad_outputs)])
        return [g for g, needed in zip(found, needs, strict=True) if needed]

    # The reference's products would follow autocast, where the kernels do not.
    with torch.autocast(inputs[0].device.type, enabled=False):
        pull = torch.func.vjp(bptt, *grad_outputs, *inputs)[1]
        return list(pull(list(grads)))


def _backward_gradient(ctx: Any, grads: Sequence[Tensor]) -> tuple[Any, ...]:
    lengths, batch_sizes, seed, resets, *saved = ctx.saved_tensors
    outputs = int(ctx.has_grad_y) + ctx.counts[0]
    grad_outputs, inputs = saved[:outputs], saved[outputs:]
    found = differentiate_twice(
        ctx.cell,
        ctx.bidirectional,
        lengths,
        batch_sizes,
        ctx.counts[1],
        ctx.needs,
        grad_outputs,
        inputs,
        grads,
        ctx.has_grad_y,
        variants.Varied(ctx.variant, seed, resets),
    )
    grad_y = found.pop(0) if ctx.has_grad_y else None
    grad_last, (x, *rest) = found[: ctx.counts[0]], found[ctx.counts[0] :]
    states, weights = rest[: ctx.counts[1]], rest[ctx.counts[1] :]
    nothing = [None] * (len(ctx.needs_input_grad) - 5)
    return grad_y, grad_last, x, states, weights, *nothing


torch.library.register_autograd(
    "rnncells::layer_forward", _forward_gradient, setup_context=_forward_context
)
torch.library.register_autograd(
    "rnncells::layer_backward", _backward_gradient, setup_context=_backward_context
)
