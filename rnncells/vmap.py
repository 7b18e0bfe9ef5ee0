"""The operators under torch.func.vmap: samples become sequences of one batch where they share their
weights, lengths and rows, and are run one after another where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from rnncells import _C
from rnncells.ops import (
    CELLS,
    Forward,
    layer_backward,
    layer_draw,
    layer_forward,
    on_cuda,
    output_count,
    unit_count,
)

__all__ = ["backward_vmap", "forward_vmap"]


def _sample(argument: Any, dim: Any, index: int) -> Any:
    """Take one sample of an argument (a tensor, a list of tensors, or anything else)."""
    if isinstance(argument, (list, tuple)) and isinstance(dim, (list, tuple)):
        return [_sample(a, d, index) for a, d in zip(argument, dim, strict=True)]
    return argument if dim is None else argument.select(dim, index)


def _batched(dim: Any) -> bool:
    if isinstance(dim, (list, tuple)):
        return any(_batched(d) for d in dim)
    return dim is not None


def _fold(tensor: Tensor, dim: int | None, samples: int, place: int) -> Tensor:
    """Make the vmapped dimension part of the batch, which is at ``place`` without it."""
    if dim is None:
        tensor = tensor.unsqueeze(place)
        tensor = tensor.expand(*tensor.shape[:place], samples, *tensor.shape[place + 1 :])
    else:
        tensor = tensor.movedim(dim, place)
    return tensor.flatten(place, place + 1)


def _fold_all(
    tensors: Sequence[Tensor], dims: Sequence[int | None] | None, samples: int, place: int
) -> list[Tensor]:
    dims = dims if dims is not None else [None] * len(tensors)
    return [_fold(t, d, samples, place) for t, d in zip(tensors, dims, strict=True)]


def _unfold(tensor: Tensor, samples: int, place: int) -> Tensor:
    return tensor.unflatten(place, (samples, tensor.shape[place] // samples))


def _of_no_samples(operator: Any, in_dims: tuple[Any, ...], arguments: Sequence[Any]) -> Any:
    """What the operator returns for zero samples: its results' shapes, after a dimension of 0."""

    def outline(argument: Any, dim: Any) -> Any:
        if isinstance(argument, (list, tuple)) and argument and isinstance(argument[0], Tensor):
            dims = dim if dim is not None else [None] * len(argument)
            return [outline(a, d) for a, d in zip(argument, dims, strict=True)]
        if not isinstance(argument, Tensor):
            return argument
        shape = [size for place, size in enumerate(argument.shape) if place != dim]
        return argument.new_empty(shape, device="meta")

    found = operator(*(outline(a, d) for a, d in zip(arguments, in_dims, strict=True)))
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    return tree_map_only(Tensor, lambda t: t.new_empty((0, *t.shape), device=device), found)


def _row_by_row(
    x: Tensor, dim: int | None, weights: Sequence[Tensor], cell: str, by_rows: bool
) -> bool:
    """Whether one sample's reserve has a row for each row of x; where ``by_rows``, it has."""
    if by_rows or CELLS[cell]["reserve"] == 0 or on_cuda(x):
        return True
    steps, batch, inputs = (size for place, size in enumerate(x.shape) if place != dim)
    units = unit_count(cell, weights)
    projected = output_count(cell, weights) != units
    return projected or _C.regime(cell, steps, batch, inputs, units, True) == "units"


def forward_vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Forward, Any]:
    x, states, weights, lengths, batch_sizes, cell, bidirectional, save, *rest = arguments
    given: list[Any] = [*rest, *[None] * 7]
    _, rowwise, recompute, packed, variant, seed, resets = given[:7]
    samples = info.batch_size
    count = CELLS[cell]["states"]
    if samples == 0:
        found = _of_no_samples(layer_forward, in_dims, arguments)
        return found, (0, [0] * len(found[1]), 0)
    apart = _batched(in_dims[2]) or lengths is not None or batch_sizes is not None
    apart = apart or bool(variant) or seed is not None or resets is not None
    if apart or (save and not _row_by_row(x, in_dims[0], weights, cell, rowwise or recompute)):
        # Each sample has weights of its own, or a reserve in an order of its own.
        runs = [
            layer_forward(*(_sample(a, d, i) for a, d in zip(arguments, in_dims, strict=True)))
            for i in range(samples)
        ]
        y = torch.stack([run[0] for run in runs])
        last = [torch.stack(states) for states in zip(*(run[1] for run in runs), strict=True)]
        return (y, last, torch.stack([run[2] for run in runs])), (0, [0] * len(last), 0)
    x = _fold(x, in_dims[0], samples, 1)
    states = _fold_all(states, in_dims[1], samples, 1)
    options: dict[str, Any] = {"rowwise": True, "recompute": bool(recompute), "packed": packed}
    y, last, reserve = layer_forward(
        x, states, weights, None, None, cell, bidirectional, save, **options
    )
    y = _unfold(y, samples, 1)
    last = [_unfold(state, samples, 1) for state in last]
    if not save:
        return (y, last, reserve), (1, [1] * count, None)
    return (y, last, _unfold(reserve, samples, 2)), (1, [1] * count, 2)


def backward_vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
    grad_y, grad_last, x, states, weights, lengths, batch_sizes, y, reserve, *rest = arguments
    cell, bidirectional, needs, *flags = rest
    given: list[Any] = [*flags, *[None] * 5]
    rowwise, recompute, variant, seed, resets = given[:5]
    samples, before_weights = info.batch_size, 1 + len(states)
    if samples == 0:
        return _of_no_samples(layer_backward, in_dims, arguments), [0] * sum(needs)
    apart = _batched(in_dims[4]) or lengths is not None or batch_sizes is not None
    apart = apart or any(needs[before_weights:])
    apart = apart or bool(variant) or seed is not None or resets is not None
    if apart or not _row_by_row(x, in_dims[2], weights, cell, bool(rowwise or recompute)):
        # As in the forward pass, or each sample has weight gradients of its own.
        runs = [
            layer_backward(*(_sample(a, d, i) for a, d in zip(arguments, in_dims, strict=True)))
            for i in range(samples)
        ]
        found = [torch.stack(list(grads)) for grads in zip(*runs, strict=True)]
        return found, [0] * len(found)
    found = layer_backward(
        None if grad_y is None else _fold(grad_y, in_dims[0], samples, 1),
        _fold_all(grad_last, in_dims[1], samples, 1),
        _fold(x, in_dims[2], samples, 1),
        _fold_all(states, in_dims[3], samples, 1),
        weights,
        None,
        None,
        _fold(y, in_dims[7], samples, 1),
        _fold(reserve, in_dims[8], samples, 2),
        cell,
        bidirectional,
        needs,
        rowwise=True,
        recompute=bool(recompute),
    )
    return [_unfold(g, samples, 1) for g in found], [1] * len(found)


def _draw_vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    """One sample's masks after another, each of its own seed."""
    if info.batch_size == 0:
        return _of_no_samples(layer_draw, in_dims, arguments), 0
    seed, *rest = arguments
    return torch.stack([layer_draw(one, *rest) for one in seed.movedim(in_dims[0], 0)]), 0


torch.library.register_vmap("rnncells::layer_draw", _draw_vmap)
torch.library.register_vmap("rnncells::layer_forward", forward_vmap)
torch.library.register_vmap("rnncells::layer_backward", backward_vmap)
