"""One recurrent layer in JAX, jitted: the plain scan of ``jax_cells``, or Flax's own cells.

The scan multiplies the input of all steps at once, outside of the loop, and has torch.nn's two
biases. Flax's ``RNN`` of its ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell`` is what a user of
Flax writes; where one of its biases is the sum of two of torch.nn's, so is the value that it gets,
and its gradient is that of each.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

from bench.peers import LayerRun
from bench.peers.jax_cells import layer as scan_layer

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
Weights = dict[str, Any]
# Flax's names of the gates' parts, in torch.nn's order of the gates.
FLAX_GATES = {"rnn": ("",), "lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


def as_torch(value: Any) -> Tensor:
    """Copy an array of JAX's into a tensor."""
    return torch.from_numpy(np.array(value))


def _run(
    apply: Callable[[Any, Any], Any],
    weights: Any,
    back: Callable[[Any], dict[str, Tensor]],
    x: Tensor,
    dy: Tensor,
    training: bool,
) -> LayerRun:
    """Jit ``apply(weights, x)``; ``back`` names the gradients of weights as torch.nn does."""
    x_there, dy_there = jnp.array(x.numpy()), jnp.array(dy.numpy())

    def step(weights: Any, x: Any, dy: Any) -> Any:
        y, pull = jax.vjp(lambda some: apply(some, x), weights)
        return y, pull(dy)[0]

    forward, both = jax.jit(apply), jax.jit(step)

    def call() -> Any:
        found = both(weights, x_there, dy_there) if training else forward(weights, x_there)
        return jax.block_until_ready(found)

    def results() -> dict[str, Tensor]:
        if not training:
            return {"y": as_torch(call())}
        y, gradients = call()
        return {"y": as_torch(y)} | back(gradients)

    return LayerRun(call, results)


def make_scan(cell: str, layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> LayerRun:
    """Return the layer as a scan over time."""
    state = layer.state_dict()
    weights = {name: jnp.array(state[name].numpy()) for name in NAMES}

    def apply(weights: Weights, x: Any) -> Any:
        return scan_layer(cell, tuple(weights[name] for name in NAMES), x)

    def back(gradients: Weights) -> dict[str, Tensor]:
        return {name: as_torch(gradient) for name, gradient in gradients.items()}

    return _run(apply, weights, back, x, dy, training)


def _parts(cell: str) -> Iterator[tuple[int, str, str, bool, bool]]:
    """Yield each gate's number, the names of its input's and its recurrent part, and whether each
    has a bias."""
    gates = FLAX_GATES[cell]
    for number, gate in enumerate(gates):
        both = cell == "gru" and number == len(gates) - 1
        yield number, f"i{gate}", f"h{gate}", cell != "lstm", cell == "lstm" or both


def to_flax(cell: str, weights: dict[str, Tensor]) -> Weights:
    """Return torch.nn's weights as the parameters of Flax's cell."""
    count = len(FLAX_GATES[cell])
    w_ih, w_hh, b_ih, b_hh = (weights[name].chunk(count) for name in NAMES)
    found: Weights = {}
    for number, of_x, of_h, x_biased, h_biased in _parts(cell):
        one = b_ih[number] + b_hh[number]
        split = x_biased and h_biased
        found[of_x] = {"kernel": jnp.array(w_ih[number].t().numpy())}
        found[of_h] = {"kernel": jnp.array(w_hh[number].t().numpy())}
        if x_biased:
            found[of_x]["bias"] = jnp.array((b_ih[number] if split else one).numpy())
        if h_biased:
            found[of_h]["bias"] = jnp.array((b_hh[number] if split else one).numpy())
    return found


def from_flax(cell: str, gradients: Weights) -> dict[str, Tensor]:
    """Return the gradients of ``to_flax``'s parameters as those of torch.nn's weights."""
    parts: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    for _, of_x, of_h, x_biased, h_biased in _parts(cell):
        parts[NAMES[0]].append(as_torch(gradients[of_x]["kernel"]).t())
        parts[NAMES[1]].append(as_torch(gradients[of_h]["kernel"]).t())
        parts[NAMES[2]].append(as_torch(gradients[of_x if x_biased else of_h]["bias"]))
        parts[NAMES[3]].append(as_torch(gradients[of_h if h_biased else of_x]["bias"]))
    return {name: torch.cat(some) for name, some in parts.items()}


def make_flax(cell: str, layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> LayerRun:
    """Return the layer as ``flax.linen.RNN`` of Flax's own cell."""
    from flax import linen

    kinds = {"rnn": linen.SimpleCell, "lstm": linen.OptimizedLSTMCell, "gru": linen.GRUCell}
    weights = {name: weight.detach() for name, weight in layer.named_parameters()}
    module = linen.RNN(kinds[cell](weights["weight_hh_l0"].shape[1]), time_major=True)

    def apply(weights: Weights, x: Any) -> Any:
        return module.apply({"params": {"cell": weights}}, x)

    def back(gradients: Weights) -> dict[str, Tensor]:
        return from_flax(cell, gradients)

    return _run(apply, to_flax(cell, weights), back, x, dy, training)
