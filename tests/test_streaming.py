"""A few rows at a time, for inference: the way past torch's operators gives what they give, is
taken where nothing watches them, and never uses what is stale."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.parametrizations import weight_norm
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import rnncells
from rnncells import _C, cells, layers

I, H = 5, 19

LAYERS: dict[str, type[nn.Module]] = {
    "rnn": rnncells.RNN,
    "lstm": rnncells.LSTM,
    "gru": rnncells.GRU,
}
CELLS: dict[str, type[nn.Module]] = {
    "rnn": rnncells.RNNCell,
    "lstm": rnncells.LSTMCell,
    "gru": rnncells.GRUCell,
}


@pytest.fixture(params=list(LAYERS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each layer's name in turn."""
    name: str = request.param
    return name


class Streamed:
    """How many calls were streamed, and how many were not."""

    def __init__(self) -> None:
        self.yes = self.no = 0

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            found = call(*arguments)
            self.yes += found is not None
            self.no += found is None
            return found

        return run


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> Streamed:
    count = Streamed()
    monkeypatch.setattr(layers, "stream_layer", count.counted(_C.stream_layer))
    monkeypatch.setattr(cells, "stream_cell", count.counted(_C.stream_cell))
    return count


def assert_same(found: Any, expected: Any, dtype: torch.dtype = torch.float32) -> None:
    assert torch.utils._pytree.tree_structure(found) == torch.utils._pytree.tree_structure(expected)
    limit = 8 * torch.finfo(dtype).eps
    for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert (a.shape, a.dtype, a.requires_grad) == (b.shape, b.dtype, False)
        torch.testing.assert_close(a, b.detach(), rtol=limit, atol=limit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (8, 1), (1, 8), (5,)], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer(
    kind: str,
    isa: str,
    streamed: Streamed,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    batch_first: bool,
    bias: bool,
) -> None:
    layer = LAYERS[kind](I, H, bias=bias, batch_first=batch_first, dtype=dtype)
    x = torch.randn(*shape, I, dtype=dtype)
    expected = layer(x)
    assert (streamed.yes, streamed.no) == (0, 1)  # with gradients
    with torch.inference_mode():
        found = layer(x)
        assert_same(found, expected, dtype)
        again = layer(x, expected[1])
    assert_same(again, layer(x, expected[1]), dtype)
    assert streamed.yes == 2
    places = {t.untyped_storage().data_ptr() for t in tree_leaves(found)}
    assert len(places) == len(tree_leaves(found))  # each has memory of its own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (7,), ()], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_a_cell(
    kind: str, isa: str, streamed: Streamed, shape: tuple[int, ...], dtype: torch.dtype, bias: bool
) -> None:
    cell = CELLS[kind](I, H, bias=bias, dtype=dtype)
    x = torch.randn(*shape, I, dtype=dtype)
    expected = cell(x)
    with torch.no_grad():
        assert_same(cell(x), expected, dtype)
        again = cell(x, expected)
    assert_same(again, cell(x, expected), dtype)
    assert streamed.yes == 2


def test_relu(streamed: Streamed) -> None:
    layer = rnncells.RNN(I, H, nonlinearity="relu")
    cell = rnncells.RNNCell(I, H)
    cell.nonlinearity = "relu"  # read at each call, as torch.nn reads it
    x = torch.randn(1, 2, I)
    with torch.no_grad():
        found = layer(x), cell(x[0])
    assert streamed.yes == 2
    assert_same(found, (layer(x), cell(x[0])))
    cell.nonlinearity = "sine"
    with pytest.raises(RuntimeError, match="Unknown nonlinearity: sine"), torch.no_grad():
        cell(x[0])


def test_batch_first_is_read_at_each_call(kind: str, streamed: Streamed) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(3, 2, I)
    setattr(layer, "batch_first", True)  # noqa: B010  mypy takes a module's attributes for tensors
    with torch.no_grad():
        found = layer(x)
    assert streamed.yes == 1
    assert_same(found, layer(x))


