"""Times the layers on the CPU against torch.nn's, in one process, in turn, with the same weights.

``python -m bench.cpu --threads 1`` prints a table and writes it as JSON with a picture. GF/s
counts the matrix products that the result requires (see ``bench.layers.required_flops``). Its
shares are of the rates that a large float32 product made in the same run: torch.mm's, which is what
torch.nn builds on, and the best that was seen (see ``bench.machine.product_rates``), which is the
machine's limit. The regime is what the engine chose to put into the lanes of a vector: the units,
the rows of the batch, or the terms of each sum (depth).

Then come the peers of ``bench.further`` that are installed (the extra ``bench``), as ratios to ours
in a table of their own. torch.compile's time to compile is bounded by ``--compile-seconds``; what
it leaves in its cache makes the next run start sooner.
"""

import argparse
import statistics
from itertools import product
from typing import Any

import torch

from bench import further, machine, plot, results
from bench.command import add_grid, make_parser, start
from bench.layers import (
    Shape,
    forward,
    make_data,
    make_pair,
    required_flops,
    training_step,
)
from bench.progress import with_progress
from bench.table import align
from bench.timing import time_pair
from rnncells import _C

ENGINE_NAMES = {"rnn": "rnn_tanh", "lstm": "lstm", "gru": "gru"}
MODES = ("forward", "training")
GRID = (
    "1,16,32,64",
    "50,32,1,20",
    "50,256,1,20",
    "60,48,7,37",
    "100,64,16,64",
    "100,64,128,128",
    "40,64,256,256",
    "25,128,512,512",
    "400,1,64,128",
)
QUICK_GRID = ("1,16,32,64", "50,32,1,20", "100,64,128,128")
HEADER = (
    "cell",
    "mode",
    "T,B,I,H",
    "regime",
    "ours ms",
    "torch ms",
    "ratio",
    "GF/s",
    "of mm",
    "of best",
)


def measure(cell: str, mode: str, shape: Shape, budget_s: float) -> dict[str, Any]:
    """Time one layer of the shape; return a row without its shares of the machine's rates."""
    torch.manual_seed(0)
    ours, peer = make_pair(cell, shape)
    x, dy = make_data(shape)

    def run(layer: torch.nn.Module) -> None:
        if mode == "training":
            training_step(layer, x, dy)
        else:
            forward(layer, x)

    timing = time_pair(lambda: run(ours), lambda: run(peer), budget_s)
    training = mode == "training"
    flops = required_flops(cell, shape, training)
    return {
        "cell": cell,
        "mode": mode,
        "shape": str(shape),
        "regime": _C.regime(ENGINE_NAMES[cell], *shape, training),
        "ours_ms": timing.ours_s * 1e3,
        "torch_ms": timing.peer_s * 1e3,
        "ratio": timing.ratio,
        "ratio_low": timing.ratio_low,
        "ratio_high": timing.ratio_high,
        "rounds": timing.rounds,
        "gflops": flops / timing.ours_s / 1e9,
    }


def measure_all(
    cells: list[str], shapes: list[Shape], budget_s: float
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Measure every cell, mode and shape; return the rows, and the machine's rates in GF/s.

    The rates are taken again before each row and their best counts, as a limit should.
    """
    rows, seen = [], []
    cases = list(product(cells, MODES, shapes))
    for cell, mode, shape in with_progress(cases, lambda case: " ".join(map(str, case))):
        seen.append(machine.product_rates())
        rows.append(measure(cell, mode, shape, budget_s))
    rates = {name: max(some[name] for some in seen) for name in seen[0]}
    return [
        row | {f"share of {name}": row["gflops"] / rate for name, rate in rates.items()}
        for row in rows
    ], rates


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table, then the geometric mean of the ratios of each cell and mode."""
    lines = [
        (
            row["cell"],
            row["mode"],
            row["shape"],
            row["regime"],
            f"{row['ours_ms']:.3f}",
            f"{row['torch_ms']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['gflops']:.1f}",
            f"{row['share of torch.mm']:.0%}",
            f"{row['share of best']:.0%}",
        )
        for row in rows
    ]
    ratios: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        ratios.setdefault((row["cell"], row["mode"]), []).append(row["ratio"])
    means = [(*key, f"{statistics.geometric_mean(some):.2f}") for key, some in ratios.items()]
    return align(HEADER, lines) + "\n\n" + align(("cell", "mode", "geometric mean"), means)


def add_peers(
    rows: list[dict[str, Any]], peers: dict[str, further.Further], budget_s: float
) -> None:
    """Time the further peers, one after another, and put what was found into each row's ``peers``.

    After torch.nn's, so that nothing which they set up in the process can touch those times.
    """
    for row in rows:
        row["peers"] = {}
    cases = list(product(peers, rows))
    for name, row in with_progress(
        cases, lambda case: f"{case[0]}: {case[1]['cell']} {case[1]['mode']} {case[1]['shape']}"
    ):
        row["peers"][name] = further.measure(
            peers[name], row["cell"], row["mode"], Shape.parse(row["shape"]), budget_s
        )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("cpu", __doc__)
    add_grid(parser)
    parser.add_argument("--seconds", type=float, help="time for each row (1, or 0.2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="three shapes, a short look")
    parser.add_argument(
        "--peers",
        metavar="NAME,NAME",
        help=f"of torch.nn, which is always there, {', '.join(further.all_peers(0))}: whom to time "
        "(all that are installed)",
    )
    parser.add_argument(
        "--compile-seconds",
        type=float,
        help="the longest that torch.compile may take for one row (45, or 5 with --quick)",
    )
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"--threads is at least 1, and not {options.threads}")
    grid = QUICK_GRID if options.quick else GRID
    options.shapes = options.shapes or [Shape.parse(text) for text in grid]
    options.seconds = options.seconds or (0.2 if options.quick else 1.0)
    limit_s = options.compile_seconds or (5 if options.quick else 45)
    named = None
    if options.peers is not None:
        named = [name.strip() for name in options.peers.split(",") if name.strip() != "torch.nn"]
    try:
        options.peers = further.choose(named, limit_s)
    except ValueError as error:
        parser.error(f"--peers: {error}")
    return options


def main() -> None:
    """Measure, print the tables, and write JSON and picture."""
    options = parse()
    facts = start(options.threads) | further.prepare(options.peers, options.threads)
    rows, rates = measure_all(options.cells, options.shapes, options.seconds)
    told = ", ".join(f"{name} {rate:.0f} GF/s" for name, rate in rates.items())
    print(f"large float32 products in this run: {told}\n\n{as_table(rows)}\n", flush=True)
    name = f"cpu-{options.threads}-thread{'s' if options.threads > 1 else ''}"
    written = results.write(options.out, name, facts | {"product_gflops": rates}, rows)
    if options.peers:  # minutes: what was measured so far is safe
        add_peers(rows, options.peers, options.seconds)
        print(f"{further.as_table(rows)}\n")
        results.write(options.out, name, facts | {"product_gflops": rates}, rows)
    picture = plot.draw(written.with_suffix(".png"), machine.describe(facts), rows)
    print(f"{written}\n{picture or plot.ADVICE}")


if __name__ == "__main__":
    main()
