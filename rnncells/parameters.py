"""A layer's parameters: names, shapes, and the values that they start with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import init

from rnncells.checks import Shapes

__all__ = ["INITS", "direction_shapes", "initialise"]

INITS = ("torch", "orthogonal", "keras")


def direction_shapes(
    suffix: str,
    rows: int,
    inputs: int,
    units: int,
    outputs: int,
    bias: bool,
    projected: bool,
    peepholes: int = 0,
    per_unit: bool = False,
    norms: Sequence[tuple[str, int]] = (),
) -> Shapes:
    """The parameters of one direction, by torch.nn's names, in its order.

    Args:
        suffix: of the names: ``_l0`` and so on, and ``_reverse`` behind that.
        rows: gates * H.
        inputs, units, outputs: I of this layer, H and P.
        bias, projected: whether there are biases, and a projection.
        peepholes: how many gates have one.
        per_unit: whether ``weight_hh`` is one value for each of the rows.
        norms: layer norm's parameters, and how many times H each has.
    """
    shapes: Shapes = [
        (f"weight_ih{suffix}", (rows, inputs)),
        (f"weight_hh{suffix}", (rows,) if per_unit else (rows, outputs)),
    ]
    if bias:
        shapes += [(f"bias_ih{suffix}", (rows,)), (f"bias_hh{suffix}", (rows,))]
    if projected:
        shapes.append((f"weight_hr{suffix}", (outputs, units)))
    shapes += [(f"{name}{suffix}", (times * units,)) for name, times in norms]
    if peepholes:
        shapes.append((f"weight_peephole{suffix}", (peepholes * units,)))
    return shapes


def initialise(
    named: Iterable[tuple[str, Tensor]],
    gates: Sequence[str],
    how: str,
    forget_bias: float | None,
) -> None:
    """Draws a layer's parameters anew, but for those of ``how="torch"``, which torch.nn draws.
    Layer norm's scales start with 1, its shifts with 0.

    - ``"orthogonal"``: as ``"torch"``, each from U(-1/sqrt(H), 1/sqrt(H)), but that in
      ``weight_hh`` the H rows of each gate are orthonormal (Saxe, McClelland and Ganguli 2014; with
      a projection P columns are).
    - ``"keras"``: as Keras starts its layers: ``weight_ih`` from Glorot and Bengio's (2010) uniform
      distribution over all gates at once, with bound sqrt(6 / (I + gates * H)); ``weight_hh`` with
      orthonormal columns over all gates at once; biases of zero, and 1 for the LSTM's forget gate.
      ``weight_hr``, which Keras has not, as ``weight_ih``; and peepholes zero.

    Args:
        named: the parameters with their names.
        gates: of the cell, in order.
        how: one of :data:`INITS`.
        forget_bias: added to the forget gate's ``bias_ih``; None for what ``how`` says.
    """
    remembers = "g" in gates  # the LSTM's candidate
    raised = forget_bias if forget_bias is not None else float(how == "keras" and remembers)
    with torch.no_grad():
        for name, value in named:
            if name.startswith("norm"):
                value.fill_(0.0 if "shift" in name else 1.0)
                continue
            if how != "torch":
                _draw(name, value, len(gates), how)
            if raised and name.startswith("bias_ih"):
                value.chunk(len(gates))[gates.index("f")].add_(raised)


def _draw(name: str, value: Tensor, gates: int, how: str) -> None:
    if name.startswith("weight_hh"):
        for block in value.chunk(gates) if how == "orthogonal" else [value]:
            _orthogonal(block)
    elif how == "keras" and name.startswith("weight") and value.dim() == 2:
        init.xavier_uniform_(value)
    elif how == "keras" and value.dim() == 1:
        init.zeros_(value)


def _orthogonal(value: Tensor) -> None:
    """The same as torch's, for dtypes too that have no QR decomposition."""
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    value.copy_(init.orthogonal_(torch.empty_like(value, dtype=wide)))
