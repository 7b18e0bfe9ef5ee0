"""Times what a call costs: one time step of one sequence, in inference, against torch.nn.

``python -m bench.overhead`` times layers and cells at T=1, B=1 and few units, where most of the
time is the way from Python to the kernel and back. Ours go through ``rnncells.streaming``, past
the operators.
"""

import argparse
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import nn

import rnncells
from bench import results
from bench.command import make_parser, start
from bench.layers import CELLS, Shape, make_pair
from bench.progress import with_progress
from bench.table import align
from bench.timing import time_pair

STEPS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "rnn cell": (rnncells.SimpleRNNCell, nn.RNNCell),
    "lstm cell": (rnncells.LSTMCell, nn.LSTMCell),
    "gru cell": (rnncells.GRUCell, nn.GRUCell),
}
UNITS = (16, 64)
HEADER = ("module", "I,H", "state", "ours µs", "torch µs", "ratio")


def make_calls(
    kind: str, I: int, H: int, state: bool
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a call of ours and one of torch.nn's, with the same weights."""
    if kind in CELLS:
        modules = list(make_pair(kind, Shape(1, 1, I, H)))
        x, h = torch.randn(1, 1, I), torch.zeros(1, 1, H)
    else:
        modules = [cls(I, H) for cls in STEPS[kind]]
        modules[0].load_state_dict(modules[1].state_dict())
        x, h = torch.randn(1, I), torch.zeros(1, H)
    hx = ((h, h) if kind.startswith("lstm") else h) if state else None

    def caller(module: nn.Module) -> Callable[[], None]:
        def call() -> None:
            module(x, hx)

        return call

    ours, peer = (caller(module.eval()) for module in modules)
    return ours, peer


def measure(kind: str, I: int, H: int, state: bool, budget_s: float) -> dict[str, Any]:
    """Time one module; return a row."""
    torch.manual_seed(0)
    with torch.inference_mode():  # once around all calls, as a stream has it
        timing = time_pair(*make_calls(kind, I, H, state), budget_s)
    return {
        "module": kind,
        "inputs": I,
        "units": H,
        "state": state,
        "ours_us": timing.ours_s * 1e6,
        "torch_us": timing.peer_s * 1e6,
        "ratio": timing.ratio,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("overhead", __doc__)
    parser.add_argument("--units", nargs="+", type=int, default=UNITS, help="H (16 and 64)")
    parser.add_argument("--inputs", type=int, help="I, the same for every H (as many as units)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each row (1)")
    options = parser.parse_args()
    if min([*options.units, 1 if options.inputs is None else options.inputs]) < 1:
        parser.error("--units and --inputs are at least 1")
    return options


def main() -> None:
    """Measure, print the table, and write JSON."""
    options = parse()
    facts = start(1)
    cases = list(product(options.units, [*CELLS, *STEPS], (False, True)))
    rows = [
        measure(kind, options.inputs or H, H, state, options.seconds)
        for H, kind, state in with_progress(cases, lambda case: f"{case[1]}, {case[0]} units")
    ]
    lines = [
        (
            row["module"],
            f"{row['inputs']},{row['units']}",
            "given" if row["state"] else "none",
            f"{row['ours_us']:.1f}",
            f"{row['torch_us']:.1f}",
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    print(f"\n{align(HEADER, lines)}\n\n{results.write(options.out, 'overhead', facts, rows)}")


if __name__ == "__main__":
    main()
