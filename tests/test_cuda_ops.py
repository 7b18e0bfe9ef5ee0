"""The layers on CUDA, as far as they can be seen without a GPU: fake tensors, the choice of a
kernel, errors. test_cuda_glue.py runs the operators' source, and test_cuda_gpu.py needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import rnncells
from rnncells import cuda
from rnncells.autograd import run_layer
from rnncells.cuda import force_kernel, kernel_name
from tests.kinds import cells, kinds

needs_engine = pytest.mark.skipif(bool(cuda.why_missing()), reason=f"{cuda.why_missing()}")
T, B, I, H = 12, 9, 5, 33

Kind = Callable[..., Any]


def leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


@needs_engine
@pytest.mark.parametrize("name", ["layer_forward", "layer_backward", "layer_pack", "layer_draw"])
def test_each_operator_has_its_cuda_kernel(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"rnncells::{name}", "CUDA")


def pull(y: Tensor, last: Any) -> list[Tensor]:
    """The gradients that y's node gives: torch's engine itself wants a device."""
    node: Any = y.grad_fn
    found = node.apply(torch.empty_like(y), *[None] * len(leaves(last)))
    return [gradient for gradient in found if gradient is not None]


def assert_shapes(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, right in zip(found, expected, strict=True):
        assert (ours.shape, ours.dtype, ours.device) == (right.shape, right.dtype, right.device)
        assert ours.device.type == "cuda"


@needs_engine
@kinds
@pytest.mark.parametrize("lengths", [None, "on the CPU", "on the device"])
@pytest.mark.parametrize("recompute", [False, True])
def test_fake_tensors_flow(kind: Kind, lengths: str | None, recompute: bool) -> None:
    with FakeTensorMode():
        layer = kind(I, H, bidirectional=True, recompute=recompute, device="cuda")
        x = torch.empty(T, B, I, device="cuda", requires_grad=True)
        given = None
        if lengths is not None:
            device = "cpu" if lengths == "on the CPU" else "cuda"
            given = torch.empty(B, dtype=torch.int64, device=device)
        y, last = layer(x, lengths=given)
        assert_shapes([y], [x.new_empty(T, B, 2 * H)])
        assert_shapes(leaves(last), [x.new_empty(2, B, H)] * len(leaves(last)))
        assert_shapes(pull(y, last), [x, *layer.parameters()])


@needs_engine
@kinds
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"recurrent_dropout": 0.2, "zoneout": 0.1, "activation": "silu"},
        {"input_dropout": 0.2, "weight_dropout": 0.1},
        {"layer_norm": "gates"},
        {"layer_norm": "preactivation", "recurrent_dropout": 0.2},
    ],
)
def test_fake_tensors_flow_with_variants(
    kind: Kind, options: dict[str, Any], recompute: bool
) -> None:
    with FakeTensorMode():
        layer = kind(I, H, bidirectional=True, recompute=recompute, device="cuda", **options)
        x = torch.empty(T, B, I, device="cuda", requires_grad=True)
        y, last = layer(x, resets=torch.empty(T, B, dtype=torch.bool, device="cuda"))
        assert_shapes([y], [x.new_empty(T, B, 2 * H)])
        assert_shapes(leaves(last), [x.new_empty(2, B, H)] * len(leaves(last)))


@needs_engine
@pytest.mark.parametrize("kind", [rnncells.MinimalGatedUnit, rnncells.IndRNN, rnncells.SLSTM])
@pytest.mark.parametrize("options", [{}, {"recurrent_dropout": 0.2, "zoneout": 0.1}])
def test_fake_tensors_flow_through_other_cells(kind: Kind, options: dict[str, Any]) -> None:
    with FakeTensorMode():
        layer = kind(I, H, bidirectional=True, device="cuda", **options)
        x = torch.empty(T, B, I, device="cuda", requires_grad=True)
        y, last = layer(x, lengths=torch.empty(B, dtype=torch.int64))
        assert_shapes([y], [x.new_empty(T, B, 2 * H)])
        assert_shapes(leaves(last), [x.new_empty(2, B, H)] * len(leaves(last)))
        assert_shapes(pull(y, last), [x, *layer.parameters()])


@needs_engine
@pytest.mark.parametrize("sequences", [True, False])
def test_fake_tensors_flow_to_the_cell_states(sequences: bool) -> None:
    """In training and in inference; and beside the last output alone."""
    with FakeTensorMode():
        options: dict[str, Any] = {"return_cell_states": True, "return_sequences": sequences}
        layer = rnncells.LSTM(I, H, bidirectional=True, device="cuda", **options)
        x = torch.empty(T, B, I, device="cuda", requires_grad=True)
        rows = (T, B) if sequences else (B,)
        for alone in (False, True):
            with torch.set_grad_enabled(not alone):
                y, last, cells = layer(x)
            assert_shapes([y, cells], [x.new_empty(*rows, 2 * H), x.new_empty(T, B, 2 * H)])
            assert_shapes(list(last), [x.new_empty(2, B, H)] * 2)


@needs_engine
@kinds
def test_fake_tensors_flow_packed(kind: Kind) -> None:
    """(A layer reads the first of the batch sizes, which a fake tensor does not have.)"""
    with FakeTensorMode():
        layer = kind(I, H, bidirectional=True, device="cuda")
        x = torch.empty(T * B, I, device="cuda", requires_grad=True)
        states = [torch.empty(2, B, H, device="cuda") for _ in layer._state_widths]
        sizes = torch.empty(T, dtype=torch.int64)
        weights = list(layer.parameters())
        y, last = run_layer(x, states, weights, layer._cell, True, None, sizes)
        assert_shapes([y, *last], [x.new_empty(T * B, 2 * H), *states])
        assert_shapes(pull(y, last), [x, *weights])


@needs_engine
@cells
def test_fake_tensors_flow_through_cells(kind: Kind) -> None:
    with FakeTensorMode():
        cell = kind(I, H, device="cuda")
        for state in leaves(cell(torch.empty(B, I, device="cuda"))):
            assert (state.shape, state.device.type) == ((B, H), "cuda")


@needs_engine
@kinds
def test_weights_elsewhere(kind: Kind) -> None:
    with FakeTensorMode():
        with pytest.raises(RuntimeError, match=r"not at the same device, .*cuda:0 and parameter"):
            kind(I, H)(torch.empty(T, B, I, device="cuda"))
        with pytest.raises(RuntimeError, match=r"not at the same device, .*cpu and parameter"):
            kind(I, H, device="cuda")(torch.empty(T, B, I))


@needs_engine
def test_the_choice_of_a_kernel() -> None:
    """On devices that need not be here; and none is forced that cannot serve."""
    engine = cuda._loaded()

    def name(
        architecture: int,
        dtype: str,
        units: int,
        projected: bool = False,
        cell: str = "lstm",
        varied: bool = False,
    ) -> str:
        layer = cell, dtype, 50, 32, units, projected, False, varied
        return engine.kernel_name_for(architecture, 132, 227 * 1024, *layer)

    assert name(90, "float32", 64) == name(80, "bfloat16", 64) == "resident"
    assert name(90, "float16", 768) == "cluster"
    assert name(90, "float64", 64) == name(75, "float32", 64) == "step"
    assert name(90, "float32", 64, projected=True) == "step"
    assert name(90, "float32", 64, varied=True) == "step"
    assert name(90, "float32", 64, cell="lstm_open") == "step"
    force_kernel("cluster")
    assert name(90, "float32", 64) == "cluster"
    with pytest.raises(RuntimeError, match=r"'cluster' was forced and cannot .*: clusters need"):
        name(80, "float32", 64)
    force_kernel(None)
    assert name(80, "float32", 64) == "resident"
    with pytest.raises(ValueError, match="unknown cell 'lstn'"):
        engine.kernel_name_for(90, 132, 1, "lstn", "float32", 1, 1, 1, False, False)


@pytest.mark.skipif(not cuda.why_missing(), reason="this build has a CUDA engine")
def test_without_the_engine() -> None:
    """It is told why there is none."""
    for call in (
        lambda: kernel_name("lstm", torch.float32, 5, 2, 8),
        lambda: force_kernel("step"),
    ):
        with pytest.raises(RuntimeError, match=r"not a CUDA build|built without|does not load"):
            call()


def test_no_such_kernel() -> None:
    with pytest.raises(ValueError, match="one of resident, cluster, grid, step, got 'warp'"):
        force_kernel("warp")
