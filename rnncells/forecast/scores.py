"""How good forecasts are that say more than one number: quantiles, samples, intervals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_same_shape
from rnncells.forecast.metrics import observed_only

__all__ = ["coverage", "crps_of_quantiles", "crps_of_samples", "pinball"]


def pinball(
    quantiles: Tensor, truth: Tensor, shares: Sequence[float], observed: Tensor | None = None
) -> float:
    """Mean pinball loss, mean max(s (y - q), (s - 1) (y - q)) over quantiles and values.

    Source: R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46 (1978).

    Args:
        quantiles: [..., number of shares], the truth's shape and one axis more.
        truth: any shape.
        shares: of each quantile, between 0 and 1, such as 0.1 and 0.9.
        observed: of the truth's shape, False where it is missing.

    Raises:
        TypeError: something that is not a tensor.
        ValueError: wrong shapes or shares, or nothing to average.
    """
    require_tensor("quantiles", quantiles)
    _check_more("quantiles", quantiles, truth, len(shares))
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares: expected numbers between 0 and 1, got {list(shares)}")
    losses = []
    for number, share in enumerate(shares):
        low, high = observed_only(quantiles[..., number], truth, observed)
        error = high - low
        losses.append(torch.maximum(share * error, (share - 1) * error).mean())
    return torch.stack(losses).mean().item()


def crps_of_quantiles(
    quantiles: Tensor, truth: Tensor, shares: Sequence[float], observed: Tensor | None = None
) -> float:
    """Continuous ranked probability score from quantiles: twice their mean pinball loss.

    CRPS is twice the integral of the pinball loss over all shares from 0 to 1; with evenly spaced
    shares, the mean stands for the integral. In the series' unit.

    Source: F. Laio and S. Tamea, "Verification tools for probabilistic forecasts of continuous
    hydrological variables", Hydrology and Earth System Sciences 11 (2007), equation (8); T.
    Gneiting and R. Ranjan, Journal of Business and Economic Statistics 29 (2011).

    Args, Raises: as :func:`pinball`.
    """
    return 2 * pinball(quantiles, truth, shares, observed)


def crps_of_samples(samples: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """Continuous ranked probability score from samples: E|X - y| - E|X - X'| / 2, the mean of it.

    Both expectations are over the samples' empirical distribution. In the series' unit; with one
    sample it is the MAE.

    Source: T. Gneiting and A. E. Raftery, "Strictly proper scoring rules, prediction, and
    estimation", Journal of the American Statistical Association 102 (2007), equation (21).

    Args:
        samples: [..., number of samples], the truth's shape and one axis more.
        truth: any shape.
        observed: of the truth's shape, False where it is missing.

    Raises:
        TypeError: something that is not a tensor.
        ValueError: wrong shapes, or nothing to average.
    """
    require_tensor("samples", samples)
    _check_more("samples", samples, truth, None)
    ordered = samples.double().sort(dim=-1).values
    count = samples.shape[-1]
    apart = (ordered - truth.double().unsqueeze(-1)).abs().mean(dim=-1)
    # the sum of |x_i - x_j| over all pairs: in order, x_i comes i times first and n - 1 - i last
    weight = torch.arange(1 - count, count, 2, dtype=torch.float64, device=samples.device)
    spread = (ordered * weight).sum(dim=-1) / count**2
    kept, _ = observed_only(apart - spread, truth, observed)
    return kept.mean().item()


def coverage(lower: Tensor, upper: Tensor, truth: Tensor, observed: Tensor | None = None) -> float:
    """The share of truths inside their interval, bounds included: 0.8 is due at level 80.

    Source: P. F. Christoffersen, "Evaluating interval forecasts", International Economic Review 39
    (1998), section 2.

    Raises:
        TypeError: something that is not a tensor.
        ValueError: different shapes, a lower bound above the upper one, or nothing to average.
    """
    check_same_shape(upper, truth)
    low, y = observed_only(lower, truth, observed)
    high, _ = observed_only(upper, truth, observed)
    if (low > high).any():
        above = int((low > high).sum())
        raise ValueError(f"lower: expected bounds at most as high as upper's, got {above} above")
    if torch.stack([low, high, y]).isnan().any():
        return torch.nan  # as the other metrics, and not a truth outside
    return ((low <= y) & (y <= high)).double().mean().item()


def _check_more(name: str, values: Tensor, truth: Tensor, last: int | None) -> None:
    require_tensor("truth", truth)
    fits = values.dim() == truth.dim() + 1 and values.shape[:-1] == truth.shape
    if not fits or values.shape[-1] != (last or values.shape[-1]) or values.shape[-1] == 0:
        expected = [*truth.shape, "samples" if last is None else last]
        raise ValueError(f"{name}: expected shape {expected}, got {list(values.shape)}")