def test_a_cell_whose_biases_were_taken(kind: str, streamed: Streamed) -> None:
    cell, x = CELLS[kind](I, H), torch.randn(2, I)
    del cell.bias_ih
    cell.register_parameter("bias_ih", None)
    with torch.no_grad():
        found = cell(x)
    assert_same(found, cell(x))
    del cell.bias_hh
    cell.register_parameter("bias_hh", None)
    with torch.no_grad():
        found = cell(x)
    assert streamed.yes == 1
    assert_same(found, cell(x))


def test_a_stream_is_the_sequence(kind: str, streamed: Streamed) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(40, 1, I)
    expected = layer(x)
    with torch.inference_mode():
        state, outputs = None, []
        for step in x.split(1):
            y, state = layer(step, state)
            outputs.append(y)
    assert streamed.yes == 40
    assert_same((torch.cat(outputs), state), expected)


# What each call reads is what stands there: nothing is kept from one to the next.


def change_data(parameter: nn.Parameter) -> None:
    parameter.data.mul_(1.5)


def change_numpy(parameter: nn.Parameter) -> None:
    parameter.detach().numpy()[...] *= 1.5


def change_by_fused_adam(parameter: nn.Parameter) -> None:
    parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam([parameter], lr=0.1, fused=True).step()
    parameter.grad = None


def set_data(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data * 1.5


CHANGES = [change_data, change_numpy, change_by_fused_adam, set_data]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("rows", [1, 16, 100], ids=lambda n: f"{n} rows")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_stale(
    kind: str,
    change: Callable[[nn.Parameter], None],
    rows: int,
    mode: Callable[[], AbstractContextManager[None]],
) -> None:
    layer, cell, x = LAYERS[kind](I, H), CELLS[kind](I, H), torch.randn(1, rows, I)
    with mode():
        layer(x), cell(x[0])
    for parameter in (*layer.parameters(), *cell.parameters()):
        change(parameter)
    fresh = copy.deepcopy(layer), copy.deepcopy(cell)
    expected = fresh[0](x), fresh[1](x[0])
    with mode():
        assert_same((layer(x), cell(x[0])), expected)


# What goes the ordinary way


def watched(name: str) -> AbstractContextManager[Any]:
    if name == "gradients":
        return torch.enable_grad()
    if name == "autocast":
        return torch.autocast("cpu", torch.bfloat16)
    if name == "a dispatch mode":
        return FlopCounterMode(display=False)
    if name == "the profiler":
        return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    return forward_ad.dual_level()


@pytest.mark.parametrize(
    "name", ["gradients", "autocast", "a dispatch mode", "the profiler", "forward mode"]
)
def test_who_watches_sees_operators(kind: str, streamed: Streamed, name: str) -> None:
    layer, cell, x = LAYERS[kind](I, H), CELLS[kind](I, H), torch.randn(1, 1, I)
    with torch.no_grad():
        with watched(name) as seen:
            layer(x), cell(x[0])
        assert streamed.yes == 0
        layer(x), cell(x[0])
    assert streamed.yes == 2
    if name == "the profiler":
        assert any("layer_forward" in event.key for event in seen.key_averages())


def test_transforms_and_traces(kind: str, streamed: Streamed) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(3, 1, 1, I)
    with torch.no_grad():
        each = torch.func.vmap(lambda x: layer(x)[0])(x)
        torch.testing.assert_close(each, torch.stack([layer(one)[0] for one in x]))
        count = streamed.yes
        torch.fx.symbolic_trace(nn.Sequential(layer))
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x[0])[0], layer(x[0])[0])
    assert (count, streamed.yes) == (3, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda kind: LAYERS[kind](I, H, num_layers=2),
        lambda kind: LAYERS[kind](I, H, bidirectional=True),
        lambda kind: weight_norm(LAYERS[kind](I, H), "weight_hh_l0"),
    ],
    ids=["stack", "two directions", "parametrised"],
)
def test_other_layers(kind: str, streamed: Streamed, make: Callable[[str], nn.Module]) -> None:
    layer, x = make(kind), torch.randn(1, 2, I)
    with torch.no_grad():
        assert_same(layer(x), layer(x))
    assert streamed.yes == 0


