"""Arithmetic with random errors: how far a rounding carries.

Monte Carlo arithmetic (Parker 1997, "Monte Carlo arithmetic: exploiting randomness in
floating-point arithmetic"): run a computation once more, with a random relative error in the result
of each operation, and the change in what comes out shows how large the terms are that were summed
and how much they cancel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# The roundings of a sum of n terms are counted by rnncells.testing.allowance; copies have none.
EXACT = {"add", "add_", "sum", "clone", "copy_", "_to_copy"}
# Their derivatives jump.
KINKS = {"relu", "relu_", "abs", "clamp", "clamp_min", "hardtanh", "leaky_relu", "maximum", "sign"}
POOL = 2**16


class CoarseArithmetic(TorchDispatchMode):
    """While it is entered, every operation's result, forward and backward, has a relative error.

    Each element is multiplied by ``1 + eps * r`` with r uniform from -1/2 to 1/2, as rounding to
    nearest does it in an arithmetic of that ``eps``. Plain sums, copies and views are left exact.

    Args:
        eps: of the arithmetic; above 2**-40, or float64's own roundings show.
        seed: of the errors.

    Attributes:
        kinks: whether an operation was met whose derivative jumps, such as ReLU.
    """

    def __init__(self, eps: float, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(POOL, generator=generator, dtype=torch.float64)
        self._factors = noise.sub_(0.5).mul_(eps).add_(1)
        self._place = 0
        self.kinks = False
        self._exact: dict[Any, bool] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        exact = self._exact.get(func)
        if exact is None:
            views = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
            name = func.overloadpacket.__name__
            exact = self._exact[func] = views or name in EXACT
            self.kinks |= name in KINKS
        if not exact:
            for value in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(value, Tensor) and value.is_floating_point():
                    self._disturb(value)
        return result

    def disturbed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of ``values`` with such errors; to be called while it is not entered."""
        copies = {name: value.detach().clone() for name, value in values.items()}
        for value in copies.values():
            self._disturb(value)
        return copies

    def _disturb(self, value: Tensor) -> None:
        """Takes the next factors of a pool drawn once: drawing costs more than all the rest."""
        count = value.numel()
        if self._place + count > POOL:
            self._place = count % 97  # not the same factors for the same values again
        end, factors = self._place + count, self._factors
        if end > POOL:
            factors = factors.repeat(-(-end // POOL))
        value.mul_(factors[self._place : end].view(value.shape))
        self._place = end % POOL
