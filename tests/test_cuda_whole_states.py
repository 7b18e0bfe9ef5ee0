"""The states of every time step, and the last output alone, by the CUDA operators' very source on
the emulated card, against the specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import rnncells
from rnncells.cuda import KERNELS
from rnncells.ops import CELLS, layer_forward
from tests.card import Call, draw, layers_agree, same_bits
from tests.kinds import Layer, kinds
from tests.test_cuda_layer_norm import close, draw_normed
from tests.varied_card import FULL, HALF, KINDS, MACHINERY, check, sized, varied

pytest_plugins = ("tests.card_fixtures",)
pytestmark = pytest.mark.usefixtures("force")

CELLS_OF_MANY = ["lstm", "lstm_open", "lstm_coupled", "slstm"]


def whole(call: Call) -> Call:
    """The call with the states of every step asked for, and gradients of theirs."""
    dtype, directions = call.x.dtype, 1 + call.bidirectional
    units = call.weights[0].shape[0] // CELLS[call.cell]["gates"]
    sizes = (*call.x.shape[:-1], directions * units)
    series = [torch.randn(sizes).mul(0.5).to(dtype) for _ in call.grad_last[1:]]
    variant = f"{call.variant};states=all" if call.variant else "states=all"
    return replace(call, variant=variant, grad_last=[*call.grad_last, *series])


def with_unread_padding(call: Call) -> Call:
    """The call with gradients that are not numbers where its last series has padding."""
    assert call.lengths is not None
    series = call.grad_last[-1].clone()
    for sequence, length in enumerate(call.lengths.tolist()):
        series[length:, sequence] = torch.nan
    return replace(call, grad_last=[*call.grad_last[:-1], series])


@pytest.mark.parametrize("cell", CELLS_OF_MANY)
@pytest.mark.parametrize("kind", KINDS)
def test_parity(cell: str, kind: str) -> None:
    """As they are, with all machinery, and without a seed; in one direction and two."""
    for bidirectional in (False, True):
        call = draw(cell, FULL[0], bidirectional=bidirectional, kind=kind)
        check(whole(call))
        check(whole(varied(call, MACHINERY["both"])))
        check(whole(varied(call, MACHINERY["both"], drawn=False)))


@pytest.mark.parametrize("kind", KINDS)
def test_projection(kind: str) -> None:
    call = draw("lstm", FULL[0], bidirectional=True, kind=kind, proj=4)
    check(whole(call))
    check(whole(varied(call, MACHINERY["dropout"])))


@pytest.mark.parametrize("cell", ["lstm_normed", "lstm_open", "lstm_coupled"])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_norm(cell: str, kind: str) -> None:
    norm = "gates" if cell == "lstm_normed" else "preactivation"
    call = draw_normed(cell, norm, FULL[0], bidirectional=True, kind=kind)
    close(whole(call))
    close(whole(varied(call, MACHINERY["both"]._replace(layer_norm=norm))))


@pytest.mark.parametrize("dtype", HALF)
def test_16_bits(dtype: torch.dtype) -> None:
    check(whole(draw("lstm", dtype, bidirectional=True, kind="lengths")), (dtype,))


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 2, 5), (9, 1, 2, 3), (2, 3, 2, 300)])
@pytest.mark.parametrize("cell", ["lstm", "slstm"])
def test_sizes(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int, int], cell: str
) -> None:
    """T=1 and B=1 among them."""
    sized(monkeypatch, sizes)
    check(whole(draw(cell, FULL[0], bidirectional=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits(kind: str) -> None:
    """As without the series, with recompute, in inference; padding is zero, and its gradient not
    read; and gradients of zero are those that are not there."""
    call = draw("lstm_open", FULL[0], bidirectional=True, kind=kind)
    asked = whole(call)
    expected = asked.on_card()
    series = expected[3]
    same_bits(replace(asked, recompute=True).on_card(), expected)
    y, last, _ = asked.forward(torch.ops.rnncells_emulated.layer_forward.default, save=False)
    same_bits([y, *last], expected[:4])
    if call.lengths is not None:
        same_bits(with_unread_padding(asked).on_card(), expected)
        for sequence, length in enumerate(call.lengths.tolist()):
            assert not series[length:, sequence].any()
    plain = call.on_card()
    same_bits(expected[:3], plain[:3])
    absent = replace(asked, grad_last=call.grad_last)
    zeros = replace(asked, grad_last=[*call.grad_last, torch.zeros_like(series)])
    same_bits(absent.on_card(), [*plain[:3], series, *plain[3:]])
    same_bits(zeros.on_card(), [*plain[:3], series, *plain[3:]])
    spread = asked.grad_last[2].repeat_interleave(2, -1)[..., ::2]
    same_bits(replace(asked, grad_last=[*call.grad_last, spread]).on_card(), expected)


def test_nobody() -> None:
    """A batch of none."""
    call = whole(draw("lstm", FULL[0]))
    none = replace(
        call,
        x=call.x[:, :0],
        states=[state[:, :0] for state in call.states],
        grad_y=None,
        grad_last=[gradient[:, :0] for gradient in call.grad_last],
    )
    assert list(none.on_card()[3].shape) == [5, 0, 9]


def test_errors() -> None:
    call = whole(draw("slstm", FULL[0]))
    with pytest.raises(RuntimeError, match="expected 3 gradients of whole sequences, got 2"):
        replace(call, grad_last=call.grad_last[:-1]).on_card()
    wrong = [*call.grad_last[:-1], call.grad_last[-1][1:]]
    with pytest.raises(RuntimeError, match=r"of a whole sequence must have shape \[5, 7, 9\]"):
        replace(call, grad_last=wrong).on_card()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_output_alone(force: Callable[[str], None], kernel: str, kind: str) -> None:
    """In inference y is working space, of which no more than two steps are made; the last states
    and, in training, y have the bits that they have otherwise."""
    force(kernel)
    operator = torch.ops.rnncells_emulated.layer_forward.default
    call = draw("lstm", FULL[0], bidirectional=True, kind=kind)
    asked = replace(call, variant="outputs=last")
    y, last, reserve = asked.forward(operator, save=False)
    assert list(y.shape) == [2, 7, 18]
    assert list(reserve.shape) == [0]
    expected = call.on_card()
    same_bits(last, expected[1:3])
    same_bits(asked.on_card(), expected)
    same_bits(replace(asked, recompute=True).on_card(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_output_alone_of_variants(kind: str) -> None:
    """With a projection, layer norm, dropout, and the states of every step beside it."""
    operator = torch.ops.rnncells_emulated.layer_forward.default
    plain = draw("lstm", FULL[0], bidirectional=True, kind=kind)
    for call in (
        draw("lstm", FULL[0], bidirectional=True, kind=kind, proj=4),
        draw_normed("lstm_normed", "gates", FULL[0], bidirectional=True, kind=kind),
        whole(varied(plain, MACHINERY["both"])),
        draw("gru_reset_before", FULL[0], bidirectional=True, kind=kind),
    ):
        text = f"{call.variant};outputs=last" if call.variant else "outputs=last"
        y, last, _ = replace(call, variant=text).forward(operator, save=False)
        assert list(y.shape[:2]) == [2, 7]
        same_bits(last, call.forward(operator)[1])


@pytest.mark.parametrize("variant", ["states=all", "outputs=last", "states=all;outputs=last"])
@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_fake_kernels_say_the_same(variant: str, kind: str) -> None:
    """Of tensors on CUDA, shapes and dtypes."""
    call = replace(draw("slstm", FULL[0], bidirectional=True, kind=kind), variant=variant)
    for save in (False, True):
        y, last, reserve = call.forward(torch.ops.rnncells_emulated.layer_forward.default, save)
        with FakeTensorMode():

            def moved(tensors: list[Tensor]) -> list[Tensor]:
                return [torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in tensors]

            sizes = None if call.batch_sizes is None else torch.empty(5, dtype=torch.int64)
            tensors = moved([call.x])[0], moved(call.states), moved(call.weights)
            fakes = Call(*tensors, "slstm", True, batch_sizes=sizes, variant=variant)
            fake_y, fake_last, fake_reserve = fakes.forward(layer_forward, save)
        for ours, fake in zip([y, *last, reserve], [fake_y, *fake_last, fake_reserve], strict=True):
            assert (ours.shape, ours.dtype) == (fake.shape, fake.dtype)
            assert fake.device.type == "cuda"


@pytest.mark.parametrize("options", [{}, {"layer_norm": "gates"}, {"proj_size": 2}])
def test_layers_give_their_cell_states(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """A stack of two, both directions, lengths, backward: the same as on the CPU."""
    options = {"batch_first": True, "bidirectional": True, **options}
    layer = rnncells.LSTM(3, 6, 2, return_cell_states=True, **options).double()
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)

    def result() -> list[Tensor]:
        y, last, cells = layer(x, lengths=[5, 1, 3, 4])
        loss = y.square().sum() + cells.sin().sum() + sum(state.sin().sum() for state in last)
        return [y, *last, cells, *torch.autograd.grad(loss, [x, *layer.parameters()])]

    layers_agree(monkeypatch, result, calls=4)


@kinds
def test_layers_give_their_last_output(monkeypatch: pytest.MonkeyPatch, kind: Layer) -> None:
    """In inference and in training: the same as on the CPU."""
    layer: Any = kind(3, 6, 2, return_sequences=False, bidirectional=True).double()
    x = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)

    def result() -> list[Tensor]:
        with torch.no_grad():
            alone, _ = layer(x)
        y, _ = layer(x)
        return [alone, y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]

    layers_agree(monkeypatch, result, calls=6)
