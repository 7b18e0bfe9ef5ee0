"""What a layer is made of: its constructor and parameters; how it is copied, shown and frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from rnncells import _C
from rnncells.checks import Shapes, autocast_dtype, check_layer_options, lower, read_parameters
from rnncells.frozen import Frozen, freeze
from rnncells.layer_variant import find_variant
from rnncells.options import DEFAULTS, SHAPING, LayerOptions, described, read_options
from rnncells.parameters import direction_shapes, initialise
from rnncells.state import UNSTREAMED, StateOptions
from rnncells.streaming import make_plan
from rnncells.variants import declare

__all__ = ["DeclaredLayer"]


class DeclaredLayer(StateOptions):
    """A layer's constructor and parameters, as the cell declares them.

    The parameters are torch.nn's: for layer k ``weight_ih_l{k}`` [gates * H, I or D * P],
    ``weight_hh_l{k}`` [gates * H, P] (or [gates * H], of a cell without a recurrent product), with
    ``bias`` also ``bias_ih_l{k}`` and ``bias_hh_l{k}`` [gates * H], with a projection
    ``weight_hr_l{k}`` [P, H], layer norm's (:class:`rnncells.options.LayerOptions`), and with
    peepholes ``weight_peephole_l{k}`` [3 * H]; the backward direction's end in ``_reverse``. P is
    the size of the outputs of one direction: ``proj_size``, or H without a projection. All are
    drawn from U(-1/sqrt(H), 1/sqrt(H)), in torch.nn's order, unless ``init`` says otherwise.
    """

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
    layer_norm: str | None = None
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
        values = read_options(type(self).__name__, cell, bias, proj_size > 0, options)
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
        rows = facts["gates"] * units
        per_unit = bool(facts["per_unit_recurrence"])  # then they are weight_hh
        appended = 0 if per_unit else facts["unit_parameters"]
        peepholes = appended if self._variant.has_peephole else 0
        norms = declare(self._variant.cell, self._variant.inference).extras
        norms = tuple(extra for extra in norms if extra[0].startswith("norm"))
        self._zero_peepholes = appended - peepholes
        outputs, projected = self.proj_size or units, self.proj_size > 0
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        self._layer_shapes: list[Shapes] = []
        self._all_weights: list[list[str]] = []
        for k in range(self.num_layers):
            inputs = self.input_size if k == 0 else outputs * len(suffixes)
            sizes = rows, inputs, units, outputs, self.bias, projected
            extra = peepholes, per_unit, norms
            each = [direction_shapes(f"_l{k}{suffix}", *sizes, *extra) for suffix in suffixes]
            self._layer_shapes.append([shape for shapes in each for shape in shapes])
            self._all_weights += [[name for name, _ in shapes] for shapes in each]
        self._flat_weights_names = [name for names in self._all_weights for name in names]
        others = facts["states"] - 1
        self._state_widths = [outputs, *[units] * others]
        self._plan: _C.Plan | None = None
        plain = self._variant.plain and not facts["units_only"]
        plain = plain and all(getattr(self, name) == value for name, value in UNSTREAMED.items())
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
        if attr not in DEFAULTS or "_plan" not in self.__dict__:
            Module.__setattr__(self, attr, value)
            return
        given: Any = {name: getattr(self, name) for name in DEFAULTS} | {attr: value}
        projected, mine = self.proj_size > 0, type(self).__name__
        values = read_options(mine, self._cell, self.bias, projected, given)
        if attr in SHAPING and values[attr] != getattr(self, attr):
            raise ValueError(f"{attr}: a layer's parameters depend on it; make a new layer")
        Module.__setattr__(self, attr, values[attr])
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
            packed = self.layer_norm is None
            self._frozen = freeze(self, weights, self._variant.cell, self.bidirectional, packed)
        try:
            yield self
        finally:
            self._frozen = None

    def _weights(self, shapes: Shapes, like: Tensor, cast: torch.dtype | None) -> list[Tensor]:
        """A layer's weights as the operator takes them, cast and checked."""
        weights = read_parameters(self, shapes, like, cast)
        if self._zero_peepholes:
            zeros = weights[0].new_zeros(self._zero_peepholes * self.hidden_size)
            each = len(weights) // (2 if self.bidirectional else 1)
            parts = [weights[d : d + each] for d in range(0, len(weights), each)]
            weights = [weight for part in parts for weight in (*part, zeros)]
        return weights
