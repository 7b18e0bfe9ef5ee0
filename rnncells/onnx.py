"""One layer as ONNX's own recurrent operator, for ``torch.onnx.export(..., dynamo=True)``.

While the exporter traces a model, a layer is written as one node of the standard operator RNN, GRU
or LSTM (https://onnx.ai/onnx/operators) in place of our operator, which no other runtime knows, so
that who exports passes no table of translations. Sizes are those of :mod:`rnncells.ops`; ONNX has
the layouts

- X [T, B, I] and Y [T, D, B, H]; the states [D, B, H];
- W [D, gates * H, I] and R [D, gates * H, H], their gates in an order of ONNX's own, and B [D, 2 *
  gates * H]: the input's biases, then the hidden state's;
- sequence_lens [B], int32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from rnncells.reference import CELLS


class Operator(NamedTuple):
    """ONNX's operator for a cell.

    ``gates`` are the cell's, in ONNX's order; ``attributes`` what differs from the operator's
    defaults, a tuple holding one direction's share.
    """

    name: str
    gates: tuple[str, ...]
    attributes: Mapping[str, Any]


OPERATORS: dict[str, Operator] = {
    "rnn_tanh": Operator("RNN", ("h",), {}),
    "rnn_relu": Operator("RNN", ("h",), {"activations": ("Relu",)}),
    "lstm": Operator("LSTM", ("i", "o", "f", "g"), {}),
    # By default ONNX resets before the product, as the paper does.
    "gru": Operator("GRU", ("z", "r", "n"), {"linear_before_reset": 1}),
}

PACKED = "a PackedSequence; run the layer on the padded tensor with lengths="


def is_exporting() -> bool:
    """Whether torch's ONNX exporter is tracing."""
    return torch.onnx.is_in_onnx_export()


# Dynamo, with which the exporter traces what it cannot trace otherwise, takes is_in_onnx_export for
# False; so it is to call our function and keep the answer. This is what
# torch.compiler.assume_constant_result does, less the second that importing Dynamo takes.
is_exporting._dynamo_marked_constant = True  # type: ignore[attr-defined]


def onnx_layer(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    cell: str,
    bidirectional: bool,
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """One layer, all its directions, as one symbolic node: to be traced, it computes nothing.

    Takes and returns what :func:`rnncells.autograd.run_layer` does. T and B may be symbols.

    Raises:
        NotImplementedError: ONNX has no operator for the cell, for a projection, for packed rows or
            for bfloat16.
    """
    from torch.onnx.ops import symbolic_multi_out  # 20 ms to import, which only exporters pay

    directions = 2 if bidirectional else 1
    each = len(weights) // directions
    _require_operator(x, cell, batch_sizes is not None, projected=each % 2 == 1)
    operator, units = OPERATORS[cell], weights[1].shape[1]
    own = [weights[d * each : (d + 1) * each] for d in range(directions)]
    inputs = [
        x,
        _packed([[w_ih] for w_ih, *_ in own], cell),
        _packed([[w_hh] for _, w_hh, *_ in own], cell),
        _packed([biases for _, _, *biases in own], cell) if each == 4 else None,
        None if lengths is None else lengths.to(torch.int32),
        *states,
    ]
    attributes: dict[str, Any] = {
        "hidden_size": units,
        "direction": "bidirectional" if bidirectional else "forward",
    }
    for name, value in operator.attributes.items():
        attributes[name] = value * directions if isinstance(value, tuple) else value
    count = len(CELLS[cell].states)
    last = (directions, x.shape[1], units)
    y, *lasts = symbolic_multi_out(
        operator.name,
        inputs,
        attributes,
        dtypes=[x.dtype] * (1 + count),
        shapes=[(x.shape[0], *last), *[last] * count],
    )
    return (y.transpose(1, 2).flatten(2) if bidirectional else y.squeeze(1)), lasts


def _packed(weights: Sequence[Sequence[Tensor]], cell: str) -> Tensor:
    """One input of the node, [D, rows, ...], from the weights or biases of each direction.

    Few operators, which the exporter, or the runtime when it loads the model, folds into a
    constant.
    """
    ours, theirs = CELLS[cell].gates, OPERATORS[cell].gates
    rows = torch.cat([weight for direction in weights for weight in direction])
    shape = rows.shape[1:]
    if ours != theirs:
        order = torch.tensor([ours.index(gate) for gate in theirs], device=rows.device)
        count = sum(len(direction) for direction in weights)
        rows = rows.unflatten(0, (count, len(ours), -1)).index_select(1, order)
    return rows.reshape(len(weights), -1, *shape)


def refuse(what: str) -> NoReturn:
    """Raises NotImplementedError for what ONNX cannot say."""
    raise NotImplementedError(f"rnncells: ONNX has no recurrent operator for {what}")


def refuse_torchscript() -> None:
    """Raises NotImplementedError where it is the exporter by TorchScript that traces."""
    if is_exporting():
        raise NotImplementedError(
            "rnncells: ONNX export by TorchScript is not served; call torch.onnx.export with "
            "dynamo=True"
        )


def _require_operator(x: Tensor, cell: str, packed: bool, projected: bool) -> None:
    if cell not in OPERATORS:
        refuse(f"the cell '{cell}'")
    if projected:
        refuse("an LSTM with a projection (proj_size)")
    if packed:
        refuse(PACKED)
    if x.dtype == torch.bfloat16:
        # From opset 22 on there is one; the opset is not known here, and the default is below.
        refuse("bfloat16; export the model in float32 or float16")
