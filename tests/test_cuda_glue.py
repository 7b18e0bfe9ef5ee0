"""The operators that torch gets on CUDA, their very source, on the emulated card: its memory is
torch's on the CPU, every access of every kernel is checked, and memory that nobody wrote is not a
number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import rnncells
from rnncells import reference
from rnncells.cuda import KERNELS
from rnncells.ops import CELLS, layer_forward
from tests.card import LENGTHS, B, Call, H, I, T, assert_right, draw, layers_agree, same_bits

pytest_plugins = ("tests.card_fixtures",)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
PERSISTENT = ("resident", "cluster", "grid")
ON_DEVICE = "RNNCELLS_EMULATED_LENGTHS"
# What jumps, a slope of ReLU or the stabiliser of an sLSTM, jumps elsewhere where numbers are
# rounded to 16 bits: kernel_check and test_cuda_other_cells allow for that.
JUMPING = ("rnn_relu", "indrnn", "slstm")


def served(cell: str, dtype: torch.dtype, kernel: str) -> bool:
    if cell in JUMPING and dtype.itemsize == 2:
        return False
    return kernel not in PERSISTENT or (dtype != torch.float64 and not CELLS[cell]["units_only"])


@pytest.mark.parametrize("kind", ["plain", "lengths", "packed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_parity(force: Callable[[str], None], dtype: torch.dtype, kind: str) -> None:
    """Every cell, in one direction and two, by every kernel that can, and by what is chosen."""
    for cell in reference.CELLS:
        for bidirectional in (False, True):
            call = draw(cell, dtype, bidirectional=bidirectional, kind=kind)
            expected = call.expected()
            for kernel in filter(lambda name: served(cell, dtype, name), ("", *KERNELS)):
                force(kernel)
                assert_right(call.on_card(), expected, dtype)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm"])
@pytest.mark.parametrize("kind", ["plain", "lengths", "packed"])
def test_projection(force: Callable[[str], None], cell: str, kind: str) -> None:
    for dtype in DTYPES:
        call = draw(cell, dtype, bidirectional=True, kind=kind, proj=4)
        assert_right(call.on_card(), call.expected(), dtype)


@pytest.mark.parametrize("kernel", ["step", "cluster"])
def test_lengths_on_the_device(
    force: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """The same bits as from the host's; and those out of range count as the nearest in range."""
    force(kernel)
    call = draw("gru", torch.float32, bidirectional=True, kind="lengths")
    expected = call.on_card()
    monkeypatch.setenv(ON_DEVICE, "1")
    same_bits(call.on_card(), expected)
    beyond = [99 if n == T else -3 if n == 1 else n for n in LENGTHS]
    same_bits(replace(call, lengths=torch.tensor(beyond)).on_card(), expected)
    with pytest.raises(RuntimeError, match=r"lengths must be int64, got Int"):
        replace(call, lengths=torch.tensor(LENGTHS, dtype=torch.int32)).on_card()


def test_more_lengths_than_one_launch_takes(force: Callable[[str], None]) -> None:
    torch.manual_seed(1)
    lengths = torch.randint(1, 3, (1000,))
    weights = [torch.randn(1, n) for n in (2, 1)]
    call = Call(torch.randn(2, 1000, 2), [], weights, "rnn_tanh", lengths=lengths)
    call.grad_y = torch.randn(2, 1000, 1)
    # The gradients of the weights are sums of two thousand terms, of order one each.
    for ours, right in zip(call.on_card(), call.expected(), strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=0, atol=2000 * 1.2e-7)


@pytest.mark.parametrize("kernel", ["step", "resident"])
def test_without_states_biases_or_some_gradients(force: Callable[[str], None], kernel: str) -> None:
    force(kernel)
    call = replace(draw("lstm", torch.float32, bias=False), states=[])
    assert_right(call.on_card(), call.expected(), torch.float32)
    no_last = replace(call, grad_last=[])
    assert_right(no_last.on_card(), no_last.expected(), torch.float32)
    no_y = replace(call, grad_y=None)
    assert_right(no_y.on_card(), no_y.expected(), torch.float32)


