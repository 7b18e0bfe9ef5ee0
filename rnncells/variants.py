"""What a layer does besides the plain recurrence, as the operators are told it.

The operators take a cell of the engine (:data:`ENGINE_CELLS`), a *text*,
``"recurrent_dropout=0.25;zoneout=0.1,0.05;activation=relu"``, and, for each call, a seed and
resets. Masks are drawn from the seed by a counter-based generator (Philox 4x32-10: Salmon et al.
2011) and never stored: forward, backward and a second pass draw them anew, and so does the
specification, by the operator ``layer_draw``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnncells import reference

__all__ = [
    "ENGINE_CELLS",
    "PLAIN",
    "Text",
    "Varied",
    "declare",
    "is_varied",
    "masks",
    "read",
    "reference_layer",
    "write",
]

# Cells of the engine that are others of the specification with an option: their names there, and
# the options. The open ones take activations; the open LSTMs have peepholes, zeros where there are
# none.
ENGINE_CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn_open": ("rnn_tanh", {}),
    "lstm_open": ("lstm", {"peephole": True}),
    "lstm_coupled": ("lstm", {"peephole": True, "coupled": True}),
    "gru_open": ("gru", {}),
    "gru_reset_before": ("gru", {"reset_after": False}),
    "lstm_normed": ("lstm", {}),
    "gru_normed": ("gru", {}),
}

# The purposes of a draw: csrc/cells/philox.h.
_RECURRENT_DROPOUT, _ZONEOUT = 0, 1


class Text(NamedTuple):
    """What the operators' text says.

    Attributes:
        recurrent_dropout: of a unit of h to be dropped where it enters the recurrent products: one
            mask a sequence and direction (Gal and Ghahramani 2016, (7)).
        zoneout: of a unit of h, and of each further state, to keep its value, step by step
            (Krueger et al. 2017, section 3).
        activation, recurrent_activation: of an open cell, names in ``reference.ACTIVATIONS``; None
            for tanh and sigmoid.
        layer_norm: of an open cell, ``"gates"`` or ``"preactivation"``.
        whole_states: the operators give, and take gradients of, each state besides h after every
            time step too: behind the last states, [T, B, D * H] or [N, D * H].
        last_only: nobody asks for y, which without ``save`` is working space, [min(T, 2), B,
            D * P].
    """

    recurrent_dropout: float = 0.0
    zoneout: tuple[float, ...] = ()
    activation: str | None = None
    recurrent_activation: str | None = None
    layer_norm: str | None = None
    whole_states: bool = False
    last_only: bool = False


class Varied(NamedTuple):
    """One call's variant.

    Attributes:
        variant: the operators' text.
        seed: one int64, [1], with which masks are drawn; None: no dropout, and of zoneout its
            expectation.
        resets: [T, B] of bool, where a sequence's states start anew; or None.
    """

    variant: str = ""
    seed: Tensor | None = None
    resets: Tensor | None = None

    def also(self, part: str) -> Varied:
        """The same with one more part of the text."""
        return self._replace(variant=f"{self.variant};{part}" if self.variant else part)


PLAIN = Varied()


def is_varied(varied: Varied) -> bool:
    """Whether there is anything but the plain recurrence."""
    return varied.variant != "" or varied.resets is not None


def write(text: Text) -> str:
    """The operators' text; empty for none."""
    parts = []
    if text.recurrent_dropout:
        parts.append(f"recurrent_dropout={text.recurrent_dropout!r}")
    if any(text.zoneout):
        parts.append("zoneout=" + ",".join(repr(float(rate)) for rate in text.zoneout))
    if text.activation is not None:
        parts.append(f"activation={text.activation}")
    if text.recurrent_activation is not None:
        parts.append(f"recurrent_activation={text.recurrent_activation}")
    if text.layer_norm is not None:
        parts.append(f"layer_norm={text.layer_norm}")
    if text.whole_states:
        parts.append("states=all")
    if text.last_only:
        parts.append("outputs=last")
    return ";".join(parts)


