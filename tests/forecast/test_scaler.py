"""The scaler: fitted where told, undone exactly."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import (
    MeanScaler,
    Panel,
    RobustScaler,
    Scaler,
    StandardScaler,
    as_panel,
    scaler_from_dict,
)

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


SERIES = torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0], [10.0, 5.0]])
SCALERS = [StandardScaler, RobustScaler, MeanScaler]


@pytest.mark.parametrize(
    ("kind", "location", "scale"),
    [
        (StandardScaler, [4, 5], [10**0.5, 1]),
        (RobustScaler, [3, 5], [2, 1]),
        (MeanScaler, [0, 0], [4, 5]),
    ],
)
def test_kinds_by_hand(kind: type[Scaler], location: list[float], scale: list[float]) -> None:
    for gaps in (0, 3):
        series = torch.cat([torch.full((gaps, 2), NAN), SERIES]).double()
        scaler = kind.fit(series)
        assert scaler.location.tolist() == location
        assert scaler.scale.tolist() == pytest.approx(scale, rel=1e-15)


def test_quartiles_are_numpys() -> None:
    numpy = pytest.importorskip("numpy")
    torch.manual_seed(0)
    for size in (1, 2, 6, 7, 101):
        values = torch.randn(size, 1, dtype=torch.float64)
        low, middle, high = numpy.quantile(values[:, 0].numpy(), [0.25, 0.5, 0.75])
        scaler = RobustScaler.fit(values)
        # one interpolation: some roundings of values of order 1
        assert scaler.location.item() == pytest.approx(middle, abs=1e-15)
        assert scaler.scale.item() == pytest.approx(high - low if size > 1 else 1, abs=4e-15)


def panel() -> Panel:
    torch.manual_seed(2)
    return as_panel(
        {"a": 1000 + torch.randn(30, dtype=torch.float64), "b": torch.rand(20, dtype=torch.float64)}
    )


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("each", [False, True])
def test_panels_there_and_back(kind: type[Scaler], each: bool) -> None:
    series = panel()
    scaler = kind.fit(series, each=each)
    scaled = scaler.transform_panel(series)
    back = scaler.inverse_panel(scaled)
    # four operations, each rounded by half a unit of the largest value
    assert_close(back.values, series.values, rtol=0, atol=4 * 2.2e-16 * 1003)
    assert (scaled.ids, scaled.columns) == (series.ids, series.columns)


def test_each_series_by_itself() -> None:
    scaler = StandardScaler.fit(panel(), each=True)
    assert scaler.location.shape == (2, 1)
    assert scaler.ids == ("a", "b")
    scaled = scaler.transform_panel(panel().select(["b"]))
    assert abs(scaled.values.mean().item()) < 1e-14  # of 20 terms of order 1
    forecast = torch.zeros(2, 3, 1, dtype=torch.float64)
    back = scaler.inverse(forecast)
    assert back[:, 0].tolist() == scaler.location.tolist()
    assert scaler.inverse(forecast[:1], ids=["b"])[0, 0].tolist() == scaler.location[1].tolist()
    assert torch.equal(scaler.transform(back), forecast)


def test_fit_sees_the_training_part_only() -> None:
    series = panel()
    changed = series.with_values(series.values.clone())
    changed.values[25:30] = 1e9
    changed.values[45:] = 1e9
    for each in (False, True):
        before, after = (
            RobustScaler.fit(some, stop=[25, 15], each=each) for some in (series, changed)
        )
        assert torch.equal(before.location, after.location)
        assert torch.equal(before.scale, after.scale)
    assert StandardScaler.fit(SERIES, stop=2).location.tolist() == [1.5, 5]


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("each", [False, True])
def test_plain_values_and_tensors_hold_all(kind: type[Scaler], each: bool) -> None:
    scaler = kind.fit(panel(), each=each)
    config = json.loads(json.dumps(scaler.to_dict()))
    again = scaler_from_dict(config, scaler.tensors())
    assert type(again) is kind
    assert again.ids == scaler.ids
    assert torch.equal(
        again.transform_panel(panel()).values, scaler.transform_panel(panel()).values
    )


def test_unknown_series_and_spoilt_files_are_refused() -> None:
    scaler = StandardScaler.fit(panel(), each=True)
    stranger = as_panel({"c": torch.zeros(3)})
    with pytest.raises(ValueError, match="ids: no series that the scaler was fitted on, 'c'"):
        scaler.transform_panel(stranger)
    with pytest.raises(ValueError, match="values: expected 2 series on the first axis"):
        scaler.inverse(torch.zeros(3, 4, 1))
    config, tensors = scaler.to_dict(), scaler.tensors()
    with pytest.raises(ValueError, match="kind: expected one of 'standard'"):
        scaler_from_dict({**config, "kind": "pickle"}, tensors)
    with pytest.raises(ValueError, match="tensors: no tensor 'scale'"):
        scaler_from_dict(config, {"location": tensors["location"]})
    with pytest.raises(ValueError, match="of one shape, of rank 2"):
        scaler_from_dict(config, {**tensors, "scale": torch.ones(2)})
    with pytest.raises(ValueError, match="finite numbers and scales above 0"):
        scaler_from_dict(config, {**tensors, "scale": torch.zeros(2, 1)})
    with pytest.raises(ValueError, match="series 'b': expected values in every feature"):
        StandardScaler.fit(as_panel({"a": [1.0], "b": [NAN]}), each=True)
