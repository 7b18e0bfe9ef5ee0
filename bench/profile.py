"""Tells where the time of a layer's call goes.

``python -m bench.profile`` takes three shapes, or that of ``--shape``, ``--cell`` and ``--mode``.

Measured: the whole call; the operators alone, below autograd (of a call that goes past them, see
``rnncells.streaming``, the engine's own entry); and the same at other numbers of time steps T.
Derived: the call's overhead, as the difference of the first two; what the operators take whatever
T is, and what grows with it, by a straight line a + b T through their times (checks, allocation and
packing of weights are fixed); the least time of the products, as their flops over the best product
rate of this run; and what the operators take beyond it: pointwise mathematics, loads, turning,
packing, and products below that rate.
Sampled, where Linux ``perf`` is installed: the operators' functions, see ``bench.sampling``. The
shares are of another run of the operators, so they split their time in another way, and add up.
"""

import argparse
import statistics
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench import machine, results, sampling
from bench.command import add_threads, make_parser, start
from bench.cpu import ENGINE_NAMES, MODES
from bench.layers import CELLS, Shape, make_data, make_pair, required_flops, training_step
from bench.progress import with_progress
from bench.table import align
from bench.timing import Call, time_in_turn
from rnncells import _C
from rnncells.autograd import BelowAutograd
from rnncells.ops import layer_backward, layer_forward

STREAM_ROWS = 8
SAMPLING_LOOK_S = 5e-3  # calls between looks whether perf has ended
HEADER = ("part", "µs", "of the call", "how it is known")
FEWEST_POINTS = 3  # a line through two says nothing of whether it is one


class Case(NamedTuple):
    """What is looked at: one layer's call."""

    cell: str
    mode: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.cell} {self.mode} {self.shape}"

    @property
    def regime(self) -> str:
        """What the engine chose to put into the lanes of a vector."""
        return _C.regime(ENGINE_NAMES[self.cell], *self.shape, self.mode == "training")

    @property
    def streams(self) -> bool:
        """Whether the call goes past the operators."""
        return self.mode == "forward" and self.shape.T * self.shape.B <= STREAM_ROWS


CASES = (
    Case("lstm", "training", Shape(50, 32, 1, 20)),
    Case("lstm", "training", Shape(100, 64, 128, 128)),
    Case("gru", "forward", Shape(1, 1, 64, 64)),
)


def whole_call(case: Case, layer: nn.Module) -> Call:
    """Return the call as a user makes it, in training or within inference mode."""
    x, dy = make_data(case.shape)
    if case.mode == "training":
        return lambda: training_step(layer, x, dy)
    return lambda: layer(x)


def operators_alone(case: Case, layer: Any) -> Call:
    """Return what the call comes down to: the operators below autograd, or the engine's entry."""
    x, dy = make_data(case.shape)
    if case.streams:
        return lambda: _C.stream_layer(layer._plan, layer._parameters, False, x, None)
    weights = [weight.detach() for weight in layer.parameters()]
    name = ENGINE_NAMES[case.cell]

    def infer() -> object:
        return layer_forward(x, [], weights, None, None, name, False, False)

    def train() -> list[Tensor]:
        with BelowAutograd():
            save, tidy = True, False
            y, _, kept = layer_forward(x, [], weights, None, None, name, False, save, tidy)
            needs = [0] + [1] * len(weights)
            return layer_backward(dy, [], x, [], weights, None, None, y, kept, name, False, needs)

    return train if case.mode == "training" else infer


