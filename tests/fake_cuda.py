"""A device for ``bench.cuda`` that needs no GPU: the CPU stands in for it."""

from __future__ import annotations

from typing import Any

import torch

from bench import cuda_device, further
from bench.cuda_roofline import PEAKS
from bench.cuda_run import Settings
from bench.layers import Shape

SMALL = Shape(T=3, B=2, I=4, H=5)
H100 = "NVIDIA H100 80GB HBM3"


class FakeDevice(cuda_device.Device):
    """The CPU under a GPU's name; its clock goes on by a millisecond at each mark."""

    name = "cpu"

    def __init__(self) -> None:
        self.marks = 0
        self.forced: list[str | None] = []
        self.asked: list[tuple[Any, ...]] = []
        self.alive = True

    def facts(self) -> dict[str, Any]:
        return {"device": H100, "driver": "1.2", "torch": torch.__version__, "cuda": "13.0"}

    def mark(self) -> Any:
        self.marks += 1
        return self.marks

    def seconds(self, first: Any, last: Any) -> float:
        return 1e-3 * (last - first)

    def wait(self) -> None:
        if not self.alive:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def kernel(self, *layer: Any) -> str:
        self.asked.append(layer)
        return "cluster" if layer[-1] else "resident"

    def force(self, kernel: str | None) -> None:
        self.forced.append(kernel)

    def rates(self, dtypes: dict[str, torch.dtype]) -> dict[str, float]:
        return dict.fromkeys(dtypes, 1000000000000.0) | {"copy": 1e12}


def settings(device: FakeDevice | None = None, **others: Any) -> Settings:
    def no_compiler(*_: Any) -> Any:
        raise further.NoTime("compiling takes more than 0 s")

    given: dict[str, Any] = {"rates": {"float32": 1e12}, "peak": PEAKS[H100]}
    return Settings(device or FakeDevice(), 0.0, compiled=no_compiler, **(given | others))


def row(ratio: float, **others: Any) -> dict[str, Any]:
    """A row of the table, an LSTM's unless said."""
    common = {"cell": "lstm", "dtype": "float32", "mode": "training", "shape": "50,32,1,20"}
    times = {"kernel": "step", "ours_ms": 1.0, "peer_ms": ratio, "us_a_step": 20.0, "off": 1e-6}
    peer = {"layout": "padded", "peer": "torch.nn"}
    ratios = dict.fromkeys(("ratio", "ratio_low", "ratio_high"), ratio)
    return common | times | peer | ratios | others
