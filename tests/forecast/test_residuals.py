"""Autocorrelation, by hand and by what it must show."""

from __future__ import annotations

import pytest
import torch

from rnncells.forecast import autocorrelation

NAN = float("nan")


def test_by_hand() -> None:
    # mean 3; -2, -1, 0, 1, 2: squares 10, then 2 + 0 + 0 + 2, 0 - 1 + 0, -2 - 2
    series = torch.tensor([1.0, 2, 3, 4, 5])
    assert autocorrelation(series, 3).tolist() == pytest.approx([1, 0.4, -0.1, -0.4], rel=1e-15)


def test_missing_pairs_are_left_out() -> None:
    # mean 3; -2, -1, none, 1, 2
    series = torch.tensor([1.0, 2, NAN, 4, 5])
    assert autocorrelation(series, 2).tolist() == pytest.approx([1, 0.4, -0.1], rel=1e-15)


def test_a_season_shows_and_noise_does_not() -> None:
    torch.manual_seed(0)
    step = torch.arange(2000)
    season = (2 * torch.pi * step / 24).sin() + 0.1 * torch.randn(2000)
    correlation = autocorrelation(season, 30)
    assert correlation[20:].argmax() == 4
    assert correlation[24] > 0.95
    noise = autocorrelation(torch.randn(2000), 40)[1:]
    assert (noise.abs() < 1.96 / 2000**0.5).sum() >= 35


@pytest.mark.parametrize(
    ("series", "lags", "message"),
    [
        (torch.ones(5, 1), 2, "series: expected rank 1"),
        (torch.arange(5.0), 5, "lags: expected fewer than the series' 5 steps, got 5"),
        (torch.arange(5.0), 0, "lags: expected an integer"),
        (torch.ones(5), 2, "series: expected values that vary, got a constant series"),
        (torch.full((5,), NAN), 2, "series: expected values that vary"),
        (torch.tensor([1.0, float("inf"), 2.0]), 1, "got an infinity"),
    ],
)
def test_bad_input(series: torch.Tensor, lags: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        autocorrelation(series, lags)
