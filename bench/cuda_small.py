"""Runs each CUDA kernel once, small: for compute-sanitizer, and with ``--graph`` for CUDA graphs.

``python -m bench.cuda_small`` forces each kernel in turn and runs each cell and dtype forward and
backward, with and without lengths, against torch.nn in float64 on the CPU; then the variants, in
float32 and evaluation, against our CPU engine in float64. With ``--graph`` it
captures that training step, and inference, in CUDA graphs, and their replays on other data must
have the bits of a step that was not captured. Exits with 1 where one differs or fails, and with 2
where there is no CUDA device or no engine.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from itertools import chain, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnncells
from bench.cpu import ENGINE_NAMES
from bench.cuda_device import KERNELS, Device, tf32
from bench.cuda_grid import DTYPES
from bench.cuda_run import LIMITS, farthest
from bench.layers import CELLS, Shape, gradients_of, make_data, make_pair

SHAPE = Shape(T=5, B=3, I=4, H=20)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "zoneout": ("LSTM", {"zoneout": (0.1, 0.2)}),
    "projection": ("LSTM", {"proj_size": 6}),
    "peepholes and cell states": ("LSTM", {"peephole": True, "return_cell_states": True}),
    "coupled gates": ("LSTM", {"coupled": True, "activation": "silu"}),
    "layer norm of gates": ("LSTM", {"layer_norm": "gates"}),
    "layer norm of sums": ("GRU", {"layer_norm": "preactivation"}),
    "reset before": ("GRU", {"reset_after": False}),
    "minimal gated unit": ("MinimalGatedUnit", {"zoneout": 0.1}),
    "IndRNN": ("IndRNN", {}),
    "sLSTM": ("SLSTM", {}),
}
LENGTHS = (3, 5, 1)
CLUSTERS_FROM = 9  # compute capability


class Problem(NamedTuple):
    """A layer of ours with its input, and the gradient of its output; lengths or None."""

    layer: nn.Module
    x: Tensor
    dy: Tensor
    lengths: Tensor | None

    def step(self) -> dict[str, Tensor]:
        """Run forward and backward; return y and the gradients, x's too."""
        for one in (self.x, *self.layer.parameters()):
            one.grad = None
        given = {} if self.lengths is None else {"lengths": self.lengths}
        y, _, *cells = self.layer(self.x, **given)
        torch.autograd.backward([y, *cells], [self.dy, *map(torch.ones_like, cells)])
        assert self.x.grad is not None
        return {"y": y.detach(), "x": self.x.grad} | gradients_of(self.layer)

    def infer(self) -> dict[str, Tensor]:
        """Run forward alone; return y."""
        given = {} if self.lengths is None else {"lengths": self.lengths}
        with torch.no_grad():
            return {"y": self.layer(self.x, **given)[0]}

    def redraw(self) -> None:
        """Put other values into the same input."""
        with torch.no_grad():
            self.x.normal_()


def make_problem(
    cell: str, dtype: torch.dtype, ragged: bool, device: str
) -> tuple[Problem, dict[str, Tensor]]:
    """Return a problem, and what torch.nn makes of its values in float64 on the CPU."""
    torch.manual_seed(0)
    ours, peer = make_pair(cell, SHAPE)
    ours, peer = ours.to(dtype), peer.to(dtype).double()
    x, dy = (data.to(dtype) for data in make_data(SHAPE))
    wide = x.double().requires_grad_()
    if ragged:
        packed = pack_padded_sequence(wide, torch.tensor(LENGTHS), enforce_sorted=False)
        y, _ = pad_packed_sequence(peer(packed)[0], total_length=SHAPE.T)
    else:
        y, _ = peer(wide)
    y.backward(dy.double())
    assert wide.grad is not None
    expected = {"y": y.detach(), "x": wide.grad} | gradients_of(peer)
    lengths = torch.tensor(LENGTHS, device=device) if ragged else None
    x = x.to(device).requires_grad_()
    return Problem(ours.to(device), x, dy.to(device), lengths), expected


