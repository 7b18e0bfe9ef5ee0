"""The estimator: the types that come back, its modes, and its place in scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rnncells.forecast import Forecaster, PointHead
from rnncells.forecast.fitted import DRAWS
from tests.forecast.forecasters import CONTEXT, HORIZON, MODES, SMALL, frame_of, pick, waves

np = pytest.importorskip("numpy")
pytest.importorskip("lightning_fabric")


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    """Fitted on two series."""
    return Forecaster(**SMALL).fit(waves(2))


def test_a_wave_is_learned() -> None:
    y = waves(1, 300)[0, :, 0]
    model = Forecaster(**SMALL | {"epochs": 12, "learning_rate": 0.02, "hidden_size": 12})
    model.fit(y[:260])
    found = model.predict(levels=[80])
    assert_close(found["y_hat"], y[260:263], atol=0.25, rtol=0)
    assert (found["y_hat-lo-80"] < found["y_hat"]).all()
    assert (found["y_hat-hi-80"] > found["y_hat"]).all()
    repeated = y[260 - HORIZON : 260]
    assert (found["y_hat"] - y[260:263]).abs().mean() < (repeated - y[260:263]).abs().mean() / 2


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda y: y[0, :, 0], [HORIZON]),
        (lambda y: y[0], [HORIZON, 1]),
        (lambda y: y[0, :, 0].double().numpy(), [HORIZON]),
        (lambda y: y.numpy(), [2, HORIZON, 1]),
        (lambda y: y.expand(2, 60, 2).contiguous(), [2, HORIZON, 2]),
    ],
)
def test_arrays_and_tensors_come_back(make: Callable[[Tensor], Any], shape: list[int]) -> None:
    y = make(waves(2))
    model = Forecaster(**SMALL).fit(y)
    back = model.predict()
    assert type(back) is type(y)
    assert back.dtype == y.dtype
    assert list(back.shape) == shape
    bounds = model.predict(levels=[95])
    assert list(bounds) == ["y_hat", "y_hat-lo-95", "y_hat-hi-95"]
    assert all(type(part) is type(y) and list(part.shape) == shape for part in bounds.values())


def test_lists_and_dicts_come_back() -> None:
    parts = [waves(2)[0, :, 0], waves(2, 50)[1, :, 0]]
    found = Forecaster(**SMALL).fit(parts).predict()
    assert isinstance(found, list)
    named = Forecaster(**SMALL).fit({"a": parts[0], "b": parts[1]}).predict()
    assert list(named) == ["a", "b"]
    for one, other in zip(found, named.values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_come_back(library: str) -> None:
    y = waves(2)
    model = Forecaster(**SMALL, calendar=("hour",)).fit(frame_of(library, y[:, :50]))
    back = model.predict(levels=[80, 95])
    assert type(back).__module__.startswith(library)
    bounds = ["y_hat-lo-80", "y_hat-hi-80", "y_hat-lo-95", "y_hat-hi-95"]
    assert list(back.columns) == ["unique_id", "ds", "y_hat", *bounds]
    assert back["unique_id"].to_list() == ["a"] * HORIZON + ["b"] * HORIZON
    hours = back["ds"].to_numpy().astype("M8[h]").astype(int)
    assert (hours - hours[0]).tolist() == [0, 1, 2] * 2
    assert str(back["ds"].to_numpy()[0].astype("M8[h]")) == "2024-01-03T02"

    # new rows, few as they are, are read as those of the fit
    longer = model.predict(frame_of(library, y[:, :51]))
    updated = model.update(frame_of(library, y[:, 50:51], first=50)).predict()
    assert updated["y_hat"].to_list() == longer["y_hat"].to_list()
    assert updated["ds"].to_list() == longer["ds"].to_list()

    tested = model.backtest(frame_of(library, y), start="2024-01-03T02", stride=3)
    assert list(tested.columns) == ["unique_id", "ds", "cutoff", "y", "y_hat"]
    assert len(tested) == 2 * 3 * HORIZON
    ahead = tested["ds"].to_numpy() - tested["cutoff"].to_numpy()
    assert ahead.astype("m8[h]").astype(int).tolist() == [1, 2, 3] * 6
    assert tested["y"].to_list()[:3] == pytest.approx(y[0, 50:53, 0].tolist())


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_with_covariates_and_gaps(library: str) -> None:
    y = waves(2)
    price = y.cos().flatten().double().numpy()
    frame = frame_of(library, y, price=price)
    step = np.tile(np.arange(60), 2)
    first, last, holes = (pick(frame, rows) for rows in (step < 50, step >= 50, step % 7 != 3))
    model = Forecaster(**SMALL).fit(first, val=last, future=["price"])
    ahead = frame_of(library, y[:, :HORIZON], first=60, price=price[: 2 * HORIZON])
    found = model.predict(levels=[80], future=ahead)
    assert found["ds"].to_list() == ahead["ds"].to_list()
    with pytest.raises(ValueError, match="future: expected values of price"):
        model.predict()

    with pytest.raises(ValueError, match="expected no gap in time stamps"):
        Forecaster(**SMALL).fit(holes)
    masked = Forecaster(**SMALL, missing="mask").fit(holes)
    assert masked.predict()["y_hat"].to_list() == masked.predict(holes)["y_hat"].to_list()


def test_an_update_of_some_series() -> None:
    y = waves(2, 50)[..., 0]
    model = Forecaster(**SMALL).fit({"a": y[0, :40], "b": y[1, :40]})
    before = model.predict()
    after = model.update({"b": y[1, 40:]}).predict()
    assert torch.equal(after["a"], before["a"])
    assert torch.equal(after["b"], model.predict({"b": y[1]})["b"])


@pytest.mark.parametrize("mode", MODES)
def test_a_backtest_is_a_predict_at_each_cutoff(mode: Any) -> None:
    y = waves(2, 40)
    model = Forecaster(**SMALL, mode=mode).fit(y)
    found = model.backtest(y, stride=5)
    cutoffs = range(CONTEXT, 40 - HORIZON + 1, 5)
    single = [model.predict(y[:, :cutoff])[n] for n in range(2) for cutoff in cutoffs]
    assert_close(found, torch.stack(single))


@pytest.mark.parametrize("mode", MODES)
def test_an_update_is_the_longer_series(mode: Any) -> None:
    y = waves(2, 50)
    model = Forecaster(**SMALL, mode=mode).fit(y[:, :40])
    for first, last in ((40, 41), (41, 50)):
        model.update(y[:, first:last])
        assert torch.equal(model.predict(), model.predict(y[:, :last]))


def test_the_steps_of_val_are_known_to_predict() -> None:
    y = waves(2, 50)
    model = Forecaster(**SMALL).fit(y[:, :40], val=y[:, 40:])
    assert torch.equal(model.predict(), model.predict(y))
    counted = Forecaster(**SMALL).fit(y, val=10)
    assert torch.equal(counted.predict(), model.predict())
    assert model.history is not None
    assert len(model.history.validation_loss) == 1
    without = Forecaster(**SMALL).fit(y, val=0)
    assert without.history is not None
    assert without.history.validation_loss == []
    with pytest.raises(ValueError, match="val: no series of y, 2"):
        Forecaster(**SMALL).fit(y, val=waves(3))
    with pytest.raises(ValueError, match=r"context \+ horizon \+ val = 56"):
        Forecaster(**SMALL).fit(y, val=41)


def test_validation_does_not_reach_the_scaler_or_the_training() -> None:
    y = waves(2, 50)
    other = y.clone()
    other[:, 40:] = 1e4
    fits = [Forecaster(**SMALL, scaler="standard").fit(one, val=10) for one in (y, other)]
    assert torch.equal(*(one.predict(y) for one in fits))


@pytest.mark.parametrize("scaler", ["standard", "robust", "window standard", "window last"])
def test_level_and_scale_of_a_series_do_not_matter(scaler: str) -> None:
    y = waves(1, 40)[0].double()
    plain, moved = (Forecaster(**SMALL, scaler=scaler).fit(one) for one in (y, y / 8 + 1e7))
    assert_close(moved.predict() - 1e7, plain.predict() / 8, atol=1e-5, rtol=0)


def test_recursive_forecasts_any_horizon() -> None:
    y = waves(1, 40)[0]
    model = Forecaster(**SMALL, mode="recursive").fit(y)
    found = model.predict(horizon=10, levels=[80])
    assert found["y_hat"].shape == (10, 1)
    assert_close(found["y_hat"][:HORIZON], model.predict())
    wide = (found["y_hat-hi-80"] - found["y_hat-lo-80"]).flatten()
    assert wide[-1] > wide[0] > 0  # what is not known adds up
    assert DRAWS > 100
    again = model.predict(horizon=10, levels=[80])
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_shorter_horizons_and_one_step(fitted: Forecaster) -> None:
    assert torch.equal(fitted.predict(horizon=2), fitted.predict()[:, :2])
    with pytest.raises(ValueError, match="horizon: fitted for 3 steps in mode 'seq2seq', got 4"):
        fitted.predict(horizon=4)
    y = waves(1, 40)[0]
    assert Forecaster(**SMALL | {"horizon": 1}, mode="one step").fit(y).predict().shape == (1, 1)


def test_the_same_seed_gives_the_same_forecasts() -> None:
    y = waves(1, 40)[0]
    torch.manual_seed(1)
    first = Forecaster(**SMALL, dropout=0.2, num_layers=2).fit(y).predict()
    state = torch.get_rng_state()
    second = Forecaster(**SMALL, dropout=0.2, num_layers=2).fit(y).predict()
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    other = Forecaster(**SMALL, dropout=0.2, num_layers=2, seed=1).fit(y).predict()
    assert not torch.equal(first, other)


def test_counts() -> None:
    torch.manual_seed(0)
    y = torch.poisson(torch.full((60,), 4.0))
    model = Forecaster(**SMALL, head="negative binomial", scaler="window mean").fit(y)
    found = model.predict(levels=[90])
    assert (found["y_hat-lo-90"] >= 0).all()
    assert torch.equal(found["y_hat-hi-90"], found["y_hat-hi-90"].round())
    assert 1 < found["y_hat"].mean() < 12


def test_scikit_learn() -> None:
    clone = pytest.importorskip("sklearn.base").clone
    selection = pytest.importorskip("sklearn.model_selection")
    model = Forecaster(**SMALL, head=PointHead("mse"), calendar=["hour"])
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy is not model
    assert model.set_params(epochs=2, cell="lstm") is model
    assert (model.epochs, model.cell, copy.cell) == (2, "lstm", "gru")
    with pytest.raises(ValueError, match=r"no parameter 'epoch' .did you mean 'epochs'"):
        model.set_params(epoch=3)

    y = waves(1, 80)[0].numpy()
    search = selection.GridSearchCV(
        Forecaster(**SMALL), {"hidden_size": [2, 3]}, cv=selection.TimeSeriesSplit(2, test_size=20)
    )
    search.fit(y)
    assert search.best_params_["hidden_size"] in (2, 3)
    assert search.best_score_ < 0
    assert search.predict(y).shape == (HORIZON, 1)


def test_a_later_parameter_leaves_what_was_fitted(fitted: Forecaster) -> None:
    before = fitted.predict()
    fitted.set_params(horizon=5, context=30, mode="recursive")
    try:
        assert torch.equal(fitted.predict(), before)
    finally:
        fitted.set_params(**SMALL, mode="seq2seq")


@pytest.mark.parametrize("scaler", ["window standard", "standard"])
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_series_is_forecast_near_its_value(scaler: str, value: float) -> None:
    options = SMALL | {"epochs": 60, "learning_rate": 0.02, "scaler": scaler}
    model = Forecaster(**options).fit(torch.full((60,), value))
    assert_close(model.predict(), torch.full((HORIZON,), value), atol=0.1 * max(1, value), rtol=0)
