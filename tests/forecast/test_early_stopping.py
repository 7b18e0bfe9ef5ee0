"""Patience, and the way back to the best weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rnncells.forecast import EarlyStopping


def weighing(value: float) -> nn.Module:
    """A model of one weight."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_stops_after_patience_epochs_without_a_better_loss() -> None:
    stopping, model = EarlyStopping(patience=2), weighing(0)
    losses = [3.0, 2.0, 2.5, 1.0, 1.0, 1.5]
    stops = [stopping.update(loss, epoch, model) for epoch, loss in enumerate(losses)]
    assert stops == [False, False, False, False, False, True]
    assert (stopping.best, stopping.best_epoch) == (1.0, 3)


def test_restores_the_weights_of_the_best_epoch() -> None:
    stopping, model = EarlyStopping(patience=9), weighing(0)
    for epoch, loss in enumerate([3.0, 1.0, 2.0]):
        nn.init.constant_(model.get_parameter("weight"), epoch)
        stopping.update(loss, epoch, model)
    stopping.restore(model)
    assert model.get_parameter("weight").item() == 1


def test_best_weights_are_a_copy() -> None:
    stopping, model = EarlyStopping(patience=1), weighing(5)
    stopping.update(1.0, 0, model)
    with torch.no_grad():
        model.get_parameter("weight").mul_(0)
    stopping.restore(model)
    assert model.get_parameter("weight").item() == 5


def test_nan_is_never_the_best() -> None:
    stopping, model = EarlyStopping(patience=1), weighing(0)
    assert not stopping.update(math.nan, 0, model)
    assert stopping.best_epoch is None
    stopping.restore(model)
    assert model.get_parameter("weight").item() == 0


def test_bad_patience() -> None:
    with pytest.raises(ValueError, match="patience: expected an integer of at least 1, got 0"):
        EarlyStopping(0)


def test_without_patience_it_never_stops() -> None:
    stopping, model = EarlyStopping(None), weighing(0)
    assert not any(stopping.update(1.0 + epoch, epoch, model) for epoch in range(100))
    assert stopping.best_epoch == 0


def test_broken_weights_go_back_to_the_first_and_others_stay() -> None:
    stopping, model = EarlyStopping(1), weighing(5)
    stopping.begin(model)
    nn.init.constant_(model.get_parameter("weight"), 7)
    stopping.restore(model)
    assert model.get_parameter("weight").item() == 7
    nn.init.constant_(model.get_parameter("weight"), math.nan)
    stopping.restore(model)
    assert model.get_parameter("weight").item() == 5


def test_state_goes_on_where_it_was() -> None:
    stopping, model = EarlyStopping(2), weighing(3)
    stopping.update(1.0, 0, model)
    again = EarlyStopping(2)
    again.load_state_dict(stopping.state_dict())
    nn.init.constant_(model.get_parameter("weight"), 4)
    assert [again.update(2.0, epoch, model) for epoch in (1, 2)] == [False, True]
    again.restore(model)
    assert model.get_parameter("weight").item() == 3
