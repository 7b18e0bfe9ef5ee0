"""Recurrent networks: one layer or many, every cell, with a dense head or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from rnncells.forecast.checks import check_positive
from rnncells.forecast.networks.base import Job, SequenceNetwork
from rnncells.layers import GRU, LSTM, SimpleRNN

__all__ = ["Cell", "Layers", "RecurrentNet", "RecurrentStack", "recurrent_layer"]

Cell = Literal["simple_rnn", "lstm", "gru"]
Layers = Literal["rnncells", "torch"]
State = list[Any]

LAYERS: dict[Layers, dict[Cell, type[nn.Module]]] = {
    "rnncells": {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU},
    "torch": {"simple_rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU},
}


def recurrent_layer(cell: Cell, layers: Layers = "rnncells") -> type[nn.Module]:
    """The layer's class: ours, or torch.nn's with the same signature.

    Raises:
        ValueError: a cell or a source of layers that is not known.
    """
    if layers not in LAYERS:
        raise ValueError(f"layers: expected one of {', '.join(LAYERS)}, got {layers!r}")
    if cell not in LAYERS[layers]:
        raise ValueError(f"cell: expected one of {', '.join(LAYERS[layers])}, got {cell!r}")
    return LAYERS[layers][cell]


class StackOptions(TypedDict, total=False):
    """What may be said of recurrent layers.

    Keys:
        num_layers: how many, where their width is one number; 1 where nothing is said.
        dropout: chance of dropping a unit between layers, as in torch.nn.
        layers: whose layers: ours (``"rnncells"``), or torch.nn's (``"torch"``) to compare with.
        layer_options: further keyword arguments of the layers, such as ``{"bias": False}``.
    """

    num_layers: int
    dropout: float
    layers: Layers
    layer_options: Mapping[str, Any]


class RecurrentJob(Job, StackOptions, total=False):
    """What may be said of a network with recurrent layers."""


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of the recurrent layers, and the rest."""
    own = StackOptions.__annotations__
    layers = {name: value for name, value in options.items() if name in own}
    return layers, {name: value for name, value in options.items() if name not in own}


def refuse_bidirectional(options: Mapping[str, Any]) -> None:
    """Refuse layers that would see what they are to forecast.

    Raises:
        ValueError: the options ask for them.
    """
    if (options.get("layer_options") or {}).get("bidirectional"):
        raise ValueError("layer_options: a forecast cannot come from bidirectional layers")


class RecurrentStack(nn.Module):
    """Recurrent layers on top of each other, which may differ in width.

    Args:
        cell: ``"simple_rnn"``, ``"lstm"`` or ``"gru"``.
        inputs: columns of what the first layer reads.
        hidden_size: units of each of ``num_layers`` layers, or of one layer after another.
        num_layers, dropout, layers, layer_options: see :class:`StackOptions`.

    Attributes:
        width: columns of its output.

    Raises:
        ValueError: a size, a cell or a source of layers that is not allowed.
    """

    def __init__(
        self,
        cell: Cell,
        inputs: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        dropout: float = 0.0,
        layers: Layers = "rnncells",
        layer_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        make, options = recurrent_layer(cell, layers), dict(layer_options or {})
        if isinstance(hidden_size, Sequence):
            sizes = [check_positive(hidden_size=size)[0] for size in hidden_size]
            depth = 1
        else:
            size, depth = check_positive(hidden_size=hidden_size, num_layers=num_layers)
            sizes = [size]
        if not sizes:
            raise ValueError("hidden_size: expected the units of at least one layer, got none")
        directions = 2 if options.get("bidirectional") else 1
        self.width = sizes[-1] * directions
        self.dropout = nn.Dropout(dropout)
        options |= {"batch_first": True, "dropout": dropout if depth > 1 else 0.0}
        self.layers = nn.ModuleList()
        for size in sizes:
            self.layers.append(make(inputs, size, depth, **options))
            inputs = size * directions

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """[batch, time, inputs] -> [batch, time, width], and each layer's last state."""
        states: State = []
        for place, layer in enumerate(self.layers):
            if place > 0:
                x = self.dropout(x)
            x, last = layer(x, None if state is None else state[place])
            states.append(last)
        return x, states


class RecurrentNet(SequenceNetwork):
    """Recurrent layers, and a linear layer that forecasts ``horizon`` steps after each step.

    After step t the head gets W_o [m * h_t, future_t] + b_o. The mask m is the dropout's, 1 in
    use. Training may use the forecasts of all steps (sequence to sequence), use takes the last
    (sequence to vector). A state may be carried from a window to the one that follows it.

    Args:
        cell: ``"simple_rnn"``, ``"lstm"`` or ``"gru"``.
        features: columns of the input, I.
        hidden_size: units of each recurrent layer, H, or of one layer after another, as (20, 20).
        horizon: steps that are forecast.
        dense: with ``False`` there is no linear layer, and the last layer's units are the numbers:
            ``RecurrentNet("simple_rnn", 1, 1, 1, dense=False, residual=False)`` is a single
            recurrent neuron.
        options: of the recurrent layers, see :class:`StackOptions`, and
            :class:`rnncells.forecast.networks.Job`. The dropout is also before the linear layer,
            and there for a whole window at once (Y. Gal and Z. Ghahramani, "A theoretically
            grounded application of dropout in recurrent neural networks", 2016).

    Raises:
        TypeError: targets that are not a sequence of integers.
        ValueError: a size, column, cell or source of layers that is not allowed.
    """

    carries_state = True

    def __init__(
        self,
        cell: Cell,
        features: int,
        hidden_size: int | Sequence[int],
        horizon: int,
        *,
        dense: bool = True,
        **options: Unpack[RecurrentJob],
    ) -> None:
        layers, job = split_options(options)
        refuse_bidirectional(layers)
        [features] = check_positive(features=features)
        stack = RecurrentStack(cell, features + job.get("static", 0), hidden_size, **layers)
        super().__init__(stack.width if dense else None, features, horizon, **job)
        self.recurrent = stack
        self.dropout = nn.Dropout(layers.get("dropout", 0.0))
        if not dense and (stack.width != self.horizon * self.numbers or self.known):
            raise ValueError(
                f"dense: without a linear layer, expected no column known ahead and "
                f"{self.horizon * self.numbers} units in the last layer, one for each number of "
                f"the head, got {self.known} and {stack.width}"
            )

    def encode(self, rows: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The last layer's units after each step."""
        hidden, state = self.recurrent(rows, state)
        if self.training and self.dropout.p > 0:
            # one mask for all steps: what is dropped at one step must not be seen at the next
            hidden = hidden * self.dropout(hidden.new_ones(len(rows), 1, hidden.shape[2]))
        return hidden, state


def map_state(change: Any, state: Any) -> Any:
    """Apply a function to each tensor of a state, which is a nest of lists and tuples."""
    if isinstance(state, torch.Tensor):
        return change(state)
    return type(state)(map_state(change, part) for part in state)
