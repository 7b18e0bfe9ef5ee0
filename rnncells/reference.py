"""The specification: every cell and layer in plain PyTorch, as the equations are printed.

Everything here is slow, differentiable to any order, traceable, and runs on every device and dtype
that torch has. The kernels are held against it, and it is held against ``torch.nn``.

Notation: ``x`` is the input of one time step, ``h`` the hidden state, ``c`` the memory cell; ``W
x`` is a product over the input size I, ``U h`` one over the hidden size H; ``*`` works unit by
unit and ``s`` is the logistic sigmoid. The rows of ``w_ih`` [gates * H, I], ``w_hh`` [gates * H,
H], ``b_ih`` and ``b_hh`` [gates * H] hold the gates one after another, in the order that the
cell's entry in :data:`CELLS` names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

States = tuple[Tensor, ...]
Step = Callable[[Tensor, States, Tensor, Tensor, Tensor | None, Tensor | None], States]


def rnn_tanh(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> States:
    """One step of the simple recurrent network (Elman 1990, "Finding structure in time").

    ``h' = tanh(W x + b_ih + U h + b_hh)``
    """
    (h,) = states
    return (torch.tanh(linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)),)


def rnn_relu(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> States:
    """One step of the simple recurrent network with rectified units (Le, Jaitly and Hinton 2015).

    ``h' = max(0, W x + b_ih + U h + b_hh)``
    """
    (h,) = states
    return (torch.relu(linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)),)


def lstm(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> States:
    """One step of long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers,
    Schmidhuber and Cummins 2000).

    | ``i = s(W_i x + b_ii + U_i h + b_hi)``      input gate
    | ``f = s(W_f x + b_if + U_f h + b_hf)``      forget gate
    | ``g = tanh(W_g x + b_ig + U_g h + b_hg)``   candidate
    | ``o = s(W_o x + b_io + U_o h + b_ho)``      output gate
    | ``c' = f * c + i * g``
    | ``h' = o * tanh(c')``
    """
    h, c = states
    i, f, g, o = (linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, c


def gru(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> States:
    """One step of the gated recurrent unit (Cho et al. 2014), reset after the product.

    | ``r = s(W_r x + b_ir + U_r h + b_hr)``            reset gate
    | ``z = s(W_z x + b_iz + U_z h + b_hz)``            update gate
    | ``n = tanh(W_n x + b_in + r * (U_n h + b_hn))``   candidate
    | ``h' = (1 - z) * n + z * h``

    The paper's (8) resets before the product, ``U_n (r * h)``; torch, cuDNN and Keras
    (``reset_after=True``) reset after it, and so does this. As in the paper's (7), ``z`` is the
    share of the old state that stays.
    """
    (h,) = states
    x_r, x_z, x_n = linear(x, w_ih, b_ih).chunk(3, dim=-1)
    h_r, h_z, h_n = linear(h, w_hh, b_hh).chunk(3, dim=-1)
    r = torch.sigmoid(x_r + h_r)
    z = torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


def mgu(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> States:
    """One step of the minimal gated unit (Zhou, Wu, Zhang and Zhou 2016).

    | ``f = s(W_f x + b_if + U_f h + b_hf)``            forget gate
    | ``n = tanh(W_n x + b_in + U_n (f * h) + b_hn)``   candidate
    | ``h' = (1 - f) * h + f * n``

    The second product needs the forget gate of the whole row, so a step has two product phases.
    """
    (h,) = states
    x_f, x_n = linear(x, w_ih, b_ih).chunk(2, dim=-1)
    u_f, u_n = w_hh.chunk(2, dim=0)
    b_f, b_n = (None, None) if b_hh is None else b_hh.chunk(2, dim=0)
    f = torch.sigmoid(x_f + linear(h, u_f, b_f))
    n = torch.tanh(x_n + linear(f * h, u_n, b_n))
    return ((1 - f) * h + f * n,)


@dataclass(frozen=True)
class Cell:
    """A cell as the specification knows it: its step, and the order of its gates and states.

    Calling it takes one step: ``CELLS["gru"](x, (h,), w_ih, w_hh, b_ih, b_hh)``.
    """

    step: Step
    gates: tuple[str, ...]
    states: tuple[str, ...]

    def __post_init__(self) -> None:
        named: dict[str, object] = {"gates": self.gates, "states": self.states}
        for name, value in named.items():
            if not isinstance(value, (tuple, list)) or not value:
                raise TypeError(f"{name}: expected their names, as in ('f', 'n'), got {value!r}")

    def __call__(
        self,
        x: Tensor,
        states: States,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> States:
        return self.step(x, states, w_ih, w_hh, b_ih, b_hh)


CELLS: dict[str, Cell] = {
    "rnn_tanh": Cell(rnn_tanh, gates=("h",), states=("h",)),
    "rnn_relu": Cell(rnn_relu, gates=("h",), states=("h",)),
    "lstm": Cell(lstm, gates=("i", "f", "g", "o"), states=("h", "c")),
    "gru": Cell(gru, gates=("r", "z", "n"), states=("h",)),
    "mgu": Cell(mgu, gates=("f", "n"), states=("h",)),
}


def declaration(cell: str | Cell) -> Cell:
    """The cell of a name in :data:`CELLS`; one's own cell is its own declaration."""
    return cell if isinstance(cell, Cell) else CELLS[cell]


