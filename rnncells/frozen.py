"""Weights packed once for many calls, where the caller vouches that they stay as they are.

Nothing else outlives a call: optimisers that are fused, ``.data`` and NumPy's views change weights
without a trace, so no cache behind the caller's back can be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import NamedTuple

from torch import Tensor
from torch.nn import Module

from rnncells.ops import layer_pack

__all__ = ["Frozen", "freeze"]


class Frozen(NamedTuple):
    """The weights of a stack as they were.

    Attributes:
        weights: of each layer, without gradients, as :func:`rnncells.autograd.run_layer` takes
            them.
        packs: what ``layer_pack`` made of them; None with layer norm, which takes whole rows.
        sources: the parameters that they came from: their own, or what autocast casts and
            parametrisations compute them from.
        versions: how often each source and each weight had been changed in place.
    """

    weights: list[list[Tensor]]
    packs: list[Tensor | None]
    sources: list[Tensor]
    versions: list[int]

    def check(self, module: Module, x: Tensor) -> None:
        """Raises RuntimeError where a parameter of the module was changed or replaced since, or
        ``x`` is of another kind."""
        sources = _sources(module)
        same = map(is_, sources, self.sources)
        if len(sources) != len(self.sources) or not all(same):
            raise RuntimeError(
                "frozen(): a parameter was replaced inside the block (by assignment, "
                "functional_call or load_state_dict(assign=True)); replace parameters outside"
            )
        if _versions(sources, self.weights) != self.versions:
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


def freeze(
    module: Module,
    weights: Sequence[Sequence[Tensor]],
    cell: str,
    bidirectional: bool,
    packed: bool = True,
) -> Frozen:
    """Pack the weights of each layer of a stack, read from the parameters of ``module``."""
    kept = [[weight.detach() for weight in layer] for layer in weights]
    packs = [layer_pack(layer, cell, bidirectional) if packed else None for layer in kept]
    sources = _sources(module)
    return Frozen(kept, packs, sources, _versions(sources, kept))


def _sources(module: Module) -> list[Tensor]:
    if module._modules:  # parametrisations have parameters of their own
        return list(module.parameters())
    return [parameter for parameter in module._parameters.values() if parameter is not None]


def _versions(sources: Sequence[Tensor], weights: Sequence[Sequence[Tensor]]) -> list[int]:
    every = [*sources, *(weight for layer in weights for weight in layer)]
    return [0 if tensor.is_inference() else tensor._version for tensor in every]
