"""The GPU that ``bench.cuda`` measures on: its facts, events for a clock, its rates, our engine."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from bench import cuda_smi
from bench.cuda_timing import best_seconds
from bench.timing import Call

KERNELS = ("resident", "cluster", "grid", "step")
PRODUCT_SIZE = 4096
COPIED_BYTES = 1 << 30  # far above any second-level cache


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow float32 products to be rounded to TF32, or not, by torch's own settings."""
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [one.allow_tf32 for one in settings]
    for one in settings:
        one.allow_tf32 = allowed
    try:
        yield
    finally:
        for one, value in zip(settings, before, strict=True):
            one.allow_tf32 = value


def facts() -> dict[str, Any]:
    """Return what a result needs to be compared."""
    known: dict[str, Any] = cuda_smi.query()
    known |= {"torch": torch.__version__, "cuda": torch.version.cuda}
    if torch.cuda.is_available():
        told = torch.cuda.get_device_properties()
        known |= {
            "device": told.name,
            "capability": f"{told.major}.{told.minor}",
            "multiprocessors": told.multi_processor_count,
            "memory_GB": round(told.total_memory / 1e9, 1),
            "cudnn": torch.backends.cudnn.version(),
        }
    return known


def refuse(reason: str) -> SystemExit:
    """Say in one line why nothing can be measured; return the exit, 2, to be raised."""
    print(reason, file=sys.stderr)
    return SystemExit(2)


class Device:
    """The current CUDA device, with our engine on it.

    Raises:
        SystemExit: 2, with a line that says why: no device, or no engine.
    """

    name = "cuda"

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise refuse("no CUDA device is here: torch.cuda.is_available() is false")
        try:
            self.engine: Any = import_module("rnncells.cuda")
            self.engine.kernel_name("lstm", torch.float32, 50, 32, 64)
        except (ImportError, RuntimeError) as error:
            raise refuse(f"rnncells has no CUDA engine here: {error}") from None

    def facts(self) -> dict[str, Any]:
        """Return the device's facts."""
        return facts()

    def mark(self) -> torch.cuda.Event:
        """Put an event into the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """Wait for both, and return the time between them."""
        last.synchronize()
        return first.elapsed_time(last) * 1e-3

    def wait(self) -> None:
        """Wait until the device has nothing left to do; raises what went wrong there."""
        torch.cuda.synchronize()

    def kernel(self, cell: str, dtype: torch.dtype, T: int, B: int, H: int, backward: bool) -> str:
        """Name the kernel that serves a layer, by the engine's name of its cell."""
        return str(self.engine.kernel_name(cell, dtype, T, B, H, backward=backward))

    def force(self, kernel: str | None) -> None:
        """Serve every layer by this kernel; None: by what suits."""
        self.engine.force_kernel(kernel)

    def recovers(self) -> bool:
        """After an error: give memory back; False if the device answers no more in this process."""
        try:
            self.wait()
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
        return True

    def rates(self, dtypes: dict[str, torch.dtype]) -> dict[str, float]:
        """Return what it does right now: torch.mm in FLOP/s by dtype, and ``copy`` in bytes/s."""
        found = {}
        for name, dtype in dtypes.items():
            with tf32(name == "tf32"):
                a, b = (
                    torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=self.name).to(dtype)
                    for _ in range(2)
                )
                found[name] = 2 * PRODUCT_SIZE**3 / best_seconds(_product(a, b), self)
        source = torch.ones(COPIED_BYTES // 4, device=self.name)
        target = torch.empty_like(source)
        found["copy"] = 2 * COPIED_BYTES / best_seconds(lambda: target.copy_(source), self)
        return found


def _product(a: torch.Tensor, b: torch.Tensor) -> Call:
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)
