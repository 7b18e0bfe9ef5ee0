"""The estimator with every network, and with series that its fit never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from rnncells.forecast import Forecaster, WaveNet, as_panel
from rnncells.forecast.models import AFTER_EACH_STEP, MODELS, Model
from tests.forecast.forecasters import CONTEXT, HORIZON, SMALL, frame_of, waves

pytest.importorskip("lightning_fabric")

EVERY = get_args(Model)


def test_every_network_has_a_name() -> None:
    assert tuple(MODELS) == EVERY


@pytest.mark.parametrize("model", EVERY)
@pytest.mark.parametrize("mode", [None, "recursive"])
def test_every_network_fits_and_is_saved(model: Any, mode: Any, tmp_path: Path) -> None:
    y = waves(2, 40)
    panel = as_panel(y, future=y.cos(), static=torch.tensor([[1.0], [2.0]]))
    fitted = Forecaster(**SMALL, model=model, mode=mode).fit(panel)
    assert type(fitted.fitted.net) is MODELS[model]
    ahead = torch.ones(2, HORIZON, 1)
    found = fitted.predict(levels=[80], future=ahead)
    assert found["y_hat"].shape == (2, HORIZON, 1)
    assert (found["y_hat-lo-80"] < found["y_hat-hi-80"]).all()
    # a backtest's last window is what predict would see before the last horizon
    last = fitted.backtest(panel, start=-HORIZON)
    seen = panel.cut(stop=-HORIZON)
    known = panel.values.view(2, 40, 2)[:, -HORIZON:, 1:]
    assert_close(last, fitted.predict(seen, future=known))
    fitted.save(tmp_path)
    again = Forecaster.load(tmp_path)
    assert again.get_params() == fitted.get_params()
    assert torch.equal(again.predict(panel, future=ahead), found["y_hat"])


@pytest.mark.parametrize("model", EVERY)
def test_what_the_modes_mean_to_each_network(model: Any) -> None:
    options = Forecaster(**SMALL, model=model)
    assert (options.way == "seq2seq") == (model in AFTER_EACH_STEP) == options.every_step
    if model in AFTER_EACH_STEP:
        options.set_params(mode="seq2seq").check()
    else:
        with pytest.raises(ValueError, match=f"mode: model '{model}' forecasts after a whole"):
            options.set_params(mode="seq2seq").check()


@pytest.mark.parametrize("model", ["linear", "dense", "conv recurrent", "wavenet"])
def test_networks_learn_a_wave(model: Any) -> None:
    y = waves(1, 300)[0, :, 0]
    options = SMALL | {"epochs": 20, "learning_rate": 0.02, "hidden_size": 12}
    found = Forecaster(**options, model=model).fit(y[:260]).predict()
    naive = (y[259] - y[260:263]).abs().mean()
    assert (found - y[260:263]).abs().mean() < naive / 4


def test_sizes_reach_the_networks() -> None:
    y = waves(1, 60)[0]
    dense = Forecaster(**SMALL | {"hidden_size": (8, 5)}, model="dense").fit(y).fitted.net
    widths = [one.out_features for one in dense.modules() if isinstance(one, nn.Linear)]
    assert widths == [8, 5, HORIZON * 7]
    linear = Forecaster(**SMALL, model="linear").fit(y).fitted.net
    assert sum(isinstance(one, nn.Linear) for one in linear.modules()) == 1
    wave: Any = Forecaster(**SMALL, model="wavenet", num_layers=2).fit(y).fitted.net
    assert wave.dilations == [1, 2, 4, 8] * 2  # 1 + 15 steps, where the context has 12
    options = {"gated": True, "kernel": 3, "dilations": (1, 3)}
    gated = Forecaster(**SMALL, model="wavenet", network=options).fit(y).fitted.net
    assert isinstance(gated, WaveNet)
    assert (gated.gated, gated.kernel, gated.dilations) == (True, 3, [1, 3])
    lstm: Any = Forecaster(**SMALL, model="encoder decoder", cell="lstm").fit(y).fitted.net
    assert type(lstm.decoder.layers[0]).__name__ == "LSTM"


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"model": "wavenett"}, "model: .*did you mean 'wavenet'"),
        ({"model": "linear", "dropout": 0.1}, "dropout: model 'linear' has none, got 0.1"),
        ({"model": "wavenet", "hidden_size": (3, 4)}, "hidden_size: expected one width"),
    ],
)
def test_wrong_models(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Forecaster(**SMALL | wrong).fit(waves(1)[0])


@pytest.mark.parametrize("scaler", ["standard", "robust", "window standard", None])
def test_a_series_that_fit_never_saw(scaler: Any) -> None:
    y = waves(2)
    named = {"a": y[0], "b": y[1]}
    model = Forecaster(**SMALL, scaler=scaler).fit({"a": y[0]}, val=0)
    with pytest.raises(ValueError, match="y: no series seen in fit, 'b'"):
        model.predict(named)
    with pytest.raises(ValueError, match="y: no series seen in fit, 'b'"):
        model.backtest(named)
    with pytest.raises(ValueError, match="unseen: expected one of 'error', 'scale'"):
        model.predict(named, unseen="skip")  # type: ignore[arg-type]
    found = model.predict(named, unseen="scale", levels=[80])["y_hat"]
    assert_close(found["a"], model.predict({"a": y[0]})["a"], rtol=1e-6, atol=0)
    # the series as it would be forecast had it been that of the fit, moved and stretched
    moved = model.predict({"c": 4 * y[0] + 96}, unseen="scale")["c"]
    if scaler is not None:
        assert_close(moved, 4 * found["a"] + 96, atol=1e-3, rtol=0)
    assert abs(found["b"] - y[1].mean()).max() < (100 if scaler is None else 5)


def test_an_unseen_series_with_covariates() -> None:
    y = waves(2).double()
    both = as_panel({"a": y[0], "b": y[1]}, future={"a": y[0].cos(), "b": y[1].cos()})
    model = Forecaster(**SMALL).fit(both.select(["a"]))
    ahead = torch.ones(2, HORIZON, 1)
    found = model.predict(both, unseen="scale", future=list(ahead))
    alone = model.predict(both.select(["b"]), unseen="scale", future=[ahead[1]])
    assert_close(found["b"], alone["b"], rtol=1e-6, atol=0)  # in float32, added up otherwise
    scaler = model.fitted.scaling(both).scaler
    assert torch.equal(scaler.location[0, 1:], scaler.location[1, 1:])
    assert_close(scaler.location[1, 0], y[1].mean())


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_unseen_series_of_a_frame(library: str) -> None:
    y = waves(3)
    model = Forecaster(**SMALL).fit(frame_of(library, y[:2]))
    back = model.predict(frame_of(library, y), unseen="scale")
    assert back["unique_id"].to_list()[-HORIZON:] == ["c"] * HORIZON
    assert len(back) == 3 * HORIZON
    assert CONTEXT > HORIZON


def test_counts_are_fed_back() -> None:
    torch.manual_seed(0)
    y = torch.poisson(torch.full((60,), 4.0)).double()
    options: dict[str, Any] = {"head": "negative binomial", "scaler": "window mean"}
    found = Forecaster(**SMALL, **options, mode="recursive").fit(y).predict(horizon=10, levels=[80])
    assert found["y_hat"].shape == (10,)
    assert (found["y_hat-lo-80"] >= 0).all()
    assert torch.equal(found["y_hat-hi-80"], found["y_hat-hi-80"].round())
