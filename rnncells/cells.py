"""Single steps: torch.nn's RNNCell, LSTMCell and GRUCell, signatures, parameters, errors and all.

A step is a sequence of length one, so a cell runs on the same kernels as a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.modules.rnn import RNNCellBase

from rnncells import _C, reference
from rnncells._C import stream_cell
from rnncells.autograd import run_layer
from rnncells.checks import (
    SUPPORTED_DTYPES,
    Shapes,
    autocast_dtype,
    check_cell_state_ranks,
    check_cell_state_shapes,
    check_engine,
    check_state_kinds,
    lower,
    read_parameters,
    require_pair,
    require_tensor,
)
from rnncells.onnx import refuse_torchscript
from rnncells.streaming import make_plan
from rnncells.tracing import Proxy, leaf

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RecurrentCell", "SimpleRNNCell"]


class RecurrentCell(RNNCellBase):
    """What the cells share: parameters built from the cell's declaration, checks, and one step.

    The parameters are torch.nn's: ``weight_ih`` [gates * H, I], ``weight_hh`` [gates * H, H], and
    with ``bias`` also ``bias_ih`` and ``bias_hh`` [gates * H], all drawn from U(-1/sqrt(H),
    1/sqrt(H)). As in torch.nn, a bias that is None is left out, and H may be 0.

    Under autocast a cell does what a layer does (:class:`rnncells.recurrent.RecurrentLayer`). On
    the CPU torch.nn answers in autocast's dtype for RNNCell, and in the input's for LSTMCell and
    GRUCell; on CUDA in autocast's for all three, as ours do.
    """

    _torch_name: ClassVar[str]
    _cell: ClassVar[str]  # whose gates it has
    _other_cells: ClassVar[tuple[str, ...]] = ()  # of the same weights

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        gates = _C.cells()[self._cell]["gates"]
        super().__init__(
            input_size, hidden_size, bias, num_chunks=gates, device=device, dtype=dtype
        )
        self._declare_parameters()

    def _declare_parameters(self) -> None:
        rows = _C.cells()[self._cell]["gates"] * self.hidden_size
        self._shapes: Shapes = [
            ("weight_ih", (rows, self.input_size)),
            ("weight_hh", (rows, self.hidden_size)),
            ("bias_ih", (rows,)),
            ("bias_hh", (rows,)),
        ]
        names = tuple(name for name, _ in self._shapes)
        self._plans = {
            cell: make_plan(cell, self.input_size, self.hidden_size, names)
            for cell in (self._cell, *self._other_cells)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes the state of a cell, ours or torch.nn's."""
        super().__setstate__(state)
        self._declare_parameters()

    def _slow_forward(self, *arguments: Any, **keywords: Any) -> Any:
        """As :class:`rnncells.recurrent.RecurrentLayer` has it."""
        refuse_torchscript()
        with torch.no_grad():
            return super()._slow_forward(*arguments, **keywords)

    def _streamed(self, cell: str, input: Any, hx: Any) -> Any:
        """What forward returns, or None where this is no case for :mod:`rnncells.streaming`."""
        if is_compiling():
            return None
        return stream_cell(self._plans[cell], self._parameters, False, input, hx)

    def _step(self, cell: str, input: Tensor, states: Sequence[Tensor] | None) -> list[Tensor]:
        """Checks and one step; ``input`` is [B, I] or [I], each state [B, H] or [H]."""
        if isinstance(input, Proxy):
            out = leaf(self, input, states)
            return [out] if len(reference.CELLS[cell].states) == 1 else [out[0], out[1]]
        require_tensor("input", input)
        rank = input.dim()
        if rank == 2:
            x = input
        elif rank == 1:
            x = input.unsqueeze(0)
        else:
            raise ValueError(
                f"{self._torch_name}: Expected input to be 1D or 2D, got {rank}D instead"
            )
        if states is not None:
            check_cell_state_ranks(self._torch_name, states, rank)
            if rank == 1:
                states = [state.unsqueeze(0) for state in states]
        # Sizes come first, as in torch.nn: what is of another dtype too has its sizes named.
        if x.shape[1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}"
            )
        if states is not None:
            check_cell_state_shapes(states, x.shape[0], self.hidden_size)
        cast = autocast_dtype(x) if torch._C._is_any_autocast_enabled() else None
        if cast is not None:
            x = lower(x, cast)
            states = None if states is None else [lower(state, cast) for state in states]
        weights = self._read_weights(x, cast)
        if x.dtype not in SUPPORTED_DTYPES or not (x.is_cpu or x.is_meta):
            check_engine(x)
        before = []
        if states is not None:
            check_state_kinds(states, x)
            before = [state.unsqueeze(0) for state in states]

        # Without units there is nothing to compute, but shapes and a gradient of zero to give.
        run = run_layer if self.hidden_size else reference.layer
        _, last = run(x.unsqueeze(0), before, weights, cell)
        after = [state.squeeze(0) for state in last]
        return after if rank == 2 else [state.squeeze(0) for state in after]

    def _read_weights(self, x: Tensor, cast: torch.dtype | None) -> list[Tensor]:
        """The weights and the biases, or no biases where both are None; zeros in place of one."""
        parameters = self._parameters
        if parameters.get("bias_ih") is not None and parameters.get("bias_hh") is not None:
            return read_parameters(self, self._shapes, x, cast)
        lacking = [name for name in ("bias_ih", "bias_hh") if getattr(self, name) is None]
        found = [shape for shape in self._shapes if shape[0] not in lacking]
        weights = read_parameters(self, found, x, cast)
        if len(lacking) == 1:
            place = 2 if lacking == ["bias_ih"] else 3
            weights.insert(place, torch.zeros_like(weights[2]))
        return weights


