"""Times an epoch of a small forecaster's training: the same network by us and by others.

``python -m bench.chapter`` trains the deep network of the textbooks' chapter on recurrent networks:
two layers of 20 units and a dense head that forecasts ten values at every step, on synthetic series
of 50 steps (two sines of random frequency and phase, and noise), with Adam, MSE and batches of 32.
All start from the same weights and meet the same batches; their epochs are timed in turn, and a
ratio is taken within each epoch. After the last, all must have come to the same validation error.

Ours and torch.nn's layers run in one plain loop, and so does the head alone on the series ("none"),
which tells what the loop costs. JAX and Keras, on its JAX backend, take part where they are
installed (the extra ``bench``). Keras's SimpleRNN and LSTM have one bias in place of torch.nn's
two, so that theirs is held against the error of torch.nn's network with one bias.
Cores is CPU time over wall time: whether a side kept to the threads it was given.
"""

import argparse
import gc
import math
import statistics
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from time import perf_counter, process_time
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from bench import results
from bench.command import add_cells, add_threads, make_parser, start
from bench.layers import CELLS
from bench.peers import Side
from bench.peers.torch_loop import Forecaster, TorchLoop, one_bias
from bench.peers.xla import limit_threads
from bench.progress import with_progress
from bench.table import align

STEPS, HORIZON, BATCH = 50, 10, 32
# Rounding sends two runs apart step by step; a wrong gradient does so by far more than this.
SAME_ERROR = 1e-3
KERAS = "Keras on JAX"
PEERS = {"JAX": ("jax", "optax"), KERAS: ("jax", "keras")}
ADVICE = "without {}: not installed (pip install 'rnncells[bench]' brings it)"
ONE_BIAS = ("rnn", "lstm")  # Keras's GRU has two
FLOOR = "none"
HEADER = ("cell", "who", "s/epoch", "times ours", "cores", "validation MSE", "at the last step")


class Data(NamedTuple):
    """Series [N, T, 1], and their next values after each step [N, T, horizon]."""

    x: Tensor
    y: Tensor


def generate_time_series(count: int, steps: int) -> Tensor:
    """Return random waves with noise, [count, steps], float32."""
    frequency_1, frequency_2, offset_1, offset_2 = torch.rand(4, count, 1)
    time = torch.linspace(0, 1, steps)
    series = 0.5 * torch.sin((time - offset_1) * (frequency_1 * 10 + 10))
    series += 0.2 * torch.sin((time - offset_2) * (frequency_2 * 20 + 20))
    return series + 0.1 * (torch.rand(count, steps) - 0.5)


def make_data(count: int) -> Data:
    """Return series of ``STEPS`` steps with the ``HORIZON`` values that follow each step."""
    series = generate_time_series(count, STEPS + HORIZON)
    return Data(series[:, :STEPS, None], series[:, 1:].unfold(1, HORIZON, 1).contiguous())


def installed() -> list[str]:
    """Return the names of the peers, besides torch.nn, whose packages are installed."""
    return [who for who, packages in PEERS.items() if all(map(find_spec, packages))]


def make_sides(cell: str, train: Data) -> dict[str, Side]:
    """Return who trains a network of this cell, ours first, all with the same weights."""
    torch.manual_seed(0)
    if cell == FLOOR:
        return {"the loop alone": TorchLoop(Forecaster(None), *train)}
    ours, peer = (Forecaster(layer) for layer in CELLS[cell])
    ours.load_state_dict(peer.state_dict())
    sides: dict[str, Side] = {"ours": TorchLoop(ours, *train), "torch.nn": TorchLoop(peer, *train)}
    here = installed()
    if "JAX" in here:
        from bench.peers.jax_scan import JaxScan

        sides["JAX"] = JaxScan(cell, peer.state_dict(), *train)
    if KERAS in here:
        from bench.peers.keras_loop import KerasLoop

        sides[KERAS] = KerasLoop(cell, peer.state_dict(), *train)
    return sides


def one_bias_error(cell: str, train: Data, valid: Data, orders: list[list[Tensor]]) -> float:
    """Train torch.nn's network with one bias in each layer; return its validation error.

    From the weights of ``make_sides``, on the same batches.
    """
    torch.manual_seed(0)
    _, peer = (Forecaster(layer) for layer in CELLS[cell])
    loop = TorchLoop(one_bias(peer), *train)
    for batches in orders:
        loop.epoch(batches)
    return float(mse_loss(loop.predict(valid.x), valid.y))


def time_epoch(side: Side, batches: list[Tensor]) -> tuple[float, float]:
    """Train for an epoch; return its seconds, and the CPU's seconds over these."""
    gc.collect()
    wall, cpu = perf_counter(), process_time()
    side.epoch(batches)
    seconds = perf_counter() - wall
    return seconds, (process_time() - cpu) / seconds


