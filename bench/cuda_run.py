"""One row of ``bench.cuda``: a layer of ours and a peer's, held against each other, then timed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from bench import further
from bench.cpu import ENGINE_NAMES
from bench.cuda_device import Device, tf32
from bench.cuda_grid import DTYPES, TORCH_NN, Case
from bench.cuda_roofline import Peak, count, floor
from bench.cuda_timing import time_pair
from bench.layers import make_data, make_pair
from bench.peers import LayerRun

# Largest difference to the largest value of a tensor. In float32 as in bench.further: other sums'
# orders. Else 32 roundings of an operand, half a unit in its last place each: states are rounded
# at every step and by both sides, and are forgotten again; a wrong gate is off by some tenths.
LIMITS = {
    "float32": further.SAME_RESULT,
    "tf32": 32 * 2.0**-11,
    "float16": 32 * torch.finfo(torch.float16).eps / 2,
    "bfloat16": 32 * torch.finfo(torch.bfloat16).eps / 2,
}


class Settings(NamedTuple):
    """What is the same for every row."""

    device: Device
    seconds: float  # of timing a row
    rates: dict[str, float]  # of torch.mm, by dtype
    peak: Peak | None
    compiled: further.Maker
    forced: bool = False


class Packed(nn.Module):
    """A layer that takes the data of a PackedSequence, [rows, I], and returns its output's."""

    def __init__(self, layer: nn.Module, packed: PackedSequence) -> None:
        super().__init__()
        self.layer = layer
        self.packed = packed

    def forward(self, data: Tensor) -> tuple[Tensor, Any]:
        y, state = self.layer(self.packed._replace(data=data))
        return y.data, state


def make_sides(case: Case, device: str) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Return our layer, torch.nn's, an input and a gradient of the output, always the same."""
    torch.manual_seed(0)
    dtype = DTYPES[case.dtype]
    with torch.device(device):
        ours, peer = (layer.to(dtype) for layer in make_pair(case.cell, case.shape))
        x, dy = (data.to(dtype) for data in make_data(case.shape))
    if not case.packed:
        return ours, peer, x, dy
    lengths = torch.randint(1, case.shape.T + 1, (case.shape.B,))
    packed, packed_dy = (
        pack_padded_sequence(data, lengths, enforce_sorted=False) for data in (x, dy)
    )
    return Packed(ours, packed), Packed(peer, packed), packed.data, packed_dy.data


def farthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """Return the largest difference, of that tensor's largest value, and the tensor's name.

    Infinity where a tensor is missing, has another shape or holds a NaN.
    """
    worst = (0.0, "")
    for name, value in expected.items():
        if name not in found or found[name].shape != value.shape:
            return float("inf"), name
        one, other = found[name].double(), value.double()
        off = float((one - other).abs().max() / other.abs().max())
        if not off <= worst[0]:  # a NaN too
            worst = (off if off == off else float("inf"), name)
    return worst


def _first_line(error: BaseException) -> str:
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text[:160]}"


class _NoRow(Exception):
    """Why a row has no time; ``ours``: whether that is our fault."""

    def __init__(self, reason: str, ours: bool) -> None:
        super().__init__(reason)
        self.ours = ours


def _attempt(what: str, ours: bool, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except further.NoTime as reason:
        raise _NoRow(str(reason), ours) from None
    except Exception as error:  # whatever a side raises is its result
        raise _NoRow(f"{what} fails: {_first_line(error)}", ours) from None


def kernels_of(case: Case, device: Device) -> str:
    """Name the kernel that is chosen; ``forward/backward`` where they differ."""
    T, B, _, H = case.shape
    names = [
        device.kernel(ENGINE_NAMES[case.cell], DTYPES[case.dtype], T, B, H, backward)
        for backward in ((False, True) if case.mode == "training" else (False,))
    ]
    return "/".join(dict.fromkeys(names))


def measure(case: Case, settings: Settings) -> dict[str, Any]:
    """Time one case; return its row, with ``empty``, a reason, where there is no time.

    ``fault`` says that the reason is ours: we fail, or differ from torch.nn. ``lost`` says that the
    device answers no more in this process.
    """
    row: dict[str, Any] = {
        "cell": case.cell,
        "dtype": case.dtype,
        "mode": case.mode,
        "shape": str(case.shape),
        "layout": "packed" if case.packed else "padded",
        "peer": case.peer,
    }
    try:
        with tf32(case.dtype == "tf32"):
            return row | _timed(case, settings)
    except _NoRow as reason:
        row |= {"empty": str(reason), "fault": reason.ours}
        return row if settings.device.recovers() else row | {"lost": True}


def _timed(case: Case, settings: Settings) -> dict[str, Any]:
    device, training = settings.device, case.mode == "training"
    kernel = _attempt("the choice", not settings.forced, lambda: kernels_of(case, device))
    ours, peer, x, dy = _attempt("making it", False, lambda: make_sides(case, device.name))
    mine = further.our_run(ours, x, dy, training)
    results = _attempt("ours", True, mine.results)

    def make() -> LayerRun:
        if case.peer == TORCH_NN:
            return further.our_run(peer, x, dy, training)
        return settings.compiled(case.cell, peer, x, dy, training)

    theirs = _attempt(case.peer, False, make)
    off, where = farthest(results, _attempt(case.peer, False, theirs.results))
    if off > LIMITS[case.dtype]:
        limit = f"{LIMITS[case.dtype]:.1e}"
        reason = f"wrong result: {where} is off by {off:.1e} of its largest, more than {limit}"
        raise _NoRow(reason, case.peer == TORCH_NN)
    del results
    timing = _attempt(
        "timing", True, lambda: time_pair(mine.call, theirs.call, settings.seconds, device)
    )
    rows = x.shape[0] if case.packed else case.shape.T * case.shape.B
    return {
        "kernel": kernel,
        "ours_ms": timing.ours_s * 1e3,
        "peer_ms": timing.peer_s * 1e3,
        "ratio": timing.ratio,
        "ratio_low": timing.ratio_low,
        "ratio_high": timing.ratio_high,
        "rounds": timing.rounds,
        "us_a_step": timing.ours_s * 1e6 / case.shape.T,
        "off": off,
    } | _shares(case, rows, timing.ours_s, settings)


def _shares(case: Case, rows: int, ours_s: float, settings: Settings) -> dict[str, Any]:
    """Return the counts, and the shares of the datasheet's roofline and of torch.mm's rate."""
    work = count(case.cell, case.dtype, case.shape, case.mode == "training", rows)
    found: dict[str, Any] = {"rows": rows, "flops": work.flops, "bytes": work.bytes}
    if case.dtype in settings.rates:
        found["of_mm"] = work.flops / ours_s / settings.rates[case.dtype]
    if settings.peak is not None:
        least_s, bound = floor(work, case.dtype, settings.peak)
        found |= {"of_roofline": least_s / ours_s, "bound": bound}
    return found
