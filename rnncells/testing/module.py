"""Modules: where a module keeps its weights, and how it is called."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncells import reference
from rnncells.reference import Cell
from rnncells.testing.case import LeftOut, Lengths
from rnncells.testing.problem import LayerShape
from rnncells.testing.shapes import Shapes, WrongShape, named_outputs, told

Weights = Sequence[Tensor] | Sequence[Sequence[Tensor]]
Parameters = Callable[[Any], Weights]
Call = Callable[[Any, Tensor, list[Tensor] | None, Tensor | None], tuple[Tensor, Sequence[Tensor]]]


def torch_parameters(module: nn.Module) -> list[list[Tensor]]:
    """The weights of a module that has torch.nn's names, layer by layer, as
    :func:`rnncells.reference.layer` takes them.

    They are read as attributes, so a parametrised weight is what the parametrisation makes of its
    parameters.

    Raises:
        ValueError: there is no ``weight_ih_l0``.
    """
    layers: list[list[Tensor]] = []
    while hasattr(module, f"weight_ih_l{len(layers)}"):
        k, own = len(layers), []
        for suffix in ("", "_reverse"):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"):
                value = getattr(module, f"{kind}_l{k}{suffix}", None)
                own += [value] if isinstance(value, Tensor) else []
        layers.append(own)
    if not layers:
        raise ValueError(
            f"layer: {type(module).__name__} has no weight_ih_l0 as torch.nn's layers have; say "
            "with parameters= which weights of the specification it holds"
        )
    return layers


def layers_of(weights: Weights) -> list[list[Tensor]]:
    """Weights as layer by layer: those of one layer may come as one flat list.

    Raises:
        TypeError: they are neither a list of tensors nor a list of such.
    """
    layers: list[Any] = list(weights)
    if all(isinstance(w, Tensor) for w in layers):
        layers = [layers]
    for layer in layers:
        if not isinstance(layer, (list, tuple)) or len(layer) < 2:
            raise TypeError("parameters: expected a list of tensors, or one for each layer")
        if not all(isinstance(w, Tensor) for w in layer):
            raise TypeError("parameters: expected a list of tensors, or one for each layer")
    return [list(layer) for layer in layers]


@dataclass(frozen=True)
class Structure:
    """What a stack of layers is, read off its weights: (input, hidden, output size) of each layer
    and the number of directions."""

    cell: Cell
    widths: tuple[tuple[int, int, int], ...]
    directions: int
    projected: bool

    @classmethod
    def of(cls, layers: Sequence[Sequence[Tensor]], cell: Cell) -> Structure:
        """The structure of weights, layer by layer.

        Raises:
            ValueError: their shapes are not those of the specification.
        """
        gates, widths, kinds = len(cell.gates), [], set()
        inputs = layers[0][0].shape[-1]
        for k, weights in enumerate(layers):
            shapes = [tuple(w.shape) for w in weights]
            # One direction has 2 to 5 tensors: w_ih, w_hh, with a bias b_ih, b_hh, with a
            # projection w_hr. So only 4 may be one direction or two, and then the third tells.
            directions = 2 if len(shapes) > 5 or (len(shapes) == 4 and len(shapes[2]) == 2) else 1
            each = len(shapes) // directions
            units = shapes[0][0] // gates
            outputs = shapes[1][-1] if len(shapes) > 1 else 0
            recurrent: tuple[int, ...] = (gates * units, outputs)
            if cell.per_unit_recurrence:
                outputs, recurrent = units, (gates * units,)
            own: list[tuple[int, ...]] = [(gates * units, inputs), recurrent]
            own += [(gates * units,)] * 2 if each >= 4 else []
            own += [(outputs, units)] if each % 2 else []
            if shapes != own * directions or (each % 2 == 0 and outputs != units):
                raise ValueError(
                    f"parameters: layer {k} has weights of shapes {shapes}, expected for each "
                    "direction w_ih [gates * H, I], w_hh [gates * H, P], with a bias b_ih and b_hh "
                    f"[gates * H] (zeros where a layer has only one), with a projection w_hr "
                    f"[P, H]; here gates = {gates} {cell.gates} and I = {inputs}"
                )
            widths.append((inputs, units, outputs))
            kinds.add((directions, bool(each % 2)))
            inputs = directions * outputs
        if len(kinds) > 1:
            raise ValueError("parameters: layers differ in their directions or projections")
        ((directions, projected),) = kinds
        return cls(cell, tuple(widths), directions, projected)

    def shapes(self, steps: int, rows: int) -> list[LayerShape]:
        """The sizes of each layer on ``rows`` time steps of sequences of up to ``steps``."""
        gates = len(self.cell.gates)
        return [
            LayerShape(steps, rows, *widths, gates, self.directions, self.projected)
            for widths in self.widths
        ]

    def output_shapes(self, steps: int, batch: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs of the stack, by their names.

        Raises:
            ValueError: the layers differ in their hidden sizes.
        """
        widths = self.state_widths()
        stack = len(self.widths) * self.directions
        last = {
            f"{state}_n": (stack, batch, width)
            for state, width in zip(self.cell.states, widths, strict=True)
        }
        return {"y": (steps, batch, self.directions * widths[0]), **last}

    def state_widths(self) -> list[int]:
        """The size of each state, the same in all layers.

        Raises:
            ValueError: the layers differ in their hidden sizes.
        """
        if len({widths[1:] for widths in self.widths}) > 1:
            raise ValueError("parameters: layers differ in their hidden sizes")
        _, units, outputs = self.widths[0]
        return [outputs] + [units] * (len(self.cell.states) - 1)