@pytest.mark.parametrize(("cell", "proj"), [("gru", 0), ("lstm", 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_gradients_asked_for(
    force: Callable[[str], None], cell: str, proj: int, dtype: torch.dtype
) -> None:
    """Each by itself has the bits that it has among all."""
    call = draw(cell, dtype, bidirectional=True, proj=proj)
    outputs, count = 1 + len(call.states), 1 + len(call.states) + len(call.weights)
    every = call.on_card()
    for place in range(count):
        needs = [int(other == place) for other in range(count)]
        found = replace(call, needs=needs).on_card()
        same_bits(found[outputs:], [every[outputs + place]])


@pytest.mark.parametrize("kernel", KERNELS)
def test_any_strides(force: Callable[[str], None], kernel: str) -> None:
    """Of x, the weights, the states and the gradients: the same values in other places."""
    force(kernel)

    def spread(value: Any) -> Any:
        if isinstance(value, list):
            return [spread(part) for part in value]
        if not isinstance(value, Tensor):
            return value
        order = list(reversed(range(value.dim())))
        doubled = value.permute(order).contiguous().repeat_interleave(2, 0)[::2]
        return doubled.permute(order)

    call = draw("lstm", torch.float32, bidirectional=True)
    fields = {name: spread(value) for name, value in vars(call).items() if name != "needs"}
    assert_right(Call(**fields).on_card(), call.expected(), torch.float32)
    assert call.grad_y is not None
    one = torch.ones(()).expand_as(call.grad_y)
    ones = replace(call, grad_y=torch.ones_like(call.grad_y))
    same_bits(replace(call, grad_y=one).on_card(), ones.on_card())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["plain", "lengths", "packed"])
def test_the_same_bits_again(force: Callable[[str], None], kernel: str, kind: str) -> None:
    """Twice; with recompute, which keeps nothing; and in inference."""
    force(kernel)
    call = draw("gru", torch.bfloat16, bidirectional=True, kind=kind)
    expected = call.on_card()
    same_bits(call.on_card(), expected)
    again = replace(call, recompute=True)
    same_bits(again.on_card(), expected)
    operator = torch.ops.rnncells_emulated.layer_forward.default
    assert again.forward(operator)[2].numel() == 0
    y, last, reserve = call.forward(operator, save=False)
    same_bits([y, *last], expected[:2])
    assert list(reserve.shape) == [0]


def test_nothing_for_nobody(force: Callable[[str], None]) -> None:
    """A batch of none: outputs without elements, and gradients of zero."""
    call = draw("lstm", torch.float32)
    none = replace(
        call,
        x=call.x[:, :0],
        states=[state[:, :0] for state in call.states],
        grad_y=torch.empty(T, 0, H),
        grad_last=[state[:, :0] for state in call.grad_last],
    )
    found = none.on_card()
    assert list(found[0].shape) == [T, 0, H]
    same_bits(found[6:], [torch.zeros_like(weight) for weight in none.weights])


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["plain", "packed"])
@pytest.mark.parametrize("proj", [0, 4])
def test_fake_kernels_say_the_same(
    force: Callable[[str], None], kind: str, proj: int, recompute: bool
) -> None:
    """Of tensors on CUDA, shapes and dtypes, the reserve's too."""
    call = draw("lstm", torch.float16, bidirectional=True, kind=kind, proj=proj)
    call.recompute = recompute
    operators = torch.ops.rnncells_emulated
    pack = operators.layer_pack(call.weights, "lstm", True)
    for save in (False, True):
        y, last, reserve = call.forward(operators.layer_forward.default, save)
        real = [y, *last, reserve, pack]
        with FakeTensorMode():

            def moved(tensors: list[Tensor]) -> list[Tensor]:
                return [torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in tensors]

            sizes = None if call.batch_sizes is None else torch.empty(T, dtype=torch.int64)
            tensors = moved([call.x])[0], moved(call.states), moved(call.weights)
            fakes = Call(*tensors, "lstm", True, batch_sizes=sizes, recompute=recompute)
            y, last, reserve = fakes.forward(layer_forward, save)
            told = [y, *last, reserve, rnncells.ops.layer_pack(fakes.weights, "lstm", True)]
        for ours, fake in zip(real, told, strict=True):
            assert (ours.shape, ours.dtype) == (fake.shape, fake.dtype)
            assert fake.device.type == "cuda"


def test_what_cannot_be_forced(force: Callable[[str], None]) -> None:
    force("resident")
    for call, why in (
        (draw("lstm", torch.float64), "float64 is served by steps alone"),
        (draw("mgu", torch.float32), "the cell has two products a step"),
        (draw("slstm", torch.float32), "the cell is served by steps alone"),
        (draw("indrnn", torch.float32), "the cell has no recurrent product"),
        (draw("lstm", torch.float32, proj=4), "the layer has a projection"),
    ):
        message = f"the kernel 'resident' was forced and cannot serve this layer: {why}"
        with pytest.raises(RuntimeError, match=message):
            call.on_card()


def test_errors(force: Callable[[str], None]) -> None:
    call = draw("lstm", torch.float32)
    with pytest.raises(RuntimeError, match=r"unknown cell 'lstn'; known: rnn_tanh, .*, slstm"):
        replace(call, cell="lstn").on_card()
    with pytest.raises(RuntimeError, match=r"state 0 must have the input's dtype Float, got Half"):
        replace(call, states=[state.half() for state in call.states]).on_card()
    with pytest.raises(RuntimeError, match=r"weight_ih must have shape \[36, 3\], got \[36, 2\]"):
        replace(call, weights=[call.weights[0][:, :2], *call.weights[1:]]).on_card()
    with pytest.raises(RuntimeError, match=r"lengths must be from 1 to 5, .* got 6"):
        replace(call, lengths=torch.tensor([6] * B)).on_card()
    with pytest.raises(RuntimeError, match=r"reserve must have shape \[1, 5, 7, 45\]"):
        call.run(
            torch.ops.rnncells_emulated.layer_forward.default,
            lambda *given, **options: torch.ops.rnncells_emulated.layer_backward(
                *given[:8], given[8][..., 1:], *given[9:], **options
            ),
        )


@pytest.mark.parametrize("kind", [rnncells.SimpleRNN, rnncells.LSTM, rnncells.GRU])
@pytest.mark.parametrize("recompute", [False, True])
def test_whole_layers(
    force: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    recompute: bool,
) -> None:
    """A stack of two layers, both directions, lengths, backward, as the layer itself calls them."""
    options = {"batch_first": True, "bidirectional": True, "recompute": recompute}
    layer = kind(I, H, 2, **options).double()
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)

    def result() -> list[Tensor]:
        y, last = layer(x, lengths=LENGTHS)
        last = last if isinstance(last, tuple) else (last,)
        loss = y.square().sum() + sum(state.sin().sum() for state in last)
        return [y, *last, *torch.autograd.grad(loss, [x, *layer.parameters()])]

    layers_agree(monkeypatch, result, calls=4)
