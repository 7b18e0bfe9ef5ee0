"""Layer norm by the CUDA operators' very source on the emulated card, against the specification."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rnncells.ops import CELLS
from rnncells.variants import Text, write
from tests.card import Call, draw, same_bits
from tests.test_layer_norm import NORMED
from tests.varied_card import FULL, HALF, KINDS, MACHINERY, as_type, sized, specified, varied

pytest_plugins = ("tests.card_fixtures",)
pytestmark = pytest.mark.usefixtures("force")


def draw_normed(cell: str, norm: str, dtype: torch.dtype, **options: Any) -> Call:
    """A problem with layer norm; the peepholes, which it excludes, are zero."""
    norms = 4 if cell == "lstm_normed" else 2
    call = draw(cell, dtype, norms=norms, **options)
    each = len(call.weights) // (1 + call.bidirectional)
    extra = CELLS[cell]["unit_parameters"] > 0
    for first in range(0, len(call.weights), each):
        last = first + each - extra
        for place in range(last - norms, last, 2):
            call.weights[place] = call.weights[place] + 1
        if extra:
            call.weights[last] = torch.zeros_like(call.weights[last])
    call.needs = [1] * (1 + len(call.states)) + ([1] * (each - extra) + [0] * extra) * (
        1 + call.bidirectional
    )
    call.variant = write(Text(layer_norm=norm))
    return call


def close(call: Call, dtypes: tuple[torch.dtype, ...] = FULL) -> None:
    """A norm divides by a standard deviation, here down to a hundredth, and its gradient does so
    again where norms follow each other: rounding errors grow so much. Held to a thousand eps of the
    largest value, and in 16 bits, where each h is rounded, to forty."""
    expected = specified(call)
    for dtype in dtypes:
        for place, (ours, right) in enumerate(
            zip(as_type(call, dtype).on_card(), expected, strict=True)
        ):
            error = (ours.double() - right).abs().max() / right.abs().max().clamp(min=1)
            units = 40 if dtype.itemsize == 2 else 1000
            assert error < units * torch.finfo(dtype).eps, (place, dtype, error)


@pytest.mark.parametrize(("cell", "norm"), NORMED)
@pytest.mark.parametrize("kind", KINDS)
def test_layer_norm(cell: str, norm: str, kind: str) -> None:
    """By itself and with all machinery, in one direction and two."""
    for bidirectional in (False, True):
        call = draw_normed(cell, norm, torch.float32, bidirectional=bidirectional, kind=kind)
        close(call)
        rates = MACHINERY["both"]._replace(activation="softsign", layer_norm=norm)
        close(varied(call, rates))


@pytest.mark.parametrize(("cell", "norm"), NORMED)
def test_layer_norm_sizes(monkeypatch: pytest.MonkeyPatch, cell: str, norm: str) -> None:
    """One step, one sequence, more units than a block has threads; and without biases."""
    for sizes in ((1, 1, 1, 2), (9, 1, 2, 3), (2, 3, 2, 150)):
        sized(monkeypatch, sizes)
        call = draw_normed(cell, norm, torch.float32, bidirectional=True)
        close(call)
        close(draw_normed(cell, norm, torch.float32, bias=False))


@pytest.mark.parametrize(("cell", "norm"), NORMED)
@pytest.mark.parametrize("dtype", HALF)
def test_layer_norm_in_16_bits(cell: str, norm: str, dtype: torch.dtype) -> None:
    close(draw_normed(cell, norm, dtype, bidirectional=True, kind="lengths"), (dtype,))


@pytest.mark.parametrize(("cell", "norm"), NORMED)
def test_layer_norm_has_the_same_bits_again(cell: str, norm: str) -> None:
    """Twice, with recompute, in inference, and when one gradient is asked for."""
    call = draw_normed(cell, norm, torch.float32, bidirectional=True, kind="lengths")
    call = varied(call, MACHINERY["both"]._replace(layer_norm=norm))
    expected = call.on_card()
    same_bits(call.on_card(), expected)
    same_bits(replace(call, recompute=True).on_card(), expected)
    operator = torch.ops.rnncells_emulated.layer_forward.default
    y, last, _ = call.forward(operator, save=False)
    same_bits([y, *last], expected[: 1 + len(last)])
    assert call.needs is not None
    asked = [place for place, needed in enumerate(call.needs) if needed]
    for number, place in enumerate(asked):
        needs = [int(other == place) for other in range(len(call.needs))]
        found = replace(call, needs=needs).on_card()
        same_bits(found[1 + len(last) :], [expected[1 + len(last) + number]])
