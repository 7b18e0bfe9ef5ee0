"""Small jobs for the tests of networks and training: windows with all that a batch may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rnncells.forecast.batch import Batch

CONTEXT, HORIZON = 12, 3


class Waves(Dataset[Batch]):
    """Waves of random phase, in float32; x holds the targets, then what is known ahead.

    Args:
        count: windows.
        targets: waves in each.
        known: columns known ahead: the clock behind the waves.
        static: features of a window: the sine of its phase.
        every_step: targets after each step of the context.
        missing: the share of the targets that is missing.
        level: whether windows carry a location and a scale.
        horizon: steps of the target.
        seed: of the phases.
    """

    def __init__(
        self,
        count: int = 48,
        *,
        targets: int = 1,
        known: int = 0,
        static: int = 0,
        every_step: bool = False,
        missing: float = 0.0,
        level: bool = False,
        horizon: int = HORIZON,
        seed: int = 0,
    ) -> None:
        self.horizon = horizon
        random = torch.Generator().manual_seed(seed)
        phase = 6.28 * torch.rand(count, 1, 1, generator=random)
        step = torch.arange(CONTEXT + horizon).view(1, -1, 1)
        wave = (phase + 0.7 * step + torch.arange(targets)).sin()
        clock = (0.7 * step + torch.arange(known)).cos().expand(count, -1, -1)
        self.x = torch.cat([wave, clock], dim=2)[:, :CONTEXT]
        self.y, self.future = self._ahead(wave, every_step), self._ahead(clock, every_step)
        self.static = phase.sin().view(-1, 1).expand(-1, static)
        self.observed = torch.rand(self.y.shape, generator=random) >= missing if missing else None
        if self.observed is not None:
            self.y = self.y * self.observed
        self.level = torch.tensor([0.0, 5.0]).view(1, 2, 1).expand(count, -1, targets)
        self.has = {"future": known > 0, "static": static > 0, "level": level}

    def _ahead(self, values: Tensor, every_step: bool) -> Tensor:
        later = values[:, 1:].unfold(1, self.horizon, 1).transpose(2, 3).contiguous()
        return later if every_step else later[:, -1]

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Sequence[int] | Tensor | None = None) -> Batch:
        chosen: Any = slice(None) if indices is None else torch.as_tensor(indices)
        more = {name: getattr(self, name)[chosen] for name, has in self.has.items() if has}
        observed = None if self.observed is None else self.observed[chosen]
        return Batch(self.x[chosen], self.y[chosen], observed=observed, **more)
