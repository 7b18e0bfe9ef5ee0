"""A checkpoint of other data or of other settings is refused, with what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from rnncells.forecast import Forecaster, Windows, WindowScaler, as_panel
from rnncells.forecast.networks import HiddenValues, ImputationNet, RecurrentNet
from rnncells.forecast.training import Training, checkpoint, fit
from rnncells.forecast.training.identity import digest
from tests.forecast.forecasters import SMALL, waves
from tests.forecast.test_checkpoint import Cut, cut_after

pytest.importorskip("lightning_fabric")

TRAINING = Training(epochs=2, batch_size=32)
SERIES = waves(1, 60)[0]


def train(path: Path, windows: Any, validation: Any = None) -> None:
    fit(RecurrentNet("gru", 1, 4, 3), windows, validation, TRAINING, checkpoint=path)


def changed(series: Tensor, step: int = 30) -> Tensor:
    """The series with one value that is another by little."""
    series = series.clone()
    series.view(-1)[step] += 1e-4
    return series


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (Windows(changed(SERIES), 12, 3), "training windows' values"),
        (Windows(SERIES, 11, 3, start=12), "training windows' settings"),
        (Windows(SERIES, 12, 3, scaler=WindowScaler("last")), "training windows' settings"),
        (Windows(SERIES, 12, 3, missing="skip"), "training windows' settings"),
        (Windows(SERIES, 12, 3, start=13), "number of training windows"),
    ],
)
def test_other_windows(tmp_path: Path, other: Windows, differs: str) -> None:
    path = tmp_path / "run.ckpt"
    train(path, Windows(SERIES, 12, 3))
    with pytest.raises(ValueError, match=f"is of another training: its {differs} is "):
        train(path, other)
    train(path, Windows(SERIES.clone(), 12, 3))


def test_other_validation_windows(tmp_path: Path) -> None:
    path, windows = tmp_path / "run.ckpt", Windows(SERIES, 12, 3)
    train(path, windows, Windows(SERIES, 12, 3, start=40))
    with pytest.raises(ValueError, match="its validation windows' values is digest"):
        train(path, windows, Windows(changed(SERIES, 2), 12, 3, start=40))


def test_other_datasets(tmp_path: Path) -> None:
    x, y, *_ = Windows(SERIES, 12, 3).batch()
    path = tmp_path / "tensors.ckpt"
    train(path, TensorDataset(x, y))
    with pytest.raises(ValueError, match="its training windows' values is digest"):
        train(path, TensorDataset(x, changed(y)))

    class Own(Dataset[Any]):
        def __init__(self, noise: float = 0.0, more: float = 0.0) -> None:
            self.noise, self.more, self.calls = noise, more, 0

        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
            self.calls += 1  # stands for noise that is not torch's
            return x[number] + self.noise * self.calls + 0.1 * torch.rand(()), y[number] + self.more

    path = tmp_path / "own.ckpt"
    train(path, Own())
    train(path, Own())  # torch's own draws are the same at each look
    with pytest.raises(ValueError, match="its training windows' batches is digest"):
        train(path, Own(more=1e-3))
    path = tmp_path / "noise.ckpt"
    train(path, Own(noise=0.01))
    train(path, Own(noise=0.01))


def test_other_values_to_hide(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    for series, refused in ((SERIES, False), (SERIES, False), (changed(SERIES), True)):
        hidden = HiddenValues(series, 12)
        if refused:
            with pytest.raises(ValueError, match="its training windows' values is digest"):
                fit(ImputationNet(1, 4), hidden, None, TRAINING, checkpoint=path)
        else:
            fit(ImputationNet(1, 4), hidden, None, TRAINING, checkpoint=path)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"scaler": "robust"}, "scaler is 'standard', expected 'robust'"),
        ({"scaler": "window standard"}, "scaler is 'standard', expected 'window standard'"),
        ({"mode": "recursive"}, "mode is None, expected 'recursive'"),
        ({"missing": "mask"}, "missing is 'error', expected 'mask'"),
        ({"context": 11}, "context is 12, expected 11"),
        ({"head": "normal"}, "head is 'quantile', expected 'normal'"),
    ],
)
def test_other_parameters_of_a_forecaster(
    tmp_path: Path, change: dict[str, Any], differs: str
) -> None:
    path = tmp_path / "run.ckpt"
    Forecaster(**SMALL).fit(waves(2), checkpoint=path)
    with pytest.raises(ValueError, match=f"is of another training: its {differs}"):
        Forecaster(**SMALL | change).fit(waves(2), checkpoint=path)


def test_other_series_of_a_forecaster(tmp_path: Path) -> None:
    path, y = tmp_path / "run.ckpt", waves(2)
    first = Forecaster(**SMALL).fit(y, checkpoint=path)
    for other in (changed(y), 2 * y, y.flip(0)):  # twice the series scales to the same windows
        with pytest.raises(ValueError, match="its series is digest"):
            Forecaster(**SMALL).fit(other, checkpoint=path)
    with pytest.raises(ValueError, match="its ids is "):
        Forecaster(**SMALL).fit(as_panel(y, ids=["a", "b"]), checkpoint=path)
    panel = as_panel(y, static=torch.tensor([[1.0], [2.0]]))
    with pytest.raises(ValueError, match="its columns is "):
        Forecaster(**SMALL).fit(panel, checkpoint=path)
    again = Forecaster(**SMALL).fit(y.clone(), checkpoint=path)
    assert torch.equal(first.predict(), again.predict())


def test_a_forecaster_goes_on_from_every_checkpoint(tmp_path: Path) -> None:
    job = SMALL | {"epochs": 3, "dropout": 0.1, "training": {"checkpoint_every": 1}}
    whole = Forecaster(**job).fit(waves(2))
    for writes in range(1, 8):
        path = tmp_path / f"{writes}.ckpt"
        with pytest.MonkeyPatch.context() as patch:
            cut_after(writes, patch)
            with pytest.raises(Cut):
                Forecaster(**job).fit(waves(2), checkpoint=path)
        model = Forecaster(**job).fit(waves(2), checkpoint=path)
        assert model.history is not None
        assert whole.history is not None
        assert model.history.train_loss == whole.history.train_loss
        assert torch.equal(model.predict(), whole.predict())


def test_the_data_are_digested_once_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real: Any = getattr(checkpoint, "of_windows")  # noqa: B009 - which the module only imports

    def counted(windows: Any, which: str) -> Any:
        calls.append(which)
        return real(windows, which)

    monkeypatch.setattr(checkpoint, "of_windows", counted)
    train(tmp_path / "run.ckpt", Windows(SERIES, 12, 3))
    assert calls == ["training", "validation"]


def test_a_digest_knows_shape_dtype_and_order() -> None:
    one = torch.arange(6.0)
    others = [one.view(2, 3), one.flip(0), one.double(), one.int(), one[:5]]
    found = {digest([each]) for each in [one, *others]} | {digest([one, None]), digest([one, one])}
    assert len(found) == 8
    assert digest([one[::2]]) == digest([one[::2].clone()])
    assert digest([torch.tensor(1.0)]) != digest([torch.tensor(2.0)])