def as_rows(
    cell: str, sides: dict[str, Side], epochs: dict[str, list[tuple[float, float]]], valid: Data
) -> Iterator[dict[str, Any]]:
    """Yield a row for each side, from its epochs' seconds and cores."""
    first = next(iter(epochs.values()))
    for name, side in sides.items():
        predicted = side.predict(valid.x)
        yield {
            "cell": cell,
            "who": name,
            "epoch_s": statistics.median(seconds for seconds, _ in epochs[name]),
            "ratio": statistics.median(
                mine / ours for (mine, _), (ours, _) in zip(epochs[name], first, strict=True)
            ),
            "cores": statistics.median(cores for _, cores in epochs[name]),
            "validation_mse": float(mse_loss(predicted, valid.y)),
            "last_step_mse": float(mse_loss(predicted[:, -1], valid.y[:, -1])),
        }


def check_errors(rows: list[dict[str, Any]]) -> None:
    """Refuse times of sides that did not come to the same validation error.

    Raises:
        SystemExit: two that differ.
    """
    for row in rows:
        found, expected, whose = row["validation_mse"], rows[0]["validation_mse"], rows[0]["who"]
        if "one_bias_mse" in row:
            expected, whose = row["one_bias_mse"], "torch.nn with one bias"
        if not math.isclose(found, expected, rel_tol=SAME_ERROR):
            raise SystemExit(
                f"{row['cell']}: the validation MSE of {row['who']} is {found:.6f}, "
                f"and that of {whose} {expected:.6f}: they did not train the same."
            )


def measure_all(cells: list[str], count: int, epochs: int) -> list[dict[str, Any]]:
    """Train every side of every cell on ``count`` series, in turn; return a row for each."""
    torch.manual_seed(42)
    train, valid = make_data(count), make_data(max(1, count * 2 // 7))
    orders = [list(torch.randperm(count).split(BATCH)) for _ in range(epochs)]
    sides = {cell: make_sides(cell, train) for cell in cells}
    taken: dict[str, dict[str, list[tuple[float, float]]]] = {
        cell: {name: [] for name in sides[cell]} for cell in cells
    }
    turns = [
        (cell, epoch, name) for cell in cells for epoch in range(epochs) for name in sides[cell]
    ]
    for cell, epoch, name in with_progress(turns, lambda turn: f"{turn[0]}, {turn[2]}"):
        side = sides[cell][name]
        if epoch == 0:
            side.warm_up([orders[0][0], orders[0][-1]])  # both sizes: the last may be smaller
        taken[cell][name].append(time_epoch(side, orders[epoch]))
    rows = []
    for cell in cells:
        of_cell = list(as_rows(cell, sides[cell], taken[cell], valid))
        for row in of_cell:
            if row["who"] == KERAS and cell in ONE_BIAS:
                row["one_bias_mse"] = one_bias_error(cell, train, valid, orders)
        check_errors(of_cell)
        rows += of_cell
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    lines = [
        (
            row["cell"],
            row["who"],
            f"{row['epoch_s']:.3f}",
            "" if row["cell"] == FLOOR else f"{row['ratio']:.2f}",
            f"{row['cores']:.1f}",
            f"{row['validation_mse']:.5f}",
            f"{row['last_step_mse']:.5f}",
        )
        for row in rows
    ]
    notes = [
        f"\n{row['cell']}: {row['who']} has one bias where torch.nn has two; "
        f"with one, torch.nn's validation MSE is {row['one_bias_mse']:.5f}"
        for row in rows
        if "one_bias_mse" in row
    ]
    return align(HEADER, lines) + "".join(notes)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("chapter", __doc__)
    add_threads(parser)
    add_cells(parser)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each (3)")
    parser.add_argument("--series", type=int, default=7000, help="series to train on (7000)")
    options = parser.parse_args()
    if min(options.threads, options.epochs, options.series) < 1:
        parser.error("--threads, --epochs and --series are at least 1")
    return options


def main() -> None:
    """Measure, print the table, and write JSON."""
    options = parse()
    facts = start(options.threads) | {"series": options.series, "epochs": options.epochs}
    here = installed()
    limit_threads(options.threads)
    for who, packages in PEERS.items():
        if who in here:
            facts |= {package: version(package) for package in packages}
        else:
            print(ADVICE.format(who))
    rows = measure_all([FLOOR, *options.cells], options.series, options.epochs)
    print(f"\n{as_table(rows)}\n\n{results.write(options.out, 'chapter', facts, rows)}")


if __name__ == "__main__":
    main()
