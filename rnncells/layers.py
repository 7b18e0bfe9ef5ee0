"""Recurrent layers over whole sequences: torch.nn's signatures, parameters, shapes and errors.

What they share is in :mod:`rnncells.recurrent`; what a cell computes, in :mod:`rnncells.reference`.
"""

from __future__ import annotations

from typing import Any, Unpack, overload

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.utils.rnn import PackedSequence

from rnncells._C import stream_layer
from rnncells.checks import Lengths, require_pair
from rnncells.options import LayerOptions
from rnncells.recurrent import RecurrentLayer

__all__ = ["GRU", "LSTM", "RNN", "RecurrentLayer", "SimpleRNN"]

Pair = tuple[Tensor, Tensor]


def _streamed(
    layer: RecurrentLayer, input: Any, hx: Any, lengths: Lengths | None, resets: Tensor | None
) -> Any:
    """What forward returns, or None where this is no case for :mod:`rnncells.streaming`."""
    if layer._plan is None or lengths is not None or resets is not None or is_compiling():
        return None
    return stream_layer(layer._plan, layer._parameters, layer.batch_first, input, hx)


class OneStateLayer(RecurrentLayer):
    """A layer whose only state is the hidden state."""

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self, input: PackedSequence, hx: Tensor | None = None
    ) -> tuple[PackedSequence, Tensor]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Runs the whole sequence.

        Args:
            input: [T, B, I], [B, T, I] with ``batch_first``, or [T, I] for one sequence, T at least
                1; or a PackedSequence.
            hx: the initial hidden state [num_layers * D, B, H], or [num_layers * D, H] for one
                sequence; zeros where it is not given.
            lengths: for a padded batch, how many time steps each sequence has, from 1 to T: a
                Tensor [B] of an integer dtype or a sequence of B integers, in any order. What lies
                behind a sequence's end is not read.
            resets: bool of the input's layout without features ([T, B], [B, T] or [T]), not for a
                PackedSequence: where it is true, the states are zero before that step, as at the
                boundary of two episodes. Who walks from the last step to the first starts anew at
                the same boundary.

        Returns:
            The last layer's hidden states, of the input's layout with D * H features, zero behind a
            sequence's end, or a PackedSequence; with ``return_sequences=False`` the last ones
            alone, [B, D * H], or [D * H] for one sequence; and the last hidden state of each layer
            and direction, of the layout of ``hx``: where lengths differ, at each sequence's own
            end.

        Raises:
            ValueError, RuntimeError, TypeError: for a rank, size, dtype, device or lengths that do
                not fit, in torch.nn's words where it has them; ValueError for states carried over
                (``stateful``) from a batch of another size.
            NotImplementedError: for a device other than the CPU; for ``stateful`` in an export, a
                trace or a transform of torch.func.
        """
        found: tuple[Tensor, Tensor] | None = _streamed(self, input, hx, lengths, resets)
        if found is not None:
            return found
        y, (h,) = self._run(input, None if hx is None else (hx,), lengths, resets)
        return y, h


class SimpleRNN(OneStateLayer):
    """The simple recurrent network of Elman (1990), a drop-in for ``torch.nn.RNN``.

    ``h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)``, or ReLU in place of tanh.
    See :func:`rnncells.reference.rnn_tanh`.

    Args:
        input_size: number of features I of the input, at least 1.
        hidden_size: number of features H of the hidden state, at least 1.
        num_layers: number of layers stacked; each takes the outputs of the one below.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: with ``False`` there are no ``bias_ih`` and ``bias_hh``.
        batch_first: input and output are [B, T, features] in place of [T, B, features]. States and
            a PackedSequence are not affected.
        dropout: probability of dropout on the outputs of each layer but the last, in training.
        bidirectional: a second direction walks from the last step to the first; D is 2, else 1.
        device: where the parameters live.
        dtype: of the parameters: ``torch.float32``, ``float64``, ``float16`` or ``bfloat16``.
        options: what torch.nn does not have, by keyword, off by default: ``recompute``,
            ``stateful``, ``return_sequences``, ``go_backwards``, ``init``, ``recurrent_dropout``,
            ``input_dropout``, ``weight_dropout``, ``zoneout``, ``activation``; see
            :class:`rnncells.options.LayerOptions`.

    Call it with x [T, B, I] (or [B, T, I], [T, I], a PackedSequence) and perhaps h_0 [layers * D,
    B, H] and ``lengths=``; it returns y [T, B, D * H] and h_n. Under autocast it runs in autocast's
    dtype: :class:`rnncells.recurrent.RecurrentLayer`.

    Raises:
        ValueError, TypeError: for an option out of its range, in torch.nn's words. What a call
            raises, :meth:`forward` says.
    """

    _rank_error = "RNN: Expected input to be 2D or 3D, got {}D tensor instead"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            f"rnn_{nonlinearity}",
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
        self.nonlinearity = nonlinearity


class GRU(OneStateLayer):
    """The gated recurrent unit of Cho et al. (2014), reset after the product; a drop-in
    for ``torch.nn.GRU``.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype, options: as :class:`SimpleRNN` has them, and ``recurrent_activation``,
            ``reset_after``. See :func:`rnncells.reference.gru`.

    Call it with x [T, B, I] (or [B, T, I], [T, I], a PackedSequence) and perhaps h_0 [layers * D,
    B, H] and ``lengths=``; it returns y [T, B, D * H] and h_n.

    Raises:
        ValueError, TypeError: as :class:`SimpleRNN` does.
    """

    _rank_error = "GRU: Expected input to be 2D or 3D, got {}D instead"

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
            "GRU",
            "gru",
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


class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
    2000); a drop-in for ``torch.nn.LSTM``.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype, options: as :class:`SimpleRNN` has them, and ``recurrent_activation``,
            ``peephole``, ``coupled``, ``forget_bias``. See :func:`rnncells.reference.lstm`.
        proj_size: P, above 0 and below H: the hidden state is ``h_t = W_hr (o_t * tanh(c_t))``, of
            P features (Sak, Senior and Beaufays 2014), and so are the outputs of each direction.
            With 0 there is no projection, and P is H.

    Call it with x [T, B, I] (or [B, T, I], [T, I], a PackedSequence) and perhaps (h_0 [layers * D,
    B, P], c_0 [layers * D, B, H]) and ``lengths=``; it returns y [T, B, D * P] and (h_n, c_n).

    Raises:
        ValueError, TypeError: as :class:`SimpleRNN` does.
    """

    _rank_error = "LSTM: Expected input to be 2D or 3D, got {}D instead"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            "LSTM",
            "lstm",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            options=options,
        )

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Pair | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Pair]: ...

    @overload
    def forward(
        self, input: PackedSequence, hx: Pair | None = None
    ) -> tuple[PackedSequence, Pair]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Pair | None = None,
        *,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Pair]:
        """Runs the whole sequence.

        Args:
            input: as :meth:`OneStateLayer.forward` has it.
            hx: the initial hidden state h_0 [num_layers * D, B, P] and memory cell c_0 [num_layers
                * D, B, H], or each without B for one sequence; zeros where they are not given. P is
                H without a projection.
            lengths, resets: as :meth:`OneStateLayer.forward` has them.

        Returns:
            The last layer's hidden states, of the input's layout with D * P features, or a
            PackedSequence, or the last ones alone, [B, D * P]; and (h_n, c_n), the last states of
            each layer and direction, of the layout of ``hx``. As :meth:`OneStateLayer.forward` has
            it where lengths differ. With ``return_cell_states`` a third: the last layer's memory
            cells after every time step, of the output's layout with D * H features.

        Raises:
            What :meth:`OneStateLayer.forward` raises.
        """
        found: tuple[Tensor, Pair] | None = _streamed(self, input, hx, lengths, resets)
        if found is not None:
            return found
        if hx is not None:
            require_pair("lstm", hx)
        y, (h, c, *cells) = self._run(input, hx, lengths, resets)
        return (y, (h, c), *cells)

    # torch.nn.LSTM's own forms of what RNNBase offers for one state.

    def get_expected_cell_size(
        self, input: Tensor, batch_sizes: Tensor | None
    ) -> tuple[int, int, int]:
        """The shape of the memory cell for this input, [num_layers * D, B, H]."""
        layers, batch, _ = self.get_expected_hidden_size(input, batch_sizes)
        return layers, batch, self.hidden_size

    def check_forward_args(  # type: ignore[override]
        self, input: Tensor, hidden: Pair, batch_sizes: Tensor | None
    ) -> None:
        """Raises where the input or a state has a dtype, rank or size that does not fit."""
        self.check_input(input, batch_sizes)
        shapes = (
            self.get_expected_hidden_size(input, batch_sizes),
            self.get_expected_cell_size(input, batch_sizes),
        )
        for index, (state, shape) in enumerate(zip(hidden, shapes, strict=True)):
            self.check_hidden_size(state, shape, f"Expected hidden[{index}] size {{}}, got {{}}")

    def permute_hidden(  # type: ignore[override]
        self, hx: Pair, permutation: Tensor | None
    ) -> Pair:
        """The states with their sequences in another order."""
        if permutation is None:
            return hx
        return hx[0].index_select(1, permutation), hx[1].index_select(1, permutation)


RNN = SimpleRNN
