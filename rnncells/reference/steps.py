"""One time step of each cell, as the equations are printed. Notation: :mod:`rnncells.reference`."""

from __future__ import annotations

import math

from torch import Tensor, exp, maximum, sigmoid, tanh
from torch.nn.functional import linear, logsigmoid

from rnncells.reference.variants import PLAIN_TERMS, Terms

States = tuple[Tensor, ...]


def rnn_tanh(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
) -> States:
    """One step of the simple recurrent network (Elman 1990, "Finding structure in time").

    ``h' = tanh(W x + b_ih + U h + b_hh)``

    With ``layer_norm="gates"``, ``h' = tanh(LN(W x) + b_ih + LN(U h) + b_hh)``; with
    ``"preactivation"``, ``h' = tanh(LN(W x + b_ih + U h + b_hh))``.
    """
    (h,) = states
    w_x, u_h = terms.products(x, h, w_ih, w_hh, b_ih, b_hh)
    return (terms.activation(terms.argument(w_x + u_h)),)


def rnn_relu(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
) -> States:
    """One step of the simple recurrent network with rectified units (Le, Jaitly and Hinton 2015).

    ``h' = max(0, W x + b_ih + U h + b_hh)``, otherwise :func:`rnn_tanh`.
    """
    (h,) = states
    w_x, u_h = terms.products(x, h, w_ih, w_hh, b_ih, b_hh)
    return (terms.activation(terms.argument(w_x + u_h), "relu"),)


def lstm(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
) -> States:
    """One step of long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers,
    Schmidhuber and Cummins 2000).

    | ``i = s(W_i x + b_ii + U_i h + b_hi)``      input gate
    | ``f = s(W_f x + b_if + U_f h + b_hf)``      forget gate
    | ``g = tanh(W_g x + b_ig + U_g h + b_hg)``   candidate
    | ``o = s(W_o x + b_io + U_o h + b_ho)``      output gate
    | ``c' = f * c + i * g``
    | ``h' = o * tanh(c')``

    Peephole (Gers and Schmidhuber 2000, "Recurrent nets that time and count"): ``p_i * c`` is added
    to the sum of i, ``p_f * c`` to that of f, and ``p_o * c'`` to that of o.

    Coupled (Greff et al. 2017, "LSTM: a search space odyssey", CIFG): the gates are f, g, o, and
    ``i = 1 - f``.

    ``layer_norm="gates"`` (Ba, Kiros and Hinton 2016, (20) to (22)): the four sums are the rows of
    ``LN(W x) + b_ih + LN(U h) + b_hh``, each norm over all 4 * H, and ``h' = o * tanh(LN(c'))``.
    ``"preactivation"``: each sum is normalised over its H, and ``c'`` is not.
    """
    h, c = states
    gates = 3 if terms.variant.coupled else 4
    w_x, u_h = terms.products(x, h, w_ih, w_hh, b_ih, b_hh)
    *i_f, g, o = terms.argument(w_x + u_h, gates).chunk(gates, dim=-1)
    i_f = [terms.gate(terms.peeped(a, c, place)) for place, a in enumerate(i_f)]
    f = i_f[-1]
    i = i_f[0] if len(i_f) == 2 else 1 - f
    c = f * c + i * terms.activation(g)
    o = terms.gate(terms.peeped(o, c, len(i_f)))
    h = o * terms.activation(terms.output(c))
    return h, c


def gru(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
) -> States:
    """One step of the gated recurrent unit (Cho et al. 2014), reset after the product.

    | ``r = s(W_r x + b_ir + U_r h + b_hr)``            reset gate
    | ``z = s(W_z x + b_iz + U_z h + b_hz)``            update gate
    | ``n = tanh(W_n x + b_in + r * (U_n h + b_hn))``   candidate
    | ``h' = (1 - z) * n + z * h``

    The paper's (8) resets before the product, ``U_n (r * h)``: :func:`gru_reset_before`. Torch,
    cuDNN and Keras (``reset_after=True``) reset after it, and so does this. As in the paper's (7),
    ``z`` is the share of the old state that stays.

    ``layer_norm="gates"``: ``LN(W x)`` and ``LN(U h)``, each over all 3 * H, stand for ``W x`` and
    ``U h``, and r multiplies ``LN(U h)_n + b_hn`` (as haste has it; the paper's supplement
    normalises r and z over 2 * H and n over H). ``"preactivation"``: the argument of each s and of
    tanh is normalised over its H; that of tanh is all of ``W_n x + b_in + r * (U_n h + b_hn)``.
    """
    (h,) = states
    w_x, u_h = terms.products(x, h, w_ih, w_hh, b_ih, b_hh)
    x_r, x_z, x_n = w_x.chunk(3, dim=-1)
    h_r, h_z, h_n = u_h.chunk(3, dim=-1)
    r = terms.gate(terms.argument(x_r + h_r, first=0))
    z = terms.gate(terms.argument(x_z + h_z, first=1))
    n = terms.activation(terms.argument(x_n + r * h_n, first=2))
    return ((1 - z) * n + z * h,)


