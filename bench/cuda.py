"""Times the layers on a CUDA device against torch.nn's, which is cuDNN, and torch.compile's.

``python -m bench.cuda`` measures a grid within ``--seconds``, the most wanted first, prints tables
and writes JSON after each row; ``--full`` measures every size, ``--shapes`` those that are named. A
row is timed only where our results agree with torch.nn's; both sides run in turn in one process, by
the device's events, and a ratio above 1 says that ours is faster. ``roofline`` is the least time
that the device's datasheet allows for the operations and bytes that the result requires, over ours;
``of mm`` our operations a second over those of a large torch.mm of the same dtype in this run.

Exits with 1 where ours fails or differs, and with 2 where there is no CUDA device or no engine.
"""

import argparse
import os
from pathlib import Path
from time import monotonic
from typing import Any

from bench import cuda_grid, further, plot, results
from bench.command import add_grid, make_parser, start
from bench.cuda_device import KERNELS, Device
from bench.cuda_grid import DTYPES, MODES, PEERS, Case, Choice
from bench.cuda_roofline import PEAKS
from bench.cuda_run import Settings, measure
from bench.cuda_table import aims, as_text, timed
from bench.progress import with_progress

NAME = "cuda"


def save(folder: Path, facts: dict[str, Any], rows: list[dict[str, Any]], left: list[str]) -> Path:
    """Write the JSON whole or not at all: a process that is killed leaves the one before."""
    told = facts | {"left": left, "aims": aims(rows)}
    return results.write(folder, f"{NAME}.part", told, rows).replace(folder / f"{NAME}.json")


def measure_all(
    cases: list[Case],
    settings: Settings,
    facts: dict[str, Any],
    folder: Path,
    seconds: float,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the cases until the time is spent, and write after each.

    A row that was begun is ended. A device that answers no more ends it too.

    Returns:
        The rows, and the names of what was left.
    """
    rows: list[dict[str, Any]] = []
    names = [str(case) for case in cases]
    end = monotonic() + seconds
    for done, case in enumerate(with_progress(cases, str)):
        if monotonic() >= end:
            break
        rows.append(measure(case, settings))
        save(folder, facts, rows, names[done + 1 :])
        if "lost" in rows[-1]:
            break
    return rows, names[len(rows) :]


def draw(folder: Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> Path | None:
    """Draw the ratios to torch.nn; None without matplotlib, or without a row."""
    drawn = [
        row | {"shape": " ".join([row["shape"], row["dtype"], row["layout"]])}
        for row in timed(rows)
        if row["peer"] == cuda_grid.TORCH_NN
    ]
    if not drawn:
        return None
    caption = ", ".join(
        str(facts[name]) for name in ("device", "driver", "torch", "commit", "date")
    )
    return plot.draw(folder / f"{NAME}.png", caption, drawn)


def parse() -> argparse.Namespace:
    """Read the command line; ``cases`` is what it asks for."""
    parser = make_parser(NAME, __doc__)
    add_grid(parser)
    parser.add_argument("--full", action="store_true", help="every H, B and T: hours")
    parser.add_argument("--packed", action="store_true", help="with --shapes: packed ones too")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--kernel", choices=KERNELS, help="force this one, where it can serve")
    parser.add_argument("--seconds", type=float, default=400, help="start no row after (400)")
    parser.add_argument("--row-seconds", type=float, default=0.15, help="timing of a row (0.15)")
    parser.add_argument(
        "--compile-seconds", type=float, default=20, help="the longest compilation of a row (20)"
    )
    parser.add_argument(
        "--commit",
        default=os.environ.get("RNNCELLS_COMMIT"),
        help="what is measured, where git does not tell (RNNCELLS_COMMIT)",
    )
    options = parser.parse_args()
    choice = Choice(options.cells, options.dtypes, options.modes, options.peers)
    if options.shapes:
        options.cases = cuda_grid.chosen_cases(choice, options.shapes, options.packed)
    else:
        options.cases = (cuda_grid.all_cases if options.full else cuda_grid.cases)(choice)
    return options


def prepare(options: argparse.Namespace, device: Device) -> tuple[Settings, dict[str, Any]]:
    """Return what is the same for every row, and the facts of the run."""
    facts = start(options.threads) | device.facts()
    facts["commit"] = options.commit or facts["commit"]
    peak = PEAKS.get(facts["device"])
    rates = device.rates({name: DTYPES[name] for name in options.dtypes})
    facts |= {
        "forced_kernel": options.kernel,
        "rates": rates,
        "peak": peak._asdict() if peak else None,
    }
    told = ", ".join(f"{name} {rate / 1e12:.1f}" for name, rate in rates.items())
    print(f"{facts['device']}, driver {facts['driver']}, cuDNN {facts.get('cudnn')}")
    print(f"torch.mm in TFLOP/s and copy in TB/s, now: {told}")
    print(f"roofline: {peak.source if peak else 'this device is not in the table'}", flush=True)
    compiled = further.all_peers(options.compile_seconds)[cuda_grid.COMPILED].make
    forced = options.kernel is not None
    return Settings(device, options.row_seconds, rates, peak, compiled, forced), facts


def main() -> None:
    """Measure, print the tables, and write JSON and picture."""
    begun = monotonic()
    options = parse()
    device = Device()
    if options.kernel:
        device.force(options.kernel)
    settings, facts = prepare(options, device)
    left_s = options.seconds - (monotonic() - begun)
    rows, left = measure_all(options.cases, settings, facts, options.out, left_s)
    written = save(options.out, facts, rows, left)
    print(f"\n{as_text(rows, left)}\n\n{written}")
    print(draw(options.out, facts, rows) or plot.ADVICE)
    if any(row.get("fault") or row.get("lost") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
