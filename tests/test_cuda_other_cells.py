"""IndRNN and sLSTM by the CUDA operators' very source on the emulated card, beyond what
test_cuda_glue.py and test_cuda_variants.py hold every cell to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rnncells
from rnncells import reference
from rnncells.variants import Text, write
from tests.card import Call, draw, layers_agree, same_bits
from tests.varied_card import FULL, HALF, KINDS, MACHINERY, check, sized, varied

pytest_plugins = ("tests.card_fixtures",)
pytestmark = pytest.mark.usefixtures("force")

names = pytest.mark.parametrize("name", ["indrnn", "slstm"])


def smooth(call: Call) -> Call:
    """The call without what jumps where numbers are rounded: ReLU; and the gradients of c, n and m,
    since h of an sLSTM does not know m, by which they are scaled."""
    if call.cell == "indrnn":
        return replace(call, variant=write(Text(activation="softsign")))
    return replace(call, grad_last=[call.grad_last[0], *map(torch.zeros_like, call.grad_last[1:])])


@names
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kind", KINDS)
def test_16_bits(name: str, dtype: torch.dtype, kind: str) -> None:
    for bidirectional in (False, True):
        check(smooth(draw(name, dtype, bidirectional=bidirectional, kind=kind)), (dtype,))


@names
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 2, 5), (9, 1, 2, 3), (2, 3, 2, 300)])
@pytest.mark.parametrize("drawn", [True, False], ids=["training", "inference"])
def test_sizes(
    monkeypatch: pytest.MonkeyPatch, name: str, sizes: tuple[int, int, int, int], drawn: bool
) -> None:
    """T=1 and B=1 among them; as they are, and with all machinery."""
    sized(monkeypatch, sizes)
    call = draw(name, FULL[0], bidirectional=True)
    check(call)
    check(varied(call, MACHINERY["both"], drawn=drawn))


@pytest.mark.parametrize("kind", KINDS)
def test_indrnn_without_a_bias_or_some_gradients(kind: str) -> None:
    """And without dropout's mask, which is on what the cell itself multiplies."""
    call = draw("indrnn", FULL[0], bias=False, bidirectional=True, kind=kind)
    check(call)
    check(varied(call, Text(zoneout=(0.3,))))
    check(varied(replace(call, grad_y=None), MACHINERY["dropout"]))
    check(varied(replace(call, grad_last=[]), MACHINERY["dropout"]))


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_activations_of_indrnn(activation: str) -> None:
    """One with a kink in float64: a rounding may move a unit over it."""
    call = replace(draw("indrnn", FULL[0]), variant=write(Text(activation=activation)))
    check(call, FULL[1:] if activation in ("relu", "hard_sigmoid") else FULL)


@pytest.mark.parametrize("kind", KINDS)
def test_projection_of_slstm(kind: str) -> None:
    call = draw("slstm", FULL[0], bidirectional=True, kind=kind, proj=4)
    check(call)
    check(varied(call, MACHINERY["dropout"]))


def test_nothing_memorised() -> None:
    """Where n is 0 the old m is no part of the new one; and numbers that would overflow do not."""
    call = draw("slstm", FULL[0], bidirectional=True)
    check(replace(call, states=[]))
    for n in call.states[1:3]:
        n[..., ::2] = 0
    call.states[3][..., ::2] = 50.0
    check(call)
    check(replace(call, resets=torch.ones(call.x.shape[:2]).bool()))
    far = [*call.weights]
    far[2] = far[2] * 2.0**14
    for dtype in (*FULL, *HALF):
        given = replace(call, weights=far) if dtype in FULL else None
        for value in () if given is None else given.on_card():
            assert value.isfinite().all()


@names
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_again(name: str, kind: str) -> None:
    """Twice; with recompute, which keeps nothing; in inference; and when one gradient is asked
    for."""
    call = varied(draw(name, FULL[0], bidirectional=True, kind=kind), MACHINERY["both"])
    expected = call.on_card()
    same_bits(call.on_card(), expected)
    same_bits(replace(call, recompute=True).on_card(), expected)
    operator = torch.ops.rnncells_emulated.layer_forward.default
    y, last, _ = call.forward(operator, save=False)
    outputs = 1 + len(last)
    same_bits([y, *last], expected[:outputs])
    count = len(expected) - outputs
    for place in range(count):
        needs = [int(other == place) for other in range(count)]
        same_bits(replace(call, needs=needs).on_card()[outputs:], [expected[outputs + place]])


@pytest.mark.parametrize("cell", ["indrnn", "slstm", "lstm_open", "lstm_coupled"])
def test_any_strides(cell: str) -> None:
    """Of the weights, the values per unit among them: the same bits from other places."""
    call = draw(cell, FULL[0], bidirectional=True)

    def spread(value: Tensor) -> Tensor:
        return value.repeat_interleave(2, -1)[..., ::2]

    same_bits(replace(call, weights=[*map(spread, call.weights)]).on_card(), call.on_card())


@pytest.mark.parametrize("kind", [rnncells.MinimalGatedUnit, rnncells.IndRNN, rnncells.SLSTM])
@pytest.mark.parametrize("machinery", [False, True])
def test_whole_layers(monkeypatch: pytest.MonkeyPatch, kind: Any, machinery: bool) -> None:
    """A stack of two layers, both directions, lengths, backward, as the layer itself calls them."""
    options: dict[str, Any] = {"batch_first": True, "bidirectional": True}
    if machinery:
        options |= {"recurrent_dropout": 0.2, "zoneout": 0.1, "weight_dropout": 0.1}
    layer = kind(3, 6, 2, **options).double()
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)

    def result() -> list[Tensor]:
        torch.manual_seed(5)
        y, last = layer(x, lengths=[5, 1, 3, 4])
        last = last if isinstance(last, tuple) else (last,)
        loss = y.square().sum() + sum(state.sin().sum() for state in last)
        return [y, *last, *torch.autograd.grad(loss, [x, *layer.parameters()])]

    layers_agree(monkeypatch, result, calls=4)
