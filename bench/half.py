"""Times our layers in 16 bits against themselves in float32, in one process, in turn.

The ratio is float32's time over that of 16 bits: above 1, 16 bits are quicker. They are converted
as they are loaded and stored, and computed in float32, so that what they can win is memory.
"""

import argparse
import statistics
from itertools import product
from typing import Any

import torch

from bench import results
from bench.command import add_grid, make_parser, start
from bench.layers import CELLS, Shape, forward, make_data, training_step
from bench.progress import with_progress
from bench.table import align
from bench.timing import time_pair
from rnncells import _C

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
MODES = ("training", "forward")
SHAPES = ("50,32,1,20", "100,64,16,64", "100,64,128,128", "40,64,256,256", "400,1,64,128")
HEADER = ("cell", "mode", "T,B,I,H", "dtype", "ms", "float32 ms", "float32 / 16 bits")


def measure(cell: str, mode: str, shape: Shape, dtype: str, budget_s: float) -> dict[str, Any]:
    """Time one layer of the shape in 16 bits and in float32; return a row."""
    torch.manual_seed(0)
    kind = CELLS[cell][0]
    wide = kind(shape.I, shape.H)
    narrow = kind(shape.I, shape.H, dtype=DTYPES[dtype])
    narrow.load_state_dict(wide.state_dict())
    x, dy = make_data(shape)
    x_narrow, dy_narrow = x.to(DTYPES[dtype]), dy.to(DTYPES[dtype])

    def run(layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor) -> None:
        if mode == "training":
            training_step(layer, x, dy)
        else:
            forward(layer, x)

    timing = time_pair(lambda: run(narrow, x_narrow, dy_narrow), lambda: run(wide, x, dy), budget_s)
    return {
        "cell": cell,
        "mode": mode,
        "shape": str(shape),
        "dtype": dtype,
        "ms": timing.ours_s * 1e3,
        "float32_ms": timing.peer_s * 1e3,
        "ratio": timing.ratio,
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table, then the lowest ratio and the geometric mean of each dtype."""
    lines = [
        (
            row["cell"],
            row["mode"],
            row["shape"],
            row["dtype"],
            f"{row['ms']:.3f}",
            f"{row['float32_ms']:.3f}",
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["dtype"], []).append(row["ratio"])
    means = [
        (dtype, f"{min(ratios):.2f}", f"{statistics.geometric_mean(ratios):.2f}")
        for dtype, ratios in found.items()
    ]
    return align(HEADER, lines) + "\n\n" + align(("dtype", "lowest", "geometric mean"), means)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("half", __doc__)
    add_grid(parser)
    parser.add_argument("--isa", choices=_C.supported_isas(), help="instruction set (the widest)")
    parser.add_argument("--seconds", type=float, default=0.4, help="time for each row (0.4)")
    options = parser.parse_args()
    options.shapes = options.shapes or [Shape.parse(text) for text in SHAPES]
    return options


def main() -> None:
    """Measure, print the table, and write JSON."""
    options = parse()
    if options.isa:
        _C.set_isa(options.isa)
    facts = start(options.threads)
    rows = [
        measure(*case, options.seconds)
        for case in with_progress(
            list(product(options.cells, MODES, options.shapes, DTYPES)),
            lambda case: " ".join(map(str, case)),
        )
    ]
    print(
        f"\n{as_table(rows)}\n\n{results.write(options.out, f'half-{_C.get_isa()}', facts, rows)}"
    )


if __name__ == "__main__":
    main()
