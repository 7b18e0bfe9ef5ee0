"""The training loop: it learns, stops, goes back to its best, repeats itself, and says why not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from rnncells.forecast import RecurrentNet, Training, Windows, fit, predict

pytest.importorskip("lightning_fabric")

SHORT = Training(epochs=3, batch_size=32, learning_rate=1e-2)


def weights(model: nn.Module) -> Tensor:
    """All parameters in one row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def validation_loss(model: nn.Module, windows: Windows) -> float:
    return nn.functional.huber_loss(predict(model, windows), windows.batch()[1]).item()


def failing_after(calls: int, value: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that takes ``value`` from some call on."""
    seen = 0

    def loss(forecast: Tensor, target: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        factor = 1.0 if seen <= calls else value
        return nn.functional.mse_loss(forecast, target) * factor

    return loss


def test_learns_the_wave(net: RecurrentNet, train: Windows, validation: Windows) -> None:
    before = validation_loss(net.eval(), validation)
    history = fit(net, train, validation, Training(epochs=15, batch_size=32, learning_rate=1e-2))
    assert min(history.validation_loss) < before / 10
    assert history.train_loss[-1] < history.train_loss[0]
    assert history.seconds > 0


def test_leaves_the_best_weights_in_eval_mode(
    net: RecurrentNet, train: Windows, validation: Windows
) -> None:
    # a rate high enough that the loss jumps up and down
    training = Training(epochs=12, batch_size=8, learning_rate=0.1, patience=12)
    history = fit(net, train, validation, training)
    assert not net.training
    best = min(history.validation_loss)
    assert history.validation_loss[history.best_epoch] == best
    assert history.validation_loss[-1] > 1.01 * best  # else the next line would show nothing
    # the same windows in other batches: two means of 400 squares in float32
    assert_close(validation_loss(net, validation), best, rtol=400 * 2**-24, atol=0)


def test_stops_when_patience_is_over(net: RecurrentNet, train: Windows, wave: Tensor) -> None:
    # a validation part that contradicts training: what is learned makes it worse
    unlike = Windows(wave.flip(0) ** 2, 24, 4)
    training = Training(epochs=60, batch_size=32, learning_rate=0.03, patience=3)
    history = fit(net, train, unlike, training)
    assert len(history.validation_loss) == history.best_epoch + 1 + 3
    assert len(history.validation_loss) < 60


def test_same_seed_same_bits(train: Windows, validation: Windows) -> None:
    runs: list[tuple[Tensor, list[float], list[float]]] = []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        net = RecurrentNet("lstm", 2, 8, 4, dropout=0.2)
        torch.manual_seed(len(runs))  # whatever the surroundings have drawn
        history = fit(net, train, validation, Training(epochs=2, batch_size=16, seed=seed))
        runs.append((weights(net), history.train_loss, history.validation_loss))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]
    assert not torch.equal(runs[0][0], runs[2][0])


def test_global_random_state_is_left_alone(
    net: RecurrentNet, train: Windows, validation: Windows
) -> None:
    before = torch.get_rng_state()
    fit(net, train, validation, SHORT)
    assert torch.equal(torch.get_rng_state(), before)


def test_our_layers_and_torchs_train_alike(train: Windows, validation: Windows) -> None:
    ours = RecurrentNet("gru", 2, 8, 4, dropout=0.1)
    twin = RecurrentNet("gru", 2, 8, 4, dropout=0.1, layers="torch")
    twin.load_state_dict(ours.state_dict())
    histories = [fit(model, train, validation, SHORT) for model in (ours, twin)]
    # 9 steps of Adam at 0.01 amplify the layers' 1e-6; another order of windows gives 1e-2
    for ours_epoch, twin_epoch in zip(
        histories[0].train_loss, histories[1].train_loss, strict=True
    ):
        assert_close(ours_epoch, twin_epoch, rtol=1e-3, atol=0)


def test_training_on_the_last_step_only(
    net: RecurrentNet, wave: Tensor, validation: Windows
) -> None:
    before = validation_loss(net.eval(), validation)
    to_vector = Windows(wave, 24, 4, stop=200)
    fit(net, to_vector, validation, SHORT)
    assert validation_loss(net, validation) < before


def test_gradients_are_clipped(net: RecurrentNet, train: Windows, validation: Windows) -> None:
    norms = []

    class Watched(torch.optim.Adam):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(torch.cat(grads).norm().item())
            super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Watched)
        fit(net, train, validation, Training(epochs=1, batch_size=16, clip_norm=1e-3))
    assert len(norms) == 6  # 87 windows in batches of 16
    # 304 float32 products scaled by one factor
    assert max(norms) <= 1e-3 * (1 + 304 * 2**-24)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_loss_is_told_and_best_weights_stay(
    net: RecurrentNet, train: Windows, validation: Windows, value: float
) -> None:
    torch.manual_seed(7)
    same = RecurrentNet("gru", 2, 8, 4, dropout=0.1)
    fit(same, train, validation, Training(epochs=1, batch_size=32, loss=failing_after(99, value)))
    # an epoch is 3 steps and 1 batch of validation: the sixth call is step 1 of epoch 1
    training = Training(epochs=5, batch_size=32, loss=failing_after(5, value))
    with pytest.raises(
        FloatingPointError, match=rf"epoch 1, step 1: the loss is {value}; the learning rate"
    ):
        fit(net, train, validation, training)
    assert torch.equal(weights(net), weights(same))
    assert not net.training


def test_too_high_a_rate_diverges_with_the_same_words(train: Windows, validation: Windows) -> None:
    net = RecurrentNet("lstm", 2, 8, 4)
    training = Training(epochs=50, learning_rate=1e30, clip_norm=1e30, loss=nn.functional.mse_loss)
    with pytest.raises(FloatingPointError, match=r"learning rate \(1e\+30\) may be too high"):
        fit(net, train, validation, training)


def test_predict_gives_every_window_and_keeps_the_mode(
    net: RecurrentNet, validation: Windows
) -> None:
    net.train()
    forecast = predict(net, validation, batch_size=7)
    assert net.training
    assert not forecast.requires_grad
    assert forecast.shape == (len(validation), 4, 1)
    # batches of another size may sum 8 products in another order
    assert_close(forecast, predict(net, validation), rtol=0, atol=24 * 16 * 2**-24)


def test_sizes_may_be_numpys(net: RecurrentNet, train: Windows, validation: Windows) -> None:
    numpy = pytest.importorskip("numpy")
    training = Training(epochs=numpy.int64(1), batch_size=numpy.int64(32), patience=numpy.int64(1))
    assert training == Training(epochs=1, batch_size=32, patience=1)
    assert len(fit(net, train, validation, training).validation_loss) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected an integer"),
        ({"patience": -1}, "patience: expected an integer"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number above 0, got 0.0"),
        ({"clip_norm": float("nan")}, "clip_norm: expected a finite number above 0"),
    ],
)
def test_bad_settings(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training(**options)  # type: ignore[arg-type]
