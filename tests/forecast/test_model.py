"""The network: shapes, causality, the level it starts from, and the twin on torch.nn."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import RecurrentNet
from rnncells.forecast.networks import Cell

CELLS = get_args(Cell)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_shapes(cell: Cell, num_layers: int) -> None:
    net = RecurrentNet(cell, 3, 8, 5, targets=(0, 2), num_layers=num_layers)
    x = torch.randn(4, 7, 3)
    assert net(x).shape == (4, 5, 2)
    assert net(x, every_step=True).shape == (4, 7, 5, 2)


@pytest.mark.parametrize("cell", CELLS)
def test_last_of_every_step_is_the_forecast(cell: Cell) -> None:
    net = RecurrentNet(cell, 2, 8, 3)
    x = torch.randn(4, 7, 2)
    # the head's sums of 8 products may be taken in another order for another number of rows
    assert_close(net(x, every_step=True)[:, -1], net(x), rtol=0, atol=8 * 2**-23)


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_never_sees_what_comes_after_it(cell: Cell) -> None:
    net = RecurrentNet(cell, 2, 8, 3).eval()
    x = torch.randn(2, 9, 2)
    changed = x.clone()
    changed[:, 5:] += 10
    before, after = net(x, every_step=True), net(changed, every_step=True)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_untrained_head_of_zeros_is_the_naive_forecast() -> None:
    net = RecurrentNet("lstm", 3, 8, 4, targets=(2, 0))
    torch.nn.init.zeros_(net.get_parameter("output.weight"))
    torch.nn.init.zeros_(net.get_parameter("output.bias"))
    x = torch.randn(5, 6, 3)
    assert torch.equal(net(x), x[:, -1:, [2, 0]].expand(5, 4, 2))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_twin_on_torch_has_the_same_parameters_and_forecasts(cell: Cell, num_layers: int) -> None:
    ours = RecurrentNet(cell, 3, 16, 4, num_layers=num_layers)
    twin = RecurrentNet(cell, 3, 16, 4, num_layers=num_layers, layers="torch")
    twin.load_state_dict(ours.state_dict())
    x = torch.randn(5, 30, 3)
    # states are below 1 in size; 30 steps, each a sum of 19 products and a few roundings more
    assert_close(ours(x), twin(x), rtol=0, atol=30 * 24 * 2**-24)


def test_dropout_acts_in_training_only() -> None:
    net = RecurrentNet("gru", 2, 8, 3, dropout=0.5)
    x = torch.randn(2, 5, 2)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_dropout_drops_a_unit_at_all_steps_of_a_window_or_at_none() -> None:
    torch.manual_seed(5)
    net = RecurrentNet("simple_rnn", 1, 6, 6, dropout=0.5)
    torch.nn.init.eye_(
        net.get_parameter("output.weight")
    )  # so that each unit has a forecast of its own
    torch.nn.init.zeros_(net.get_parameter("output.bias"))
    dropped = net(torch.zeros(4, 5, 1), every_step=True)[..., 0] == 0
    assert dropped.any()
    assert not dropped.all()
    assert torch.equal(dropped, dropped[:, :1].expand(4, 5, 6))
    assert not torch.equal(dropped[0], dropped[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "elman"}, "cell: expected one of simple_rnn, lstm, gru, got 'elman'"),
        ({"layers": "keras"}, "layers: expected one of rnncells, torch, got 'keras'"),
        ({"hidden_size": 0}, "hidden_size: expected an integer of at least 1"),
        ({"horizon": 0}, "horizon: expected an integer"),
        ({"targets": (5,)}, "targets: expected column numbers from 0 to 1"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"cell": "gru", "features": 2, "hidden_size": 4, "horizon": 3}
    with pytest.raises(ValueError, match=message):
        RecurrentNet(**{**settings, **options})


@pytest.mark.parametrize("shape", [(5, 2), (1, 5, 3), (1, 1, 5, 2)])
def test_bad_windows(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \[batch, time, 2\]"):
        RecurrentNet("gru", 2, 4, 3)(torch.zeros(shape))


def test_targets_are_a_sequence() -> None:
    targets: Any = 1
    with pytest.raises(TypeError, match=r"targets: expected a sequence .* got 1"):
        RecurrentNet("gru", 2, 4, 3, targets=targets)