def gru_reset_before(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
) -> States:
    """One step of the gated recurrent unit, reset before the product: (5) to (8) of Cho et al.
    2014; Keras's ``reset_after=False`` and ONNX's ``linear_before_reset=0``.

    | ``n = tanh(W_n x + b_in + U_n (r * h) + b_hn)``   candidate

    and the rest as in :func:`gru`. The second product needs the reset gate of the whole row, so a
    step has two product phases.
    """
    (h,) = states
    x_r, x_z, x_n = linear(x, w_ih, b_ih).chunk(3, dim=-1)
    u_r, u_z, u_n = w_hh.chunk(3, dim=0)
    b_r, b_z, b_n = (None, None, None) if b_hh is None else b_hh.chunk(3, dim=0)
    seen = terms.dropped(h)
    r = terms.gate(terms.argument(x_r + linear(seen, u_r, b_r), first=0))
    z = terms.gate(terms.argument(x_z + linear(seen, u_z, b_z), first=1))
    n = terms.activation(terms.argument(x_n + linear(r * seen, u_n, b_n), first=2))
    return ((1 - z) * n + z * h,)


def mgu(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
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
    seen = terms.dropped(h)
    f = terms.gate(terms.argument(x_f + linear(seen, u_f, b_f), first=0))
    n = terms.activation(terms.argument(x_n + linear(f * seen, u_n, b_n), first=1))
    return ((1 - f) * h + f * n,)


def indrnn(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
) -> States:
    """One step of the independently recurrent network (Li, Li, Cook, Zhu and Gao 2018, (2)).

    ``h' = max(0, W x + b_ih + u * h + b_hh)``

    The recurrent weights ``w_hh`` are the vector u [H]: no unit sees another, and a step has no
    recurrent product. The paper has one bias; two are what every cell has here.
    """
    (h,) = states
    a = linear(x, w_ih, b_ih) + w_hh * terms.dropped(h)
    return (terms.activation(terms.argument(a if b_hh is None else a + b_hh), "relu"),)


def slstm(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    terms: Terms = PLAIN_TERMS,
) -> States:
    """One step of the sLSTM of xLSTM (Beck et al. 2024, (8) to (17)), with one head: U is full.

    | ``i~, f~, z~, o~ = W x + b_ih + U h + b_hh``
    | ``m' = max(log s(f~) + m, i~)``                          stabiliser, (15)
    | ``i = exp(i~ - m')``,  ``f = exp(log s(f~) + m - m')``   (16), (17)
    | ``c' = f * c + i * tanh(z~)``                            (8)
    | ``n' = f * n + i``                                       normaliser, (9)
    | ``h' = s(o~) * c' / n'``                                 (10)

    Of the two forget gates that (14) offers, exp and s, this is s, as in the authors' own code. m
    keeps the exponentials from overflowing and changes no ``c / n``: ``c * exp(m)`` and ``n *
    exp(m)`` are the states without it. Where nothing was memorised yet, ``n = 0`` as at the start,
    there is nothing to forget: ``f = 0`` and ``m' = i~``, as in the authors' code. (With another
    ``m'`` a first ``i`` may round to zero, and ``c' / n'`` be 0 / 0.)
    """
    h, c, n, m = states
    w_x, u_h = terms.products(x, h, w_ih, w_hh, b_ih, b_hh)
    log_i, f, z, o = (w_x + u_h).chunk(4, dim=-1)
    log_f = (logsigmoid(f) + m).masked_fill(n == 0, -math.inf)
    m = maximum(log_f, log_i)
    i, f = exp(log_i - m), exp(log_f - m)
    c = f * c + i * tanh(z)
    n = f * n + i
    return sigmoid(o) * c / n, c, n, m