def neighbours(case: Case) -> list[Case]:
    """Return the case at other numbers of time steps, as far as the engine treats it alike."""
    T = case.shape.T
    steps = (T // 4, T // 2, T, 2 * T) if T >= 8 else (T, 2 * T, 4 * T, 8 * T)
    others = [case._replace(shape=case.shape._replace(T=t)) for t in steps]
    return [o for o in others if (o.regime, o.streams) == (case.regime, case.streams)]


def fit_line(points: list[tuple[int, float]]) -> tuple[float, float] | None:
    """Return a and b of the line a + b T with the least relative squares, or None: too few points.

    Args:
        points: T and the seconds there.
    """
    if len(points) < FEWEST_POINTS:
        return None
    seconds = torch.tensor([s for _, s in points], dtype=torch.float64)
    rows = torch.tensor([[1.0, t] for t, _ in points], dtype=torch.float64) / seconds[:, None]
    a, b = torch.linalg.lstsq(rows, torch.ones(len(points), 1, dtype=torch.float64)).solution
    return float(a), float(b)


def measure(case: Case, budget_s: float) -> dict[str, Any]:
    """Time a case and sample it; return a row, in seconds."""
    # Once around all calls, as a stream has it: to enter it takes longer than a small layer.
    with torch.inference_mode(case.mode == "forward"):
        return _measure(case, budget_s)


def _measure(case: Case, budget_s: float) -> dict[str, Any]:
    torch.manual_seed(0)
    layer, _ = make_pair(case.cell, case.shape)
    near = neighbours(case)
    calls = [whole_call(case, layer), *(operators_alone(one, layer) for one in near)]
    rates = [machine.product_rates()["best"]]
    call_s, *others_s = map(statistics.median, zip(*time_in_turn(calls, budget_s), strict=True))
    rates.append(machine.product_rates()["best"])
    points = [(one.shape.T, seconds) for one, seconds in zip(near, others_s, strict=True)]
    operators_s = dict(points)[case.shape.T]
    flops = required_flops(case.cell, case.shape, case.mode == "training")
    row: dict[str, Any] = {
        "cell": case.cell,
        "mode": case.mode,
        "shape": str(case.shape),
        "regime": case.regime,
        "streams": case.streams,
        "call_s": call_s,
        "operators_s": operators_s,
        "operators_at_T_s": dict(points),
        "products_least_s": flops / (max(rates) * 1e9),
        "product_gflops": max(rates),
    }
    if line := fit_line(points):
        row |= {"fixed_s": line[0], "step_s": line[1]}
    repeats = max(1, round(SAMPLING_LOOK_S / operators_s))
    try:
        row["samples"] = sampling.sample(operators_alone(case, layer), repeats, budget_s)
    except sampling.NoSamples as reason:
        row["no_samples"] = str(reason)
    return row


def as_table(row: dict[str, Any]) -> str:
    """Return a case's row as a table under its name."""
    call, operators, least = row["call_s"], row["operators_s"], row["products_least_s"]
    inner = "engine's entry" if row["streams"] else "operators"
    parts = [
        ("whole call", call, "measured"),
        ("  Python, autograd, dispatch", call - operators, f"derived: call - {inner}"),
        (f"  {inner}", operators, "measured, below autograd"),
    ]
    if "fixed_s" in row:
        T = int(row["shape"].split(",")[0])
        steps = ", ".join(map(str, row["operators_at_T_s"]))
        parts += [
            ("    fixed", row["fixed_s"], f"derived: a of a + b T, at T = {steps}"),
            ("    growing with T", row["step_s"] * T, "derived: b T of the same"),
        ]
    parts += [
        ("    products at the best rate", least, f"derived: at {row['product_gflops']:.0f} GF/s"),
        ("    all beyond these", operators - least, f"derived: {inner} - products"),
    ]
    lines = [(name, f"{s * 1e6:.1f}", f"{s / call:.0%}", how) for name, s, how in parts]
    for group, share in row.get("samples", {}).items():
        seconds = share * operators
        how = f"sampled: {share:.0%} of the {inner}"
        lines.append((f"    {group}", f"{seconds * 1e6:.1f}", f"{seconds / call:.0%}", how))
    table = f"{row['cell']} {row['mode']} {row['shape']}, lanes: {row['regime']}\n"
    table += align(HEADER, lines)
    return table + (f"\nno samples: {row['no_samples']}" if "no_samples" in row else "")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("profile", __doc__)
    add_threads(parser)
    parser.add_argument("--shape", type=Shape.parse, metavar="T,B,I,H", help="instead of the three")
    parser.add_argument("--cell", choices=list(CELLS), default="lstm", help="with --shape (lstm)")
    parser.add_argument("--mode", choices=MODES, default="training", help="with --shape (training)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each case (3)")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"--threads is at least 1, and not {options.threads}")
    return options


def main() -> None:
    """Measure, print the tables, and write JSON."""
    options = parse()
    facts = start(options.threads)
    cases: tuple[Case, ...] = CASES
    if options.shape is not None:
        cases = (Case(options.cell, options.mode, options.shape),)
    rows = [measure(case, options.seconds) for case in with_progress(cases, str)]
    print("\n" + "\n\n".join(map(as_table, rows)))
    print(f"\n{results.write(options.out, 'profile', facts, rows)}")


if __name__ == "__main__":
    main()
