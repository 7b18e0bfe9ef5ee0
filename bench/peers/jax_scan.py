"""The same network in JAX: ``jax.lax.scan`` over time, Adam of optax, one jitted step a batch.

The same weights give torch.nn's losses. See ``jax_cells``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import Tensor

from bench.peers.jax_cells import layer

Weights = dict[str, Any]


def forecast(cell: str, weights: Weights, x: Any) -> Any:
    """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    y = x.swapaxes(0, 1)
    for number in (0, 1):
        y = layer(cell, tuple(weights[f"recurrent.{name}_l{number}"] for name in names), y)
    return y.swapaxes(0, 1) @ weights["head.weight"].T + weights["head.bias"]


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
