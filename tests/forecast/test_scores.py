"""Scores of quantiles, samples and intervals, by hand and against the normal law."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rnncells.forecast import coverage, crps_of_quantiles, crps_of_samples, mae, pinball

NAN = float("nan")


def test_pinball_by_hand() -> None:
    truth = torch.tensor([3.0, 0.0])
    quantiles = torch.tensor([[1.0, 4.0], [1.0, 4.0]])
    # at 0.1: 0.1 * 2, 0.9 * 1; at 0.9: 0.1 * 1, 0.1 * 4
    expected = (0.2 + 0.9 + 0.1 + 0.4) / 4
    assert pinball(quantiles, truth, [0.1, 0.9]) == pytest.approx(expected, rel=1e-7)
    assert crps_of_quantiles(quantiles, truth, [0.1, 0.9]) == pytest.approx(2 * expected, rel=1e-7)


def test_the_median_s_crps_is_the_mae() -> None:
    torch.manual_seed(0)
    forecast, truth = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert crps_of_quantiles(forecast.unsqueeze(-1), truth, [0.5]) == mae(forecast, truth)
    assert crps_of_samples(forecast.unsqueeze(-1), truth) == mae(forecast, truth)


def test_samples_by_the_definition() -> None:
    torch.manual_seed(1)
    samples, truth = torch.randn(6, 7, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    apart = (samples - truth[:, None]).abs().mean(dim=1)
    spread = (samples[:, :, None] - samples[:, None, :]).abs().mean(dim=(1, 2)) / 2
    # sums of 49 terms of order 1
    assert crps_of_samples(samples, truth) == pytest.approx(
        (apart - spread).mean().item(), abs=1e-14
    )


def test_both_agree_with_the_normal_law() -> None:
    # CRPS of N(0, 1) at y (Gneiting and Raftery, 2007): y (2 F(y) - 1) + 2 f(y) - 1 / sqrt(pi)
    shares = ((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000).tolist()
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(shares).double())
    for y in (0.0, 0.7, -2.5):
        law = 0.5 * (1 + math.erf(y / math.sqrt(2)))
        density = math.exp(-y * y / 2) / math.sqrt(2 * math.pi)
        expected = y * (2 * law - 1) + 2 * density - 1 / math.sqrt(math.pi)
        truth = torch.tensor([y], dtype=torch.float64)
        # a mean over 2000 shares for an integral: 1 / 2000 of a range of a few units, squared tails
        for crps in (
            crps_of_quantiles(quantiles[None], truth, shares),
            crps_of_samples(quantiles[None], truth),
        ):
            assert crps == pytest.approx(expected, abs=1e-3)


def test_coverage_by_hand() -> None:
    lower, upper = torch.tensor([0.0, 0.0, 0.0, 5.0]), torch.tensor([1.0, 1.0, 1.0, 6.0])
    truth = torch.tensor([0.0, 1.0, 1.5, 4.0])
    assert coverage(lower, upper, truth) == 0.5
    assert coverage(lower, upper, truth, torch.tensor([True, True, True, False])) == 2 / 3


def test_missing_truths_are_left_out_or_seen() -> None:
    truth = torch.tensor([1.0, NAN])
    observed = ~truth.isnan()
    several = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    assert pinball(several, truth, [0.25, 0.75], observed) == 0.25
    assert crps_of_samples(several, truth, observed) == 0.5
    assert coverage(several[:, 0], several[:, 1], truth, observed) == 1
    assert math.isnan(coverage(several[:, 0], several[:, 1], truth))
    assert math.isnan(crps_of_samples(several, truth))


@pytest.mark.parametrize(
    ("score", "given", "message"),
    [
        (pinball, (torch.zeros(3), torch.zeros(3), [0.5]), r"expected shape \[3, 1\], got \[3\]"),
        (pinball, (torch.zeros(3, 2), torch.zeros(3), [0.5]), r"expected shape \[3, 1\]"),
        (pinball, (torch.zeros(3, 1), torch.zeros(3), [1.0]), "shares: expected numbers between"),
        (pinball, (torch.zeros(0, 1), torch.zeros(0), [0.5]), "truth: expected at least one value"),
        (crps_of_samples, (torch.zeros(3, 0), torch.zeros(3)), r"shape \[3, 'samples'\]"),
        (coverage, (torch.ones(3), torch.zeros(3), torch.zeros(3)), "lower: .* got 3 above"),
        (coverage, (torch.ones(2), torch.ones(3), torch.zeros(3)), "expected the shape of truth"),
    ],
)
def test_bad_input(score: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(*given)
