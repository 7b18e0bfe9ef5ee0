"""What training can be told: optimizers, schedules, chosen steps, a carried state, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from rnncells.forecast.batch import Batch
from rnncells.forecast.heads import NormalHead
from rnncells.forecast.networks import DenseNet, EncoderDecoder, RecurrentNet
from rnncells.forecast.training import Training, fit, predict, rate_range
from rnncells.forecast.training.optimizing import make_optimizer, make_schedule
from tests.forecast.jobs import CONTEXT, HORIZON, Waves

lightning_fabric = pytest.importorskip("lightning_fabric")


class Stretch(Waves):
    """One noisy series [1 + 12 * count] in windows that follow each other, a step ahead at each
    step; a count of the steps since its last pulse, which no window alone can tell."""

    def __init__(self, count: int, pieces: list[int] | None = None) -> None:
        torch.manual_seed(8)
        steps = 1 + CONTEXT * count
        pulse = (torch.rand(steps) < 0.04).float()
        sign = torch.where(torch.rand(steps) < 0.5, -1.0, 1.0) * pulse
        held = torch.zeros(steps)
        for step in range(1, steps):  # the sign of the last pulse, for ever
            held[step] = sign[step - 1] if pulse[step - 1] else held[step - 1]
        rows = torch.stack([held, sign], dim=1)
        self.x = rows[:-1].unflatten(0, (count, CONTEXT)) * torch.tensor([0.0, 1.0])
        self.y = rows[1:, :1].unflatten(0, (count, CONTEXT)).unsqueeze(2)
        self.has, self.observed, self.pieces = {}, None, pieces or [count]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def net_of(seed: int = 0, **job: Any) -> RecurrentNet:
    torch.manual_seed(seed)
    return RecurrentNet("gru", 1, 8, HORIZON, **job)


@pytest.mark.parametrize(
    ("optimizer", "options", "rate"),
    [
        ("adam", {}, 2e-2),
        ("adamw", {"weight_decay": 1e-3}, 2e-2),
        ("nadam", {}, 2e-2),
        ("rmsprop", {}, 1e-2),
        ("sgd", {"momentum": 0.9}, 1e-1),
        (lambda parameters: torch.optim.Adagrad(parameters, lr=0.1), {}, 1.0),
    ],
)
def test_every_optimizer_learns(optimizer: Any, options: dict[str, float], rate: float) -> None:
    net, data = net_of(), Waves()
    training = Training(
        epochs=15, batch_size=16, learning_rate=rate, optimizer=optimizer, optimizer_options=options
    )
    history = fit(net, data, data, training)
    assert min(history.validation_loss) < 0.5 * history.validation_loss[0]


def test_fused_is_the_default_and_the_users_word_counts() -> None:
    net = net_of()
    for name in ("adam", "adamw", "sgd"):
        assert make_optimizer(net, Training(optimizer=name)).param_groups[0]["fused"]
        assert not make_optimizer(net, Training(optimizer=name), False).param_groups[0]["fused"]
    chosen = Training(optimizer_options={"foreach": True})
    assert not make_optimizer(net, chosen).param_groups[0]["fused"]


def rates(training: Training, steps: int) -> list[float]:
    optimizer = make_optimizer(net_of(), training)
    schedule, found = make_schedule(optimizer, training, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return found


def test_schedules_rise_and_fall_as_said() -> None:
    steps, high = 60, 1e-2
    constant = rates(Training(learning_rate=high), steps)
    assert constant == [high] * steps
    stepped = rates(Training(learning_rate=high, schedule="step"), steps)
    assert_close(stepped, [high] * 20 + [high / 10] * 20 + [high / 100] * 20)
    cosine = rates(Training(learning_rate=high, schedule="cosine"), steps)
    assert cosine == sorted(cosine, reverse=True)
    assert_close(cosine[30], high / 2)
    assert cosine[-1] < high / 100
    cycle = rates(Training(learning_rate=high, schedule="one_cycle"), steps)
    top = cycle.index(max(cycle))
    assert 10 < top < 25
    assert_close(cycle[top], high, rtol=1e-2, atol=0)
    assert cycle[0] < high / 20
    assert cycle[-1] < cycle[0]


def test_warmup_comes_before_the_schedule() -> None:
    high = 1e-2
    warm = rates(Training(learning_rate=high, warmup=10), 30)
    assert_close(warm[0], high / 100)
    assert warm[:11] == sorted(warm[:11])
    assert_close(warm[10:], [high] * 20)
    both = rates(Training(learning_rate=high, warmup=10, schedule="cosine"), 30)
    assert_close(both[10], high)
    assert_close(both[20], high / 2)
    assert_close(rates(Training(learning_rate=high, warmup=10, schedule="cosine"), 5)[0], 1e-4)


def test_own_schedule_is_called_with_all_steps() -> None:
    seen = []

    def schedule(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        seen.append(steps)
        return torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, steps)

    fit(net_of(), Waves(48), None, Training(epochs=2, batch_size=16, schedule=schedule))
    assert seen == [6]


def test_only_chosen_steps_count() -> None:
    data = Waves(32, every_step=True)
    changed = Waves(32, every_step=True)
    changed.y[:, :-3] += 10
    nets = [net_of(), net_of()]
    training = Training(epochs=2, batch_size=16, loss_steps=slice(-3, None))
    histories = [
        fit(net, one, None, training) for net, one in zip(nets, (data, changed), strict=True)
    ]
    assert torch.equal(weights(nets[0]), weights(nets[1]))
    assert histories[0].train_loss == histories[1].train_loss
    fit(other := net_of(), data, None, Training(epochs=2, batch_size=16))
    assert not torch.equal(weights(other), weights(nets[0]))
    with pytest.raises(ValueError, match="loss_steps: expected windows with every_step"):
        fit(net_of(), Waves(32), None, training)


def test_missing_targets_teach_nothing() -> None:
    for loss in (None, nn.functional.mse_loss):
        ends = []
        for fill in (0.0, 1e6):
            data = Waves(32, missing=0.4)
            assert data.observed is not None
            data.y = torch.where(data.observed, data.y, fill)
            net = net_of()
            history = fit(net, data, data, Training(epochs=2, batch_size=16, loss=loss))
            ends.append((weights(net), history.validation_loss))
        assert torch.equal(ends[0][0], ends[1][0])
        assert ends[0][1] == ends[1][1]


def test_validation_loss_is_the_mean_over_what_was_observed() -> None:
    data = Waves(50, missing=0.4)
    net = net_of()
    history = fit(net, data, data, Training(epochs=1, batch_size=3, loss=nn.functional.mse_loss))
    assert data.observed is not None
    error = (predict(net, data) - data.y)[data.observed]
    # batches of 12 and means of means: 90 squares in float32
    assert_close(history.validation_loss[0], error.square().mean().item(), rtol=1e-5, atol=0)


def test_monitor_decides_in_place_of_the_loss() -> None:
    data = Waves()
    net = net_of(head=NormalHead())
    training = Training(epochs=3, batch_size=16, monitor=nn.functional.l1_loss)
    history = fit(net, data, data, training)
    point = net.head.point(predict(net, data))
    best = history.validation_loss[history.best_epoch]
    assert_close((point - data.y).abs().mean().item(), best, rtol=1e-5, atol=0)


def test_without_validation_the_last_weights_stay() -> None:
    net = net_of()
    history = fit(net, Waves(), None, Training(epochs=4, batch_size=16))
    assert history.validation_loss == []
    assert history.best_epoch == 3
    assert history.train_loss[-1] < history.train_loss[0]


def test_a_carried_state_remembers_what_no_window_holds() -> None:
    losses = []
    for stateful in (False, True):
        torch.manual_seed(2)
        net = RecurrentNet("lstm", 2, 12, 1, residual=False)
        training = Training(
            epochs=30,
            batch_size=8,
            learning_rate=2e-2,
            stateful=stateful,
            patience=None,
            loss=nn.functional.mse_loss,
        )
        history = fit(net, Stretch(160), Stretch(40), training)
        losses.append(min(history.validation_loss))
    assert losses[1] < 0.5 * losses[0]


def test_stateful_forecasts_are_those_of_the_whole_series() -> None:
    data = Stretch(9, pieces=[5, 4])
    net = RecurrentNet("gru", 2, 8, 1).eval()
    found = predict(net, data, 2, stateful=True)
    for first, last in ((0, 5), (5, 9)):
        whole = net(data.x[first:last].flatten(0, 1)[None], every_step=True)[
            0, CONTEXT - 1 :: CONTEXT
        ]
        # 60 steps of sums of ten products
        assert_close(found[first:last], whole, rtol=0, atol=1e-5)


def test_gradients_end_where_the_window_begins() -> None:
    net = RecurrentNet("gru", 2, 8, 1)
    fit(net, Stretch(6), None, Training(epochs=1, batch_size=1, stateful=True))  # or: freed graph
    with pytest.raises(TypeError, match="stateful: DenseNet carries no state"):
        fit(DenseNet(2, CONTEXT, 1), Stretch(6), None, Training(epochs=1, stateful=True))


def test_teacher_forcing_is_for_training() -> None:
    shown = []

    class Watched(EncoderDecoder):
        def forward(self, *args: Any, **more: Any) -> Any:
            shown.append((self.training, "teacher" in more))
            return super().forward(*args, **more)

    data = Waves(64)
    torch.manual_seed(1)
    fit(Watched(1, 8, HORIZON, teacher_forcing=0.5), data, data, Training(epochs=8, batch_size=8))
    taught = [teacher for training, teacher in shown if training]
    assert 0.2 < sum(taught) / len(taught) < 0.8  # 64 coins
    assert not any(teacher for training, teacher in shown if not training)
    shown.clear()
    data = Waves(16, missing=0.2)
    fit(Watched(1, 8, HORIZON, teacher_forcing=1.0), data, None, Training(epochs=1))
    assert shown == [(True, False)]  # what is missing cannot be shown


def test_any_pair_of_tensors() -> None:
    waves = Waves()
    data = TensorDataset(waves.x, waves.y)
    net, same = net_of(), net_of()
    training = Training(epochs=2, batch_size=16)
    assert fit(net, data, data, training).validation_loss == (
        fit(same, waves, waves, training).validation_loss
    )
    assert torch.equal(weights(net), weights(same))


def test_mixed_precision_learns() -> None:
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    net, data = net_of(), Waves()
    history = fit(net, data, data, Training(epochs=15, learning_rate=2e-2), fabric=fabric)
    assert min(history.validation_loss) < 0.5 * history.validation_loss[0]
    assert weights(net).dtype == torch.float32


def test_a_level_reaches_heads_that_count_only() -> None:
    class Told(DenseNet):
        def forward(self, *args: Any, **more: Any) -> Any:
            assert "level" not in more
            return super().forward(*args, **more)

    data = Waves(16, level=True)
    fit(Told(1, CONTEXT, HORIZON), data, data, Training(epochs=1))


def test_failing_at_once_leaves_the_weights_it_began_with() -> None:
    data = Waves(32)
    data.x[20] = float("nan")
    net = net_of()
    before = weights(net)
    with pytest.raises(FloatingPointError, match=r"epoch 0, step \d: the loss is nan; .*scaled\?"):
        fit(net, data, data, Training(batch_size=8, clip_norm=None))
    assert weights(net).isfinite().all()
    late = net_of()
    broken = Waves(32)
    broken.y = broken.y * float("inf")
    with pytest.raises(FloatingPointError):
        fit(late, data, broken, Training(batch_size=8))
    assert weights(late).isfinite().all()
    assert before.isfinite().all()


def test_range_test_finds_a_rate_that_trains() -> None:
    net, data = net_of(), Waves(64)
    before, random = weights(net), torch.get_rng_state()
    found = rate_range(net, data, Training(batch_size=16), low=1e-4, high=100, steps=80)
    assert torch.equal(weights(net), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert found.rates == sorted(found.rates)
    assert len(found.rates) == len(found.losses) < 80  # it ran away before the end
    assert found.losses[-1] > 2 * min(found.losses)
    assert 1e-4 < found.suggestion < 1
    history = fit(
        net, data, data, Training(epochs=20, batch_size=16, learning_rate=found.suggestion)
    )
    assert min(history.validation_loss) < 0.5 * history.validation_loss[0]
    with pytest.raises(ValueError, match=r"low, high: expected 0 < low < high, got 1, 0.1"):
        rate_range(net, data, low=1, high=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adagrad"}, "optimizer: expected one of adam, adamw, nadam, rmsprop, sgd"),
        ({"schedule": "linear"}, "schedule: expected one of constant, step, cosine, one_cycle"),
        ({"warmup": -1}, "warmup: expected an integer"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected an integer"),
        ({"patience": 0}, "patience: expected an integer"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training(**options)


def test_bad_windows() -> None:
    wrong: Any = [-1]
    with pytest.raises(TypeError, match=r"loss_steps: expected a slice, .* got \[-1\]"):
        Training(loss_steps=wrong)
    with pytest.raises(ValueError, match="loss: NormalHead has a loss of its own"):
        fit(net_of(head=NormalHead()), Waves(), None, Training(loss=nn.functional.mse_loss))
    with pytest.raises(ValueError, match="train: expected at least one window, got none"):
        fit(net_of(), TensorDataset(torch.zeros(0, 5, 1), torch.zeros(0, 3, 1)))
    flat = TensorDataset(torch.zeros(4, 5), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"train: expected x \[batch, time, features\]"):
        fit(net_of(), flat)
    with pytest.raises(ValueError, match="validation: expected 1 targets, the model's, got"):
        fit(net_of(), Waves(), Waves(targets=2))
    assert isinstance(Waves().batch([0]), Batch)