def sequence(
    x: Tensor,
    states: States,
    weights: Sequence[Tensor],
    cell: str | Cell,
    reverse: bool = False,
    lengths: Tensor | None = None,
) -> tuple[Tensor, States]:
    """One direction over whole sequences: ``states[t] = step(x[t], states[t - 1])``.

    Args:
        x: [T, B, I], T at least 1.
        states: the states before the first step: the hidden state [B, P], every other [B, H].
        weights: ``w_ih, w_hh``, with a bias also ``b_ih, b_hh``, and with a projection ``w_hr``.
        cell: a name in :data:`CELLS`, or a cell of one's own.
        reverse: walk from the last step to the first.
        lengths: [B], from 1 to T: the time steps of each sequence; what lies behind them is not
            read. None where all have T.

    Returns:
        The hidden states [T, B, P], in the order of ``x``, zero behind a sequence's end; and the
        states after the last step walked.
    """
    step, paired = declaration(cell), len(weights) & ~1
    own, projection = weights[:paired], weights[paired:]
    outputs = []
    for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        inside = None if lengths is None else (t < lengths).unsqueeze(-1)
        x_t = x[t] if inside is None else x[t].masked_fill(~inside, 0)
        h, *rest = step(x_t, states, *own)
        for w_hr in projection:  # none, or one
            h = linear(h, w_hr)
        after = (h, *rest)
        if inside is not None:
            after = tuple(torch.where(inside, a, b) for a, b in zip(after, states, strict=True))
            h = h.masked_fill(~inside, 0)
        states = after
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs), states


def layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str | Cell,
    bidirectional: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """One layer, with all its D directions (1, or 2 where ``bidirectional``).

    Args:
        x: [T, B, I], T at least 1; or packed, [N, I]: the rows of all time steps, one step after
            another, as ``torch.nn.utils.rnn.PackedSequence`` has them.
        states: the initial states: the hidden state [D, B, P], every other [D, B, H]; or none, for
            zeros. P is H without a projection.
        weights: for each direction ``w_ih, w_hh``, with a bias ``b_ih, b_hh``, and with a
            projection (Sak, Senior and Beaufays 2014: ``h = W_hr m`` where m is the hidden state
            that the cell computes) ``w_hr`` [P, H], in one flat list.
        cell: a name in :data:`CELLS`, or a cell of one's own.
        bidirectional: the second direction walks from the last step to the first.
        lengths: [B], integers from 1 to T, for a padded ``x``: the time steps of each sequence.
        batch_sizes: [T], integers that do not grow, for a packed ``x``: the rows of each time step.

    Returns:
        The hidden states [T, B, D * P] or [N, D * P], the directions side by side, zero behind a
        sequence's end; and the last states, of the shapes of ``states``: each sequence's own.
    """
    if batch_sizes is not None:
        return _packed_layer(x, states, weights, cell, bidirectional, batch_sizes)
    declared, directions = declaration(cell), 2 if bidirectional else 1
    each = len(weights) // directions
    outputs, lasts = [], []
    for d in range(directions):
        own = weights[d * each : (d + 1) * each]
        units = own[0].shape[0] // len(declared.gates)
        widths = [own[1].shape[1]] + [units] * (len(declared.states) - 1)
        zeros = tuple(x.new_zeros(x.shape[1], width) for width in widths)
        before = tuple(s[d] for s in states) or zeros
        y, last = sequence(x, before, own, declared, d == 1, lengths)
        outputs.append(y)
        lasts.append(last)
    return torch.cat(outputs, dim=-1), [torch.stack(state) for state in zip(*lasts, strict=True)]


def _packed_layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str | Cell,
    bidirectional: bool,
    batch_sizes: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """The same on packed rows: padded, run, and packed again."""
    steps, batch = batch_sizes.shape[0], int(batch_sizes[0])
    places = torch.arange(batch, device=batch_sizes.device)
    inside = places < batch_sizes.unsqueeze(1)  # [T, B], the longest sequence first
    rows = inside.flatten().nonzero().squeeze(1).to(x.device)
    padded = x.new_zeros(steps * batch, x.shape[1]).index_copy(0, rows, x)
    lengths = inside.sum(0).to(x.device)
    y, last = layer(
        padded.unflatten(0, (steps, batch)), states, weights, cell, bidirectional, lengths
    )
    return y.flatten(0, 1)[rows], last
