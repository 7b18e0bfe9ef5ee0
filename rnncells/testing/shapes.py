"""The shapes of what a layer gives: looked at before anything else of it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

Shapes = Mapping[str, tuple[int, ...]]


class WrongShape(ValueError):
    """A layer's outputs are not of the shapes, or not as many, as its arguments ask for."""


def named_outputs(result: Any, shapes: Shapes) -> dict[str, Tensor]:
    """The outputs by name of a layer that gave ``y, last``.

    Args:
        result: what it gave; ``last`` may be one tensor, a tuple or a list.
        shapes: of the sequence ``y`` and of each last state, in their order.

    Raises:
        WrongShape: they have others; the message names every output that is wrong, the shape that
            it has and the shape that it should have.
    """
    # A PackedSequence is a tuple, too.
    pair = isinstance(result, (tuple, list)) and not isinstance(result, PackedSequence)
    if not pair or len(result) != 2:
        got = f"{len(result)} values" if pair else told(result)
        raise WrongShape(f"expected two values, y and the last states, got {got}")
    y, last = result
    states = list(last) if isinstance(last, (tuple, list)) else [last]
    outputs = dict(zip(shapes, (y, *states), strict=False))
    wrong = [_wrong(name, outputs.get(name), shape) for name, shape in shapes.items()]
    if len(states) >= len(shapes):
        wrong.append(f"{len(states)} last states, expected {len(shapes) - 1}")
    if any(wrong):
        raise WrongShape("; ".join(filter(None, wrong)))
    return outputs


def _wrong(name: str, value: Any, shape: tuple[int, ...]) -> str:
    """What is wrong with an output, "" where nothing is."""
    if value is None:
        return f"{name} is missing, expected shape {list(shape)}"
    if not isinstance(value, Tensor):
        return f"{name} is {told(value)}, expected a tensor of shape {list(shape)}"
    if value.shape == shape:
        return ""
    return f"{name} has shape {list(value.shape)}, expected {list(shape)}{_guess(value, shape)}"


def _guess(value: Tensor, shape: tuple[int, ...]) -> str:
    """What may have led to a wrong shape, where it is one of the usual mistakes."""
    found = tuple(value.shape)
    if len(shape) == 3 and found == (shape[1], shape[0], shape[2]):
        return " (its first two dimensions are exchanged)"
    if sorted(found) == sorted(shape):
        return " (its dimensions are in another order)"
    return " (its first dimension is missing)" if found == shape[1:] else ""


def told(value: Any) -> str:
    """What a value is, in a message."""
    kind = type(value).__name__
    return f"a {kind} of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {kind}"
