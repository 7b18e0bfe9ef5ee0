"""Variants by the CUDA operators' very source on the emulated card, against the specification with
the masks that the CPU engine draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import autograd, reference
from rnncells.ops import CELLS, layer_draw
from rnncells.variants import ENGINE_CELLS, Text, write
from tests.card import assert_right, draw, same_bits
from tests.kinds import Layer, kinds
from tests.varied_card import FULL, HALF, KINDS, MACHINERY, SEED, check, sized, varied

pytest_plugins = ("tests.card_fixtures",)
pytestmark = pytest.mark.usefixtures("force")

OPEN = [name for name in ENGINE_CELLS if not CELLS[name]["middle"]]


@pytest.mark.parametrize("machinery", MACHINERY)
@pytest.mark.parametrize("kind", KINDS)
def test_machinery(machinery: str, kind: str) -> None:
    """Every plain cell, in one direction and two."""
    for cell in reference.CELLS:
        for bidirectional in (False, True):
            call = draw(cell, FULL[0], bidirectional=bidirectional, kind=kind)
            check(varied(call, MACHINERY[machinery]))


@pytest.mark.parametrize("dtype", HALF)
def test_machinery_in_16_bits(dtype: torch.dtype) -> None:
    for cell in ("rnn_tanh", "lstm", "gru", "mgu"):
        call = draw(cell, dtype, bidirectional=True, kind="lengths")
        check(varied(call, MACHINERY["both"]), (dtype,))


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 2, 5), (9, 1, 2, 3), (2, 3, 2, 70)])
@pytest.mark.parametrize("drawn", [True, False], ids=["training", "inference"])
def test_sizes(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int, int], drawn: bool
) -> None:
    """T=1 and B=1 among them; without a seed, what is expected."""
    sized(monkeypatch, sizes)
    for cell in ("rnn_relu", "lstm", "mgu", "lstm_coupled", "gru_reset_before"):
        call = draw(cell, FULL[0], bidirectional=True)
        check(varied(call, MACHINERY["both"], drawn=drawn))


@pytest.mark.parametrize("kind", KINDS)
def test_projection(kind: str) -> None:
    for cell in ("lstm", "lstm_open", "lstm_coupled", "rnn_open"):
        call = draw(cell, FULL[0], bidirectional=True, kind=kind, proj=4)
        check(varied(call, MACHINERY["dropout"]))


@pytest.mark.parametrize("cell", OPEN)
@pytest.mark.parametrize("kind", KINDS)
def test_open_cells(cell: str, kind: str) -> None:
    """As they are, and with all machinery; with values per unit where the cell has some."""
    for bidirectional in (False, True):
        call = draw(cell, FULL[0], bidirectional=bidirectional, kind=kind)
        check(call)
        check(varied(call, MACHINERY["both"]._replace(activation="softsign")))


@pytest.mark.parametrize("cell", OPEN)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_activations(cell: str, activation: str) -> None:
    """Each in both places, as a gate where it is bounded. One with a kink in float64: a rounding
    may move a unit over it."""
    bounded = activation in ("tanh", "sigmoid", "hard_sigmoid", "softsign")
    gate = None if cell == "rnn_open" else activation if bounded else "sigmoid"
    text = write(Text(activation=activation, recurrent_activation=gate))
    kinked = activation in ("relu", "hard_sigmoid")
    call = replace(draw(cell, FULL[0]), variant=text)
    check(call, FULL[1:] if kinked else FULL)


@pytest.mark.parametrize("dtype", HALF)
def test_open_cells_in_16_bits(dtype: torch.dtype) -> None:
    for cell in OPEN:
        check(draw(cell, dtype, bidirectional=True, kind="lengths"), (dtype,))


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm_open", "gru_reset_before", "mgu"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_again(cell: str, kind: str) -> None:
    """Twice; with recompute, which keeps nothing; and in inference."""
    dtype = torch.float32
    call = varied(draw(cell, dtype, bidirectional=True, kind=kind), MACHINERY["both"])
    expected = call.on_card()
    same_bits(call.on_card(), expected)
    again = replace(call, recompute=True)
    same_bits(again.on_card(), expected)
    operator = torch.ops.rnncells_emulated.layer_forward.default
    assert again.forward(operator)[2].numel() == 0
    y, last, _ = call.forward(operator, save=False)
    same_bits([y, *last], expected[: 1 + len(last)])


def test_draws_are_those_of_the_cpu() -> None:
    """To the bit: all four words of a counter, and more than one group."""
    operator = torch.ops.rnncells_emulated.layer_draw.default
    for purpose, stream, rate in ((0, 0, 0.5), (1, 1, 0.25), (2, 0, 1e-3), (9, 1, 0.999)):
        given = SEED, purpose, stream, [3, 5, 150], rate
        assert torch.equal(operator(*given), layer_draw(*given))
    assert operator(SEED, 0, 0, [3, 0, 5], 0.5).shape == (3, 0, 5)


def test_only_the_gradients_asked_for() -> None:
    """Each by itself has the bits that it has among all."""
    for cell in ("lstm_open", "gru_reset_before"):
        call = varied(draw(cell, torch.float32, bidirectional=True), MACHINERY["both"])
        outputs, count = 1 + len(call.states), 1 + len(call.states) + len(call.weights)
        every = call.on_card()
        for place in range(count):
            needs = [int(other == place) for other in range(count)]
            found = replace(call, needs=needs).on_card()
            same_bits(found[outputs:], [every[outputs + place]])


def test_without_states_biases_or_some_gradients() -> None:
    for cell in ("lstm", "lstm_open"):
        call = varied(draw(cell, torch.float32, bias=False), MACHINERY["both"])
        call.states = []
        check(call)
        check(replace(call, grad_last=[]))
        check(replace(call, grad_y=None))


def test_no_other_kernel_has_variants(force: Callable[[str], None]) -> None:
    force("resident")
    plain = draw("lstm", torch.float32)
    for call in (
        varied(plain, MACHINERY["dropout"]),
        varied(plain, MACHINERY["resets"]),
        draw("gru_open", torch.float32),
    ):
        with pytest.raises(
            RuntimeError,
            match="'resident' was forced and cannot serve this layer: the layer has a variant",
        ):
            call.on_card()
    force("step")
    check(varied(plain, MACHINERY["dropout"]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"variant": "recurrent_dropout=1"}, r"recurrent_dropout must be a number in \[0, 1\)"),
        ({"variant": "activation=relu"}, "'activation' is unknown to the cell 'lstm'"),
        ({"seed": torch.tensor([1, 2])}, r"seed must be one int64, got \[2\] of Long"),
        ({"seed": torch.tensor([1.0])}, r"seed must be one int64, got \[1\] of Float"),
        ({"resets": torch.zeros(5, 7)}, "resets must be bool, got Float"),
        ({"resets": torch.zeros(7, 5).bool()}, r"resets must have shape \[5, 7\], got \[7, 5\]"),
    ],
)
def test_errors(change: dict[str, Any], told: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=told):
        replace(draw("lstm", torch.float32), **change).on_card()


def test_errors_of_packed_rows_projections_and_draws() -> None:
    packed = draw("lstm", torch.float32, kind="packed")
    with pytest.raises(RuntimeError, match="a packed input cannot have resets"):
        replace(packed, resets=torch.zeros(5, 7).bool()).on_card()
    projected = draw("lstm", torch.float32, proj=4)
    with pytest.raises(RuntimeError, match="zoneout and a projection exclude each other"):
        replace(projected, variant="zoneout=0.1").on_card()
    with pytest.raises(RuntimeError, match=r"sizes must be those of \[T, B, H\]"):
        torch.ops.rnncells_emulated.layer_draw(SEED, 0, 0, [3], 0.5)


@kinds
def test_whole_layers(monkeypatch: pytest.MonkeyPatch, kind: Layer) -> None:
    """A stack of two layers with dropouts, zoneout, activations and resets, as the layer itself
    calls the operators: the same as on the CPU."""
    options = {"recurrent_dropout": 0.2, "input_dropout": 0.1, "weight_dropout": 0.1}
    layer: Any = kind(3, 6, 2, zoneout=0.1, activation="silu", bidirectional=True, **options)
    layer = layer.double()
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    resets = torch.rand(4, 5) < 0.3

    def result() -> list[Tensor]:
        torch.manual_seed(5)
        y, last = layer(x, resets=resets)
        last = last if isinstance(last, tuple) else (last,)
        loss = y.square().sum() + sum(state.sin().sum() for state in last)
        return [y, *last, *torch.autograd.grad(loss, [x, *layer.parameters()])]

    expected = result()
    operators = torch.ops.rnncells_emulated
    monkeypatch.setattr(autograd, "layer_forward", operators.layer_forward.default)
    monkeypatch.setattr(autograd, "layer_backward", operators.layer_backward.default)
    assert_right(result(), expected, torch.float64)
