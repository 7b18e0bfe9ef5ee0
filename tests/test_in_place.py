"""An output changed in place before the backward pass, as nn.ReLU(inplace=True) does: the gradients
are those of the change out of place, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import rnncells

T, B, I, H = 5, 4, 3, 6

LAYERS: dict[str, type[nn.Module]] = {
    "rnn": rnncells.RNN,
    "lstm": rnncells.LSTM,
    "gru": rnncells.GRU,
}
Gradients = list[Tensor]


@pytest.fixture(params=list(LAYERS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each layer's name in turn."""
    name: str = request.param
    return name


def make(kind: str, **options: bool | int) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[kind](I, H, **options)


def relu(y: Tensor, in_place: bool) -> Tensor:
    return y.relu_() if in_place else y.relu()


def silence_the_first_step(y: Tensor, in_place: bool) -> Tensor:
    if in_place:
        y[0] = 0
        return y
    return torch.cat([torch.zeros_like(y[:1]), y[1:]])


def scale_twice(y: Tensor, in_place: bool) -> Tensor:
    return y.mul_(0.5).add_(1) if in_place else y * 0.5 + 1


def train(
    layer: nn.Module, x: Tensor, change: Callable[[Tensor, bool], Tensor], in_place: bool
) -> Gradients:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y, _ = layer(x)
    change(y, in_place).square().sum().backward()
    return [x.grad, *(w.grad for w in layer.parameters())]  # type: ignore[list-item]


def assert_same(found: Gradients, expected: Gradients) -> None:
    for f, e in zip(found, expected, strict=True):
        assert torch.equal(f, e)


@pytest.mark.parametrize("change", [relu, silence_the_first_step, scale_twice])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients(
    kind: str, change: Callable[[Tensor, bool], Tensor], dtype: torch.dtype, bidirectional: bool
) -> None:
    layer = make(kind, bidirectional=bidirectional, batch_first=True).to(dtype)
    x = torch.randn(B, T, I, dtype=dtype)
    assert_same(train(layer, x, change, True), train(layer, x, change, False))


def test_a_stack_with_activations_in_place(kind: str) -> None:
    """In Sequential-like code: layer, ReLU(inplace=True), layer."""
    first, second = make(kind, bidirectional=True), LAYERS[kind](2 * H, H, num_layers=2)
    weights = [*first.parameters(), *second.parameters()]

    def run(activation: nn.Module) -> Gradients:
        y, _ = second(activation(first(x)[0]))
        return list(torch.autograd.grad(activation(y).sum(), weights))

    x = torch.randn(T, B, I)
    assert_same(run(nn.ReLU(inplace=True)), run(nn.ReLU()))


def test_packed_and_padded(kind: str) -> None:
    layer, x, lengths = make(kind), torch.randn(T, B, I), torch.tensor([5, 2, 4, 1])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)

    def of_packed(in_place: bool) -> Gradients:
        y: PackedSequence = layer(packed)[0]
        return list(torch.autograd.grad(relu(y.data, in_place).sum(), list(layer.parameters())))

    def of_padded(in_place: bool) -> Gradients:
        y: Tensor = layer(x, lengths=lengths)[0]
        return list(torch.autograd.grad(relu(y, in_place).sum(), list(layer.parameters())))

    assert_same(of_packed(True), of_packed(False))
    assert_same(of_padded(True), of_padded(False))


@pytest.mark.parametrize("tool", ["kept graph", "saved on the cpu", "checkpoint"])
def test_with_other_tools(kind: str, tool: str) -> None:
    layer, x = make(kind), torch.randn(T, B, I)
    weights = list(layer.parameters())

    def run(in_place: bool) -> Gradients:
        saved: AbstractContextManager[object] = nullcontext()
        if tool == "saved on the cpu":
            saved = save_on_cpu()
        with saved:
            if tool == "checkpoint":
                y = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
            else:
                y = layer(x)[0]
            loss = relu(y, in_place).sum()
        first = torch.autograd.grad(loss, weights, retain_graph=tool == "kept graph")
        if tool == "kept graph":
            assert_same(list(torch.autograd.grad(loss, weights)), list(first))
        return list(first)

    assert_same(run(True), run(False))


def test_second_derivatives(kind: str) -> None:
    layer, x = make(kind).double(), torch.randn(T, B, I, dtype=torch.float64)

    def penalty(in_place: bool) -> Gradients:
        given = x.clone().requires_grad_()
        y, _ = layer(given)
        (slope,) = torch.autograd.grad(
            scale_twice(y, in_place).square().sum(), given, create_graph=True
        )
        return list(torch.autograd.grad(slope.square().sum(), list(layer.parameters())))

    assert_same(penalty(True), penalty(False))


def test_torch_func(kind: str) -> None:
    layer, x = make(kind), torch.randn(T, B, I)

    def loss(x: Tensor, in_place: bool) -> Tensor:
        return relu(layer(x)[0], in_place).sum()

    gradient = torch.func.grad(loss)
    assert torch.equal(gradient(x, True), gradient(x, False))
    each = torch.func.vmap(gradient, in_dims=(1, None))
    x = x.unsqueeze(2)
    assert torch.equal(each(x, True), each(x, False))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled(kind: str, backend: str) -> None:
    layer, x = make(kind), torch.randn(T, B, I)
    compiled = torch.compile(lambda x: relu(layer(x)[0], True), backend=backend, fullgraph=True)
    weights = list(layer.parameters())
    expected = torch.autograd.grad(relu(layer(x)[0], False).sum(), weights)
    assert_same(list(torch.autograd.grad(compiled(x).sum(), weights)), list(expected))


def test_only_a_change_costs_another_forward_pass(kind: str) -> None:
    layer, x = make(kind), torch.randn(T, B, I)
    for in_place, runs in [(False, 0), (True, 1)]:
        loss = relu(layer(x)[0], in_place).sum()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            loss.backward()
        calls = [event.count for event in profile.key_averages() if "layer_forward" in event.key]
        assert sum(calls) == runs
