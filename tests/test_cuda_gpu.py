"""The layers on a GPU: parity with the CPU in float64 by each kernel, graphs, autocast, compile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnncells
from rnncells import cuda
from rnncells.cuda import KERNELS, force_kernel, kernel_name
from tests.kinds import cells, kinds

pytestmark = pytest.mark.skipif(
    bool(cuda.why_missing()) or not torch.cuda.is_available(),
    reason="no GPU, or no CUDA engine: tests/test_cuda_glue.py runs the operators' source",
)
dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16]
)
T, B, I, H = 12, 9, 5, 33
LENGTHS = [12, 3, 7, 12, 1, 5, 12, 2, 9]

Kind = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_tensor_floats() -> Iterator[None]:
    """Products in full float32; and no kernel stays forced."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before
    if not cuda.why_missing():
        force_kernel(None)


def leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    return [leaf for part in value for leaf in leaves(part)]


def trained(module: Any, x: Any, hx: Any = None, **options: Any) -> list[Tensor]:
    """Outputs, and the gradients of x, the states and the parameters."""
    given = [x.data if isinstance(x, PackedSequence) else x, *leaves([] if hx is None else hx)]
    for tensor in given:
        tensor.requires_grad_()
    outputs = leaves(module(x, hx, **options))
    loss = torch.stack([(out.double().sin() * (k + 1)).sum() for k, out in enumerate(outputs)])
    return [*outputs, *torch.autograd.grad(loss.sum(), [*given, *module.parameters()])]


def moved(value: Any, dtype: torch.dtype, device: str) -> Any:
    if value is None:
        return None
    if isinstance(value, tuple) and not isinstance(value, PackedSequence):
        return tuple(moved(part, dtype, device) for part in value)
    return value.detach().to(device=device, dtype=dtype).clone()


def assert_parity(module: Any, x: Tensor, hx: Any, dtype: torch.dtype, **options: Any) -> None:
    """On CUDA in `dtype` against the CPU in float64, from the same rounded values."""
    for tensor in [x, *leaves([] if hx is None else hx), *module.parameters()]:
        tensor.data = tensor.data.to(dtype).double()
    expected = trained(module, moved(x, torch.float64, "cpu"), hx, **options)
    ours = copy.deepcopy(module).to(device="cuda", dtype=dtype)
    found = trained(ours, moved(x, dtype, "cuda"), moved(hx, dtype, "cuda"), **options)
    # Sums of up to 4 * H + T * B terms; in 16 bits each of T steps rounds h, c and the gradients.
    units = 300 if dtype.itemsize > 2 else 40
    for ours_, right in zip(found, expected, strict=True):
        assert ours_.device.type == "cuda"
        error = (ours_.cpu().double() - right).abs().max() / right.abs().max().clamp(min=1)
        assert error < units * torch.finfo(dtype).eps, error


def problem(kind: Kind, **options: Any) -> tuple[Any, Tensor, Any]:
    layer = kind(I, H, **options).double()
    ways = layer.num_layers * (2 if layer.bidirectional else 1)
    x = torch.randn(T, B, I, dtype=torch.float64)
    states = [
        torch.randn(ways, B, width, dtype=torch.float64) * 0.5 for width in layer._state_widths
    ]
    return layer, x, tuple(states) if len(states) > 1 else states[0]


@kinds
@dtypes
@pytest.mark.parametrize("kernel", [None, *KERNELS])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_parity(kind: Kind, dtype: torch.dtype, kernel: str | None, lengths: Any) -> None:
    """Both directions; by each kernel that can serve."""
    if kernel is not None and kernel != "step" and dtype == torch.float64:
        pytest.skip("float64 is served by steps alone")
    if kernel == "cluster" and torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("clusters came with compute capability 9.0")
    force_kernel(kernel)
    layer, x, hx = problem(kind, bidirectional=True)
    assert_parity(layer, x, hx, dtype, lengths=lengths)


@dtypes
def test_projection(dtype: torch.dtype) -> None:
    layer, x, hx = problem(rnncells.LSTM, bidirectional=True, proj_size=7)
    assert_parity(layer, x, hx, dtype, lengths=LENGTHS)


