"""What the layers share: parameters, checks, and the way of a batch through the stack.

A stack is composed here, one call of :func:`rnncells.autograd.run_layer` for each layer with all
its directions; between layers comes torch's own dropout. What a cell computes is said in
:mod:`rnncells.reference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import Module, Parameter
from torch.nn.functional import dropout as drop
from torch.nn.utils.rnn import PackedSequence

from rnncells import _C
from rnncells.autograd import run_layer
from rnncells.checks import (
    SUPPORTED_DTYPES,
    Lengths,
    Shapes,
    autocast_dtype,
    check_engine,
    check_layer_options,
    check_layer_state_ranks,
    check_layer_state_shapes,
    check_state_kinds,
    lower,
    read_lengths,
    read_parameters,
    read_resets,
    require_tensor,
    state_names,
)
from rnncells.frozen import Frozen, freeze
from rnncells.layer_variant import (
    draw_seeds,
    drop_input,
    drop_recurrent_weights,
    find_variant,
)
from rnncells.onnx import PACKED, is_exporting, refuse, refuse_torchscript
from rnncells.options import DEFAULTS, LayerOptions, described, read_options
from rnncells.parameters import direction_shapes, initialise
from rnncells.state import UNSTREAMED, StateOptions, turned, turned_rows
from rnncells.streaming import make_plan
from rnncells.tracing import Proxy, leaf
from rnncells.variants import PLAIN, Varied, declare

__all__ = ["RecurrentLayer"]

NO_TIME_STEPS = (
    "Expected sequence length to be larger than 0 in RNN, got an input of zero time steps"
)


class RecurrentLayer(StateOptions):
    """The base of the layers: parameters built from the cell's declaration, checks, and the stack.

    A subclass names its cell (of ``rnncells._C.cells()``) and torch's mode, and gives ``forward``
    its types. The parameters are torch.nn's: for layer k ``weight_ih_l{k}`` [gates * H, I or D *
    P], ``weight_hh_l{k}`` [gates * H, P], with ``bias`` also ``bias_ih_l{k}`` and ``bias_hh_l{k}``
    [gates * H], with a projection ``weight_hr_l{k}`` [P, H], and with peepholes
    ``weight_peephole_l{k}`` [3 * H]; the backward direction's end in
    ``_reverse``. P is the size of the outputs of one direction: ``proj_size``, or H without a
    projection. All are drawn from U(-1/sqrt(H), 1/sqrt(H)), in torch.nn's order, unless ``init``
    says otherwise.

    Under autocast the input, the states and the parameters are cast to autocast's dtype (those of
    float64 are not), differentiably, and the layer runs and answers in it, as torch's cuDNN layers
    do; the parameters anew on every call. On the CPU torch.nn (2.13) answers in autocast's dtype
    for RNN and for LSTM on tensors, and in the input's for GRU and for LSTM on a PackedSequence;
    here one rule holds for all.
    """

    _rank_error: ClassVar[str]

    # Layers of older states have none of their own.
    recompute: bool = False
    init: str = "torch"
    forget_bias: float | None = None
    recurrent_dropout: float = 0.0
    input_dropout: float = 0.0
    weight_dropout: float = 0.0
    zoneout: float | tuple[float, float] = 0.0
    activation: str | None = None
    recurrent_activation: str | None = None
    reset_after: bool = True
    peephole: bool = False
    coupled: bool = False
    _frozen: Frozen | None = None

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
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        options: LayerOptions,
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
            proj_size,
            stacklevel=3,
        )
        values = read_options(type(self).__name__, cell, bias, options)
        if proj_size and values["zoneout"] not in (0.0, (0.0, 0.0)):
            raise ValueError("zoneout= and proj_size= exclude each other")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        for name, value in values.items():
            setattr(self, name, value)
        self._cell = cell
        self._declare_parameters()
        for shapes in self._layer_shapes:
            for name, shape in shapes:
                setattr(self, name, Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _declare_parameters(self) -> None:
        """The parameters' names and shapes, of each layer and as torch.nn lists them."""
        self._variant = find_variant(self._cell, {name: getattr(self, name) for name in DEFAULTS})
        facts, units = _C.cells()[self._variant.cell], self.hidden_size
        rows, peepholes = facts["gates"] * units, facts["unit_parameters"]
        outputs, projected = self.proj_size or units, self.proj_size > 0
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        self._layer_shapes: list[Shapes] = []
        self._all_weights: list[list[str]] = []
        for k in range(self.num_layers):
            inputs = self.input_size if k == 0 else outputs * len(suffixes)
            sizes = rows, inputs, units, outputs, self.bias, projected
            own = peepholes if self._variant.has_peephole else 0
            each = [direction_shapes(f"_l{k}{suffix}", *sizes, own) for suffix in suffixes]
            self._layer_shapes.append([shape for shapes in each for shape in shapes])
            self._all_weights += [[name for name, _ in shapes] for shapes in each]
        self._flat_weights_names = [name for names in self._all_weights for name in names]
        others = facts["states"] - 1
        self._state_widths = [outputs, *[units] * others]
        self._plan: _C.Plan | None = None
        plain = self._variant.plain and all(
            getattr(self, name) == value for name, value in UNSTREAMED.items()
        )
        if len(self._all_weights) == 1 and not projected and plain:
            names = tuple(self._flat_weights_names)
            self._plan = make_plan(self._cell, self.input_size, self.hidden_size, names)

    def reset_parameters(self) -> None:
        """Draws the parameters anew, as ``init`` and ``forget_bias`` say."""
        super().reset_parameters()
        gates = declare(self._variant.cell, "").gates
        initialise(self.named_parameters(), gates, self.init, self.forget_bias)

    # --- torch.nn keeps its weights a second time, in a list for cuDNN, and must keep the two in
    # step. Here they are read by name on every call: what stands under the name is the weight.

    _replicate_for_data_parallel = Module._replicate_for_data_parallel

    def __setattr__(self, attr: str, value: Any) -> None:
        Module.__setattr__(self, attr, value)
        if attr in DEFAULTS and "_plan" in self.__dict__:
            self._declare_parameters()

    @property
    def _flat_weights(self) -> list[Tensor | None]:
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, values: Sequence[Tensor | None]) -> None:
        for name, value in zip(self._flat_weights_names, values, strict=True):
            if getattr(self, name, None) is not value:
                setattr(self, name, value)

    def _init_flat_weights(self) -> None:
        """Does nothing: there is no second list to fill."""

    def flatten_parameters(self) -> None:
        """Does nothing: the engines read the parameters where they are."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_frozen"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes the state of a layer, ours or torch.nn's, of this version or an older one."""
        Module.__setstate__(self, state)
        fields = self.__dict__
        for name in ("all_weights", "_data_ptrs", "_flat_weights", "_flat_weight_refs"):
            fields.pop(name, None)  # what torch.nn keeps, or kept, of its second list
        fields.setdefault("proj_size", 0)  # torch.nn has had it since 1.8
        fields.setdefault("_cell", self.mode.lower())
        self._declare_parameters()

    def extra_repr(self) -> str:
        """What torch.nn says of itself, and what it does not have."""
        return super().extra_repr() + described(self)

    @contextmanager
    def frozen(self) -> Iterator[Self]:
        """In the block the weights stay as they are, and are packed for the engine once.

        Calls that compute no gradient are quicker for it, the more so the fewer rows they have; up
        to eight rows read the weights as they are, inside and out. Inside, weights are constants:
        no gradient goes to them (it does to the input and the states). Change them outside: a
        change in place that torch counts, or another tensor in a parameter's place, raises at the
        next call, unless that is one of those rows, which read the weights as they then are; a
        change that nobody counts (a fused optimiser, ``.data``, a NumPy view) is not seen before
        the block ends, or is seen in part. The packed weights are in memory beside the weights,
        16-bit ones in float32; they belong to the dtype in which the block was entered, autocast's
        where it is on.

        Raises:
            RuntimeError: on a call in the block, for a weight that was changed or replaced, or an
                input of another dtype or device than the block was entered with.
        """
        if self._frozen is not None:  # the block around this one keeps them
            yield self
            return
        first = getattr(self, self._flat_weights_names[0])
        like = first.detach()
        cast = autocast_dtype(like) if torch._C._is_any_autocast_enabled() else None
        if cast is not None:
            like = lower(like, cast)
        with torch.no_grad():
            weights = [self._weights(shapes, like, cast) for shapes in self._layer_shapes]
            self._frozen = freeze(self, weights, self._variant.cell, self.bidirectional)
        try:
            yield self
        finally:
            self._frozen = None

    # --- one call

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
        return (y.transpose(0, 1) if self.batch_first else y), last

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
        shapes = self._state_shapes(int(batch_sizes[0]))
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
        if original is not None:
            last = [state.index_select(1, original) for state in last]
        return PackedSequence(y, batch_sizes, order, original), last

    def _traced(
        self, input: Proxy, states: Any, lengths: Any, resets: Any
    ) -> tuple[Any, list[Any]]:
        given = {"lengths": lengths} if resets is None else {"lengths": lengths, "resets": resets}
        out: Any = leaf(self, input, states, **given)
        return out[0], [out[1]] if len(self._state_widths) == 1 else [out[1][0], out[1][1]]

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
        if self._variant.plain and resets is None:
            calls = [PLAIN] * self.num_layers
        else:
            calls = self._calls(x, resets)
        if self.num_layers == 1:
            x, own, pack = self._masked(x, weights[0], packs[0], batch_sizes, calls[0])
            return run_layer(x, states, own, *kind, pack, calls[0])
        split = [state.split(2 if self.bidirectional else 1) for state in states]
        lasts = []
        for k in range(self.num_layers):
            if k > 0 and self.training and self.dropout != 0:
                x = drop(x, self.dropout)
            before = [state[k] for state in split]
            x, own, pack = self._masked(x, weights[k], packs[k], batch_sizes, calls[k])
            x, last = run_layer(x, before, own, *kind, pack, calls[k])
            lasts.append(last)
        return x, [torch.cat(state) for state in zip(*lasts, strict=True)]

    def _weights(self, shapes: Shapes, like: Tensor, cast: torch.dtype | None) -> list[Tensor]:
        """A layer's weights as the operator takes them, cast and checked."""
        weights = read_parameters(self, shapes, like, cast)
        values = _C.cells()[self._variant.cell]["unit_parameters"]
        if values and not self._variant.has_peephole:
            zeros = weights[0].new_zeros(values * self.hidden_size)
            each = len(weights) // (2 if self.bidirectional else 1)
            parts = [weights[d : d + each] for d in range(0, len(weights), each)]
            weights = [weight for part in parts for weight in (*part, zeros)]
        return weights

    def _calls(self, x: Tensor, resets: Tensor | None) -> list[Varied]:
        """What each layer's call is told beside its tensors."""
        seeds: Sequence[Tensor | None] = [None] * self.num_layers
        if self.training and self._variant.draws:
            seeds = draw_seeds(self.num_layers, x)
        return [self._variant.call(self.training, seed, resets) for seed in seeds]

    def _masked(
        self,
        x: Tensor,
        weights: list[Tensor],
        pack: Tensor | None,
        batch_sizes: Tensor | None,
        call: Varied,
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """The input and the weights of a layer under the masks of this call, and the weights packed
        where they still are the same."""
        if call.seed is None:
            return x, weights, pack
        if self.input_dropout:
            x = drop_input(x, batch_sizes, call.seed, self.input_dropout)
        if self.weight_dropout:
            directions = 2 if self.bidirectional else 1
            rate = self.weight_dropout
            weights, pack = drop_recurrent_weights(weights, directions, call.seed, rate), None
        return x, weights, pack

    def _check_input(self, x: Tensor) -> None:
        """Checks the input as [T, B, I] or [N, I]."""
        if x.dtype not in SUPPORTED_DTYPES or not (x.is_cpu or x.is_meta):
            check_engine(x)
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {x.shape[-1]}"
            )
        if x.shape[0] == 0:
            raise RuntimeError(NO_TIME_STEPS)
