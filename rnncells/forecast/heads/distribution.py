"""Whole distributions, taught by their likelihood (after D. Salinas and others, "DeepAR", 2020)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributions
from torch.nn import functional as F

from rnncells.forecast.heads.base import Head, check_levels, mean_observed, spread
from rnncells.forecast.heads.quantile import check_parameters
from rnncells.forecast.heads.student import student_quantiles

__all__ = ["NegativeBinomialHead", "NormalHead", "StudentTHead"]

SMALLEST = 1e-4  # of a scale, in the network's units: a likelihood must not grow without end


class DistributionHead(Head):
    """Parameters of a distribution for each value; the output is [..., horizon, targets, size]."""

    @abstractmethod
    def distribution(self, output: Tensor) -> distributions.Distribution:
        """The distribution, its batch shape [..., horizon, targets]."""

    def loss(
        self,
        output: Tensor,
        y: Tensor,
        observed: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """The mean negative log-likelihood of what was observed, in nats."""
        check_parameters(self, output, y)
        return mean_observed(-self.distribution(output).log_prob(y), observed)

    def point(self, output: Tensor) -> Tensor:
        """The mean."""
        return output[..., 0]

    def samples(self, output: Tensor, count: int) -> Tensor:
        """Independent draws."""
        return self.distribution(output).sample((count,))


@dataclass(frozen=True)
class NormalHead(DistributionHead):
    """The normal distribution: location and scale."""

    size = 2

    def __call__(
        self, raw: Tensor, base: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """Location, counted from ``base``, and scale, above 1e-4."""
        location = raw[..., 0] if base is None else raw[..., 0] + base
        return torch.stack([location, F.softplus(raw[..., 1]) + SMALLEST], dim=-1)

    def distribution(self, output: Tensor) -> distributions.Normal:
        """torch's own."""
        location, scale = output.unbind(-1)
        return distributions.Normal(location, scale, validate_args=False)

    def quantiles(self, output: Tensor, levels: Sequence[float]) -> Tensor:
        """Exact."""
        location, scale = output.unsqueeze(-1).unbind(-2)
        return location + scale * torch.special.ndtri(output.new_tensor(check_levels(levels)))


@dataclass(frozen=True)
class StudentTHead(DistributionHead):
    """Student's t: location, scale and degrees of freedom, above 2, where the variance exists."""

    size = 3

    def __call__(
        self, raw: Tensor, base: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """Location, counted from ``base``, scale, above 1e-4, and degrees of freedom, above 2."""
        location = raw[..., 0] if base is None else raw[..., 0] + base
        scale, freedom = F.softplus(raw[..., 1:]).unbind(-1)
        return torch.stack([location, scale + SMALLEST, 2 + freedom], dim=-1)

    def distribution(self, output: Tensor) -> distributions.StudentT:
        """torch's own."""
        location, scale, freedom = output.unbind(-1)
        return distributions.StudentT(freedom, location, scale, validate_args=False)

    def quantiles(self, output: Tensor, levels: Sequence[float]) -> Tensor:
        """To five digits; see :func:`rnncells.forecast.heads.student.student_quantiles`."""
        location, scale, freedom = output.unbind(-1)
        columns = [
            location + scale * student_quantiles(level, freedom) for level in check_levels(levels)
        ]
        return torch.stack(columns, dim=-1)


@dataclass(frozen=True)
class NegativeBinomialHead(DistributionHead):
    """Counts whose variance exceeds their mean: mean m and dispersion a, variance m + a m^2.

    It speaks in counts: targets are counts as they are, or scaled window by window, and then
    :attr:`~rnncells.forecast.batch.Batch.level` says how (a location of 0 is advised). What is
    forecast is in counts in either case. A forecast is never counted from the last value.

    Args:
        draws: how many of them quantiles are read from. There is no closed form; the draws come
            from a seed of their own, so that the same forecast has the same quantiles.
    """

    draws: int = 1000

    size = 2
    in_counts = True

    def __call__(
        self, raw: Tensor, base: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """Mean, times the window's scale, and dispersion, both above 1e-4."""
        mean, dispersion = (F.softplus(raw) + SMALLEST).unbind(-1)
        if level is not None:
            mean = mean * spread(level[:, 1], mean)
        return torch.stack([mean, dispersion], dim=-1)

    def distribution(self, output: Tensor) -> distributions.NegativeBinomial:
        """torch's own, of 1/a failures and odds a m."""
        mean, dispersion = output.unbind(-1)
        odds = (mean * dispersion).log()
        return distributions.NegativeBinomial(1 / dispersion, logits=odds, validate_args=False)

    def loss(
        self,
        output: Tensor,
        y: Tensor,
        observed: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """The mean negative log-likelihood of the counts that were observed, in nats.

        Raises:
            ValueError: a count below 0.
        """
        if level is not None:  # back to counts, and to whole numbers
            y = (y * spread(level[:, 1], y) + spread(level[:, 0], y)).round()
        if observed is not None:
            y = torch.where(observed, y, 0.0)
        if (y < 0).any():
            raise ValueError(f"y: expected counts, 0 or more, got {y.min().item():g}")
        return super().loss(output, y, observed)

    def quantiles(self, output: Tensor, levels: Sequence[float]) -> Tensor:
        """From draws: the least count with at least this share of the draws at or below it."""
        wanted = check_levels(levels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ordered = self.samples(output, self.draws).sort(dim=0).values
        places = [math.ceil(share * self.draws - 1e-6) - 1 for share in wanted]
        return torch.stack([ordered[max(0, place)] for place in places], dim=-1)
