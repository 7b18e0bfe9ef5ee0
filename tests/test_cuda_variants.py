"""Variants by the CUDA operators' very source on the emulated card, against the specification with
the masks that the CPU engine draws."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import autograd, reference
from rnncells.ops import CELLS, layer_draw
from rnncells.variants import ENGINE_CELLS, Text, Varied, reference_layer, write
from tests import card, emulated
from tests.card import Call, Found, assert_right, draw, same_bits
from tests.kinds import Layer, kinds

SEED = torch.tensor([-3_141_592_653_589_793_238])
KINDS = ("plain", "lengths", "packed")
FULL = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
OPEN = [name for name in ENGINE_CELLS if not CELLS[name]["middle"]]
PLAIN = [name for name in reference.CELLS if CELLS[name]["both_engines"]]
NORMED = [
    ("rnn_open", "gates"),
    ("rnn_open", "preactivation"),
    ("lstm_normed", "gates"),
    ("lstm_open", "preactivation"),
    ("lstm_coupled", "preactivation"),
    ("gru_open", "gates"),
    ("gru_normed", "preactivation"),
]
MACHINERY = {
    "dropout": Text(recurrent_dropout=0.4),
    "zoneout": Text(zoneout=(0.3, 0.2)),
    "both": Text(recurrent_dropout=0.25, zoneout=(0.1, 0.5)),
    "resets": Text(),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = emulated.built(tmp_path_factory) / "operators.so"
    torch.ops.load_library(path)
    return path


@pytest.fixture(autouse=True)
def force(library: Path) -> Iterator[Callable[[str], None]]:
    """Forces a kernel, "" for none; none after the test."""
    loaded = ctypes.CDLL(str(library)).rnncells_emulated_force
    loaded.restype = ctypes.c_bool

    def choose(name: str) -> None:
        assert loaded(name.encode())

    yield choose
    choose("")


def text_of(cell: str, text: Text) -> str:
    """The operators' text, with as many rates as the cell has states."""
    return write(text._replace(zoneout=text.zoneout[: CELLS[cell]["states"]]))


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


def specified(call: Call) -> Found:
    """y, the last states and every gradient by the specification, in float64."""
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


@pytest.mark.parametrize("machinery", MACHINERY)
@pytest.mark.parametrize("kind", KINDS)
def test_machinery(machinery: str, kind: str) -> None:
    """Every plain cell, in one direction and two."""
    for cell in PLAIN:
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


def test_the_last_output_alone() -> None:
    """y is then working space in inference; the states of every step are refused."""
    call = replace(draw("lstm", torch.float32), variant="outputs=last")
    operator = torch.ops.rnncells_emulated.layer_forward.default
    y, last, _ = call.forward(operator, save=False)
    assert y.shape == (2, *call.x.shape[1:2], 9)
    same_bits(last, replace(call, variant="").forward(operator)[1])
    with pytest.raises(RuntimeError, match=r"no CUDA kernel yet .*: states=all"):
        replace(call, variant="states=all").on_card()


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
