"""Weights packed once for many calls, where the caller vouches that they stay as they are.

Nothing else outlives a call: optimisers that are fused, ``.data`` and NumPy's views change weights
without a trace, so no cache behind the caller's back can be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rnncells.ops import layer_pack

__all__ = ["Frozen", "freeze"]


class Frozen(NamedTuple):
    """The weights of a stack as they were.

    Attributes:
        weights: of each layer, without gradients, as :func:`rnncells.autograd.run_layer` takes
            them.
        packs: what ``layer_pack`` made of them.
        versions: how often each had been changed in place.
    """

    weights: list[list[Tensor]]
    packs: list[Tensor]
    versions: list[int]

    def check(self, x: Tensor) -> None:
        """Raises RuntimeError where a weight was changed since, or ``x`` is of another kind."""
        if _versions(self.weights) != self.versions:
            raise RuntimeError(
                "frozen(): a weight was changed in place inside the block; change weights outside"
            )
        kept = self.weights[0][0]
        if x.dtype != kept.dtype or x.device != kept.device:
            raise RuntimeError(
                f"frozen(): the weights were packed in {kept.dtype} on {kept.device}, and this "
                f"call runs in {x.dtype} on {x.device}; enter the block as the calls are made, "
                "autocast included"
            )


def freeze(weights: Sequence[Sequence[Tensor]], cell: str, bidirectional: bool) -> Frozen:
    """Pack the weights of each layer of a stack."""
    kept = [[weight.detach() for weight in layer] for layer in weights]
    packs = [layer_pack(layer, cell, bidirectional) for layer in kept]
    return Frozen(kept, packs, _versions(kept))


def _versions(weights: Sequence[Sequence[Tensor]]) -> list[int]:
    every = [weight for layer in weights for weight in layer]
    return [0 if weight.is_inference() else weight._version for weight in every]
