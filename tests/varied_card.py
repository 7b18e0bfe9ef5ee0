"""Problems with variants for the operators on the emulated card, held against the specification
with the masks that the CPU engine draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.variants import ENGINE_CELLS, Text, Varied, reference_layer, write
from tests import card
from tests.card import Call, Found, assert_right

SEED = torch.tensor([-3_141_592_653_589_793_238])
KINDS = ("plain", "lengths", "packed")
FULL = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
MACHINERY = {
    "dropout": Text(recurrent_dropout=0.4),
    "zoneout": Text(zoneout=(0.3, 0.2)),
    "both": Text(recurrent_dropout=0.25, zoneout=(0.1, 0.5)),
    "resets": Text(),
}


def text_of(cell: str, text: Text) -> str:
    """The operators' text; a rate for c is for the LSTM's alone."""
    name, _ = ENGINE_CELLS.get(cell, (cell, {}))
    return write(text._replace(zoneout=text.zoneout[: 2 if name == "lstm" else 1]))


def draw_resets(steps: int, batch: int) -> Tensor:
    """Some; all sequences at the second step, and none at the last."""
    resets = torch.rand(batch, steps).T < 0.3
    if steps > 1:
        resets[1], resets[-1] = True, False
    return resets


def varied(call: Call, text: Text, *, drawn: bool = True, resets: bool = True) -> Call:
    """The call with a variant; a packed one has no resets."""
    given = None
    if resets and call.batch_sizes is None:
        given = draw_resets(*call.x.shape[:2])
    text_of_call = text_of(call.cell, text)
    return replace(call, variant=text_of_call, seed=SEED if drawn else None, resets=given)


def specified(call: Call) -> Found:
    """y, the last states (and the series) and every gradient by the specification, in float64."""
    inputs = [call.x, *call.states, *call.weights]
    leaves = [value.detach().double().requires_grad_() for value in inputs]
    x, rest = leaves[0], leaves[1:]
    states, weights = rest[: len(call.states)], rest[len(call.states) :]
    told = Varied(call.variant, call.seed, call.resets)
    uneven = call.lengths, call.batch_sizes, told
    y, last = reference_layer(x, states, weights, call.cell, call.bidirectional, *uneven)
    given = [] if call.grad_y is None else [call.grad_y]
    outputs = [y, *last][1 - len(given) :]
    pulled = [gradient.double() for gradient in (*given, *call.grad_last)]
    found = torch.autograd.grad(
        outputs[: len(pulled)], leaves, pulled, allow_unused=True, materialize_grads=True
    )
    needs = call.needs or [1] * len(found)
    wanted = [value for value, needed in zip(found, needs, strict=True) if needed]
    return [value.detach() for value in (y, *last, *wanted)]


def as_type(call: Call, dtype: torch.dtype) -> Call:
    """The call with its numbers in another dtype."""

    def converted(value: Any) -> Any:
        if isinstance(value, list):
            return [converted(part) for part in value]
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(dtype) if floating else value

    return Call(**{name: converted(value) for name, value in vars(call).items()})


def check(call: Call, dtypes: tuple[torch.dtype, ...] = FULL) -> None:
    """Every dtype holds the numbers of the call, which are the first one's."""
    expected = specified(call)
    for dtype in dtypes:
        assert_right(as_type(call, dtype).on_card(), expected, dtype)


def sized(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int, int]) -> None:
    """What draw() then draws: T, B, I and H."""
    for name, size in zip("TBIH", sizes, strict=True):
        monkeypatch.setattr(card, name, size)
