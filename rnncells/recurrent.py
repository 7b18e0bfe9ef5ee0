"""What the layers share: checks, and the way of a batch through the stack.

A stack is composed here, one call of :func:`rnncells.autograd.run_layer` for each layer with all
its directions; between layers comes torch's own dropout. What a cell computes is said in
:mod:`rnncells.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import dropout as drop
from torch.nn.utils.rnn import PackedSequence

from rnncells.autograd import run_layer
from rnncells.checks import (
    SUPPORTED_DTYPES,
    Lengths,
    autocast_dtype,
    check_engine,
    check_layer_state_ranks,
    check_layer_state_shapes,
    check_state_kinds,
    lower,
    read_lengths,
    read_resets,
    require_tensor,
    state_names,
)
from rnncells.declared import DeclaredLayer
from rnncells.layer_variant import draw_seeds, drop_input, drop_recurrent_weights
from rnncells.onnx import PACKED, is_exporting, refuse, refuse_torchscript
from rnncells.packed_rows import turned_rows
from rnncells.state import turned
from rnncells.tracing import Proxy, leaf
from rnncells.variants import PLAIN, Varied

__all__ = ["RecurrentLayer"]

NO_TIME_STEPS = (
    "Expected sequence length to be larger than 0 in RNN, got an input of zero time steps"
)


class RecurrentLayer(DeclaredLayer):
    """The base of the layers: one call, its checks, and the stack.

    A subclass names its cell (of ``rnncells._C.cells()``) and torch's mode, and gives ``forward``
    its types. What parameters there are, :class:`rnncells.declared.DeclaredLayer` says; what goes
    from call to call, :class:`rnncells.state.StateOptions`.

    Under autocast the input, the states and the parameters are cast to autocast's dtype (those of
    float64 are not), differentiably, and the layer runs and answers in it, as torch's cuDNN layers
    do; the parameters anew on every call. On the CPU torch.nn (2.13) answers in autocast's dtype
    for RNN and for LSTM on tensors, and in the input's for GRU and for LSTM on a PackedSequence;
    here one rule holds for all.
    """

    _rank_error: ClassVar[str]

    def _slow_forward(self, *arguments: Any, **keywords: Any) -> Any:
        """What torch.nn calls in place of forward while torch.jit.trace records.

        The operator has a gradient of its own, and is recorded where none is taken; an autograd
        Function, which calls take that need one, cannot be saved.
        """
        refuse_torchscript()
        with torch.no_grad():
            return super()._slow_forward(*arguments, **keywords)

    def _run_once(
        self,
        input: Any,
        states: Sequence[Tensor] | None,
        lengths: Lengths | None,
        resets: Tensor | None,
    ) -> tuple[Any, list[Tensor]]:
        """A call with a Tensor or a PackedSequence: the output in the same form, the last states.

        ``input``, ``lengths`` and ``resets`` as forward has them; the states are lists.
        """
        if not isinstance(input, Tensor):
            return self._run_packed(input, states, lengths, resets)
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
        if lengths is not None:
            if rank == 2:
                raise ValueError("lengths: expected a batched 3-D input, got an unbatched 2-D one")
            lengths = read_lengths(lengths, x)
        if resets is not None:
            if self.go_backwards:
                raise ValueError("resets: not with go_backwards=True")
            resets = read_resets(resets, x, input.dim(), self.batch_first)
        if self.go_backwards:
            x = turned(x, lengths)
        y, last = self._stack(x, states, lengths, resets=resets)
        if rank == 2:
            return y.squeeze(1), [state.squeeze(1) for state in last]
        if self.batch_first:
            count = len(self._state_widths)
            last = [*last[:count], *(series.transpose(0, 1) for series in last[count:])]
            y = y.transpose(0, 1)
        return y, last

    def _run_packed(
        self,
        input: object,
        states: Sequence[Tensor] | None,
        lengths: Lengths | None,
        resets: Tensor | None,
    ) -> tuple[PackedSequence, list[Tensor]]:
        """The same for a PackedSequence: the caller's states are in the order of the sequences
        before they were sorted by length, as torch.nn has it."""
        if isinstance(input, Proxy):
            return self._traced(input, states, lengths, resets)
        if not isinstance(input, PackedSequence):
            raise TypeError(
                f"input: expected a Tensor or a PackedSequence, got {type(input).__name__}"
            )
        if lengths is not None:
            raise ValueError("lengths: a PackedSequence has its own, none can be given beside it")
        if resets is not None:
            raise ValueError("resets: not for a PackedSequence; pad it and give lengths=")
        if torch.compiler.is_compiling() and is_exporting():
            refuse(PACKED)
        x, batch_sizes, order, original = input
        if x.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {x.dim()}")
        if batch_sizes.shape[0] == 0:
            raise RuntimeError(NO_TIME_STEPS)
        batch = int(batch_sizes[0])
        if states is not None and is_compiling():  # what batch_sizes holds is known when it runs
            torch._check(states[0].shape[-2] == batch, lambda: "the states: of another batch")
        shapes = self._state_shapes(batch)
        if states is None:
            states = [x.new_zeros(shape) for shape in shapes]
        else:
            for name, state in zip(state_names(states), states, strict=True):
                require_tensor(name, state)
            check_layer_state_shapes(states, shapes)
            if order is not None:
                states = [state.index_select(1, order) for state in states]
        if self.go_backwards:
            x = turned_rows(x, batch_sizes)
        y, last = self._stack(x, states, None, batch_sizes)
        count = len(self._state_widths)
        series: list[Any] = [
            PackedSequence(each, batch_sizes, order, original) for each in last[count:]
        ]
        last = last[:count]
        if original is not None:
            last = [state.index_select(1, original) for state in last]
        return PackedSequence(y, batch_sizes, order, original), last + series

    def _traced(
        self, input: Proxy, states: Any, lengths: Any, resets: Any
    ) -> tuple[Any, list[Any]]:
        given = {"lengths": lengths} if resets is None else {"lengths": lengths, "resets": resets}
        out: Any = leaf(self, input, states, **given)
        count = len(self._state_widths)
        last = [out[1]] if count == 1 else [out[1][k] for k in range(count)]
        return out[0], last + ([out[2]] if self.return_cell_states else [])

    def _state_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        """The shapes of the states for a batch: the hidden state's, then every other."""
        layers = self.num_layers * (2 if self.bidirectional else 1)
        return [(layers, batch, width) for width in self._state_widths]

    def _stack(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        lengths: Tensor | None = None,
        batch_sizes: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Checks, and the layers one after another, with dropout between them, on ``x`` [T, B, I]
        or on packed rows [N, I]; ``states`` [num_layers * D, B, P or H]."""
        cast = autocast_dtype(x) if torch._C._is_any_autocast_enabled() else None
        if cast is not None:
            x = lower(x, cast)
            states = None if states is None else [lower(state, cast) for state in states]
        recorded = is_compiling() or torch._C._get_tracing_state() is not None
        frozen = None if recorded else self._frozen
        packs: Sequence[Tensor | None] = [None] * self.num_layers
        if frozen is None:
            weights = [self._weights(shapes, x, cast) for shapes in self._layer_shapes]
        else:
            frozen.check(self, x)
            weights, packs = frozen.weights, frozen.packs
        self._check_input(x)
        if states is None:
            states = ()
        else:
            if batch_sizes is None:  # a PackedSequence's were checked before they were sorted
                check_layer_state_shapes(states, self._state_shapes(x.shape[1]))
            check_state_kinds(states, x)

        kind = self._variant.cell, self.bidirectional, lengths, batch_sizes, self.recompute
        whole = self.return_sequences and not self.return_cell_states
        plain = whole and self._variant.plain and resets is None
        if plain and self.num_layers == 1:
            return run_layer(x, states, weights[0], *kind, packs[0])
        calls = [PLAIN] * self.num_layers if plain else self._calls(x, resets)
        if self.num_layers == 1:
            own, pack = weights[0], packs[0]
            if (seed := calls[0].seed) is not None:
                x, own, pack = self._masked(x, own, pack, batch_sizes, seed)
            return run_layer(x, states, own, *kind, pack, calls[0])
        split = [state.split(2 if self.bidirectional else 1) for state in states]
        lasts = []
        for k in range(self.num_layers):
            if k > 0 and self.training and self.dropout != 0:
                x = drop(x, self.dropout)
            before, own, pack = [state[k] for state in split], weights[k], packs[k]
            if (seed := calls[k].seed) is not None:
                x, own, pack = self._masked(x, own, pack, batch_sizes, seed)
            x, last = run_layer(x, before, own, *kind, pack, calls[k])
            lasts.append(last)
        count = len(self._state_widths)
        series = lasts[-1][count:]
        return x, [
            torch.cat(state) for state in zip(*(own[:count] for own in lasts), strict=True)
        ] + series

    def _calls(self, x: Tensor, resets: Tensor | None) -> list[Varied]:
        """What each layer's call is told beside its tensors."""
        seeds: Sequence[Tensor | None] = [None] * self.num_layers
        if self.training and self._variant.draws:
            seeds = draw_seeds(self.num_layers, x)
        calls = [self._variant.call(self.training, seed, resets) for seed in seeds]
        if self.return_cell_states:
            calls[-1] = calls[-1].also("states=all")
        if not self.return_sequences and not is_compiling():
            calls[-1] = calls[-1].also("outputs=last")
        return calls

    def _masked(
        self,
        x: Tensor,
        weights: list[Tensor],
        pack: Tensor | None,
        batch_sizes: Tensor | None,
        seed: Tensor,
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """The input and the weights of a layer under the masks of this call, and the weights packed
        where they still are the same."""
        if self.input_dropout:
            x = drop_input(x, batch_sizes, seed, self.input_dropout)
        if self.weight_dropout:
            directions = 2 if self.bidirectional else 1
            rate = self.weight_dropout
            weights, pack = drop_recurrent_weights(weights, directions, seed, rate), None
        return x, weights, pack

    def _check_input(self, x: Tensor) -> None:
        """Checks the input as [T, B, I] or [N, I]."""
        if x.dtype not in SUPPORTED_DTYPES or not (x.is_cpu or x.is_meta):
            check_engine(x)
        shape = x.shape
        if shape[-1] != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {shape[-1]}"
            )
        if shape[0] == 0:
            raise RuntimeError(NO_TIME_STEPS)
