"""Peak memory of one training step, ours and torch.nn's, each in a process of its own.

Told is how far the resident set rises during a step above what it was just before, with weights,
input and the output's gradient already there. Linux keeps the peak (VmHWM in /proc/self/status)
and lets a process reset it (5 into /proc/self/clear_refs). It sees all memory, whoever allocates
it, where a profiler sees only torch's allocator. To make it repeatable, a step before the measured
ones sets up libraries and threads; what is freed goes back to the system, so that no step hides in
memory which an earlier one left; and there are no huge pages, which count what nobody touched.
"Again" is our layer with ``recompute=True``.
"""

import argparse
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench import machine, results
from bench.command import add_grid, make_parser, start
from bench.layers import Shape, make_data, make_pair, training_step
from bench.progress import with_progress
from bench.table import align

SHAPES = (
    "50,256,1,20",
    "100,64,16,64",
    "100,64,128,128",
    "40,64,256,256",
    "1000,64,64,128",
    "1,1,512,512",
)
SIDES = ("ours", "again", "torch.nn")
STEPS = 5
GIVE_BACK_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}
PR_SET_THP_DISABLE = 41
HEADER = ("cell", "T,B,I,H", "ours MB", "again MB", "torch MB", "ours / torch", "again / ours")


def _resident_kb(which: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{which}:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise SystemExit(f"/proc/self/status has no {which}: bench.memory needs Linux.")
    return int(found[1])


def rise_of_step(cell: str, shape: Shape, side: str) -> float:
    """Return the rise of one step in MB (median of a few), measured in this very process."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    torch.manual_seed(0)
    ours, peer = make_pair(cell, shape)
    layer: Any = peer if side == "torch.nn" else ours
    if side == "again":
        layer.recompute = True
    x, dy = make_data(shape)
    training_step(layer, x, dy)
    rises = []
    for _ in range(STEPS):
        layer.zero_grad(set_to_none=True)
        gc.collect()
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident_kb("VmRSS")
        training_step(layer, x, dy)
        rises.append((_resident_kb("VmHWM") - before) * 1024 / 1e6)
    return sorted(rises)[STEPS // 2]


def measure(cell: str, shape: Shape, side: str, threads: int) -> float:
    """Return the rise of one step in MB, measured in a fresh process."""
    command = [sys.executable, "-m", "bench.memory", "--threads", str(threads)]
    child = subprocess.run(
        [*command, "--child", cell, str(shape), side],
        env=os.environ | GIVE_BACK_AT_ONCE,
        cwd=machine.ROOT,
        capture_output=True,
        text=True,
    )
    if child.returncode:
        raise SystemExit(f"measuring {side} {cell} {shape} failed:\n{child.stderr}")
    return float(json.loads(child.stdout))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("memory", __doc__)
    add_grid(parser)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.shapes = options.shapes or [Shape.parse(text) for text in SHAPES]
    return options


def main() -> None:
    """Measure, print the table, and write JSON."""
    options = parse()
    if options.child:
        torch.set_num_threads(options.threads)
        cell, shape, side = options.child
        print(json.dumps(rise_of_step(cell, Shape.parse(shape), side)))
        return
    facts = start(options.threads)
    rows: list[dict[str, Any]] = []
    cases = [(cell, shape) for cell in options.cells for shape in options.shapes]
    for cell, shape in with_progress(cases, lambda case: " ".join(map(str, case))):
        ours, again, peer = (measure(cell, shape, side, options.threads) for side in SIDES)
        row = {"cell": cell, "shape": str(shape), "ours_mb": ours, "again_mb": again}
        rows.append(row | {"torch_mb": peer})
    lines = [
        (
            row["cell"],
            row["shape"],
            f"{row['ours_mb']:.1f}",
            f"{row['again_mb']:.1f}",
            f"{row['torch_mb']:.1f}",
            f"{row['ours_mb'] / row['torch_mb']:.2f}",
            f"{row['again_mb'] / row['ours_mb']:.2f}",
        )
        for row in rows
    ]
    print(f"\n{align(HEADER, lines)}\n\n{results.write(options.out, 'memory', facts, rows)}")


if __name__ == "__main__":
    main()
