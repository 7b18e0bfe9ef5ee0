"""Every network with every head: shapes, causality, covariates, learning, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rnncells.forecast.baselines import seasonal_naive
from rnncells.forecast.batch import Batch
from rnncells.forecast.heads import (
    Head,
    NegativeBinomialHead,
    NormalHead,
    PointHead,
    QuantileHead,
    StudentTHead,
)
from rnncells.forecast.networks import (
    ConvRecurrentNet,
    DenseNet,
    EncoderDecoder,
    Network,
    RecurrentNet,
    Recursive,
    VectorToSequence,
    WaveNet,
)
from rnncells.forecast.training import Training, fit
from tests.forecast.jobs import CONTEXT, HORIZON, Waves

Make = Callable[..., Network]

CAUSAL: dict[str, Make] = {
    "simple_rnn": lambda f, h, **job: RecurrentNet("simple_rnn", f, 8, h, **job),
    "deep simple_rnn": lambda f, h, **job: RecurrentNet("simple_rnn", f, (8, 6), h, **job),
    "lstm": lambda f, h, **job: RecurrentNet("lstm", f, 8, h, num_layers=2, **job),
    "gru": lambda f, h, **job: RecurrentNet("gru", f, 8, h, **job),
    "conv and gru": lambda f, h, **job: ConvRecurrentNet(f, 8, h, filters=6, **job),
    "wavenet": lambda f, h, **job: WaveNet(f, h, filters=6, dilations=(1, 2, 4), **job),
    "gated wavenet": lambda f, h, **job: WaveNet(
        f, h, filters=6, dilations=(1, 2, 4), gated=True, **job
    ),
}
WHOLE: dict[str, Make] = {
    "linear": lambda f, h, **job: DenseNet(f, CONTEXT, h, **job),
    "dense": lambda f, h, **job: DenseNet(f, CONTEXT, h, (16, 8), **job),
    "vector to sequence": lambda f, h, **job: VectorToSequence(f, 8, h, context=4, **job),
    "encoder and decoder": lambda f, h, **job: EncoderDecoder(f, 8, h, **job),
}
NETWORKS = CAUSAL | WHOLE
HEADS: list[Head] = [
    PointHead(),
    QuantileHead(),
    NormalHead(),
    StudentTHead(),
    NegativeBinomialHead(),
]


@pytest.fixture(params=NETWORKS)
def make(request: pytest.FixtureRequest) -> Make:
    """Each network in turn."""
    return NETWORKS[request.param]


@pytest.fixture(params=CAUSAL)
def causal(request: pytest.FixtureRequest) -> Make:
    """Each network that forecasts after every step."""
    return CAUSAL[request.param]


@pytest.fixture(params=HEADS, ids=lambda head: type(head).__name__)
def head(request: pytest.FixtureRequest) -> Head:
    """Each head in turn."""
    found: Head = request.param
    return found


def own(head: Head) -> tuple[int, ...]:
    return () if isinstance(head, PointHead) else (head.size,)


def inputs(batch: Batch, head: Head) -> dict[str, Tensor]:
    given = {"future": batch.future, "static": batch.static}
    if head.in_counts:
        given["level"] = batch.level
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize(("known", "static"), [(0, 0), (2, 3)])
def test_shapes_to_vector(make: Make, head: Head, targets: int, known: int, static: int) -> None:
    net = make(
        targets + known, HORIZON, targets=range(targets), known=known, static=static, head=head
    )
    batch = Waves(5, targets=targets, known=known, static=static, level=True).batch()
    output = net(batch.x, **inputs(batch, head))
    assert output.shape == (5, HORIZON, targets, *own(head))
    assert head.point(output).shape == batch.y.shape
    assert head.loss(output, batch.y.abs().round(), None, None).isfinite()


@pytest.mark.parametrize(("known", "static"), [(0, 0), (2, 3)])
def test_shapes_to_sequence(causal: Make, head: Head, known: int, static: int) -> None:
    net = causal(2 + known, HORIZON, targets=(0, 1), known=known, static=static, head=head)
    batch = Waves(5, targets=2, known=known, static=static, level=True, every_step=True).batch()
    output = net(batch.x, every_step=True, **inputs(batch, head))
    due = batch.y[:, net.output_steps(CONTEXT)]
    assert output.shape == (*due.shape, *own(head))
    last = {**inputs(batch, head)}
    if batch.future is not None:
        last["future"] = batch.future[:, -1]
    # sums of at most some dozen products of order one, perhaps in another order
    assert_close(output[:, -1], net(batch.x, **last), rtol=2**-18, atol=2**-18)


def test_a_forecast_never_sees_what_comes_after_it(causal: Make) -> None:
    net = causal(3, HORIZON, known=2, static=1).eval()
    batch = Waves(4, known=2, static=1, every_step=True).batch()
    before = net(batch.x, every_step=True, future=batch.future, static=batch.static)
    cut = 7
    steps = torch.arange(CONTEXT)[net.output_steps(CONTEXT)]
    x, future = batch.x.clone(), batch.future
    x[:, cut:] += 10
    assert future is not None
    later = torch.cat([future[:, :cut], future[:, cut:] + 5], dim=1)
    after = net(x, every_step=True, future=later, static=batch.static)
    same = steps < cut
    assert same.any()
    assert torch.equal(before[:, same], after[:, same])
    assert not torch.isclose(before[:, ~same], after[:, ~same]).any()


def test_every_step_of_the_context_is_seen(make: Make) -> None:
    net = make(1, HORIZON, residual=False).eval()
    x = Waves(2).batch().x.requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 2)) > 0
    reach = CONTEXT
    if isinstance(net, WaveNet):
        reach = 1 + 1 + 2 + 4  # the step itself, and each dilation once
    elif isinstance(net, VectorToSequence):
        reach = 4
    assert seen[-reach:].all()
    assert not seen[:-reach].any()


def test_what_is_known_ahead_and_what_is_static_count(make: Make) -> None:
    net = make(2, HORIZON, known=1, static=1).eval()
    batch = Waves(3, known=1, static=1).batch()
    assert batch.future is not None
    assert batch.static is not None
    before = net(batch.x, future=batch.future, static=batch.static)
    assert not torch.equal(net(batch.x, future=batch.future + 1, static=batch.static), before)
    assert not torch.equal(net(batch.x, future=batch.future, static=batch.static + 1), before)


def test_residual_counts_from_the_last_value(make: Make) -> None:
    net = make(2, HORIZON, targets=(1,)).eval()
    for weight in net.parameters():
        torch.nn.init.zeros_(weight)
    x = torch.randn(3, CONTEXT, 2)
    assert torch.equal(net(x), x[:, -1:, 1:].expand(3, HORIZON, 1))
    plain = make(2, HORIZON, targets=(1,), residual=False).eval()
    for weight in plain.parameters():
        torch.nn.init.zeros_(weight)
    assert torch.equal(plain(x), torch.zeros(3, HORIZON, 1))


def silent(net: Network) -> Network:
    for weight in net.parameters():
        torch.nn.init.zeros_(weight)
    return net.eval()


@pytest.mark.parametrize("season", [2, HORIZON + 1])
def test_residual_of_a_season_counts_from_the_season_before(make: Make, season: int) -> None:
    net = silent(make(2, HORIZON, targets=(1, 0), residual=season))
    x = torch.randn(3, CONTEXT, 2)
    assert torch.equal(net(x), seasonal_naive(x, HORIZON, season)[..., [1, 0]])
    with pytest.raises(ValueError, match=f"x: expected at least {season} time steps, from which"):
        net.check(x[:, : season - 1], None, None, every_step=False)


def test_residual_of_a_season_at_every_step(causal: Make) -> None:
    net, season = silent(causal(1, HORIZON, residual=3)), 3
    x = torch.randn(2, CONTEXT, 1)
    found = net(x, every_step=True)
    for place, step in enumerate(range(CONTEXT)[net.output_steps(CONTEXT)]):
        past = x[:, : step + 1]
        # before a whole season has gone by: the last value where there is none of a season before
        due = torch.stack(
            [
                past[:, step + 1 + ahead % season - season]
                if step + 1 + ahead % season >= season
                else past[:, -1]
                for ahead in range(HORIZON)
            ],
            dim=1,
        )
        assert torch.equal(found[:, place], due)


def test_residual_of_a_season_is_fed_back() -> None:
    net = silent(RecurrentNet("gru", 1, 4, 1, residual=4))
    x = torch.randn(3, 9, 1)
    assert torch.equal(Recursive(net, 10)(x), seasonal_naive(x, 10, 4))


def test_scale_multiplies_the_numbers(make: Make) -> None:
    torch.manual_seed(4)
    net = make(1, HORIZON, residual=False).eval()
    torch.manual_seed(4)
    scaled = make(1, HORIZON, residual=False, scale=200.0).eval()
    x = Waves(3).batch().x
    if isinstance(net, EncoderDecoder):
        net, scaled = (make(1, 1, residual=False, scale=scale).eval() for scale in (1.0, 200.0))
        scaled.load_state_dict(net.state_dict())
    assert_close(scaled(x), 200 * net(x))


@pytest.mark.parametrize(
    "name",
    ["simple_rnn", "lstm", "gru", "conv and gru", "vector to sequence", "encoder and decoder"],
)
def test_twin_on_torch_has_the_same_parameters_and_forecasts(name: str) -> None:
    ours, twin = (NETWORKS[name](1, HORIZON, layers=layers) for layers in ("rnncells", "torch"))
    twin.load_state_dict(ours.state_dict())
    x = Waves(5).batch().x
    # states are below 1 in size; 15 steps, each a sum of 9 products and a few roundings more
    assert_close(ours(x), twin(x), rtol=0, atol=15 * 16 * 2**-24)


def test_layer_options_reach_the_layers() -> None:
    net = RecurrentNet("gru", 1, 8, 3, layer_options={"bias": False})
    assert not any("bias" in name for name, _ in net.recurrent.named_parameters())
    with pytest.raises(ValueError, match="a forecast cannot come from bidirectional layers"):
        RecurrentNet("gru", 1, 8, 3, layer_options={"bidirectional": True})


def test_a_single_neuron() -> None:
    net = RecurrentNet("simple_rnn", 1, 1, 1, dense=False, residual=False)
    assert sum(weight.numel() for weight in net.parameters()) == 4  # torch.nn has two biases
    x = Waves(4).batch().x
    hidden, _ = net.recurrent(x)
    assert torch.equal(net(x)[:, 0], hidden[:, -1])
    deep = RecurrentNet("simple_rnn", 1, (20, 20, 1), 1, dense=False, residual=False)
    assert deep(x).shape == (4, 1, 1)


def test_state_goes_on_where_the_last_window_ended() -> None:
    for cell in ("simple_rnn", "lstm", "gru"):
        for hidden_size in (8, (8, 6)):
            net = RecurrentNet(cell, 1, hidden_size, 2)
            x = torch.randn(3, 20, 1)
            whole = net(x, every_step=True)
            first, state = net(x[:, :12], every_step=True, return_state=True)
            second = net(x[:, 12:], every_step=True, state=state)
            # 20 steps of sums of 9 products
            assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=20 * 16 * 2**-24)


@pytest.mark.parametrize(("context", "first"), [(12, 3), (13, 4), (4, 3), (5, 4)])
def test_strided_outputs_end_at_the_last_step(context: int, first: int) -> None:
    net = ConvRecurrentNet(1, 8, 3)
    steps = torch.arange(context)[net.output_steps(context)]
    assert steps[0] == first
    assert steps[-1] == context - 1
    assert net(torch.randn(2, context, 1), every_step=True).shape[1] == len(steps)


def test_what_is_known_ahead_may_be_strided_already() -> None:
    net = ConvRecurrentNet(2, 8, HORIZON, known=1)
    batch = Waves(3, known=1, every_step=True).batch()
    assert batch.future is not None
    whole = net(batch.x, every_step=True, future=batch.future)
    strided = net(batch.x, every_step=True, future=batch.future[:, net.output_steps(CONTEXT)])
    assert torch.equal(whole, strided)
    with pytest.raises(ValueError, match=r"future: expected shape \[3, 12, 3, 1\], got \[3, 4,"):
        net(batch.x, every_step=True, future=batch.future[:, :4])


def test_book_conv_targets_are_those_from_the_fourth_in_twos() -> None:
    assert ConvRecurrentNet(1, 20, 10).output_steps(50) == slice(3, None, 2)


def test_teacher_shows_the_targets() -> None:
    net = EncoderDecoder(2, 8, HORIZON, known=1, teacher_forcing=1.0)
    batch = Waves(4, known=1).batch()
    free = net(batch.x, future=batch.future)
    taught = net(batch.x, future=batch.future, teacher=batch.y)
    assert_close(taught[:, 0], free[:, 0], rtol=0, atol=2**-18)  # the first sees none yet
    assert not torch.isclose(taught[:, 1:], free[:, 1:]).all()
    # taught by its own forecasts, it says the same
    assert_close(net(batch.x, future=batch.future, teacher=free), free, rtol=0, atol=2**-18)


def test_vector_to_sequence_reads_its_vector_once_or_at_each_step() -> None:
    x = Waves(3).batch().x
    torch.manual_seed(1)
    again = VectorToSequence(1, 8, HORIZON)
    torch.manual_seed(1)
    once = VectorToSequence(1, 8, HORIZON, repeat=False)
    assert_close(again(x)[:, 0], once(x)[:, 0], rtol=0, atol=2**-20)
    assert not torch.isclose(again(x)[:, 1:], once(x)[:, 1:]).any()
    moved = x.clone()
    moved[:, :-1] += 1
    assert torch.equal(again(moved), again(x))


def test_loss_falls(make: Make, head: Head) -> None:
    pytest.importorskip("lightning_fabric")
    torch.manual_seed(2)
    net = make(2, HORIZON, known=1, static=1, head=head)
    data = Waves(64, known=1, static=1)
    if head.in_counts:
        data.y = (4 + 3 * data.y).round()
    epochs = 12
    training = Training(epochs=epochs, batch_size=16, learning_rate=2e-2, patience=None)
    history = fit(net, data, data, training)
    first, last = history.validation_loss[0], min(history.validation_loss)
    if isinstance(head, PointHead | QuantileHead):
        assert last < 0.5 * first
    else:
        assert last < first - 0.1  # nats


@pytest.mark.parametrize("name", [*CAUSAL])
def test_loss_falls_to_sequence(name: str) -> None:
    pytest.importorskip("lightning_fabric")
    torch.manual_seed(2)
    net = CAUSAL[name](2, HORIZON, known=1, static=1)
    train = Waves(64, known=1, static=1, every_step=True, missing=0.2)
    check = Waves(32, known=1, static=1, seed=1)
    history = fit(net, train, check, Training(epochs=12, batch_size=16, learning_rate=2e-2))
    assert min(history.validation_loss) < 0.5 * history.validation_loss[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WaveNet(1, 2, dilations=()), "dilations: expected one a layer, got none"),
        (lambda: WaveNet(1, 2, kernel=0), "kernel: expected an integer of at least 1"),
        (lambda: ConvRecurrentNet(1, 8, 3)(torch.zeros(2, 3, 1)), "at least 4 time steps"),
        (lambda: DenseNet(1, 5, 3)(torch.zeros(2, 6, 1)), "x: expected 5 time steps, got 6"),
        (lambda: DenseNet(1, 5, 3, (0,)), "hidden: expected an integer of at least 1"),
        (
            lambda: DenseNet(1, 5, 3)(torch.zeros(2, 5, 1), every_step=True),
            "every_step: DenseNet forecasts after a whole window only",
        ),
        (lambda: VectorToSequence(1, 8, 3, context=4)(torch.zeros(2, 3, 1)), "at least 4 time"),
        (lambda: EncoderDecoder(1, 8, 3, teacher_forcing=2), "teacher_forcing: expected 0 to 1"),
        (lambda: RecurrentNet("gru", 1, (), 3), "hidden_size: expected the units of at least one"),
        (lambda: RecurrentNet("gru", 1, 8, 3, dense=False), "expected no column known ahead and 3"),
        (lambda: RecurrentNet("gru", 1, 8, 3, scale=0.0), "scale: expected a finite number other"),
        (lambda: RecurrentNet("gru", 2, 8, 3, known=-1), "known: expected an integer"),
        (lambda: RecurrentNet("gru", 1, 8, 3, residual=-7), "residual: expected an integer"),
        (
            lambda: RecurrentNet("gru", 2, 8, 3, known=1)(torch.zeros(2, 5, 2)),
            "future: the network has 1 such columns, got none",
        ),
        (
            lambda: RecurrentNet("gru", 2, 8, 3)(torch.zeros(2, 5, 2), static=torch.zeros(2, 1)),
            r"static: the network has 0 such columns, got one of shape \[2, 1\]",
        ),
        (
            lambda: RecurrentNet("gru", 2, 8, 3, known=1)(
                torch.zeros(2, 5, 2), future=torch.zeros(2, 4, 1)
            ),
            r"future: expected shape \[2, 3, 1\], got \[2, 4, 1\]",
        ),
        (
            lambda: RecurrentNet("gru", 2, 8, 3, static=1)(
                torch.zeros(2, 5, 2), static=torch.zeros(3, 1)
            ),
            r"static: expected shape \[2, 1\], got \[3, 1\]",
        ),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_head_is_a_head() -> None:
    wrong: Any = "normal"
    with pytest.raises(TypeError, match=r"head: expected a Head, such as PointHead\(\), got 'n"):
        RecurrentNet("gru", 1, 8, 3, head=wrong)
    with pytest.raises(TypeError, match="unexpected keyword argument 'hiden'"):
        RecurrentNet("gru", 1, 8, 3, hiden=4)  # type: ignore[call-arg]
