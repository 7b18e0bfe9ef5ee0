"""What the notes behind the project say of recurrent layers, each sentence seen on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rnncells import GRU, LSTM, SimpleRNN
from rnncells.forecast import RecurrentNet, generate_time_series

T, B, I, H = 6, 4, 2, 3


def test_a_simple_layer_by_its_equation() -> None:
    """Table row 1: y_t = tanh(W_x x_t + W_y y_(t-1) + b), and y before the first step is 0."""
    torch.manual_seed(0)
    layer: Any = SimpleRNN(I, H, batch_first=True, dtype=torch.float64)
    x, y = torch.randn(B, T, I, dtype=torch.float64), torch.zeros(B, H, dtype=torch.float64)
    found, _ = layer(x)
    for step in range(T):
        bias = layer.bias_ih_l0 + layer.bias_hh_l0
        y = (x[:, step] @ layer.weight_ih_l0.T + y @ layer.weight_hh_l0.T + bias).tanh()
        assert_close(found[:, step], y)


@pytest.mark.parametrize("kind", [SimpleRNN, GRU, LSTM])
def test_output_and_state(kind: Any) -> None:
    """Table row 2: a simple cell's state is its last output; an LSTM keeps a second one."""
    y, state = kind(I, H, batch_first=True)(torch.randn(B, T, I))
    h, *others = state if kind is LSTM else (state,)
    assert torch.equal(h[0], y[:, -1])
    assert len(others) == (kind is LSTM)
    assert not any(torch.equal(other, h) for other in others)


def test_gradients_of_shared_weights_are_summed_over_time() -> None:
    """Table row 4: as if each step had weights of its own, and their gradients were added up."""
    torch.manual_seed(0)
    layer: Any = SimpleRNN(I, H, bias=False, batch_first=True, dtype=torch.float64)
    x, y = torch.randn(B, T, I, dtype=torch.float64), torch.zeros(B, H, dtype=torch.float64)
    layer(x)[0].square().sum().backward()
    own = [[w.detach().clone().requires_grad_() for w in layer.parameters()] for _ in range(T)]
    loss = torch.zeros((), dtype=torch.float64)
    for step, (inwards, onwards) in enumerate(own):
        y = (x[:, step] @ inwards.T + y @ onwards.T).tanh()
        loss = loss + y.square().sum()
    loss.backward()
    for place, weight in enumerate(layer.parameters()):
        assert_close(weight.grad, torch.stack([step[place].grad for step in own]).sum(0))


def test_a_loss_on_some_outputs_flows_back_from_these_alone() -> None:
    """Table row 5: what comes after the last output that counts has no gradient."""
    x = torch.randn(B, T, I, requires_grad=True)
    GRU(I, H, batch_first=True)(x)[0][:, 1:4].sum().backward()
    assert x.grad is not None
    assert (x.grad[:, :4] != 0).any(dim=2).all()
    assert (x.grad[:, 4:] == 0).all()


@pytest.mark.parametrize(
    ("nonlinearity", "weight", "least", "most"),
    [("relu", 1.1, 1e4, 1e5), ("tanh", 1.1, 0, 1), ("tanh", 0.9, 0, 1e-4), ("relu", 0.9, 0, 1e-4)],
)
def test_gradients_vanish_or_explode(
    nonlinearity: str, weight: float, least: float, most: float
) -> None:
    """Table row 15: over 100 steps, a weight a little above one explodes with ReLU (1.1^99 =
    12,527) and not with tanh, which saturates; below one, gradients vanish in both (0.9^99 = 3e-5).
    """
    layer: Any = SimpleRNN(1, 1, nonlinearity=nonlinearity, bias=False, batch_first=True)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
        layer.weight_hh_l0.fill_(weight)
    x = torch.zeros(1, 100, 1)
    x[0, 0] = 0.5
    x.requires_grad_()
    layer(x)[0][:, -1].sum().backward()
    assert x.grad is not None
    assert least <= x.grad[0, 0].item() <= most


@pytest.mark.parametrize("steps", [30, 1, 77])
def test_shapes_of_the_course(steps: int) -> None:
    """Table row 21: a batch of 4 windows of 30 steps, 3 units; and windows of any other length."""
    x = torch.randn(4, steps, 1)
    y, state = SimpleRNN(1, 3, batch_first=True)(x)
    assert (y.shape, state.shape) == ((4, steps, 3), (1, 4, 3))
    net = RecurrentNet("simple_rnn", 1, 3, 1)
    assert net(x).shape == (4, 1, 1)
    assert net(x, every_step=True).shape == (4, steps, 1, 1)


def test_normalised_cells_and_recurrent_dropout_learn() -> None:
    """Table row 16: a layer-normalised simple cell with recurrent dropout beats the last value."""
    series = generate_time_series(600, 51)
    train, validation = series[:500], series[500:]
    naive = (validation[:, 50] - validation[:, 49]).square().mean()
    torch.manual_seed(0)
    options = {"layer_norm": "preactivation", "recurrent_dropout": 0.1}
    net = RecurrentNet("simple_rnn", 1, (20, 20), 1, layer_options=options)
    assert any(name.endswith("norm_shift_l0") for name, _ in net.named_parameters())
    rule = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(20):
        for x in train.split(25):
            rule.zero_grad()
            (net(x[:, :50])[:, -1] - x[:, 50]).square().mean().backward()
            rule.step()
    net.eval()
    with torch.no_grad():
        found = (net(validation[:, :50])[:, -1].reshape(-1) - validation[:, 50, 0]).square().mean()
    assert found < naive / 2
