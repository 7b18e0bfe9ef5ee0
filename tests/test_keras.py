"""Keras's weights in our layers and back: against Keras itself, and without it.

Both sides compute in float32 the sums of some dozens of products below 1, over a few steps: they
agree to 1e-5.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest
import torch
from torch import Tensor

import rnncells
from rnncells.keras import from_keras, load_keras_weights, to_keras_weights

B, T, I, H = 3, 6, 2, 5
KINDS = ["SimpleRNN", "LSTM", "GRU"]
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
kinds = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's
needs_keras = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("keras", "jax")),
    reason="keras and jax are not installed",
)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    return keras


def built(keras: Any, kind: str, bidirectional: bool = False, **options: Any) -> Any:
    """A Keras layer whose weights, biases too, are all drawn."""
    layer = getattr(keras.layers, kind)(H, **options)
    layer = keras.layers.Bidirectional(layer) if bidirectional else layer
    layer(torch.zeros(B, T, I).numpy())
    shapes = [value.shape for value in layer.get_weights()]
    layer.set_weights([torch.rand(tuple(shape)).sub(0.5).numpy() for shape in shapes])
    return layer


def near(actual: Tensor, expected: Any) -> None:
    import numpy as np

    theirs = torch.from_numpy(np.array(expected))
    torch.testing.assert_close(actual.detach(), theirs, rtol=0, atol=1e-5)


# --- against Keras


@needs_keras
@kinds
@pytest.mark.parametrize(
    ("bidirectional", "bias", "sequences"),
    [(False, True, True), (True, False, False), (True, True, True), (False, True, False)],
)
def test_the_same_outputs(
    keras: Any, kind: str, bidirectional: bool, bias: bool, sequences: bool
) -> None:
    theirs = built(keras, kind, bidirectional, use_bias=bias, return_sequences=sequences)
    ours, x = from_keras(theirs), torch.randn(B, T, I)
    assert type(ours) is getattr(rnncells, kind)
    near(ours(x)[0], theirs(x.numpy()))


@needs_keras
@kinds
def test_other_options(keras: Any, kind: str) -> None:
    x = torch.randn(B, T, I)
    theirs = built(keras, kind, go_backwards=True, return_sequences=True)
    near(from_keras(theirs)(x)[0], theirs(x.numpy()))
    if kind == "SimpleRNN":
        theirs = built(keras, kind, activation="relu")
        near(from_keras(theirs)(x)[0], theirs(x.numpy()))


@needs_keras
@kinds
def test_stateful(keras: Any, kind: str) -> None:
    theirs = built(keras, kind, stateful=True)
    theirs.reset_state()
    ours = from_keras(theirs)
    for _ in range(3):
        x = torch.randn(B, T, I)
        near(ours(x)[0], theirs(x.numpy()))
    ours.reset_states()
    theirs.reset_state()
    near(ours(x)[0], theirs(x.numpy()))


@needs_keras
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_gru_that_resets_before_the_product(keras: Any, bidirectional: bool, bias: bool) -> None:
    options = {"reset_after": False, "use_bias": bias, "return_sequences": True}
    theirs = built(keras, "GRU", bidirectional, **options)
    ours, x = from_keras(theirs), torch.randn(B, T, I)
    assert not ours.reset_after
    near(ours(x)[0], theirs(x.numpy()))
    theirs.set_weights(to_keras_weights(ours))
    near(ours(x)[0], theirs(x.numpy()))


@needs_keras
@kinds
@pytest.mark.parametrize(
    "activation", ["relu", "sigmoid", "hard_sigmoid", "silu", "softsign", None]
)
def test_activations(keras: Any, kind: str, activation: str | None) -> None:
    gate: dict[str, Any] = {"recurrent_activation": "hard_sigmoid"} if kind != "SimpleRNN" else {}
    theirs = built(keras, kind, activation=activation, return_sequences=True, **gate)
    x = torch.randn(B, T, I)
    near(from_keras(theirs)(x)[0], theirs(x.numpy()))


@needs_keras
@kinds
def test_dropouts_are_taken_over(keras: Any, kind: str) -> None:
    theirs = built(keras, kind, dropout=0.25, recurrent_dropout=0.5, return_sequences=True)
    ours, x = from_keras(theirs).eval(), torch.randn(B, T, I)
    assert (ours.input_dropout, ours.recurrent_dropout) == (0.25, 0.5)
    near(ours(x)[0], theirs(x.numpy(), training=False))


@needs_keras
@kinds
@pytest.mark.parametrize("bidirectional", [False, True])
def test_and_back(keras: Any, kind: str, bidirectional: bool) -> None:
    """From a layer of ours, both of whose biases are drawn."""
    ours = getattr(rnncells, kind)(I, H, bidirectional=bidirectional, batch_first=True)
    theirs = built(keras, kind, bidirectional, return_sequences=True)
    theirs.set_weights(to_keras_weights(ours))
    x = torch.randn(B, T, I)
    near(ours(x)[0], theirs(x.numpy()))


@needs_keras
@kinds
def test_a_stack_is_a_model(keras: Any, kind: str) -> None:
    layers = [getattr(keras.layers, kind)(H, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.Input((T, I)), *layers])
    ours = getattr(rnncells, kind)(I, H, 2, batch_first=True)
    load_keras_weights(ours, model.get_weights())
    x = torch.randn(B, T, I)
    near(ours(x)[0], model(x.numpy()))


@needs_keras
def test_the_start_is_keras_start(keras: Any) -> None:
    """``init="keras"``: the same scale of each weight, the same biases."""
    ours = to_keras_weights(rnncells.LSTM(64, 64, init="keras"))
    theirs = keras.layers.LSTM(64)
    theirs(torch.zeros(1, 1, 64).numpy())
    for a, b in zip(ours, theirs.get_weights(), strict=True):
        assert a.shape == b.shape
        # Of 16,384 draws, or none.
        assert abs(a.std() - b.std()) <= 0.05 * b.std()
    assert (ours[2] == theirs.get_weights()[2]).all()


@needs_keras
def test_what_our_layers_do_not_have(keras: Any) -> None:
    make = keras.layers
    for options, words in (
        ({"activation": "elu"}, "activation: expected one of tanh, relu, .* got 'elu'"),
        ({"recurrent_activation": "selu"}, "recurrent_activation: expected one of .* got 'selu'"),
        ({"activation": make.LeakyReLU()}, "activation: expected one of tanh, relu"),
    ):
        with pytest.raises(NotImplementedError, match=f"^{words}"):
            from_keras(make.GRU(H, **options))
    for wrapped, words in (
        (make.Bidirectional(make.GRU(H), merge_mode="sum"), "merge_mode: .* got 'sum'"),
        (
            make.Bidirectional(make.GRU(H), backward_layer=make.LSTM(H, go_backwards=True)),
            "backward_layer: expected one like the forward layer",
        ),
        (
            make.Bidirectional(make.GRU(H, go_backwards=True), backward_layer=make.GRU(H)),
            "go_backwards: ",
        ),
    ):
        with pytest.raises(NotImplementedError, match=f"^{words}"):
            from_keras(wrapped)
    with pytest.raises(ValueError, match=r"^layer: expected one that is built"):
        from_keras(make.GRU(H))
    for other in (make.Dense(H), make.Bidirectional(make.RNN(make.GRUCell(H)))):
        with pytest.raises(TypeError, match=r"^layer: expected a keras.layers.SimpleRNN.* got "):
            from_keras(other)


# --- without Keras


def arrays(kind: str, inputs: int = I, bias: bool = True) -> list[Tensor]:
    rows = GATES[kind] * H
    shape = (2, rows) if kind == "GRU" else (rows,)
    return [torch.rand(inputs, rows), torch.rand(H, rows), *([torch.rand(shape)] if bias else [])]


@kinds
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_there_and_back(kind: str, bidirectional: bool, bias: bool) -> None:
    """Arrays, tensors and lists; in two layers. The sum of a bias and zero is that bias."""
    layer = getattr(rnncells, kind)(I, H, 2, bias=bias, bidirectional=bidirectional)
    weights = arrays(kind, bias=bias) * (1 + bidirectional)
    weights += arrays(kind, H * (1 + bidirectional), bias) * (1 + bidirectional)
    for form in (Tensor.numpy, Tensor.tolist, Tensor.clone):
        layer.reset_parameters()
        load_keras_weights(layer, [form(value) for value in weights])
        found = to_keras_weights(layer)
        assert len(found) == len(weights)
        for a, b in zip(found, weights, strict=True):
            assert torch.equal(torch.from_numpy(a), b)


def test_gates_by_hand() -> None:
    """Each gate's column of the kernel in its row of ours."""
    marks = torch.arange(3.0).repeat_interleave(H)  # z, r, n in Keras
    weights = [marks.expand(I, -1), marks.expand(H, -1), torch.stack([marks, -marks])]
    layer: Any = rnncells.GRU(I, H)
    load_keras_weights(layer, weights)
    r, z, n = layer.weight_ih_l0[:, 0].view(3, H)
    assert (r == 1).all()
    assert (z == 0).all()
    assert (n == 2).all()
    assert torch.equal(layer.bias_hh_l0, -layer.bias_ih_l0)


