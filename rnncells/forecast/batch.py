"""What a model is given at once, and what it is to find."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Batch"]


class Batch(NamedTuple):
    """Windows gathered together.

    Attributes:
        x: the contexts [batch, context, features]: targets first, then what is known of the past,
            then what is known of the future too; scaled. Where values may be missing, they are 0
            and a column per such feature, at the end, holds 1 where there was one.
        y: the targets [batch, horizon, targets], or [batch, context, horizon, targets] for a
            forecast after each step of the context.
        future: what is known ahead, [batch, horizon, known] or [batch, context, horizon, known].
        static: what stays the same in a series, [batch, static features].
        observed: bool, of y's shape: False where a target is missing (y is 0 there, and no loss
            counts it); None where all are there.
        level: [batch, 2, targets]: for models that scale each window by itself, the location and
            the scale taken off (x - location) / scale; None where there is no such scaling.
    """

    x: Tensor
    y: Tensor
    future: Tensor | None = None
    static: Tensor | None = None
    observed: Tensor | None = None
    level: Tensor | None = None
