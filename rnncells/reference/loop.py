"""Whole sequences and layers: a step after another, and what happens between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from rnncells.reference.declare import Cell, declaration
from rnncells.reference.steps import States
from rnncells.reference.variants import PLAIN, Variant, zoned_out

Zoneout = Sequence[Tensor | None]


def trajectory(
    x: Tensor,
    states: States,
    weights: Sequence[Tensor],
    cell: str | Cell,
    reverse: bool = False,
    lengths: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    zoneout: Zoneout | None = None,
    resets: Tensor | None = None,
) -> tuple[list[States], States]:
    """One direction over whole sequences: ``states[t] = step(x[t], states[t - 1])``.

    Args:
        x: [T, B, I], T at least 1.
        states: the states before the first step: the hidden state [B, P], every other [B, H].
        weights: ``w_ih, w_hh``, with a bias also ``b_ih, b_hh``, with a projection ``w_hr``, and
            the cell's extras.
        cell: a name in :data:`CELLS`, or a :class:`Cell`: one's own, or a :func:`declaration` with
            options.
        reverse: walk from the last step to the first.
        lengths: [B], from 1 to T: the time steps of each sequence; what lies behind them is not
            read. None where all have T.
        mask: [B, P], recurrent dropout: ``Terms.mask``.
        zoneout: for each state a mask [T, B, P or H] of bool as drawn (:func:`zoned_out`), or None
            for its expectation; None where there is none for any, or inference.
        resets: [T, B] of bool: where it is true, the sequence starts anew at this step, its states
            zero before it. A boundary lies between the steps ``t - 1`` and ``t``, so that who walks
            in reverse starts anew at ``t - 1``, and the pieces are as if run one by one. Behind a
            sequence's end it is not read.

    Returns:
        The states after each step, in the order of ``x``, zero behind a sequence's end; and the
        states after the last step walked.
    """
    declared = declaration(cell)
    own, projection, extras = _sorted(weights, len(declared.extras))
    variant = declared.variant or PLAIN
    rates = (*variant.zoneout, 0.0, 0.0)[: len(declared.states)]
    after_each: list[States] = []
    steps = x.shape[0]
    for t in reversed(range(steps)) if reverse else range(steps):
        begin = t + 1 if reverse else t
        if resets is not None and begin < steps:
            anew = resets[begin] if lengths is None else resets[begin] & (begin < lengths)
            states = tuple(state.masked_fill(anew.unsqueeze(-1), 0) for state in states)
        inside = None if lengths is None else (t < lengths).unsqueeze(-1)
        x_t = x[t] if inside is None else x[t].masked_fill(~inside, 0)
        if mask is None and not extras:
            h, *rest = declared(x_t, states, *own)
        else:
            biases = own if len(own) == 4 else [*own, None, None]
            h, *rest = declared(x_t, states, *biases, *extras, mask=mask)
        for w_hr in projection:  # none, or one
            h = linear(h, w_hr)
        after: States = (h, *rest)
        if zoneout is not None or any(rates):
            kept = [None if z is None else z[t] for z in zoneout or [None] * len(after)]
            after = tuple(map(zoned_out, after, states, rates, kept))
        seen = after
        if inside is not None:
            seen = tuple(state.masked_fill(~inside, 0) for state in after)
            after = tuple(torch.where(inside, a, b) for a, b in zip(after, states, strict=True))
        states = after
        after_each.append(seen)
    return after_each[::-1] if reverse else after_each, states


def _sorted(
    weights: Sequence[Tensor], extras: int
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    """A direction's weights: those of every cell, 2 or 4; the projection's, 0 or 1; the extras."""
    plain = len(weights) - extras
    paired = plain & ~1
    return weights[:paired], weights[paired:plain], weights[plain:]


def sequence(
    x: Tensor,
    states: States,
    weights: Sequence[Tensor],
    cell: str | Cell,
    reverse: bool = False,
    lengths: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    zoneout: Zoneout | None = None,
    resets: Tensor | None = None,
) -> tuple[Tensor, States]:
    """One direction, as :func:`trajectory` has it: of its states after each step the hidden ones
    alone, [T, B, P], and the last states."""
    options: dict[str, Any] = {"mask": mask, "zoneout": zoneout, "resets": resets}
    each, last = trajectory(x, states, weights, cell, reverse, lengths, **options)
    return torch.stack([h for h, *_ in each]), last


def layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str | Cell,
    bidirectional: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    *,
    variant: Variant = PLAIN,
    mask: Tensor | None = None,
    zoneout: Zoneout | None = None,
    resets: Tensor | None = None,
    whole_states: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """One layer, with all its D directions (1, or 2 where ``bidirectional``).

    Variational dropout of the input, and dropout of the recurrent weights (Merity, Keskar and
    Socher 2018, "Regularizing and optimizing LSTM language models", section 3), multiply ``x`` and
    ``w_hh`` by a mask before the call.

    Args:
        x: [T, B, I], T at least 1; or packed, [N, I]: the rows of all time steps, one step after
            another, as ``torch.nn.utils.rnn.PackedSequence`` has them.
        states: the initial states: the hidden state [D, B, P], every other [D, B, H]; or none, for
            zeros. P is H without a projection.
        weights: for each direction ``w_ih, w_hh``, with a bias ``b_ih, b_hh``, with a projection
            (Sak, Senior and Beaufays 2014: ``h = W_hr m`` where m is the hidden state that the cell
            computes) ``w_hr`` [P, H], and the cell's extras, in one flat list.
        cell: a name in :data:`CELLS`, or a cell of one's own.
        bidirectional: the second direction walks from the last step to the first.
        lengths: [B], integers from 1 to T, for a padded ``x``: the time steps of each sequence.
        batch_sizes: [T], integers that do not grow, for a packed ``x``: the rows of each time step.
        variant: the options of a cell that is given by its name.
        mask: [D, B, P], recurrent dropout: ``Terms.mask``.
        zoneout: for each state a mask [D, T, B, P or H] of bool as drawn, or None: see
            :func:`trajectory`.
        resets: [T, B] of bool: where a sequence starts anew, see :func:`trajectory`. Of a packed
            ``x``, T and B are those of the padded one, the longest sequence first.
        whole_states: give every other state of each time step too.

    Returns:
        The hidden states [T, B, D * P] or [N, D * P], the directions side by side, zero behind a
        sequence's end; and the last states, of the shapes of ``states``: each sequence's own; with
        ``whole_states`` followed by the other states as the hidden ones are given, [T, B, D * H] or
        [N, D * H] each.
    """
    if batch_sizes is not None:
        options: dict[str, Any] = {"mask": mask, "zoneout": zoneout, "resets": resets}
        options |= {"variant": variant, "whole_states": whole_states}
        return _packed_layer(x, states, weights, cell, bidirectional, batch_sizes, **options)
    declared, directions = declaration(cell, variant), 2 if bidirectional else 1
    each = len(weights) // directions
    series, lasts = [], []
    for d in range(directions):
        own = weights[d * each : (d + 1) * each]
        units = own[0].shape[0] // len(declared.gates)
        widths = [own[1].shape[-1]] + [units] * (len(declared.states) - 1)
        zeros = tuple(x.new_zeros(x.shape[1], width) for width in widths)
        before = tuple(s[d] for s in states) or zeros
        after_each, last = trajectory(
            x,
            before,
            own,
            declared,
            d == 1,
            lengths,
            mask=None if mask is None else mask[d],
            zoneout=None if zoneout is None else [None if z is None else z[d] for z in zoneout],
            resets=resets,
        )
        series.append([torch.stack(state) for state in zip(*after_each, strict=True)])
        lasts.append(last)
    y, *others = [torch.cat(state, dim=-1) for state in zip(*series, strict=True)]
    last_states = [torch.stack(state) for state in zip(*lasts, strict=True)]
    return y, last_states + (others if whole_states else [])


def _packed_layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str | Cell,
    bidirectional: bool,
    batch_sizes: Tensor,
    **options: Any,
) -> tuple[Tensor, list[Tensor]]:
    """The same on packed rows: padded, run, and packed again."""
    steps, batch = batch_sizes.shape[0], int(batch_sizes[0])
    places = torch.arange(batch, device=batch_sizes.device)
    inside = places < batch_sizes.unsqueeze(1)  # [T, B], the longest sequence first
    rows = inside.flatten().nonzero().squeeze(1).to(x.device)
    padded = x.new_zeros(steps * batch, x.shape[1]).index_copy(0, rows, x)
    lengths = inside.sum(0).to(x.device)
    padded = padded.unflatten(0, (steps, batch))
    y, last = layer(padded, states, weights, cell, bidirectional, lengths, **options)
    count = len(declaration(cell, options["variant"]).states)
    series = [state.flatten(0, 1)[rows] for state in last[count:]]
    return y.flatten(0, 1)[rows], last[:count] + series