STRANGE: dict[str, Callable[[Tensor], Tensor]] = {
    "every other column": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x[:1].expand(3, 2, I),
    "permuted": lambda x: x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    "to be negated": lambda x: torch.complex(x, -x).conj().imag,
    "of one column": lambda x: torch.complex(x, -x).conj().imag[..., :1],
    "to be negated, of one column": lambda x: torch.complex(x, -x).conj().imag[..., 0, None],
    "a subclass": lambda x: x.as_subclass(Named),
}


class Named(Tensor):
    pass


@pytest.mark.parametrize("name", STRANGE)
def test_strange_inputs(kind: str, name: str) -> None:
    x = STRANGE[name](torch.randn(3, 2, I))
    layer = LAYERS[kind](x.shape[-1], H)
    with torch.no_grad():
        found = layer(x)
    plain = torch.empty(x.shape).copy_(x.as_subclass(Tensor))
    assert_same([t.as_subclass(Tensor) for t in tree_leaves(found)], tree_leaves(layer(plain)))


def test_what_is_wrong_is_refused_in_the_same_words(kind: str) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(1, 1, I)
    bad: list[Callable[[], object]] = [
        lambda: layer(torch.randn(1, 1, I + 1)),
        lambda: layer(x.double()),
        lambda: layer(torch.randn(0, 1, I)),
        lambda: layer(torch.randn(1, 1, 1, I)),
        lambda: layer(x, torch.randn(1, 2, H)),
        lambda: layer(x, (torch.randn(1, 1, H + 1),) * 2),
        lambda: layer(x[0], torch.randn(1, 1, H)),
        lambda: layer(None),
    ]
    for call in bad:
        with pytest.raises(Exception) as expected:  # noqa: PT011
            call()
        with pytest.raises(type(expected.value)) as found, torch.no_grad():
            call()
        assert str(found.value) == str(expected.value)


def test_a_weight_of_another_shape_is_refused(kind: str) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(1, 1, I)
    with torch.no_grad():
        layer(x)
        weight = layer.get_parameter("weight_hh_l0")
        weight.data = weight.data[:, :3]
        with pytest.raises(RuntimeError, match="weight_hh_l0: expected shape"):
            layer(x)
        del layer.weight_hh_l0
        with pytest.raises(TypeError, match="weight_hh_l0: expected a Tensor"):
            layer(x)


def test_whatever_is_true_is_batch_first(kind: str, streamed: Streamed) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(4, 2, I)
    setattr(layer, "batch_first", 1)  # noqa: B010
    with torch.no_grad():
        found = layer(x)
    assert streamed.yes == 1
    assert_same(found, layer(x))


def test_a_layer_whose_biases_were_taken_is_refused(kind: str) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(1, 1, I)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        delattr(layer, name)
        layer.register_parameter(name, None)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(TypeError, match="bias_ih_l0: expected a Tensor"):
            layer(x)


def test_a_freed_storage_is_refused(kind: str) -> None:
    layer, x = LAYERS[kind](I, H), torch.randn(2, 2, I)
    layer.get_parameter("weight_hh_l0").untyped_storage().resize_(0)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(RuntimeError, match="has no memory: its storage was freed"):
            layer(x)


def test_converted_and_copied_layers_stream(kind: str, streamed: Streamed) -> None:
    theirs = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind](I, H)
    converted: nn.Module = rnncells.convert(theirs)
    x = torch.randn(1, 1, I)
    with torch.no_grad():
        assert_same(copy.deepcopy(converted)(x), converted(x))
    assert streamed.yes == 2