@lru_cache(maxsize=256)
def read(text: str) -> Text:
    """What :func:`write` wrote."""
    found: dict[str, Any] = {}
    for part in text.split(";") if text else ():
        name, _, value = part.partition("=")
        if name == "zoneout":
            found[name] = tuple(float(number) for number in value.split(","))
        elif name in ("states", "outputs"):
            found["whole_states" if name == "states" else "last_only"] = True
        else:
            found[name] = float(value) if name == "recurrent_dropout" else value
    return Text(**found)


def declare(cell: str, text: str) -> reference.Cell:
    """The specification of a cell of the engine, with the options of a text."""
    said = read(text)
    name, options = ENGINE_CELLS.get(cell, (cell, {}))
    if said.layer_norm is not None and name == "lstm":
        # Peepholes and layer norm exclude each other: what the engine takes for them is zero.
        options = {**options, "peephole": False}
    pair: Any = (*said.zoneout, 0.0, 0.0)[:2]
    chosen: dict[str, Any] = {
        "activation": said.activation,
        "recurrent_activation": said.recurrent_activation,
        "layer_norm": said.layer_norm,
    }
    return reference.declaration(name, reference.Variant(zoneout=pair, **chosen, **options))


def masks(
    varied: Varied, states: int, directions: int, steps: int, batch: int, units: int, like: Tensor
) -> dict[str, Any]:
    """What ``reference.layer`` is to be told: the masks that the engine draws for the call.

    Args:
        varied: the call's variant.
        states: how many the cell has.
        directions, steps, batch, units: D, T, B and H.
        like: a tensor of the dtype and on the device of the mask.

    Returns:
        Where there are any ``mask`` [D, B, H], ``zoneout`` (for each state [D, T, B, H] of bool)
        and ``resets``.
    """
    rates = read(varied.variant)
    told: dict[str, Any] = {"resets": varied.resets}
    if varied.seed is None:
        return told
    seed, draw = varied.seed, torch.ops.rnncells.layer_draw.default
    if rates.recurrent_dropout:
        rate = rates.recurrent_dropout
        dropped = [
            draw(seed, _RECURRENT_DROPOUT, d, [1, batch, units], rate)[0] for d in range(directions)
        ]
        told["mask"] = (~torch.stack(dropped)).to(like.dtype) / (1 - rate)
    if any(rates.zoneout):
        told["zoneout"] = [
            torch.stack(
                [draw(seed, _ZONEOUT + i, d, [steps, batch, units], p) for d in range(directions)]
            )
            for i, p in enumerate((*rates.zoneout, *[0.0] * states)[:states])
        ]
    return told


def reference_layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str,
    bidirectional: bool,
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    varied: Varied,
) -> tuple[Tensor, list[Tensor]]:
    """The specification of one call of the operators: ``reference.layer`` with the masks that the
    engine draws. Arguments and results as there."""
    rest = bidirectional, lengths, batch_sizes
    if not is_varied(varied) and cell not in ENGINE_CELLS:
        return reference.layer(x, states, weights, cell, *rest)
    declared = declare(cell, varied.variant)
    normed = declared.variant is not None and declared.variant.layer_norm is not None
    if cell in ("lstm_open", "lstm_coupled") and normed:
        each = len(weights) // (2 if bidirectional else 1)  # without the peepholes, zeros
        weights = [weight for k, weight in enumerate(weights) if k % each != each - 1]
    steps, batch = x.shape[:2]
    if batch_sizes is not None:
        steps, batch = batch_sizes.shape[0], int(batch_sizes[0])
    count, directions = len(declared.states), 2 if bidirectional else 1
    told = masks(varied, count, directions, steps, batch, weights[1].shape[1], x)
    whole = read(varied.variant).whole_states
    return reference.layer(x, states, weights, declared, *rest, whole_states=whole, **told)