def make_varied(name: str, ragged: bool, device: str) -> tuple[Problem, dict[str, Tensor]]:
    """Return a variant's problem, and what our CPU engine makes of it in float64."""
    torch.manual_seed(0)
    kind, options = VARIANTS[name]
    layer = getattr(rnncells, kind)(SHAPE.I, SHAPE.H, bidirectional=True, **options).eval()
    x = torch.randn(SHAPE.T, SHAPE.B, SHAPE.I)
    dy = torch.randn(SHAPE.T, SHAPE.B, 2 * layer._state_widths[0])
    lengths = torch.tensor(LENGTHS) if ragged else None
    wide = copy.deepcopy(layer).double()
    expected = Problem(wide, x.double().requires_grad_(), dy.double(), lengths).step()
    lengths = None if lengths is None else lengths.to(device)
    return Problem(
        layer.to(device), x.to(device).requires_grad_(), dy.to(device), lengths
    ), expected


def check(problem: Problem, expected: dict[str, Tensor], dtype: str) -> str | None:
    """Hold one step against what is expected; return what is wrong, or None."""
    found = {name: value.cpu() for name, value in problem.step().items()}
    off, where = farthest(found, expected)
    return None if off <= LIMITS[dtype] else f"{where} is off by {off:.1e} of its largest"


def check_graph(problem: Problem, expected: dict[str, Tensor], dtype: str) -> str | None:
    """Capture a step and an inference; return what is wrong of their replays, or None."""
    for name, call in (("training", problem.step), ("inference", problem.infer)):
        if wrong := _replayed(problem, call):
            return f"{name}: {wrong}"
    return None


def _replayed(problem: Problem, call: Callable[[], dict[str, Tensor]]) -> str | None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as torch wants it: warm, and outside the default stream
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    problem.redraw()
    graph.replay()
    torch.cuda.synchronize()
    replayed = {name: value.clone() for name, value in captured.items()}
    for name, value in call().items():
        if not torch.equal(value, replayed[name]):
            return f"{name} of a replay has other bits"
    return None


def serves(device: Device, kernel: str, cell: str, dtype: torch.dtype) -> bool:
    """Tell whether a kernel serves the small shape; a cluster may be more than the device can."""
    try:
        for backward in (False, True):
            device.kernel(ENGINE_NAMES[cell], dtype, SHAPE.T, SHAPE.B, SHAPE.H, backward)
    except RuntimeError:
        if kernel == "cluster" and torch.cuda.get_device_capability()[0] < CLUSTERS_FROM:
            return False
        raise
    return True


def run(device: Device, examine: Callable[..., str | None]) -> Iterator[tuple[str, str | None]]:
    """Force each kernel, and yield what was run and what is wrong with it."""
    for kernel, cell, dtype, ragged in product(KERNELS, CELLS, DTYPES, (False, True)):
        name = " ".join([kernel, cell, dtype, *(["with lengths"] if ragged else [])])
        try:
            with tf32(dtype == "tf32"):
                device.force(kernel)
                if not serves(device, kernel, cell, DTYPES[dtype]):
                    continue
                yield name, examine(*make_problem(cell, DTYPES[dtype], ragged, device.name), dtype)
        except Exception as error:  # each kernel is tried
            yield name, f"{type(error).__name__}: {error}"
            if not device.recovers():
                return
        finally:
            device.force(None)


def run_variants(
    device: Device, examine: Callable[..., str | None]
) -> Iterator[tuple[str, str | None]]:
    """The same of every variant, by the kernel that serves it."""
    for name, ragged in product(VARIANTS, (False, True)):
        told = " ".join([name, *(["with lengths"] if ragged else [])])
        try:
            with tf32(False):
                yield told, examine(*make_varied(name, ragged, device.name), "float32")
        except Exception as error:  # each variant is tried
            yield told, f"{type(error).__name__}: {error}"
            if not device.recovers():
                return


def main() -> None:
    """Run everything; say what is wrong, and how many were run."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_small", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--graph", action="store_true", help="capture and replay CUDA graphs")
    examine: Any = check_graph if parser.parse_args().graph else check
    found = []
    device = Device()
    for name, wrong in chain(run(device, examine), run_variants(device, examine)):
        print(f"{name}: {wrong or 'good'}", flush=True)
        found.append(wrong)
    bad = sum(wrong is not None for wrong in found)
    print(f"{len(found)} run, {bad} wrong")
    if bad or not found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
