"""A training that fails after good epochs leaves a forecaster that works; one before them, none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.forecast import Forecaster, Windows
from rnncells.forecast.networks import RecurrentNet
from rnncells.forecast.training import Diverged, Training, fit
from tests.forecast.forecasters import SMALL, waves

pytest.importorskip("lightning_fabric")

JOB: dict[str, Any] = SMALL | {"head": "point", "epochs": 4, "patience": None}


def failing_after(calls: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The squared error, and NaN from this call on."""
    done = 0

    def loss(forecast: Tensor, truth: Tensor) -> Tensor:
        nonlocal done
        done += 1
        found = (forecast - truth).square().mean()
        return found if done <= calls else found * float("nan")

    return loss


def with_loss(calls: int, **more: Any) -> Forecaster:
    return Forecaster(**JOB | more, training={"loss": failing_after(calls)})


@pytest.mark.parametrize("val", [None, 0])
@pytest.mark.parametrize("calls", [3, 4, 5])
def test_the_last_good_weights_stay(tmp_path: Path, val: int | None, calls: int) -> None:
    y = waves(1, 60)[0]
    model = with_loss(calls)
    with pytest.raises(FloatingPointError, match=r"keeps its best weights so far, those of epoch"):
        model.fit(y, val=val)
    assert model.history is not None
    good = len(model.history.train_loss)
    assert 0 < good < 4
    assert len(model.history.validation_loss) == (0 if val == 0 else good)
    expected = with_loss(99, epochs=good).fit(y, val=val)
    assert expected.history is not None
    assert model.history.train_loss == expected.history.train_loss
    assert model.history.best_epoch == expected.history.best_epoch
    assert torch.equal(model.predict(), expected.predict())
    assert model.predict().isfinite().all()
    model.set_params(training=None).fitted.options.set_params(training=None)
    model.save(tmp_path)
    assert torch.equal(Forecaster.load(tmp_path).predict(y), model.predict())


def test_no_good_epoch_is_told() -> None:
    y = waves(1, 60)[0]
    model = with_loss(0)
    with pytest.raises(FloatingPointError, match="No epoch was good before it, so no weights"):
        model.fit(y)
    assert model.history is None
    with pytest.raises(RuntimeError, match="has not been fitted"):
        model.predict()
    fitted = Forecaster(**JOB).fit(y)
    before = fitted.predict()
    with pytest.raises(FloatingPointError):
        fitted.set_params(training={"loss": failing_after(0)}).fit(y)
    assert torch.equal(fitted.predict(), before)


def test_weights_that_break_in_an_epochs_last_step_are_not_kept() -> None:
    class Breaking(torch.optim.SGD):
        steps = 0

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step(closure)
            Breaking.steps += 1
            if Breaking.steps == 4:  # the last of the second epoch
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(float("inf"))

    net = RecurrentNet("gru", 1, 4, 3)
    windows = Windows(waves(1, 60)[0], 12, 3)
    training = Training(epochs=3, batch_size=32, optimizer=lambda w: Breaking(w, lr=1e-4))
    with pytest.raises(Diverged, match="in epoch 1: the largest weight is inf") as caught:
        fit(net, windows, training=training)
    assert len(caught.value.history.train_loss) == 1
    assert all(weight.isfinite().all() for weight in net.parameters())
