"""Model and windows that do not belong together are refused before anything is learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncells.forecast import RecurrentNet, Training, Windows, fit, predict

SHORT = Training(epochs=1, batch_size=32)


class Bare(nn.Module):
    """A forecaster that says nothing of its horizon and targets: [batch, *shape]."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.forecast = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, every_step: bool = False) -> Tensor:
        return self.forecast.expand(len(x), *self.forecast.shape)


@pytest.mark.parametrize(
    ("net_options", "windows_options", "expected"),
    [
        ({"horizon": 1}, {"horizon": 6}, "the model's horizon, 1, got windows of horizon 6"),
        ({"horizon": 6}, {"horizon": 12}, "the model's horizon, 6, got windows of horizon 12"),
        ({"targets": (0, 1)}, {}, r"the model's targets, \(0, 1\), got windows of targets \(0,\)"),
        ({"targets": (1,)}, {}, r"the model's targets, \(1,\), got windows of targets \(0,\)"),
    ],
)
def test_another_horizon_or_target_is_refused(
    wave: Tensor, net_options: Any, windows_options: Any, expected: str
) -> None:
    pytest.importorskip("lightning_fabric")
    net = RecurrentNet("gru", 2, 8, **{"horizon": 4, **net_options})
    before = [p.clone() for p in net.parameters()]
    wrong = Windows(wave, 24, **{"horizon": 4, **windows_options})
    right = Windows(wave, 24, net.horizon, net.targets)
    with pytest.raises(ValueError, match=f"train: expected {expected}"):
        fit(net, wrong, right, SHORT)
    with pytest.raises(ValueError, match=f"validation: expected {expected}"):
        fit(net, right, wrong, SHORT)
    with pytest.raises(ValueError, match=f"windows: expected {expected}"):
        predict(net, wrong)
    assert all(torch.equal(old, p) for old, p in zip(before, net.parameters(), strict=True))


# each of these shapes would be broadcast to [32, 4, 1] by the loss
@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (1,)])
def test_forecast_of_another_shape_is_never_broadcast(wave: Tensor, shape: tuple[int, ...]) -> None:
    pytest.importorskip("lightning_fabric")
    windows = Windows(wave, 24, 4)
    with pytest.raises(ValueError, match=r"the shape of truth, \[32, 4, 1\], got \[32, "):
        fit(Bare(*shape), windows, windows, SHORT)
    right = Bare(4, 1)
    fit(right, windows, windows, SHORT)
    assert right.forecast.abs().min() > 0  # it has learned


@pytest.mark.parametrize("series_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model_dtype", [torch.float32, torch.float64])
def test_series_and_model_share_a_dtype(
    wave: Tensor, series_dtype: torch.dtype, model_dtype: torch.dtype
) -> None:
    pytest.importorskip("lightning_fabric")
    net = RecurrentNet("gru", 2, 8, 4).to(model_dtype)
    right = Windows(wave.to(model_dtype), 24, 4)
    windows = Windows(wave.to(series_dtype), 24, 4)
    if series_dtype == model_dtype:
        fit(net, windows, right, SHORT)
        assert predict(net, windows).dtype == model_dtype
        return
    words = {torch.float32: ("float32", "float"), torch.float64: ("float64", "double")}
    message = (
        f"the series is {words[series_dtype][0]}, the model {words[model_dtype][0]}: "
        rf"convert the series with series.{words[model_dtype][1]}\(\)"
    )
    with pytest.raises(TypeError, match=f"train: {message}"):
        fit(net, windows, right, SHORT)
    with pytest.raises(TypeError, match=f"validation: {message}"):
        fit(net, right, windows, SHORT)
    with pytest.raises(TypeError, match=f"windows: {message}"):
        predict(net, windows)


def test_fabric_may_train_in_another_precision(wave: Tensor) -> None:
    lightning_fabric = pytest.importorskip("lightning_fabric")
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1, precision="64-true")
    net = RecurrentNet("gru", 2, 8, 4)
    windows = Windows(wave, 24, 4)
    fit(net, windows, windows, SHORT, fabric=fabric)
    assert predict(net, Windows(wave.double(), 24, 4)).dtype == torch.float64


def test_tensors_in_place_of_windows(net: RecurrentNet, train: Windows) -> None:
    x: Any
    y: Any
    x, y = train.batch()[:2]
    expected = r"expected Windows, as from Windows\(series, context, horizon\), got Tensor"
    with pytest.raises(TypeError, match=f"train: {expected}"):
        fit(net, x, y)
    with pytest.raises(TypeError, match=f"validation: {expected}"):
        fit(net, train, y)
    with pytest.raises(TypeError, match=f"windows: {expected}"):
        predict(net, x)