def run_stack(
    x: Tensor,
    states: Sequence[Tensor],
    layers: Sequence[Sequence[Tensor]],
    cell: str | Cell,
    directions: int,
    lengths: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """The specification of a stack: each layer's output is the next one's input.

    Args:
        x, lengths: as for :func:`rnncells.reference.layer`.
        states: none, or each [layers * directions, B, width].
        layers: the weights of each.
        cell: a name in :data:`rnncells.reference.CELLS`, or a cell of one's own.
        directions: 1 or 2.

    Returns:
        The last layer's hidden states, and the last states of all layers, as ``states`` have them.
    """
    lasts = []
    for k, weights in enumerate(layers):
        own = [state[k * directions : (k + 1) * directions] for state in states]
        x, last = reference.layer(x, own, weights, cell, directions == 2, lengths)
        lasts.append(last)
    return x, [torch.cat(state) for state in zip(*lasts, strict=True)]


def call_module(
    module: nn.Module,
    x: Tensor,
    states: list[Tensor] | None,
    lengths: Tensor | None,
    kind: Lengths,
    shapes: Shapes,
) -> dict[str, Tensor]:
    """The outputs by name of a module that is called as torch.nn's layers are.

    ``module(input, hx)`` gives ``y, last``, where several states are a tuple and one is a tensor;
    ``batch_first`` is read off the module. ``x`` here is [T, B, I], and so is the ``y`` returned.

    Raises:
        WrongShape: the outputs are not of ``shapes``.
    """
    hx: Any = None
    if states is not None:
        hx = tuple(states) if len(states) > 1 else states[0]
    if kind in ("packed", "sorted"):
        assert lengths is not None
        packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=kind == "sorted")
        return named_outputs(_padded(module(packed, hx), x.shape[0]), shapes)
    options = {} if lengths is None else {"lengths": lengths}
    if not getattr(module, "batch_first", False):
        return named_outputs(module(x, hx, **options), shapes)
    steps, rows, width = shapes["y"]
    own = {**shapes, "y": (rows, steps, width)}  # what is said of a shape is said in its layout
    outputs = named_outputs(module(x.transpose(0, 1), hx, **options), own)
    return outputs | {"y": outputs["y"].transpose(0, 1)}


def _padded(result: Any, steps: int) -> Any:
    """What a module gave for packed sequences, with its sequence padded."""
    y, *rest = result if isinstance(result, (tuple, list)) else [result]
    if not isinstance(y, PackedSequence):
        raise WrongShape(f"y is {told(y)}, expected a PackedSequence, as the input is one")
    return (pad_packed_sequence(y, total_length=steps)[0], *rest)


def kinds_of_lengths(module: nn.Module) -> tuple[list[Lengths], list[LeftOut]]:
    """How a module may be given lengths, and how not: by keyword where ``forward`` has ``lengths``,
    packed where it is one of torch.nn's layers or a subclass of theirs."""
    kinds: list[Lengths] = ["full"]
    left_out = []
    if "lengths" in inspect.signature(module.forward).parameters:
        kinds.append("padded")
    else:
        left_out.append(LeftOut("padded", "forward takes no lengths"))
    if isinstance(module, RNNBase):
        kinds += ["packed", "sorted"]
    else:
        reason = f"{type(module).__name__} is none of torch.nn's layers, nor a subclass of theirs"
        left_out += [LeftOut("packed", reason), LeftOut("sorted", reason)]
    return kinds, left_out


def check_dropout(module: nn.Module) -> None:
    """Raises ValueError where dropout between layers would make the module's results random."""
    if getattr(module, "dropout", 0) and getattr(module, "num_layers", 1) > 1 and module.training:
        raise ValueError(
            f"layer: dropout={module.dropout} in training mode; call eval() or set it to 0"
        )


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy; TypeError, which says what to do, where a module cannot be copied."""
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise TypeError(
            f"layer: this {type(module).__name__} cannot be copied ({error}); give a function of "
            "(input_size, hidden_size, **options) that makes one"
        ) from error
