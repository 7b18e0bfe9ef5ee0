"""Imputation: what is hidden and how, what is filled and what is left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.forecast.heads import NormalHead
from rnncells.forecast.networks import HiddenValues, ImputationNet, impute
from rnncells.forecast.training import Training, fit

NAN = float("nan")


@pytest.fixture
def series() -> Tensor:
    """Two waves that say much of each other, [400, 2], with gaps in both."""
    step = 0.4 * torch.arange(400.0)
    found = torch.stack([step.sin(), (step + 0.5).sin()], dim=1)
    found[50:53, 0] = NAN
    found[200:204, 1] = NAN
    return found


def test_a_batch_hides_values_and_tells_which(series: Tensor) -> None:
    windows = HiddenValues(series, 20, rate=0.3)
    x, y, *_, observed, level = windows.batch(torch.tensor([0, 45, 190]))
    assert x.shape == (3, 20, 4)
    assert y.shape == (3, 20, 1, 2)
    assert level is None
    assert observed is not None
    values, seen = x.split(2, dim=2)
    hidden = observed.squeeze(2)
    truth = series.unfold(0, 20, 1)[[0, 45, 190]].transpose(1, 2)
    there = ~truth.isnan()
    assert torch.equal(seen.bool(), there & ~hidden)
    assert not (hidden & ~there).any()
    assert torch.equal(values[seen.bool()], truth[seen.bool()])
    assert (values[~seen.bool()] == 0).all()
    assert torch.equal(y.squeeze(2)[there], truth[there])


@pytest.mark.parametrize("run", [1, 4])
def test_rate_and_runs(run: int) -> None:
    torch.manual_seed(5)
    windows = HiddenValues(torch.zeros(10_000, 1), 100, stride=100, rate=0.2, run=run)
    observed = windows.batch(torch.arange(100)).observed
    assert observed is not None
    hidden = observed[:, :, 0, 0]
    # 10,000 values in runs of about four: five standard errors, and what the ends cut off
    assert abs(hidden[:, run:].float().mean() - 0.2) < 5 * (0.16 * 2 * run / 10_000) ** 0.5
    begins = (hidden[:, 1:] & ~hidden[:, :-1]).sum()
    mean_run = hidden[:, 1:].sum() / begins
    assert run <= mean_run < 1.6 * run


def test_seed_hides_the_same_whatever_the_batch(series: Tensor) -> None:
    windows = HiddenValues(series, 20, seed=3)
    one, other = windows.batch([7, 8]), windows.__getitems__([8])
    assert torch.equal(one.x[1], other.x[0])
    assert not torch.equal(one.x[0] == 0, one.x[1] == 0)
    fresh = HiddenValues(series, 20)
    assert not torch.equal(fresh.batch([7]).x, fresh.batch([7]).x)


def test_several_series(series: Tensor) -> None:
    windows = HiddenValues([series, series[:25] + 10], 20, stride=3)
    assert len(windows) == 127 + 2
    assert windows.batch([128]).y.min() > 5


def test_learns_to_fill_from_both_sides(series: Tensor) -> None:
    pytest.importorskip("lightning_fabric")
    torch.manual_seed(1)
    net = ImputationNet(2, 16)
    train = HiddenValues(series[:300], 24, stride=3, run=3)
    check = HiddenValues(series[300:], 24, stride=5, run=3, seed=0)
    training = Training(epochs=25, batch_size=16, learning_rate=2e-2, patience=None)
    fit(net, train, check, training)
    net.train()
    values, filled = impute(net, series)
    assert net.training
    assert torch.equal(filled, series.isnan())
    assert torch.equal(values[~filled], series[~filled])
    step = 0.4 * torch.arange(400.0)
    truth = torch.stack([step.sin(), (step + 0.5).sin()], dim=1)
    # the mean is off by 0.6 and the last value carried forward by 0.8
    assert (values - truth)[filled].abs().mean() < 0.15


def test_both_sides_are_read() -> None:
    net = ImputationNet(1, 8).eval()
    x = torch.zeros(1, 9, 2, requires_grad=True)
    output = net(x)
    assert output.shape == (1, 9, 1, 1)
    output[0, 4].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum((0, 2)) > 0).all()


def test_a_distribution_imputes_its_mean(series: Tensor) -> None:
    net = ImputationNet(2, 8, head=NormalHead(), cell="lstm", layers="torch")
    values, filled = impute(net, series)
    assert values.isfinite().all()
    assert filled.sum() == 7


def test_bad_input(series: Tensor) -> None:
    net = ImputationNet(2, 8)
    with pytest.raises(ValueError, match="series: expected 2 features, got 1"):
        impute(net, series[:, :1])
    empty = series.clone()
    empty[:, 1] = NAN
    with pytest.raises(ValueError, match="feature 1 has no value at all to go by"):
        impute(net, empty)
    with pytest.raises(ValueError, match="an infinity"):
        impute(net, series / 0)
    listed: Any = [[1.0]]
    with pytest.raises(TypeError, match="series: expected a tensor, got list"):
        impute(net, listed)
    with pytest.raises(ValueError, match="rate: expected a share between 0 and 1, got 1"):
        HiddenValues(series, 20, rate=1)
    with pytest.raises(ValueError, match="series 1: expected 20 steps, got 5"):
        HiddenValues([series, series[:5]], 20)
    with pytest.raises(ValueError, match="series: expected at least one, got none"):
        HiddenValues([], 20)
    with pytest.raises(ValueError, match="job: expected a head alone, got residual"):
        ImputationNet(2, 8, residual=True)
