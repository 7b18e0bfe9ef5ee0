"""From a layer's options to what the operators are told: the engine's cell, its text, the seeds;
and the masks on the input and on the recurrent weights, which are products before the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnncells.packed_rows import places_of_rows
from rnncells.variants import ENGINE_CELLS, Text, Varied, write

__all__ = ["LayerVariant", "draw_seeds", "drop_input", "drop_recurrent_weights", "find_variant"]

# Purposes of a draw beside the engine's own: csrc/cells/philox.h.
_INPUT_DROPOUT, _WEIGHT_DROPOUT = 14, 15


class LayerVariant(NamedTuple):
    """What a layer's calls do besides the plain recurrence.

    Attributes:
        cell: the engine's cell, in ``_C.cells()``.
        training, inference: the operators' text; zoneout is in both, dropout in training alone.
        input_dropout, weight_dropout: rates in training.
        has_peephole: whether the cell's values per unit are parameters of the layer; where the
            engine's cell has some and the layer has none, they are zeros.
        plain: whether there is nothing but the plain recurrence, ever.
        draws: whether training draws masks.
    """

    cell: str
    training: str
    inference: str
    input_dropout: float
    weight_dropout: float
    has_peephole: bool
    plain: bool
    draws: bool

    def call(self, training: bool, seed: Tensor | None, resets: Tensor | None) -> Varied:
        """What one call of the operators is told."""
        return Varied(self.training if training else self.inference, seed, resets)


def find_variant(cell: str, options: Mapping[str, Any]) -> LayerVariant:
    """The variant of a layer with these options, which were checked (:mod:`rnncells.options`).

    Args:
        cell: the layer's, in ``rnncells.reference.CELLS``.
        options: their values by name.
    """
    activation, gate = options["activation"], options["recurrent_activation"]
    engine, own = cell, "tanh"
    if cell == "lstm" and options["coupled"]:
        engine = "lstm_coupled"
    elif cell == "gru" and not options["reset_after"]:
        engine = "gru_reset_before"
    elif cell == "indrnn":
        pass  # open by itself
    elif activation is not None or gate is not None or options["peephole"]:
        engine = {"rnn_tanh": "rnn_open", "rnn_relu": "rnn_open"}.get(cell, f"{cell}_open")
        own = "relu" if cell == "rnn_relu" else "tanh"
    norm = options["layer_norm"]
    if norm is not None and not options["coupled"]:
        normed = {("lstm", "gates"): "lstm_normed", ("gru", "preactivation"): "gru_normed"}
        kind = "rnn" if cell.startswith("rnn") else cell
        engine = normed.get((cell, norm), f"{kind}_open")
        own = "relu" if cell == "rnn_relu" else "tanh"
    if engine == "rnn_open" and activation is None:
        activation = own
    zoneout = options["zoneout"]
    rates = zoneout if isinstance(zoneout, tuple) else (zoneout,) * (2 if cell == "lstm" else 1)
    always = Text(zoneout=rates, activation=activation, recurrent_activation=gate, layer_norm=norm)
    training = write(always._replace(recurrent_dropout=options["recurrent_dropout"]))
    inputs, recurrent = options["input_dropout"], options["weight_dropout"]
    draws = bool("dropout" in training or "zoneout" in training or inputs or recurrent)
    plain = not training and not draws and engine not in ENGINE_CELLS
    return LayerVariant(
        engine, training, write(always), inputs, recurrent, options["peephole"], plain, draws
    )


def draw_seeds(layers: int, like: Tensor) -> Sequence[Tensor]:
    """One seed a layer, [1] of int64 each, from torch's generator of ``like``'s device."""
    return torch.randint(2**63 - 1, (layers,), dtype=torch.int64, device=like.device).split(1)


def _keep(seed: Tensor, purpose: int, sizes: list[int], rate: float, like: Tensor) -> Tensor:
    """A mask [sizes], 0 with probability ``rate`` or else 1 / (1 - rate), in 32 bits at least."""
    dropped = torch.ops.rnncells.layer_draw.default(seed, purpose, 0, [1, *sizes], rate)[0]
    return _scaled(dropped, rate, like)


def _scaled(dropped: Tensor, rate: float, like: Tensor) -> Tensor:
    # Rounded to 16 bits, 1 / (1 - rate) would be off by a part in 500.
    return (~dropped).to(torch.promote_types(like.dtype, torch.float32)) / (1 - rate)


def drop_input(x: Tensor, batch_sizes: Tensor | None, seed: Tensor, rate: float) -> Tensor:
    """Variational dropout of the input (Gal and Ghahramani 2016, section 4): one mask a sequence
    for all its time steps. ``x`` [T, B, I], or packed rows [N, I]."""
    if batch_sizes is None:
        return (x * _keep(seed, _INPUT_DROPOUT, [x.shape[1], x.shape[2]], rate, x)).to(x.dtype)
    batch = int(batch_sizes[0])
    mask = _keep(seed, _INPUT_DROPOUT, [batch, x.shape[1]], rate, x)
    _, sequence = places_of_rows(batch_sizes, x.shape[0])
    return (x * mask[sequence.to(x.device)]).to(x.dtype)


def drop_recurrent_weights(
    weights: Sequence[Tensor], directions: int, seed: Tensor, rate: float
) -> list[Tensor]:
    """DropConnect on the recurrent weights (Merity, Keskar and Socher 2018, section 3): one mask a
    call on ``weight_hh``, which for each direction is the second of ``weights``."""
    dropped, each = list(weights), len(weights) // directions
    for d in range(directions):
        weight = weights[d * each + 1]
        *rows, columns = weight.shape
        sizes = [1, *(rows or [1]), columns]
        mask = torch.ops.rnncells.layer_draw.default(seed, _WEIGHT_DROPOUT, d, sizes, rate)
        mask = _scaled(mask.view(weight.shape), rate, weight)
        dropped[d * each + 1] = (weight * mask).to(weight.dtype)
    return dropped
