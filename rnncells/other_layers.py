"""Layers of cells that torch.nn does not have, with the arguments and shapes of torch.nn's own.

A layer of a cell of one's own is a subclass of :class:`CellLayer` and of
:class:`rnncells.layers.OneStateLayer` or :class:`SeveralStatesLayer` that names the cell.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack, overload

import torch
from torch import Tensor
from torch.nn import init
from torch.nn.utils.rnn import PackedSequence

from rnncells.checks import Lengths, require_states
from rnncells.layers import OneStateLayer
from rnncells.options import LayerOptions
from rnncells.recurrent import RecurrentLayer
from rnncells.reference import CELLS

__all__ = ["SLSTM", "CellLayer", "IndRNN", "MinimalGatedUnit", "SeveralStatesLayer"]

States = tuple[Tensor, ...]


class CellLayer(RecurrentLayer):
    """The constructor of a layer of one cell.

    Attributes:
        cell_name: the cell's, in ``rnncells.reference.CELLS`` and in the engine.

    Args:
        input_size: number of features I of the input, at least 1.
        hidden_size: number of features H of the hidden state, at least 1.
        num_layers: number of layers stacked; each takes the outputs of the one below.
        bias: with ``False`` there are no ``bias_ih`` and ``bias_hh``.
        batch_first: input and output are [B, T, features] in place of [T, B, features]. States and
            a PackedSequence are not affected.
        dropout: probability of dropout on the outputs of each layer but the last, in training.
        bidirectional: a second direction walks from the last step to the first; D is 2, else 1.
        device: where the parameters live.
        dtype: of the parameters: ``torch.float32``, ``float64``, ``float16`` or ``bfloat16``.
        options: by keyword, off by default: ``recompute``, ``stateful``, ``return_sequences``,
            ``go_backwards``, ``init``, ``recurrent_dropout``, ``input_dropout``,
            ``weight_dropout``, ``zoneout`` (of h); see :class:`rnncells.options.LayerOptions`.
            What the cell does not have is refused by name.

    Raises:
        ValueError, TypeError: for an option out of its range, or that the cell does not have.
    """

    cell_name: ClassVar[str]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            self.cell_name.upper(),
            self.cell_name,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            options=options,
        )

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._rank_error = f"{cls.__name__}: Expected input to be 2D or 3D, got {{}}D instead"


class SeveralStatesLayer(RecurrentLayer):
    """A layer with further states beside the hidden one: ``hx`` and the last states are tuples."""

    @overload
    def forward(
        self,
        input: Tensor,
        hx: States | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, States]: ...

    @overload
    def forward(
        self, input: PackedSequence, hx: States | None = None
    ) -> tuple[PackedSequence, States]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, States]:
        """Runs the whole sequence.

        Args:
            input: as :meth:`rnncells.layers.OneStateLayer.forward` has it.
            hx: the initial states, a tuple in the order of the cell's, each [num_layers * D, B, H],
                or [num_layers * D, H] for one sequence; zeros where they are not given.
            lengths, resets: as :meth:`rnncells.layers.OneStateLayer.forward` has them.

        Returns:
            The last layer's hidden states, of the input's layout with D * H features, or a
            PackedSequence, or the last ones alone, [B, D * H]; and the last states of each layer
            and direction, a tuple like ``hx``.

        Raises:
            What :meth:`rnncells.layers.OneStateLayer.forward` raises.
        """
        if hx is not None:
            require_states(type(self).__name__, hx, CELLS[self._cell].states)
        y, last = self._run(input, hx, lengths, resets)
        return y, tuple(last)


class MinimalGatedUnit(CellLayer, OneStateLayer):
    """The minimal gated unit (Zhou, Wu, Zhang and Zhou 2016, "Minimal gated unit for recurrent
    neural networks").

    | ``f = sigmoid(W_if x + b_if + W_hf h + b_hf)``
    | ``n = tanh(W_in x + b_in + W_hn (f * h) + b_hn)``
    | ``h' = (1 - f) * h + f * n``

    Arguments, shapes, parameters (their gates f, n) and initialisation as ``torch.nn.GRU`` has
    them, beside the options of :class:`CellLayer`. Call it with x [T, B, I] (or [B, T, I], [T, I],
    a PackedSequence) and perhaps h_0 [layers * D, B, H] and ``lengths=``; it returns y [T, B,
    D * H] and h_n. The products of a step are two, one after the other.
    See :func:`rnncells.reference.mgu`.
    """

    cell_name = "mgu"


class IndRNN(CellLayer, OneStateLayer):
    """The independently recurrent network (Li, Li, Cook, Zhu and Gao 2018, "Independently recurrent
    neural network (IndRNN): building a longer and deeper RNN", (2)).

    ``h' = relu(W_ih x + b_ih + w_hh * h + b_hh)``; ``activation=`` names another one.

    The recurrent weights ``weight_hh_l{k}`` [H] are one a unit; no unit sees another within a
    layer, and layers are stacked. They start from U(-1, 1), where no gradient explodes over time
    (the paper's section 3; for T steps it keeps their size below about 2 ** (1 / T), which is the
    caller's to do), everything else from U(-1/sqrt(H), 1/sqrt(H)) as in torch.nn; ``init`` has no
    other. ``recurrent_dropout`` is on the h that they multiply.

    Arguments and shapes as ``torch.nn.RNN`` has them, beside the options of :class:`CellLayer` and
    ``activation``. Call it with x [T, B, I] (or [B, T, I], [T, I], a PackedSequence) and perhaps
    h_0 [layers * D, B, H] and ``lengths=``; it returns y [T, B, D * H] and h_n. See
    :func:`rnncells.reference.indrnn`.
    """

    cell_name = "indrnn"

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        super().reset_parameters()
        for name, value in self.named_parameters():
            if name.startswith("weight_hh"):
                init.uniform_(value, -1.0, 1.0)


class SLSTM(CellLayer, SeveralStatesLayer):
    """The sLSTM of xLSTM (Beck et al. 2024, "xLSTM: extended long short-term memory", (8) to (17)),
    with one head and the sigmoid as forget gate.

    | ``i~, f~, z~, o~ = W_ih x + b_ih + W_hh h + b_hh``
    | ``m' = max(log sigmoid(f~) + m, i~)``
    | ``i = exp(i~ - m')``, ``f = exp(log sigmoid(f~) + m - m')``
    | ``c' = f * c + i * tanh(z~)``, ``n' = f * n + i``
    | ``h' = sigmoid(o~) * c' / n'``

    It is the recurrence alone: the paper's blocks around it (norms, convolution, projections) are
    the caller's. Where n is 0, as in the zeros that it starts from, nothing was memorised: f is 0.

    Arguments, parameters (their gates i, f, z, o) and initialisation as ``torch.nn.LSTM`` has them,
    without a projection, beside the options of :class:`CellLayer` and ``forget_bias``; ``zoneout``
    is on h alone. Call it with x [T, B, I] (or [B, T, I], [T, I], a PackedSequence) and perhaps
    (h_0, c_0, n_0, m_0), each [layers * D, B, H], and ``lengths=``; it returns y [T, B, D * H] and
    (h_n, c_n, n_n, m_n). See :func:`rnncells.reference.slstm`.
    """

    cell_name = "slstm"
