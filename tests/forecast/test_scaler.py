"""The scaler: fitted where told, undone exactly."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import StandardScaler

NAN = float("nan")


def test_fit_by_hand() -> None:
    scaler = StandardScaler.fit(torch.tensor([[1.0, 10.0], [3.0, 30.0]], dtype=torch.float64))
    assert scaler.location.tolist() == [2, 20]
    assert scaler.scale.tolist() == [1, 10]
    assert scaler.transform(torch.tensor([[4.0, 0.0]])).tolist() == [[2, -2]]


def test_missing_values_are_left_out_and_stay_missing() -> None:
    series = torch.tensor([[1.0], [NAN], [3.0]])
    scaler = StandardScaler.fit(series)
    assert (scaler.location.item(), scaler.scale.item()) == (2, 1)
    assert scaler.transform(series).isnan().flatten().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_that_the_mean_rounds_is_only_centred(dtype: torch.dtype) -> None:
    series = torch.full((1000, 2), 0.1, dtype=dtype)
    series[5, 1] = torch.nan
    scaler = StandardScaler.fit(series)
    assert torch.equal(scaler.scale, torch.ones(2, dtype=dtype))


def test_constant_feature_is_only_centred() -> None:
    scaler = StandardScaler.fit(torch.full((4, 1), 5.0))
    assert scaler.scale.item() == 1
    assert scaler.transform(torch.tensor([[6.0]])).item() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(dtype: torch.dtype) -> None:
    series = 1000 + 7 * torch.randn(500, 3, dtype=dtype)
    scaler = StandardScaler.fit(series)
    back = scaler.inverse(scaler.transform(series))
    # one subtraction, division, product and sum: each rounds by half a unit of the largest value
    tolerance = 4 * torch.finfo(dtype).eps * series.abs().max().item()
    assert_close(back, series, rtol=0, atol=tolerance)


def test_inverse_of_some_columns() -> None:
    scaler = StandardScaler.fit(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
    assert scaler.inverse(torch.tensor([[[1.0], [-1.0]]]), columns=[1]).tolist() == [[[30], [10]]]


def test_scaled_data_has_no_mean_and_unit_variance() -> None:
    series = 5 + 3 * torch.randn(1000, 2, dtype=torch.float64)
    scaled = StandardScaler.fit(series).transform(series)
    # sums of 1000 terms of order 1: at most 1000 roundings of eps, divided by 1000
    assert_close(scaled.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)
    assert_close(
        scaled.var(0, correction=0), torch.ones(2, dtype=torch.float64), rtol=1e-13, atol=0
    )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="expected rank 2"):
        StandardScaler.fit(torch.ones(3))
    with pytest.raises(ValueError, match="an infinity at time step 0"):
        StandardScaler.fit(torch.full((3, 1), float("inf")))
    with pytest.raises(ValueError, match="feature 1 has none"):
        StandardScaler.fit(torch.tensor([[1.0, NAN], [2.0, NAN]]))
    scaler = StandardScaler.fit(torch.randn(5, 2))
    with pytest.raises(
        ValueError, match=r"expected 2 features on the last axis, got shape \[4, 3\]"
    ):
        scaler.transform(torch.ones(4, 3))
    with pytest.raises(ValueError, match="expected 1 features"):
        scaler.inverse(torch.ones(4, 2), columns=[0])


def test_arrays_are_no_tensors() -> None:
    numpy = pytest.importorskip("numpy")
    scaler = StandardScaler.fit(torch.randn(5, 2))
    for act in (scaler.transform, scaler.inverse):
        with pytest.raises(TypeError, match="values: expected a Tensor, got ndarray"):
            act(numpy.ones((4, 2)))
