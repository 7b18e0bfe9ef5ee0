"""Recurrent layers over whole sequences: torch.nn's signatures, parameters, shapes and errors.

A stack is composed here, one call of :func:`rnncells.autograd.run_layer` for each layer with all
its directions; between layers comes torch's own dropout. What a cell computes is said in
:mod:`rnncells.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import dropout as drop
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from rnncells import _C
from rnncells.autograd import run_layer
from rnncells.checks import (
    SUPPORTED_DEVICES,
    SUPPORTED_DTYPES,
    Shapes,
    check_engine,
    check_layer_options,
    check_layer_state_ranks,
    check_layer_states,
    read_parameters,
    require_pair,
)

__all__ = ["GRU", "LSTM", "RNN", "RecurrentLayer", "SimpleRNN"]


class RecurrentLayer(RNNBase):
    """What the layers share: parameters built from the cell's declaration, checks, and the stack.

    A subclass names its cell (of ``rnncells._C.cells()``) and torch's mode, and gives ``forward``
    its types. The parameters are torch.nn's: for layer k ``weight_ih_l{k}`` [gates * H, I or D *
    H], ``weight_hh_l{k}`` [gates * H, H], and with ``bias`` also ``bias_ih_l{k}`` and
    ``bias_hh_l{k}`` [gates * H]; the backward direction's end in ``_reverse``. All are drawn from
    U(-1/sqrt(H), 1/sqrt(H)), in torch.nn's order.
    """

    _rank_error: ClassVar[str]

    def __init__(
        self,
        mode: str,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        # RNNBase's own constructor knows only torch's modes.
        Module.__init__(self)
        check_layer_options(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            bidirectional,
            dropout,
            stacklevel=3,
        )
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = 0
        self._cell = cell
        self._build_parameters(device, dtype)
        self._init_flat_weights()
        self.reset_parameters()

    def _build_parameters(self, device: Any, dtype: torch.dtype | None) -> None:
        rows = _C.cells()[self._cell]["gates"] * self.hidden_size
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        self._layer_shapes: list[Shapes] = []
        self._all_weights: list[list[str]] = []
        for k in range(self.num_layers):
            width = self.input_size if k == 0 else self.hidden_size * len(suffixes)
            shapes: Shapes = []
            for suffix in suffixes:
                own: Shapes = [
                    (f"weight_ih_l{k}{suffix}", (rows, width)),
                    (f"weight_hh_l{k}{suffix}", (rows, self.hidden_size)),
                ]
                if self.bias:
                    own += [(f"bias_ih_l{k}{suffix}", (rows,)), (f"bias_hh_l{k}{suffix}", (rows,))]
                for name, shape in own:
                    setattr(self, name, Parameter(torch.empty(shape, device=device, dtype=dtype)))
                self._all_weights.append([name for name, _ in own])
                shapes += own
            self._layer_shapes.append(shapes)
        self._flat_weights_names = [name for names in self._all_weights for name in names]

    def flatten_parameters(self) -> None:
        """Does nothing: the engines read the parameters where they are."""

    def _run(self, input: Tensor, states: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Checks, the layers one after another, and the layout that was asked for."""
        if not isinstance(input, Tensor):
            raise self._no_tensor(input)
        rank = input.dim()
        if rank == 3:
            x = input.transpose(0, 1) if self.batch_first else input
        elif rank == 2:
            x = input.unsqueeze(1)
        else:
            raise ValueError(self._rank_error.format(rank))
        if states is not None:
            check_layer_state_ranks(states, rank)
            if rank == 2:
                states = [state.unsqueeze(1) for state in states]
        weights = [read_parameters(self, shapes, x) for shapes in self._layer_shapes]
        self._check_input(x)
        if states is not None:
            layers = self.num_layers * (2 if self.bidirectional else 1)
            check_layer_states(states, (layers, x.shape[1], self.hidden_size), x)

        y, last = self._stack(x, states or (), weights)
        if rank == 2:
            return y.squeeze(1), [state.squeeze(1) for state in last]
        return (y.transpose(0, 1) if self.batch_first else y), last

    def _stack(
        self, x: Tensor, states: Sequence[Tensor], weights: list[list[Tensor]]
    ) -> tuple[Tensor, list[Tensor]]:
        """The layers one after another on ``x`` [T, B, I], with dropout between them."""
        if self.num_layers == 1:
            return run_layer(x, list(states), weights[0], self._cell, self.bidirectional)
        split = [state.split(2 if self.bidirectional else 1) for state in states]
        lasts = []
        for k in range(self.num_layers):
            if k > 0 and self.training and self.dropout != 0:
                x = drop(x, self.dropout)
            own = [state[k] for state in split]
            x, last = run_layer(x, own, weights[k], self._cell, self.bidirectional)
            lasts.append(last)
        return x, [torch.cat(state) for state in zip(*lasts, strict=True)]

    def _check_input(self, x: Tensor) -> None:
        """Checks the input as [T, B, I]."""
        if x.dtype not in SUPPORTED_DTYPES or x.device.type not in SUPPORTED_DEVICES:
            check_engine(x)
        if x.shape[2] != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {x.shape[2]}"
            )
        if x.shape[0] == 0:
            raise RuntimeError(
                "Expected sequence length to be larger than 0 in RNN, "
                "got an input of zero time steps"
            )

    def _no_tensor(self, input: object) -> Exception:
        if isinstance(input, PackedSequence):
            return NotImplementedError(
                "input: expected a Tensor, got a PackedSequence; "
                f"rnncells.{type(self).__name__} does not support packed sequences yet"
            )
        return TypeError(f"input: expected a Tensor, got {type(input).__name__}")


