"""torch.nn's cells and layers in JAX: ``jax.lax.scan`` over time.

The input product is made for all steps at once, outside the scan.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import sigmoid


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


def layer(cell: str, weights: tuple[Any, ...], x: Any) -> Any:
    """Run one layer on x [T, B, I]; return its output [T, B, H].

    ``weights`` are torch.nn's weight_ih, weight_hh, bias_ih and bias_hh.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    step, states = STEPS[cell]

    def scanned(carried: Any, of_x: Any) -> Any:
        new = step(carried, of_x, carried[0] @ w_hh.T + b_hh)
        return new, new[0]

    zeros = jnp.zeros((x.shape[1], w_hh.shape[1]), x.dtype)
    return jax.lax.scan(scanned, (zeros,) * states, x @ w_ih.T + b_ih)[1]
