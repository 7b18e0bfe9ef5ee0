"""Forecasts fed back: against a loop written out, with covariates, and drawn as paths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rnncells.forecast.heads import NegativeBinomialHead, NormalHead, PointHead
from rnncells.forecast.networks import (
    ConvRecurrentNet,
    DenseNet,
    Network,
    RecurrentNet,
    Recursive,
    WaveNet,
)
from rnncells.forecast.training import Training, fit, predict
from tests.forecast.jobs import CONTEXT, Waves

STEPS = 5


def longer(net: Network, x: Tensor, future: Tensor, keep: int | None) -> Tensor:
    """The book's loop: forecast, append, forecast again, from the whole of the longer window or
    from its last steps."""
    outputs = []
    for step in range(STEPS):
        ahead = future[:, step : step + 1]
        window = x if keep is None else x[:, -keep:]
        outputs.append(net(window, future=ahead))
        x = torch.cat([x, torch.cat([outputs[-1], ahead], dim=2)], dim=1)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
def test_a_carried_state_is_the_longer_window(cell: Any) -> None:
    net = RecurrentNet(cell, 3, 8, 1, targets=(0, 1), known=1).eval()
    x, future = torch.randn(4, 9, 3), torch.randn(4, STEPS, 1)
    found = Recursive(net, STEPS)(x, future=future)
    assert found.shape == (4, STEPS, 2)
    # 14 steps of sums of 11 products, fed back five times
    assert_close(found, longer(net, x, future, None), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        DenseNet(3, 9, 1, targets=(0, 1), known=1),
        WaveNet(3, 1, targets=(0, 1), known=1, filters=6),
        ConvRecurrentNet(3, 8, 1, targets=(0, 1), known=1),
    ],
    ids=lambda net: type(net).__name__,
)
def test_without_a_state_the_window_moves_on(net: Network) -> None:
    x, future = torch.randn(4, 9, 3), torch.randn(4, STEPS, 1)
    found = Recursive(net, STEPS)(x, future=future)
    assert_close(found, longer(net, x, future, 9), rtol=0, atol=1e-5)


def test_targets_in_another_order_go_back_to_their_columns() -> None:
    torch.manual_seed(1)
    straight = DenseNet(2, 6, 1, targets=(0, 1))
    crossed = DenseNet(2, 6, 1, targets=(1, 0))
    crossed.load_state_dict(
        {name: weight.flip(0) for name, weight in straight.state_dict().items()}
    )
    x = torch.randn(3, 6, 2)
    found = Recursive(crossed, STEPS)(x)
    assert_close(found.flip(2), Recursive(straight, STEPS)(x), rtol=0, atol=1e-6)


def test_masks_are_fed_back_as_ones() -> None:
    net = DenseNet(2, 6, 1)
    x = torch.cat([torch.randn(3, 6, 1), torch.ones(3, 6, 1)], dim=2)
    found = Recursive(net, 2, masks=1)(x)
    second = torch.cat([x[:, 1:], torch.cat([found[:, :1], torch.ones(3, 1, 1)], 2)], 1)
    assert torch.equal(found[:, 1:], net(second))


def test_paths_of_one_step_are_draws_and_spread_grows() -> None:
    torch.manual_seed(1)
    net = RecurrentNet("gru", 1, 8, 1, head=NormalHead()).eval()
    x = torch.zeros(2, 6, 1)
    model = Recursive(net, STEPS)
    paths = model.paths(x, 4000)
    assert paths.shape == (4000, 2, STEPS, 1)
    location, scale = net(x)[0, 0, 0].tolist()
    # five standard errors of 4000 draws
    assert_close(paths[:, 0, 0].mean().item(), location, rtol=0, atol=5 * scale / 4000**0.5)
    assert_close(paths[:, 0, 0].std().item(), scale, rtol=5 / 8000**0.5, atol=0)
    # a residual forecast is a random walk: its spread grows with the steps
    assert paths[:, 0, 4].std() > 1.5 * paths[:, 0, 0].std()
    with pytest.raises(TypeError, match="PointHead has no distribution"):
        Recursive(RecurrentNet("gru", 1, 8, 1), 2).paths(x, 3)


def test_counts_are_fed_back_as_the_network_reads_them() -> None:
    net = DenseNet(1, 4, 1, head=NegativeBinomialHead())
    level = torch.tensor([0.0, 50.0]).view(1, 2, 1).expand(3, 2, 1)
    x = torch.rand(3, 4, 1)
    output = Recursive(net, 2)(x, level=level)
    first = net.head.point(output[:, :1])
    second = net(torch.cat([x[:, 1:], first / 50], dim=1), level=level)
    assert_close(output[:, 1:], second)


def test_one_step_training_serves_many_steps() -> None:
    pytest.importorskip("lightning_fabric")
    torch.manual_seed(3)
    net = RecurrentNet("gru", 1, 16, 1)
    train = Waves(64, horizon=1, every_step=True)
    test = Waves(32, horizon=STEPS, seed=1)
    before = (predict(Recursive(net.eval(), STEPS), test) - test.y).abs().mean()
    fit(net, train, Waves(32, horizon=1, seed=2), Training(epochs=20, learning_rate=2e-2))
    after = (predict(Recursive(net, STEPS), test) - test.y).abs().mean()
    assert after < 0.4 * before


def test_it_can_be_trained_as_it_is_used() -> None:
    pytest.importorskip("lightning_fabric")
    torch.manual_seed(3)
    model = Recursive(RecurrentNet("gru", 2, 16, 1, known=1), STEPS)
    data = Waves(64, horizon=STEPS, known=1)
    history = fit(model, data, data, Training(epochs=15, learning_rate=2e-2))
    assert min(history.validation_loss) < 0.5 * history.validation_loss[0]


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (DenseNet(1, 4, 2), {}, "net: expected one of horizon 1, got horizon 2"),
        (DenseNet(3, 4, 1, known=1), {}, r"masks, 1 \+ 1 \+ 0, got 3 columns; a column that is"),
        (DenseNet(2, 4, 1, targets=(1,)), {}, r"the targets in the first columns, got \[1\]"),
        (DenseNet(1, 4, 1), {"horizon": 0}, "horizon: expected an integer of at least 1"),
        (DenseNet(1, 4, 1), {"masks": -1}, "masks: expected an integer"),
    ],
)
def test_bad_settings(net: Network, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recursive(net, **{"horizon": 3, **options})


def test_bad_input() -> None:
    wrong: Any = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="net: expected a Network, such as RecurrentNet"):
        Recursive(wrong, 3)
    model = Recursive(DenseNet(2, CONTEXT, 1, known=1, head=PointHead()), 3)
    x = torch.zeros(2, CONTEXT, 2)
    with pytest.raises(ValueError, match="every_step: Recursive forecasts after a whole window"):
        model(x, every_step=True)
    with pytest.raises(ValueError, match=r"future: expected shape \[2, 3, 1\], got \[2, 4, 1\]"):
        model(x, future=torch.zeros(2, 4, 1))
    with pytest.raises(ValueError, match="future: the network has 1 such columns, got none"):
        model(x)