class SimpleRNN(RecurrentLayer):
    """The simple recurrent network of Elman (1990), a drop-in for ``torch.nn.RNN``.

    ``h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)``, or ReLU in place of tanh.
    See :func:`rnncells.reference.rnn_tanh`.

    Args:
        input_size: number of features I of the input, at least 1.
        hidden_size: number of features H of the hidden state, at least 1.
        num_layers: number of layers stacked; each takes the outputs of the one below.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: with ``False`` there are no ``bias_ih`` and ``bias_hh``.
        batch_first: input and output are [B, T, features] in place of [T, B, features]. States are
            not affected.
        dropout: probability of dropout on the outputs of each layer but the last, in training.
        bidirectional: a second direction walks from the last step to the first; D is 2, else 1.
        device: where the parameters live.
        dtype: of the parameters, ``torch.float32`` or ``torch.float64``.

    Raises:
        ValueError, TypeError: for an option out of its range, in torch.nn's words.
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
        **unknown: Any,
    ) -> None:
        _refuse_unknown(type(self), unknown)
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
            device,
            dtype,
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the whole sequence.

        Args:
            input: [T, B, I], [B, T, I] with ``batch_first``, or [T, I] for one sequence; T at
                least 1.
            hx: the initial hidden state [num_layers * D, B, H], or [num_layers * D, H] for one
                sequence; zeros where it is not given.

        Returns:
            The last layer's hidden states, of the input's layout with D * H features; and the last
            hidden state of each layer and direction, of the layout of ``hx``.

        Raises:
            ValueError, RuntimeError, TypeError: for a rank, size, dtype or device that does not
                fit, in torch.nn's words where it has them.
            NotImplementedError: for half precision, a device other than the CPU, and a
                PackedSequence.
        """
        y, (h,) = self._run(input, None if hx is None else (hx,))
        return y, h


class GRU(RecurrentLayer):
    """The gated recurrent unit of Cho et al. (2014), reset after the product; torch.nn.GRU's place.

    See :func:`rnncells.reference.gru` for the equations, and :class:`SimpleRNN` for the arguments.
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
        **unknown: Any,
    ) -> None:
        _refuse_unknown(type(self), unknown)
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
            device,
            dtype,
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the whole sequence, as :meth:`SimpleRNN.forward` does."""
        y, (h,) = self._run(input, None if hx is None else (hx,))
        return y, h


class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
    2000); a drop-in for ``torch.nn.LSTM``.

    See :func:`rnncells.reference.lstm` for the equations, and :class:`SimpleRNN` for the arguments.
    ``proj_size`` must be 0: projections are not supported yet, and raise NotImplementedError.
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
            device,
            dtype,
        )
        if proj_size < 0:
            raise ValueError(
                "proj_size should be a positive integer or zero to disable projections"
            )
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if proj_size:
            raise NotImplementedError(
                f"proj_size: expected 0, got {proj_size}; "
                "rnncells.LSTM does not support projections yet"
            )

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Runs the whole sequence.

        Args:
            input: as :meth:`SimpleRNN.forward` has it.
            hx: the initial hidden state and memory cell (h_0, c_0), each [num_layers * D, B, H], or
                [num_layers * D, H] for one sequence; zeros where they are not given.

        Returns:
            The last layer's hidden states, of the input's layout with D * H features; and (h_n,
            c_n), the last states of each layer and direction, of the layout of ``hx``.

        Raises:
            What :meth:`SimpleRNN.forward` raises.
        """
        if hx is not None:
            require_pair(hx)
        y, (h, c) = self._run(input, hx)
        return y, (h, c)


RNN = SimpleRNN


def _refuse_unknown(layer: type, unknown: dict[str, Any]) -> None:
    """What torch.nn refuses: ``proj_size`` in its own words, other names as Python does."""
    if "proj_size" in unknown:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    for name in unknown:
        raise TypeError(f"{layer.__name__}.__init__() got an unexpected keyword argument '{name}'")