class SimpleRNNCell(RecurrentCell):
    """One step of the simple recurrent network of Elman (1990), a drop-in for ``torch.nn.RNNCell``.

    ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or ReLU in place of tanh.
    See :func:`rnncells.reference.rnn_tanh`.

    Args:
        input_size: number of features I of the input.
        hidden_size: number of features H of the hidden state.
        bias: with ``False`` there are no ``bias_ih`` and ``bias_hh``.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        device: where the parameters live.
        dtype: of the parameters: ``torch.float32``, ``float64``, ``float16`` or ``bfloat16``.

    Call it with x [B, I] (or [I]) and perhaps h [B, H] (or [H]); it returns h' [B, H] (or [H]).
    What a call raises, :meth:`forward` says.
    """

    _torch_name = "RNNCell"
    _cell = "rnn_tanh"
    _other_cells = ("rnn_relu",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Takes one step.

        Args:
            input: [B, I], or [I] for one sequence.
            hx: the hidden state before the step, [B, H] or [H]; zeros where it is not given.

        Returns:
            The hidden state after the step, [B, H] or [H].

        Raises:
            ValueError, RuntimeError, TypeError: for a rank, size, dtype or device that does not
                fit, in torch.nn's words where it has them; RuntimeError for an unknown
                nonlinearity.
            NotImplementedError: for a device other than the CPU.
        """
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        cell = f"rnn_{self.nonlinearity}"
        found: Tensor | None = self._streamed(cell, input, hx)
        if found is not None:
            return found
        (h,) = self._step(cell, input, None if hx is None else (hx,))
        return h


class GRUCell(RecurrentCell):
    """One step of the gated recurrent unit of Cho et al. (2014), reset after the product; a
    drop-in for ``torch.nn.GRUCell``.

    Args:
        input_size, hidden_size, bias, device, dtype: as :class:`SimpleRNNCell` has them. Equations:
            :func:`rnncells.reference.gru`.

    Call it with x [B, I] (or [I]) and perhaps h [B, H] (or [H]); it returns h' [B, H] (or [H]).
    """

    _torch_name = "GRUCell"
    _cell = "gru"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Takes one step, as :meth:`SimpleRNNCell.forward` does."""
        found: Tensor | None = self._streamed("gru", input, hx)
        if found is not None:
            return found
        (h,) = self._step("gru", input, None if hx is None else (hx,))
        return h


class LSTMCell(RecurrentCell):
    """One step of long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of
    Gers et al. 2000); a drop-in for ``torch.nn.LSTMCell``.

    Args:
        input_size, hidden_size, bias, device, dtype: as :class:`SimpleRNNCell` has them. Equations:
            :func:`rnncells.reference.lstm`.

    Call it with x [B, I] (or [I]) and perhaps (h, c), each [B, H] (or [H]); it returns (h', c').
    """

    _torch_name = "LSTMCell"
    _cell = "lstm"

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Takes one step.

        Args:
            input: [B, I], or [I] for one sequence.
            hx: the hidden state and memory cell (h, c) before the step, each [B, H] or [H]; zeros
                where they are not given.

        Returns:
            (h', c') after the step, each [B, H] or [H].

        Raises:
            What :meth:`SimpleRNNCell.forward` raises.
        """
        found: tuple[Tensor, Tensor] | None = self._streamed("lstm", input, hx)
        if found is not None:
            return found
        if hx is not None:
            require_pair("lstm_cell", hx)
        h, c = self._step("lstm", input, hx)
        return h, c


RNNCell = SimpleRNNCell
