"""Heads: their forecasts against torch's distributions and closed forms, and their losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rnncells.forecast.heads import (
    Head,
    NegativeBinomialHead,
    NormalHead,
    PointHead,
    QuantileHead,
    StudentTHead,
)
from rnncells.forecast.heads.student import student_quantiles

HEADS: list[Head] = [
    PointHead(),
    QuantileHead(),
    NormalHead(),
    StudentTHead(),
    NegativeBinomialHead(),
]
SPREAD: list[Head] = HEADS[1:]
SHAPE = (4, 3, 2)  # batch, horizon, targets


def identify(head: Head) -> str:
    return type(head).__name__


def output_of(head: Head, scale: float = 1.0, **more: Any) -> Tensor:
    raw = scale * torch.randn(*SHAPE, head.size)
    return head(raw, **more)


@pytest.mark.parametrize("head", HEADS, ids=identify)
def test_points_and_loss(head: Head) -> None:
    output = output_of(head)
    assert head.point(output).shape == SHAPE
    y = torch.randint(0, 9, SHAPE).float()
    loss = head.loss(output, y)
    assert loss.shape == ()
    assert loss.isfinite()


@pytest.mark.parametrize("head", HEADS, ids=identify)
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_numbers_give_finite_losses_and_gradients(head: Head, scale: float) -> None:
    for sign in (-1.0, 1.0):
        raw = torch.full((*SHAPE, head.size), sign * scale, requires_grad=True)
        loss = head.loss(head(raw), torch.ones(SHAPE))
        loss.backward()
        assert loss.isfinite()
        assert raw.grad is not None
        assert raw.grad.isfinite().all()


@pytest.mark.parametrize("head", HEADS, ids=identify)
def test_loss_counts_only_what_was_observed(head: Head) -> None:
    output, y = output_of(head), torch.randint(0, 9, SHAPE).float()
    observed = torch.rand(SHAPE) < 0.5
    changed = torch.where(observed, y, y + 7)
    loss = head.loss(output, y, observed)
    assert torch.equal(loss, head.loss(output, changed, observed))
    alone = [
        head.loss(output[i, j, k][None, None, None], y[i, j, k][None, None, None])
        for i, j, k in observed.nonzero().tolist()
    ]
    # the mean of at most 24 losses of the size of 10
    assert_close(loss, torch.stack(alone).mean(), rtol=24 * 2**-23, atol=0)
    assert head.loss(output, y, torch.zeros(SHAPE, dtype=torch.bool)) == 0
    everything = torch.ones(SHAPE, dtype=torch.bool)
    assert_close(head.loss(output, y, everything), head.loss(output, y), rtol=24 * 2**-23, atol=0)


@pytest.mark.parametrize("head", SPREAD, ids=identify)
def test_quantiles_rise_and_draws_agree_with_them(head: Head) -> None:
    output = output_of(head)
    levels = [0.1, 0.3, 0.5, 0.9]
    quantiles = head.quantiles(output, levels)
    assert quantiles.shape == (*SHAPE, 4)
    assert (quantiles.diff(dim=-1) >= 0).all()
    draws = head.samples(output, 4000)
    assert draws.shape == (4000, *SHAPE)
    for place, level in enumerate(levels):
        share = (draws <= quantiles[..., place]).float().mean(0)
        # five standard errors of a share of 4000 draws, and of the 1000 behind a counted quantile
        slack = 5 * math.sqrt(0.25 / 4000) + 5 * math.sqrt(0.25 / 1000)
        assert (share >= level - slack).all()
        if not isinstance(head, NegativeBinomialHead):  # a count may hold more than its share
            assert (share <= level + slack).all()


@pytest.mark.parametrize("head", SPREAD, ids=identify)
def test_intervals_are_central_and_nested(head: Head) -> None:
    output = output_of(head)
    intervals = head.intervals(output, [50, 80])
    assert intervals.shape == (*SHAPE, 2, 2)
    # the levels differ by a rounding
    assert_close(intervals[..., 1, :], head.quantiles(output, [0.1, 0.9]), rtol=1e-5, atol=1e-5)
    assert (intervals[..., 1, 0] <= intervals[..., 0, 0]).all()
    assert (intervals[..., 1, 1] >= intervals[..., 0, 1]).all()
    with pytest.raises(ValueError, match="levels: expected per cent between 0 and 100, got 100"):
        head.intervals(output, [100])


def test_base_moves_forecasts_by_itself() -> None:
    base = torch.randn(4, 1, 2)
    for head in HEADS[:-1]:
        raw = torch.randn(*SHAPE, head.size)
        assert_close(head.point(head(raw, base)), head.point(head(raw)) + base, rtol=0, atol=2**-20)


def test_point_losses_are_torchs() -> None:
    output, y = torch.randn(SHAPE), torch.randn(SHAPE)
    losses: dict[str, Any] = {
        "huber": torch.nn.functional.huber_loss,
        "mse": torch.nn.functional.mse_loss,
        "mae": torch.nn.functional.l1_loss,
    }
    for name, loss in losses.items():
        error: Any = name
        assert torch.equal(PointHead(error).loss(output, y), loss(output, y))


def test_pinball_loss_is_least_at_the_quantiles() -> None:
    torch.manual_seed(3)
    y = torch.randn(20_000, 1, 1)
    head = QuantileHead((0.1, 0.5, 0.9))
    raw = torch.zeros(1, 1, 1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        head.loss(head(raw).expand(20_000, 1, 1, 3), y).backward()
        optimizer.step()
    # five standard errors of the 10% quantile of 20,000 normal values, and the last Adam steps
    expected = torch.tensor([-1.2816, 0.0, 1.2816])
    assert_close(head(raw).detach()[0, 0, 0], expected, rtol=0, atol=0.06 + 0.05)


def test_quantiles_between_and_outside() -> None:
    head = QuantileHead((0.25, 0.5, 0.75))
    output = torch.tensor([[[[0.0, 1.0, 3.0]]]])
    assert head.quantiles(output, [0.25, 0.375, 0.625, 0.75]).flatten().tolist() == [0, 0.5, 2, 3]
    with pytest.raises(ValueError, match=r"learned quantiles from 0.25 to 0.75, got \[0.1\]"):
        head.quantiles(output, [0.1])
    with pytest.raises(ValueError, match="levels: expected numbers between 0 and 1"):
        head.quantiles(output, [1.5])


def test_normal_is_torchs() -> None:
    head = NormalHead()
    output, y = output_of(head), torch.randn(SHAPE)
    normal = torch.distributions.Normal(output[..., 0], output[..., 1])
    assert_close(head.loss(output, y), -normal.log_prob(y).mean())
    levels = torch.tensor([0.1, 0.5, 0.99])
    expected = normal.icdf(levels.view(3, 1, 1, 1)).movedim(0, -1)
    assert_close(head.quantiles(output, levels.tolist()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("level", "freedom", "quantile"),
    # from the tables in every statistics book
    [(0.975, 5, 2.5706), (0.95, 10, 1.8125), (0.995, 3, 5.8409), (0.9, 120, 1.2886)],
)
def test_student_quantiles_are_the_tables(level: float, freedom: float, quantile: float) -> None:
    found = student_quantiles(level, torch.tensor([freedom, 2.0, 1e9], dtype=torch.float64))
    assert_close(found[0].item(), quantile, rtol=0, atol=6e-5)  # four printed digits
    heaviest = (2 * level - 1) / math.sqrt(2 * level * (1 - level))
    assert_close(found[1].item(), heaviest, rtol=1e-6, atol=0)
    normal = torch.special.ndtri(torch.tensor(level, dtype=torch.float64)).item()
    assert_close(found[2].item(), normal, rtol=1e-6, atol=0)
    mirrored = student_quantiles(1 - level, torch.tensor([freedom], dtype=torch.float64))
    assert_close(mirrored.item(), -quantile, rtol=0, atol=6e-5)


def test_student_t_has_a_variance() -> None:
    head = StudentTHead()
    assert (output_of(head, scale=100)[..., 2] >= 2).all()
    y = torch.randn(SHAPE)
    output = output_of(head)
    student = torch.distributions.StudentT(output[..., 2], output[..., 0], output[..., 1])
    assert_close(head.loss(output, y), -student.log_prob(y).mean())


def test_negative_binomial_speaks_in_counts() -> None:
    head = NegativeBinomialHead()
    level = torch.tensor([[0.0], [50.0]]).expand(4, 2, 2).contiguous()
    raw = torch.randn(*SHAPE, 2)
    plain, scaled = head(raw), head(raw, None, level)
    assert_close(scaled[..., 0], 50 * plain[..., 0])
    counts = torch.randint(0, 200, SHAPE).float()
    assert_close(head.loss(scaled, counts / 50, None, level), head.loss(scaled, counts))
    assert_close(head.fed_back(counts, level), counts / 50)
    mean, dispersion = scaled.unbind(-1)
    variance = head.distribution(scaled).variance
    assert_close(variance, mean + dispersion * mean**2, rtol=1e-4, atol=1e-4)
    draws = head.samples(scaled, 3)
    assert torch.equal(draws, draws.round())


def test_counts_below_zero_are_refused_where_they_were_observed() -> None:
    head = NegativeBinomialHead()
    output, y = output_of(head), torch.zeros(SHAPE)
    y[1, 2, 0] = -3
    with pytest.raises(ValueError, match="y: expected counts, 0 or more, got -3"):
        head.loss(output, y)
    assert head.loss(output, y, y == 0).isfinite()


def test_counted_quantiles_repeat_themselves() -> None:
    head = NegativeBinomialHead()
    output, before = output_of(head), torch.get_rng_state()
    assert torch.equal(head.quantiles(output, [0.1, 0.9]), head.quantiles(output, [0.1, 0.9]))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_point_has_no_distribution() -> None:
    with pytest.raises(TypeError, match="PointHead has no quantiles: train with a head that has"):
        PointHead().quantiles(torch.zeros(SHAPE), [0.5])
    with pytest.raises(TypeError, match="PointHead has no distribution"):
        PointHead().samples(torch.zeros(SHAPE), 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointHead("l2"), "error: expected one of huber, mse, mae, got 'l2'"),  # type: ignore[arg-type]
        (lambda: QuantileHead((0.1, 0.9)), "expected rising levels with 0.5 among them"),
        (lambda: QuantileHead((0.9, 0.5)), "expected rising levels"),
        (lambda: QuantileHead((0.5, 1.0)), "levels: expected numbers between 0 and 1"),
        (
            lambda: PointHead().loss(torch.zeros(2, 3, 1), torch.zeros(2, 3, 2)),
            r"expected the shape of truth, \[2, 3, 2\], got \[2, 3, 1\]",
        ),
        (
            lambda: NormalHead().loss(torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 2)),
            r"2 numbers for each value, \[2, 3, 2, 2\], got \[2, 3, 1, 2\]",
        ),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
