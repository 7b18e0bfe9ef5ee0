"""Batched gradients of torch.autograd: ``is_grads_batched``, ``jacobian`` and ``hessian`` with
``vectorize=True``, and gradcheck's ``check_batched_grad``.

They run BPTT under a vmap that is older than torch.func's, and what that does by itself knows no
operator that takes lists. Importing this registers the operators' rules for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnncells.vmap import backward_vmap, forward_vmap


class Samples(NamedTuple):
    """What a rule for ``register_vmap`` is told of the dimension."""

    batch_size: int


def under_older_vmap(rule: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """A kernel for tensors that carry the older vmap's hidden dimension, from a rule as
    ``register_vmap`` takes it."""

    def run(*arguments: Any) -> Any:
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        pairs = [_each(_uncover, argument, level) for argument in arguments]
        inner = [_each(lambda pair: pair[0], p) for p in pairs]
        dims = tuple(_each(lambda pair: pair[1], p) for p in pairs)
        sizes = [
            t.shape[0]
            for tensors, ds in zip(inner, dims, strict=True)
            for t, d in (zip(tensors, ds, strict=True) if isinstance(ds, list) else [(tensors, ds)])
            if d is not None
        ]
        found, places = rule(Samples(sizes[0]), dims, *inner)

        def cover(value: Any, place: Any) -> Any:
            if isinstance(value, (list, tuple)):
                parts = zip(value, place, strict=True)
                return type(value)(cover(part, dim) for part, dim in parts)
            return value if place is None else torch._add_batch_dim(value, place, level)

        return cover(found, places)

    return run


def _each(function: Callable[..., Any], value: Any, *rest: Any) -> Any:
    """The function of a value, or of each of a list's."""
    if isinstance(value, list):
        return [function(part, *rest) for part in value]
    return function(value, *rest)


def _uncover(value: Any, level: int) -> tuple[Any, int | None]:
    """A value and its dimension of that level, brought to the front; None where it has none."""
    if not isinstance(value, Tensor):
        return value, None
    try:
        # Of a tensor without the dimension this asks for -1 copies, which is an error.
        return torch._remove_batch_dim(value, level, -1, 0), 0
    except RuntimeError:
        return value, None


_library = torch.library.Library("rnncells", "IMPL")
_library.impl("layer_forward", under_older_vmap(forward_vmap), "Batched")
_library.impl("layer_backward", under_older_vmap(backward_vmap), "Batched")
