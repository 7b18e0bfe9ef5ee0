"""The operators that torch gets on CUDA, their very source, on the emulated card: its memory is
torch's on the CPU, every access of every kernel is checked, and memory that nobody wrote is not a
number.

The CPU engine in float64 is what they are held against; its own tests hold it against the
specification.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import rnncells
from rnncells import autograd
from rnncells.cuda import KERNELS
from rnncells.ops import CELLS, layer_backward, layer_forward
from tests import emulated

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
PERSISTENT = ("resident", "cluster", "grid")
T, B, I, H = 5, 7, 3, 9
LENGTHS = [5, 2, 3, 5, 1, 4, 5]
ON_DEVICE = "RNNCELLS_EMULATED_LENGTHS"

Found = list[Tensor]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = emulated.built(tmp_path_factory) / "operators.so"
    torch.ops.load_library(path)
    return path


@pytest.fixture
def force(library: Path) -> Iterator[Callable[[str], None]]:
    """Forces a kernel, "" for none; none after the test."""
    loaded = ctypes.CDLL(str(library)).rnncells_emulated_force
    loaded.restype = ctypes.c_bool

    def choose(name: str) -> None:
        assert loaded(name.encode())

    choose("")
    yield choose
    choose("")


@dataclass
class Call:
    """The arguments of both operators."""

    x: Tensor
    states: list[Tensor]
    weights: list[Tensor]
    cell: str
    bidirectional: bool = False
    lengths: Tensor | None = None
    batch_sizes: Tensor | None = None
    grad_y: Tensor | None = None
    grad_last: list[Tensor] = field(default_factory=list)
    needs: list[int] | None = None
    recompute: bool = False

    def forward(self, operator: Any, save: bool = True) -> tuple[Tensor, Found, Tensor]:
        given = self.x, self.states, self.weights, self.lengths, self.batch_sizes, self.cell
        y, last, reserve = operator(*given, self.bidirectional, save, recompute=self.recompute)
        return y, last, reserve

    def run(self, forward: Any, backward: Any) -> Found:
        """y, the last states, and every gradient."""
        y, last, reserve = self.forward(forward)
        given = self.x, self.states, self.weights, self.lengths, self.batch_sizes
        needs = self.needs or [1] * (1 + len(self.states) + len(self.weights))
        found = backward(
            *(self.grad_y, self.grad_last, *given, y, reserve, self.cell, self.bidirectional),
            needs,
            recompute=self.recompute,
        )
        return [y, *last, *found]

    def on_card(self) -> Found:
        operators = torch.ops.rnncells_emulated
        return self.run(operators.layer_forward.default, operators.layer_backward.default)

    def expected(self) -> Found:
        """The CPU engine's, in float64."""

        def wide(value: Any) -> Any:
            if isinstance(value, list):
                return [wide(part) for part in value]
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.double() if floating else value

        fields = {name: wide(value) for name, value in vars(self).items()}
        return Call(**fields).run(layer_forward, layer_backward)


def draw(
    cell: str,
    dtype: torch.dtype,
    *,
    bidirectional: bool = False,
    kind: str = "plain",
    proj: int = 0,
    bias: bool = True,
) -> Call:
    """A problem; x lies batch by batch, so that its rows are no matrix, and padding is NaN."""

    def some(*shape: int) -> Tensor:
        return (torch.randn(*shape, dtype=torch.float64) * 0.5).to(dtype)

    directions, facts = 2 if bidirectional else 1, CELLS[cell]
    rows, outputs = facts["gates"] * H, proj or H
    shapes = [(rows, I), (rows, outputs)] + [(rows,)] * (2 * bias) + [(proj, H)] * bool(proj)
    weights = [some(*shape) for _ in range(directions) for shape in shapes]
    widths = [outputs] + [H] * (facts["states"] - 1)
    states = [some(directions, B, width) for width in widths]
    call = Call(some(B, T, I).transpose(0, 1), states, weights, cell, bidirectional)
    if kind == "packed":
        call.batch_sizes = torch.tensor([7, 6, 4, 2, 2])
        call.x = some(21, I)
    if kind == "lengths":
        call.lengths = torch.tensor(LENGTHS)
        for sequence, length in enumerate(LENGTHS):
            call.x[length:, sequence] = torch.nan
    call.grad_y = some(*call.x.shape[:-1], directions * outputs)
    call.grad_last = [some(directions, B, width) for width in widths]
    return call


def assert_right(found: Found, expected: Found, dtype: torch.dtype) -> None:
    """Sums of at most a hundred terms: a hundred units in the last place at the worst. In 16 bits
    every h, kept value and share gradient is rounded, some ten times in a row."""
    units = 16 if dtype.itemsize == 2 else 100
    for place, (ours, right) in enumerate(zip(found, expected, strict=True)):
        assert (ours.dtype, ours.shape) == (dtype, right.shape), place
        error = (ours.double() - right).abs().max() / right.abs().max().clamp(min=1)
        assert error < units * torch.finfo(dtype).eps, (place, error)


def same_bits(found: Found, expected: Found) -> None:
    assert len(found) == len(expected)
    for ours, right in zip(found, expected, strict=True):
        assert torch.equal(ours, right)


def served(cell: str, dtype: torch.dtype, kernel: str) -> bool:
    # Rounding in 16 bits moves a unit of ReLU over its kink: kernel_check allows for that.
    if cell == "rnn_relu" and dtype.itemsize == 2:
        return False
    return kernel not in PERSISTENT or (dtype != torch.float64 and CELLS[cell]["phases"] == 1)


@pytest.mark.parametrize("kind", ["plain", "lengths", "packed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_parity(force: Callable[[str], None], dtype: torch.dtype, kind: str) -> None:
    """Every cell, in one direction and two, by every kernel that can, and by what is chosen."""
    for cell in CELLS:
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
        (draw("lstm", torch.float32, proj=4), "the layer has a projection"),
    ):
        message = f"the kernel 'resident' was forced and cannot serve this layer: {why}"
        with pytest.raises(RuntimeError, match=message):
            call.on_card()


def test_errors(force: Callable[[str], None]) -> None:
    call = draw("lstm", torch.float32)
    with pytest.raises(RuntimeError, match=r"unknown cell 'lstn'; known: rnn_tanh, .*, mgu"):
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

    expected = result()
    operators, calls = torch.ops.rnncells_emulated, []

    def counted(operator: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            calls.append(operator)
            return operator(*given, **options)

        return call

    monkeypatch.setattr(autograd, "layer_forward", counted(operators.layer_forward.default))
    monkeypatch.setattr(autograd, "layer_backward", counted(operators.layer_backward.default))
    found = result()
    assert len(calls) == 4
    assert_right(found, expected, torch.float64)