@pytest.mark.parametrize("kind", [rnncells.MinimalGatedUnit, rnncells.IndRNN, rnncells.SLSTM])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_other_cells(kind: Kind, dtype: torch.dtype, lengths: Any) -> None:
    layer, x, _ = problem(kind, num_layers=2, bidirectional=True, zoneout=0.2)
    assert_parity(layer.eval(), x, None, dtype, lengths=lengths)


@dtypes
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_cell_states(dtype: torch.dtype, lengths: Any) -> None:
    layer, x, hx = problem(rnncells.LSTM, bidirectional=True, return_cell_states=True)
    assert_parity(layer, x, hx, dtype, lengths=lengths)


@kinds
@pytest.mark.parametrize("recompute", [False, True])
def test_stacks(kind: Kind, recompute: bool) -> None:
    layer, x, hx = problem(kind, num_layers=2, bidirectional=True, recompute=recompute)
    assert_parity(layer, x, hx, torch.float32)


@cells
@dtypes
def test_cells(kind: Kind, dtype: torch.dtype) -> None:
    cell = kind(I, H).double()
    state = torch.randn(B, H, dtype=torch.float64)
    hx = (state, state.clone()) if kind is rnncells.LSTMCell else state
    assert_parity(cell, torch.randn(B, I, dtype=torch.float64), hx, dtype)


@kinds
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 300, 4, 20), (200, 2, 64, 128), (9, 5, 3, 700)])
def test_sizes(kind: Kind, size: tuple[int, int, int, int]) -> None:
    steps, batch, inputs, units = size
    layer = kind(inputs, units).double()
    x = torch.randn(steps, batch, inputs, dtype=torch.float64)
    for tensor in (x, *layer.parameters()):
        tensor.data = tensor.data.float().double()
    expected = layer(x)[0]
    found = copy.deepcopy(layer).float().cuda()(x.float().cuda())[0]
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=300 * 1.2e-7)


@kinds
def test_packed(kind: Kind) -> None:
    layer = kind(I, H).cuda()
    x = torch.randn(T, B, I, device="cuda")
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    (y, _, order, _), last = layer(packed)
    again, last_again = layer(x, lengths=LENGTHS)
    padded = pack_padded_sequence(again, torch.tensor(LENGTHS), enforce_sorted=False)
    assert order is not None
    assert padded.sorted_indices is not None
    assert torch.equal(order, padded.sorted_indices)
    torch.testing.assert_close(y, padded.data)
    torch.testing.assert_close(leaves(last), leaves(last_again))