def test_weights_that_do_not_fit() -> None:
    layer = rnncells.LSTM(I, H)
    before = [p.detach().clone() for p in layer.parameters()]
    good = arrays("LSTM")
    for weights, words in (
        (good[:2], r"weights: expected 3 arrays, 3 for each layer and direction; got 2"),
        ([good[0].T, *good[1:]], rf"weights\[0\]: expected shape \[{I}, {4 * H}\], got"),
        ([*good[:2], torch.rand(2, 4 * H)], rf"weights\[2\]: expected shape \[{4 * H}\], got"),
    ):
        with pytest.raises(ValueError, match=f"^{words}"):
            load_keras_weights(layer, weights)
    two = rnncells.LSTM(I, H, bidirectional=True)
    with pytest.raises(ValueError, match=r"^weights\[4\]: expected shape"):
        load_keras_weights(two, [*good, good[0], *good[:2]])
    for a, b in zip(layer.parameters(), before, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(NotImplementedError, match=r"^layer: Keras has no LSTM with a projection"):
        to_keras_weights(rnncells.LSTM(I, H, proj_size=2))
    for kind in ("MinimalGatedUnit", "IndRNN", "SLSTM"):
        with pytest.raises(NotImplementedError, match=f"^layer: Keras has no {kind}"):
            load_keras_weights(getattr(rnncells, kind)(I, H), good)
    with pytest.raises(TypeError, match=r"^layer: expected one of rnncells' layers, got LSTM"):
        to_keras_weights(torch.nn.LSTM(I, H))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^layer: expected a keras.layers.SimpleRNN.* got LSTM"):
        from_keras(torch.nn.LSTM(I, H))


def test_other_dtypes() -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        layer = rnncells.GRU(I, H, dtype=dtype)
        load_keras_weights(layer, arrays("GRU"))
        found = to_keras_weights(layer)
        kept = torch.float32 if dtype == torch.bfloat16 else dtype
        assert all(torch.from_numpy(value).dtype == kept for value in found)
