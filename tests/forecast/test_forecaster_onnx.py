"""The estimator as an ONNX graph, run by onnxruntime: the same forecasts for any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from rnncells.forecast import Forecaster, NegativeBinomialHead, WindowScaler, as_panel
from tests.forecast.forecasters import CONTEXT, HORIZON, SMALL, waves

pytest.importorskip("lightning_fabric")


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    """Fitted on two series."""
    return Forecaster(**SMALL).fit(waves(2))


def run_onnx(path: Path, **given: Tensor) -> list[Tensor]:
    """What onnxruntime makes of it."""
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    assert {one.name for one in session.get_inputs()} == set(given)
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    return [torch.from_numpy(one) for one in found]


def test_onnx(fitted: Forecaster, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    fitted.to_onnx(path)
    y = waves(2).double()
    for batch in (y, y[:1]):
        numbers = torch.arange(len(batch))
        point, quantiles = run_onnx(path, x=batch[:, -CONTEXT:], series=numbers)
        expected = fitted.predict(batch, levels=[80])
        assert_close(point, expected["y_hat"], atol=1e-5, rtol=0)
        assert_close(quantiles[..., 1], expected["y_hat-lo-80"], atol=1e-4, rtol=0)
        assert_close(quantiles[..., 5], expected["y_hat-hi-80"], atol=1e-4, rtol=0)


class Undone(nn.Module):
    """Each window scaled and back, a forecast of counts fed back."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scaler, head = WindowScaler("mean"), NegativeBinomialHead()
        level = scaler.measure(x)
        scaled = scaler.transform(x, level)
        deeper = scaler.inverse(scaled.unsqueeze(2), level)
        return scaler.inverse(scaled, level), deeper, head.fed_back(x, level)


def test_scaling_of_windows_leaves_the_batch_open() -> None:
    batch = torch.export.Dim("batch", min=1)
    x = torch.rand(2, 5, 1) + 1
    program = torch.export.export(Undone(), (x,), dynamic_shapes={"x": {0: batch}}).module()
    for rows in (1, 2, 7):
        given = torch.rand(rows, 5, 1) + 1
        for found, expected in zip(program(given), Undone()(given), strict=True):
            assert torch.equal(found, expected)
        assert_close(program(given)[0], given)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "negative binomial", "scaler": "window mean"},
        pytest.param({"head": "negative binomial", "scaler": None}, marks=pytest.mark.slow),
        pytest.param(
            {"head": "negative binomial", "scaler": "window mean", "mode": "recursive"},
            marks=pytest.mark.slow,
        ),
        {"model": "wavenet", "scaler": "window last"},
        pytest.param({"model": "conv recurrent"}, marks=pytest.mark.slow),
        pytest.param({"model": "encoder decoder", "cell": "lstm"}, marks=pytest.mark.slow),
        pytest.param({"model": "vector to sequence"}, marks=pytest.mark.slow),
        pytest.param({"model": "dense", "mode": "recursive"}, marks=pytest.mark.slow),
    ],
)
def test_onnx_of_every_network_in_any_batch(options: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    y, path = (20 * waves(5, 40)).round().double(), tmp_path / "model.onnx"
    model = Forecaster(**SMALL, **options).fit(y)
    model.to_onnx(path)
    expected = model.predict()
    for rows in (1, 2, 5):
        given = {"x": y[:rows, -CONTEXT:]}
        if model.fitted.scaler.ids is not None:
            given["series"] = torch.arange(rows)
        found = run_onnx(path, **given)[0]
        # float32 in the network, in steps of a millionth of the largest value
        assert_close(found, expected[:rows], atol=2e-6 * float(y.max()), rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "recursive", "scaler": "robust"},
        {"cell": "lstm", "head": "normal", "scaler": "window last", "num_layers": 2},
        {"missing": "mask", "scaler": "window robust", "head": "point"},
        {"cell": "simple_rnn", "scaler": None, "mode": "seq2vec"},
    ],
)
def test_onnx_with_covariates(options: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    y, path = waves(3).double(), tmp_path / "model.onnx"
    past = {} if options.get("mode") == "recursive" else {"past": y.cos()}
    known, static = 5 + y.sin(), torch.tensor([[1.0], [2.0], [4.0]]).double()
    panel = as_panel(y, **past, future=known, static=static)
    model = Forecaster(**SMALL, **options).fit(panel)
    model.to_onnx(path)
    ahead = 5 + torch.rand(3, HORIZON, 1).double()
    given = {"x": panel.values.view(3, 60, -1)[:, -CONTEXT:], "future": ahead, "static": static}
    if options["scaler"] == "robust":
        given["series"] = torch.arange(3)
    found = run_onnx(path, **given)
    assert_close(found[0], model.predict(future=ahead), atol=1e-5, rtol=0)
    assert len(found) == (2 if options.get("mode") == "seq2vec" else 1)


def test_what_onnx_cannot_tell(tmp_path: Path) -> None:
    y = waves(1, 40)[0].abs().round()
    masked = Forecaster(**SMALL, mode="recursive", missing="mask").fit(y)
    with pytest.raises(NotImplementedError, match="missing: mode 'recursive'"):
        masked.to_onnx(tmp_path / "model.onnx")