@kinds
def test_lengths_on_the_device(kind: Kind) -> None:
    """The same bits as from the host's, and nobody waits for them."""
    layer = kind(I, H, bidirectional=True).cuda()
    x = torch.randn(T, B, I, device="cuda")
    expected = trained(layer, x, lengths=LENGTHS)
    lengths = torch.tensor(LENGTHS, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = trained(layer, x, lengths=lengths)
        trained(layer, x, lengths=LENGTHS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, right in zip(found, expected, strict=True):
        assert torch.equal(ours, right)


@kinds
@pytest.mark.parametrize("kernel", [None, *KERNELS])
def test_graphs(kind: Kind, kernel: str | None) -> None:
    """A CUDA graph of a training step, replayed on other values, has the bits of the plain call."""
    if kernel == "cluster" and torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("clusters came with compute capability 9.0")
    force_kernel(kernel)
    layer = kind(I, H, bidirectional=True).cuda()
    x = torch.randn(T, B, I, device="cuda", requires_grad=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            trained(layer, x, lengths=LENGTHS)
    torch.cuda.current_stream().wait_stream(stream)
    graph, inference = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = trained(layer, x, lengths=LENGTHS)
    with torch.no_grad(), torch.cuda.graph(inference):
        y, _ = layer(x)
    x.data.copy_(torch.randn(T, B, I))
    graph.replay()
    inference.replay()
    for ours, right in zip(captured, trained(layer, x, lengths=LENGTHS), strict=True):
        assert torch.equal(ours, right)
    assert torch.equal(y, layer(x)[0])


VARIANTS: list[tuple[Kind, dict[str, Any]]] = [
    (rnncells.LSTM, {"recurrent_dropout": 0.3, "input_dropout": 0.2, "zoneout": (0.1, 0.2)}),
    (rnncells.LSTM, {"layer_norm": "gates", "weight_dropout": 0.2}),
    (rnncells.LSTM, {"peephole": True, "activation": "silu", "return_cell_states": True}),
    (rnncells.GRU, {"layer_norm": "preactivation", "recurrent_dropout": 0.3}),
    (rnncells.GRU, {"reset_after": False, "return_sequences": False}),
    (rnncells.MinimalGatedUnit, {"zoneout": 0.2}),
    (rnncells.IndRNN, {"recurrent_dropout": 0.3}),
    (rnncells.SLSTM, {"zoneout": 0.2}),
]


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_variants(kind: Kind, options: dict[str, Any]) -> None:
    """In evaluation, against the CPU: the generators of the two draw other seeds."""
    layer, x, _ = problem(kind, bidirectional=True, **options)
    assert_parity(layer.eval(), x, None, torch.float32, lengths=LENGTHS)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_graphs_of_variants(kind: Kind, options: dict[str, Any]) -> None:
    """A replay draws the masks that the plain call draws of the same generator's state."""
    layer = kind(I, H, bidirectional=True, **options).cuda()
    x = torch.randn(T, B, I, device="cuda", requires_grad=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            trained(layer, x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = trained(layer, x)
    x.data.copy_(torch.randn(T, B, I))
    torch.cuda.manual_seed(5)
    graph.replay()
    found = [value.clone() for value in captured]
    torch.cuda.manual_seed(5)
    for ours, right in zip(found, trained(layer, x), strict=True):
        assert torch.equal(ours, right)


@kinds
def test_autocast(kind: Kind) -> None:
    layer = kind(I, H).cuda()
    x = torch.randn(T, B, I, device="cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        y, _ = layer(x)
        y.float().square().sum().backward()
    assert y.dtype == torch.float16
    assert layer.weight_hh_l0.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x)[0], rtol=0, atol=40 * 2.0**-11)


@kinds
def test_compile(kind: Kind) -> None:
    layer = kind(I, H, 2, bidirectional=True).cuda()
    fast = torch.compile(layer, fullgraph=True)
    x = torch.randn(T, B, I, device="cuda")

    def gradients(call: Any) -> list[Tensor]:
        y, _ = call(x)
        return [y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]

    torch.testing.assert_close(gradients(fast), gradients(layer))


@kinds
def test_second_derivatives(kind: Kind) -> None:
    layer = kind(2, 3).double().cuda()
    x = torch.randn(3, 2, 2, dtype=torch.float64, device="cuda", requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, lengths=[3, 2])[0], (x,))


@kinds
def test_like_torch_nn(kind: Kind) -> None:
    """cuDNN's results, in float32."""
    theirs = getattr(nn, {"SimpleRNN": "RNN"}.get(kind.__name__, kind.__name__))(I, H, 2).cuda()
    ours = kind(I, H, 2).cuda()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, I, device="cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = trained(theirs, x)
    for found, right in zip(trained(ours, x), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=300 * 1.2e-7)


def test_forced_kernels_are_named() -> None:
    for kernel in ("resident", "grid", "step"):
        force_kernel(kernel)
        assert kernel_name("lstm", torch.float32, T, B, H) == kernel
        assert kernel_name("gru", torch.float16, T, B, H, backward=True) == kernel
    force_kernel("resident")
    with pytest.raises(RuntimeError, match="forced and cannot serve this layer: float64"):
        kernel_name("lstm", torch.float64, T, B, H)
    with pytest.raises(RuntimeError, match="forced and cannot serve this layer: float64"):
        rnncells.LSTM(I, H, device="cuda").double()(torch.randn(T, B, I).double().cuda())


def test_frozen_and_pack() -> None:
    layer = rnncells.GRU(I, H).cuda()
    x = torch.randn(T, B, I, device="cuda")
    with torch.no_grad():
        expected = layer(x)[0]
        with layer.frozen():
            assert torch.equal(layer(x)[0], expected)
