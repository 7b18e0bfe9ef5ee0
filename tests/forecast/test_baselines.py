"""Baselines against cases worked out by hand, and least squares against its definition."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import (
    LeastSquares,
    differenced,
    moving_average,
    naive,
    seasonal_naive,
)


def test_naive_repeats_the_last_value() -> None:
    past = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    assert naive(past, 2)[..., 0].tolist() == [[3, 3], [6, 6]]


def test_seasonal_naive_repeats_the_last_season() -> None:
    past = torch.arange(7.0).reshape(1, 7, 1)
    assert seasonal_naive(past, 5, season=3)[0, :, 0].tolist() == [4, 5, 6, 4, 5]
    assert seasonal_naive(past, 2, season=7)[0, :, 0].tolist() == [0, 1]


def test_baselines_keep_targets_apart() -> None:
    past = torch.tensor([[[1.0, 10.0], [2.0, 20.0]]])
    assert naive(past, 1).tolist() == [[[2, 20]]]
    assert seasonal_naive(past, 2, season=2).tolist() == [[[1, 10], [2, 20]]]


def test_naive_refuses_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"past: expected rank 3.*got shape \[3, 2\]"):
        naive(torch.ones(3, 2), 1)
    with pytest.raises(ValueError, match="one season of 5 time steps, got 4"):
        seasonal_naive(torch.ones(1, 4, 1), 1, season=5)
    with pytest.raises(ValueError, match="horizon: expected an integer"):
        naive(torch.ones(1, 4, 1), 0)


def test_least_squares_finds_an_exact_law() -> None:
    torch.manual_seed(1)
    x = torch.randn(60, 4, 2, dtype=torch.float64)
    # y1 = 3 + 2 x[last, 0] - x[first, 1];  y2 = -1 + x[1, 0]
    y = torch.stack([3 + 2 * x[:, 3, 0] - x[:, 0, 1], -1 + x[:, 1, 0]], dim=1).unsqueeze(2)
    model = LeastSquares.fit(x, y)
    # 60 equations of order 1, well conditioned: some hundred roundings of 2.2e-16
    assert_close(
        model.intercept, torch.tensor([3.0, -1.0], dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert_close(model(x), y, rtol=0, atol=1e-12)
    weight = model.weight.reshape(4, 2, 2)
    assert_close(weight[3, 0, 0].item(), 2.0, rtol=0, atol=1e-12)
    assert_close(weight[0, 1, 0].item(), -1.0, rtol=0, atol=1e-12)


def test_least_squares_agrees_with_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    torch.manual_seed(2)
    x, y = torch.randn(80, 5, 2, dtype=torch.float64), torch.randn(80, 3, 1, dtype=torch.float64)
    design = numpy.column_stack([x.flatten(1).numpy(), numpy.ones(80)])
    solution = numpy.linalg.lstsq(design, y.flatten(1).numpy(), rcond=None)[0]
    # two orthogonal factorisations of an 80 x 11 matrix with condition number below 10
    expected = torch.from_numpy(design @ solution).unsqueeze(2)
    assert_close(LeastSquares.fit(x, y)(x), expected, rtol=0, atol=1e-12)


def test_residuals_are_orthogonal_to_the_inputs() -> None:
    torch.manual_seed(3)
    x, y = torch.randn(50, 3, 1), torch.randn(50, 2, 1)
    residual = (LeastSquares.fit(x, y)(x) - y.double()).flatten(1)
    design = torch.cat([x.flatten(1).double(), torch.ones(50, 1, dtype=torch.float64)], dim=1)
    # 50 products of order 1, computed in float64 whatever the inputs' dtype
    zero = torch.zeros(4, 2, dtype=torch.float64)
    assert_close(design.T @ residual, zero, rtol=0, atol=1e-12)


def test_dependent_inputs_give_the_smallest_weights() -> None:
    torch.manual_seed(4)
    column = torch.randn(40, 1, 1, dtype=torch.float64)
    model = LeastSquares.fit(torch.cat([column, column], dim=2), 4 * column)
    assert_close(model.weight, torch.full((2, 1), 2.0, dtype=torch.float64), rtol=0, atol=1e-12)


def test_least_squares_refuses_wrong_input() -> None:
    x, y = torch.randn(9, 3, 2), torch.randn(9, 2, 1)
    with pytest.raises(ValueError, match="x: expected rank 3"):
        LeastSquares.fit(x.flatten(1), y)
    with pytest.raises(ValueError, match="y: expected 9 windows, as many as x, got 8"):
        LeastSquares.fit(x, y[:8])
    with pytest.raises(ValueError, match="y: expected finite values"):
        LeastSquares.fit(x, y / 0)
    with pytest.raises(ValueError, match=r"context \* features = 6, as in fit, got 4 \* 2"):
        LeastSquares.fit(x, y)(torch.randn(1, 4, 2))


def test_least_squares_with_what_is_known_ahead() -> None:
    torch.manual_seed(0)
    x, future = torch.randn(40, 3, 2).double(), torch.randn(40, 2, 1).double()
    y = x[:, -1:, :1] + 3 * future + 0.5
    model = LeastSquares.fit(x, y, future=future)
    assert model.weight.shape == (3 * 2 + 2 * 1, 2)
    assert_close(model(x, future), y, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"\+ horizon \* known = 8, as in fit, got 3 \* 2 \+ 1 \*"):
        model(x, future[:, :1])
    with pytest.raises(ValueError, match="future: expected 40 windows, as many as x, got 9"):
        model(x, future[:9])


def test_arrays_are_no_tensors() -> None:
    array = pytest.importorskip("numpy").ones((9, 3, 2))
    with pytest.raises(TypeError, match="past: expected a Tensor, got ndarray"):
        naive(array, 1)
    with pytest.raises(TypeError, match="y: expected a Tensor, got ndarray"):
        LeastSquares.fit(torch.ones(9, 3, 2), array)


def test_moving_average_by_hand() -> None:
    past = torch.tensor([[[9.0, 0.0], [1.0, 10.0], [3.0, 30.0]]])
    assert moving_average(past, 2, window=2).tolist() == [[[2, 20], [2, 20]]]
    with pytest.raises(ValueError, match="one window of 4 time steps, got 3"):
        moving_average(past, 2, window=4)


def test_differenced_goes_on_with_trend_and_season() -> None:
    step = torch.arange(40, dtype=torch.float64)
    series = (3 * step + 7 * (step % 5)).reshape(1, -1, 1)
    forecast = differenced(series[:, :20], 5, season=5, window=8)
    # sums of 8 terms of order 100
    assert_close(forecast, series[:, 20:25], rtol=0, atol=1e-12)
    # beyond the first season the trend stands still
    longer = differenced(series[:, :20], 12, season=5, window=8)
    assert_close(longer, forecast[:, torch.arange(12) % 5], rtol=0, atol=0)


def test_differenced_by_hand() -> None:
    past = torch.tensor([1.0, 2, 6, 4, 3, 7, 9, 10], dtype=torch.float64).reshape(1, -1, 1)
    # season 4: differences 2, 5, 3, 6, the last three of mean 14 / 3; smoothed 4, 3, 7 and 3, 7, 9
    forecast = differenced(past, 2, season=4, window=3, smooth=3).flatten()
    assert forecast.tolist() == pytest.approx([14 / 3 + 14 / 3, 19 / 3 + 14 / 3], rel=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": 2}, "smooth: expected an odd number .* at most 7 for horizon 1 and season 4"),
        ({"smooth": 9}, "smooth: expected an odd number"),
        ({"window": 5}, r"smooth // 2\) = 9 time steps, got 8"),
        ({"season": 0}, "season: expected an integer"),
    ],
)
def test_differenced_refuses_wrong_input(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        differenced(torch.zeros(1, 8, 1), 1, **({"season": 4, "window": 3} | options))


def test_ridge_is_the_normal_equations_solution() -> None:
    torch.manual_seed(5)
    x, y = torch.randn(30, 4, 1, dtype=torch.float64), torch.randn(30, 2, 1, dtype=torch.float64)
    a, b = (part.flatten(1) - part.flatten(1).mean(dim=0) for part in (x, y))
    expected = torch.linalg.solve(a.T @ a + 2.5 * torch.eye(4, dtype=torch.float64), a.T @ b)
    model = LeastSquares.fit(x, y, ridge=2.5)
    # 30 equations of order 1, well conditioned
    assert_close(model.weight, expected, rtol=0, atol=1e-13)
    # the intercept is free: residuals have mean 0
    residual = (model(x) - y).mean(dim=0)
    assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-14)
    for ridge in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ridge: expected a finite number of at least 0"):
            LeastSquares.fit(x, y, ridge)
