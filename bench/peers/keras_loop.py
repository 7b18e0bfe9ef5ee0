"""The same network in Keras, on its JAX backend: one jitted stateless step a batch.

The step is that of Keras's own guide to training loops in JAX: ``stateless_call`` and the
optimizer's ``stateless_apply`` under ``jax.jit``, which is quicker than ``fit`` and
``train_on_batch``. Keras orders the LSTM's gates as torch.nn does (i, f, g, o) and the GRU's
otherwise (z, r, n); kernels are transposed. Its GRU with ``reset_after`` has torch.nn's two biases;
SimpleRNN and LSTM have one, which starts as the sum of torch.nn's two. Adam moves a sum of two
biases twice as far as one, so that these two end where torch.nn does with one bias, as
``torch_loop.one_bias`` has it.
"""

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from torch import Tensor

LAYERS = {
    "rnn": (keras.layers.SimpleRNN, {}),
    "lstm": (keras.layers.LSTM, {}),
    "gru": (keras.layers.GRU, {"reset_after": True}),
}
ORDER = {"rnn": (0,), "lstm": (0, 1, 2, 3), "gru": (1, 0, 2)}


def recurrent_weights(cell: str, state: dict[str, Tensor], number: int) -> list[np.ndarray]:
    """Return a layer's kernel, recurrent kernel and bias as Keras has them."""

    def in_order(name: str) -> Tensor:
        chunks = state[f"recurrent.{name}_l{number}"].chunk(len(ORDER[cell]))
        return torch.cat([chunks[gate] for gate in ORDER[cell]])

    biases = torch.stack([in_order("bias_ih"), in_order("bias_hh")])
    bias = biases if cell == "gru" else biases.sum(0)
    kernels = (in_order(name).t() for name in ("weight_ih", "weight_hh"))
    return [tensor.numpy() for tensor in (*kernels, bias)]


def make_network(cell: str, state: dict[str, Tensor], steps: int) -> keras.Model:
    """Return two layers and a head with the weights of a ``torch_loop.Forecaster``."""
    kind, options = LAYERS[cell]
    horizon, units = state["head.weight"].shape
    layers = [kind(units, return_sequences=True, unroll=False, **options) for _ in range(2)]
    head = keras.layers.Dense(horizon)
    net = keras.Sequential([keras.Input((steps, 1)), *layers, head])
    for number, layer in enumerate(layers):
        layer.set_weights(recurrent_weights(cell, state, number))
    # Copies: JAX may keep the memory itself, which training in torch changes.
    head.set_weights([state["head.weight"].t().numpy().copy(), state["head.bias"].numpy().copy()])
    return net


class KerasLoop:
    """The network of a ``torch_loop.Forecaster``'s weights, and its training data."""

    def __init__(self, cell: str, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> None:
        self.net = net = make_network(cell, weights, x.shape[1])
        self.x, self.y = jnp.array(x.numpy()), jnp.array(y.numpy())
        adam = keras.optimizers.Adam(1e-3, epsilon=1e-8)
        adam.build(net.trainable_variables)
        self.weights = [variable.value for variable in net.trainable_variables]
        self.others = [variable.value for variable in net.non_trainable_variables]
        self.moments = [variable.value for variable in adam.variables]

        def loss(weights: Any, others: Any, x: Any, y: Any) -> Any:
            predicted, others = net.stateless_call(weights, others, x, training=True)
            return keras.ops.mean(keras.losses.mean_squared_error(y, predicted)), others

        @jax.jit
        def step(weights: Any, others: Any, moments: Any, x: Any, y: Any, rows: Any) -> Any:
            both = jax.value_and_grad(loss, has_aux=True)
            (_, others), gradients = both(weights, others, x[rows], y[rows])
            weights, moments = adam.stateless_apply(moments, gradients, weights)
            return weights, others, moments

        self.step = step
        self.forecast = jax.jit(lambda w, others, x: net.stateless_call(w, others, x)[0])

    def _train(self, batches: list[Tensor]) -> Any:
        state = self.weights, self.others, self.moments
        for rows in batches:
            state = self.step(*state, self.x, self.y, np.int32(rows.numpy()))
        return jax.block_until_ready(state)

    def warm_up(self, batches: list[Tensor]) -> None:
        """Compile for the batches' sizes."""
        self._train(batches)

    def epoch(self, batches: list[Tensor]) -> None:
        """Train on the batches in turn."""
        self.weights, self.others, self.moments = self._train(batches)

    def predict(self, x: Tensor) -> Tensor:
        """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
        found = self.forecast(self.weights, self.others, jnp.array(x.numpy()))
        return torch.from_numpy(np.array(found))
