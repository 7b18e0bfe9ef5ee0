"""The same network in JAX: ``jax.lax.scan`` over time, Adam of optax, one jitted step a batch.

The cells are torch.nn's, so that the same weights give the same losses. The input product is made
for all steps at once, outside the scan.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jax.nn import sigmoid
from torch import Tensor

Weights = dict[str, Any]


def limit_threads(threads: int) -> None:
    """Tell XLA its threads; it reads this when it first computes, and not again."""
    os.environ["NPROC"] = str(threads)
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false"


def step_rnn(states: Any, of_x: Any, of_h: Any) -> Any:
    """Return the next states from the last, and the gates' shares of input and hidden state."""
    return (jnp.tanh(of_x + of_h),)


def step_lstm(states: Any, of_x: Any, of_h: Any) -> Any:
    """As ``step_rnn``."""
    i, f, g, o = jnp.split(of_x + of_h, 4, axis=-1)
    c = sigmoid(f) * states[1] + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c


def step_gru(states: Any, of_x: Any, of_h: Any) -> Any:
    """As ``step_rnn``."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (jnp.split(gates, 3, axis=-1) for gates in (of_x, of_h))
    z = sigmoid(z_x + z_h)
    n = jnp.tanh(n_x + sigmoid(r_x + r_h) * n_h)
    return ((1 - z) * n + z * states[0],)


STEPS = {"rnn": (step_rnn, 1), "lstm": (step_lstm, 2), "gru": (step_gru, 1)}


def layer(cell: str, weights: Weights, number: int, x: Any) -> Any:
    """Run one layer on x [T, B, I]; return its output [T, B, H]."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_ih, w_hh, b_ih, b_hh = (weights[f"recurrent.{name}_l{number}"] for name in names)
    step, states = STEPS[cell]

    def scanned(carried: Any, of_x: Any) -> Any:
        new = step(carried, of_x, carried[0] @ w_hh.T + b_hh)
        return new, new[0]

    zeros = jnp.zeros((x.shape[1], w_hh.shape[1]), x.dtype)
    return jax.lax.scan(scanned, (zeros,) * states, x @ w_ih.T + b_ih)[1]


def forecast(cell: str, weights: Weights, x: Any) -> Any:
    """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
    y = layer(cell, weights, 1, layer(cell, weights, 0, x.swapaxes(0, 1))).swapaxes(0, 1)
    return y @ weights["head.weight"].T + weights["head.bias"]


class JaxScan:
    """The network of a ``torch_loop.Forecaster``'s weights, and its training data."""

    def __init__(self, cell: str, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> None:
        self.weights = {name: jnp.array(weight.numpy()) for name, weight in weights.items()}
        self.x, self.y = jnp.array(x.numpy()), jnp.array(y.numpy())
        adam = optax.adam(1e-3)
        self.moments = adam.init(self.weights)
        self.forecast = jax.jit(lambda weights, x: forecast(cell, weights, x))

        def loss(weights: Weights, x: Any, y: Any) -> Any:
            return jnp.mean((forecast(cell, weights, x) - y) ** 2)

        @jax.jit
        def step(weights: Weights, moments: Any, x: Any, y: Any, rows: Any) -> Any:
            gradients = jax.grad(loss)(weights, x[rows], y[rows])
            updates, moments = adam.update(gradients, moments)
            return optax.apply_updates(weights, updates), moments

        self.step = step

    def _train(self, batches: list[Tensor]) -> tuple[Weights, Any]:
        weights, moments = self.weights, self.moments
        for rows in batches:
            weights, moments = self.step(weights, moments, self.x, self.y, np.int32(rows.numpy()))
        return jax.block_until_ready((weights, moments))

    def warm_up(self, batches: list[Tensor]) -> None:
        """Compile for the batches' sizes."""
        self._train(batches)

    def epoch(self, batches: list[Tensor]) -> None:
        """Train on the batches in turn."""
        self.weights, self.moments = self._train(batches)

    def predict(self, x: Tensor) -> Tensor:
        """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
        return torch.from_numpy(np.array(self.forecast(self.weights, jnp.array(x.numpy()))))
