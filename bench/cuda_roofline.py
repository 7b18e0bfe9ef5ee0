"""How near a time is to what the device can do at all: operations and bytes counted, its peaks.

The floor knows nothing of the chain: T steps that wait for each other, each a barrier and some
latencies. A narrow layer's share is small for that reason, and its microseconds a step tell more.
"""

from typing import NamedTuple

from bench.layers import GATES, Shape, required_flops

ELEMENT_BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
STATES = {"rnn": 1, "lstm": 2, "gru": 1}


class Peak(NamedTuple):
    """A device by its maker's datasheet: dense operations a second by dtype, bytes a second."""

    flops: dict[str, float]
    bandwidth: float
    source: str


def _peak(float32: float, tf32: float, half: float, bandwidth: float, source: str) -> Peak:
    """Take TFLOP/s, dense, and TB/s."""
    rates = {"float32": float32, "tf32": tf32, "float16": half, "bfloat16": half}
    return Peak({name: rate * 1e12 for name, rate in rates.items()}, bandwidth * 1e12, source)


# float32 outside the tensor cores; the datasheets' sparse rates are halved.
_H100 = "NVIDIA H100 Tensor Core GPU datasheet"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet"
PEAKS = {
    "NVIDIA H100 80GB HBM3": _peak(67, 494.7, 989.4, 3.35, f"{_H100}, SXM"),
    "NVIDIA H100 PCIe": _peak(51, 378, 756.5, 2.0, f"{_H100}, PCIe"),
    "NVIDIA H200": _peak(67, 494.7, 989.4, 4.8, f"{_H200}, SXM"),
    "NVIDIA A100-SXM4-40GB": _peak(19.5, 156, 312, 1.555, f"{_A100}, 40 GB"),
    "NVIDIA A100-PCIE-40GB": _peak(19.5, 156, 312, 1.555, f"{_A100}, 40 GB"),
    "NVIDIA A100-SXM4-80GB": _peak(19.5, 156, 312, 2.039, f"{_A100}, 80 GB SXM"),
    "NVIDIA A100 80GB PCIe": _peak(19.5, 156, 312, 1.935, f"{_A100}, 80 GB PCIe"),
}


class Work(NamedTuple):
    """What a result requires of any implementation."""

    flops: int
    bytes: int


def count(cell: str, dtype: str, shape: Shape, training: bool, rows: int | None = None) -> Work:
    """Count the products' operations, and the fewest bytes through the device's memory.

    Each input is read once and each output written once. Forward: x, weights and biases; y and the
    last states. Training adds, as a backward pass comes after the whole forward pass: x, y, the
    weights and y's gradient once more to read, and the gradients of weights and biases to write.
    What an implementation keeps for its backward pass is its own choice, and not counted.

    Args:
        rows: time steps of all sequences together, where they have unequal lengths; else T * B.
    """
    T, B, I, H = shape
    N = T * B if rows is None else rows
    weights = GATES[cell] * H * (I + H)
    biases = 2 * GATES[cell] * H
    elements = N * I + weights + biases + N * H + STATES[cell] * B * H
    if training:
        elements += N * I + 2 * N * H + weights + (weights + biases)
    flops = required_flops(cell, Shape(N, 1, I, H), training)
    return Work(flops, elements * ELEMENT_BYTES[dtype])


def floor(work: Work, dtype: str, peak: Peak) -> tuple[float, str]:
    """Return the seconds below which nothing can be, and whether ``arithmetic`` or ``memory``."""
    arithmetic, memory = work.flops / peak.flops[dtype], work.bytes / peak.bandwidth
    return max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory"
