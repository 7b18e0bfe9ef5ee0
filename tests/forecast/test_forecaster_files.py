"""The estimator: what it saves and loads, and what it refuses to load."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from rnncells.forecast import Forecaster, QuantileHead, as_panel
from tests.forecast.forecasters import HORIZON, MODES, SMALL, waves

pytest.importorskip("lightning_fabric")


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    """Fitted on two series."""
    return Forecaster(**SMALL).fit(waves(2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scaler", ["window standard", "standard", None])
def test_what_is_saved_forecasts_the_same(mode: Any, scaler: Any, tmp_path: Path) -> None:
    y = waves(2, 40)
    model = Forecaster(**SMALL, mode=mode, scaler=scaler).fit(y)
    model.save(tmp_path / "model")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["forecaster.json", "forecaster.safetensors"]
    other = Forecaster.load(tmp_path / "model")
    assert other.get_params() == model.get_params()
    ours, theirs = model.predict(y, levels=[80]), other.predict(y, levels=[80])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(model.backtest(y), other.backtest(y))
    assert torch.equal(model.predict(), ours["y_hat"])
    with pytest.raises(RuntimeError, match="a forecaster that was loaded knows none"):
        other.predict()


def test_heads_and_columns_are_saved_too(tmp_path: Path) -> None:
    y = waves(2, 40)
    panel = as_panel(y, past=y + 1, future=y.abs(), static=torch.tensor([[1.0], [5.0]]))
    head = QuantileHead((0.005, 0.5, 0.995))
    model = Forecaster(**SMALL | {"hidden_size": (4, 3)}, head=head, missing="mask").fit(panel)
    model.save(tmp_path)
    other = Forecaster.load(tmp_path)
    assert other.head == head
    ahead = torch.ones(2, HORIZON, 1)
    ours, theirs = (one.predict(panel, future=ahead, levels=[99]) for one in (model, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(ValueError, match="future: expected values of future0"):
        other.predict(panel)
    with pytest.raises(ValueError, match=r"expected the columns of fit.*past0"):
        other.predict(y)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], sign: bool = False) -> None:
    """Change the JSON file, and its digest with ``sign``."""
    path = folder / "forecaster.json"
    config = json.loads(path.read_text())
    change(config)
    if sign:
        config.pop("digest")
        text = json.dumps(config, sort_keys=True).encode() + b"\n"
        blob = (folder / "forecaster.safetensors").read_bytes()
        config["digest"] = sha256(text + blob).hexdigest()
    path.write_text(json.dumps(config))


def test_files_that_are_refused(fitted: Forecaster, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Forecaster.load(tmp_path / "nowhere")

    def refused(match: str, change: Callable[[dict[str, Any]], Any], sign: bool = False) -> None:
        fitted.save(tmp_path)
        edit(tmp_path, change, sign)
        with pytest.raises(ValueError, match=match):
            Forecaster.load(tmp_path)

    refused("version 1 of the format, got 2; it is newer", lambda c: c.update(version=2))
    refused("was changed after it was saved", lambda c: c["parameters"].update(context=13))
    refused("another file", lambda c: c.update(format="something"))
    # edits with a digest that fits are held against the weights
    refused("size mismatch", lambda c: c["parameters"].update(hidden_size=5), sign=True)
    refused("head: expected one of", lambda c: c["parameters"].update(head="os.system"), sign=True)
    refused("no parameter 'more'", lambda c: c["parameters"].update(more=1), sign=True)
    refused("'scaler'", lambda c: c.update(scalers={}), sign=True)

    fitted.save(tmp_path)
    weights = tmp_path / "forecaster.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-1] ^= 1
    weights.write_bytes(blob)
    with pytest.raises(ValueError, match="was changed after it was saved"):
        Forecaster.load(tmp_path)
    (tmp_path / "forecaster.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        Forecaster.load(tmp_path)


def test_no_series_and_no_function_is_saved(tmp_path: Path) -> None:
    y = torch.rand(40) + 1234
    Forecaster(**SMALL).fit(y).save(tmp_path)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert all(value.numpy().tobytes() not in content for value in y)
    training = {"optimizer": lambda weights: torch.optim.SGD(weights, lr=0.01)}
    model = Forecaster(**SMALL, training=training).fit(y)
    with pytest.raises(TypeError, match="training: expected plain values"):
        model.save(tmp_path)


def test_weights_that_are_not_finite_are_refused(fitted: Forecaster, tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    for value in (float("nan"), float("inf")):
        fitted.save(tmp_path)
        weights = tmp_path / "forecaster.safetensors"
        tensors = library.load(weights.read_bytes())
        tensors["net.output.bias"][0] = value
        weights.write_bytes(library.save(tensors))
        edit(tmp_path, lambda config: None, sign=True)
        with pytest.raises(ValueError, match=r"expected finite numbers, got .* in 'output\.bias'"):
            Forecaster.load(tmp_path)
