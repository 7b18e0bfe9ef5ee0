"""Times the layers' variants against the plain layer and against torch's operators step by step.

A training step each, in one process, in turn: our layer with the option, our layer without it, and
the same variant written with torch's operators, one time step after another: the specification,
with masks from torch's own generator. Cost is the variant's time over the plain layer's.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import rnncells
from bench import results
from bench.command import add_cells, add_threads, make_parser, start
from bench.layers import Shape, make_data, training_step
from bench.progress import with_progress
from bench.table import align
from bench.timing import time_pair
from rnncells import reference

SHAPE = "100,64,64,64"
KINDS = {"rnn": rnncells.SimpleRNN, "lstm": rnncells.LSTM, "gru": rnncells.GRU}
OPTIONS: dict[str, dict[str, Any]] = {
    "recurrent_dropout": {"recurrent_dropout": 0.25},
    "input_dropout": {"input_dropout": 0.25},
    "weight_dropout": {"weight_dropout": 0.25},
    "zoneout": {"zoneout": 0.1},
    "activation": {"activation": "softsign"},
    "resets": {},
    "reset_after=False": {"reset_after": False},
    "layer_norm=gates": {"layer_norm": "gates"},
    "layer_norm=preactivation": {"layer_norm": "preactivation"},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
}
ONLY = {"reset_after=False": "gru", "peephole": "lstm", "coupled": "lstm"}
MOST, MOST_NORMED = 1.5, 1.8  # of the plain layer's time
LEAST = 5.0  # times the operators' speed
HEADER = ("cell", "variant", "ms", "cost", "by operators")


class Case(NamedTuple):
    """A cell and one of its variants."""

    cell: str
    variant: str


def cases(cells: list[str]) -> list[Case]:
    """Every variant of the cells."""
    return [Case(c, v) for c in cells for v in OPTIONS if ONLY.get(v, c) == c]


def limit(variant: str) -> float:
    """What a variant may cost."""
    return MOST_NORMED if variant.startswith("layer_norm") else MOST


def keep(shape: tuple[int, ...], rate: float) -> Tensor:
    """A mask of torch's, 0 or 1 / (1 - rate)."""
    return torch.nn.functional.dropout(torch.ones(shape), rate)


def by_operators(layer: Any, x: Tensor, resets: Tensor | None) -> Tensor:
    """The layer's forward pass by torch's operators, a step at a time."""
    units, count = layer.hidden_size, 2 if isinstance(layer, rnncells.LSTM) else 1
    zoneout, told = layer.zoneout, dict[str, Any](resets=resets)
    variant = reference.Variant(
        activation=layer.activation,
        reset_after=layer.reset_after,
        peephole=layer.peephole,
        layer_norm=layer.layer_norm,
        coupled=layer.coupled,
        zoneout=(zoneout, zoneout if count == 2 else 0.0),
    )
    weights = list(layer.parameters())
    batch = x.shape[1]
    if layer.recurrent_dropout:
        told["mask"] = keep((1, batch, units), layer.recurrent_dropout)
    if layer.input_dropout:
        x = x * keep((batch, x.shape[2]), layer.input_dropout)
    if layer.weight_dropout:
        weights[1] = weights[1] * keep(tuple(weights[1].shape), layer.weight_dropout)
    if zoneout:
        told["zoneout"] = [torch.rand(1, len(x), batch, units) < zoneout for _ in range(count)]
    return reference.layer(x, [], weights, layer._cell, variant=variant, **told)[0]


def measure(case: Case, shape: Shape, budget_s: float) -> dict[str, Any]:
    """Time one variant; return a row."""
    torch.manual_seed(0)
    kind = KINDS[case.cell]
    layer, plain = kind(shape.I, shape.H, **OPTIONS[case.variant]), kind(shape.I, shape.H)
    x, dy = make_data(shape)
    resets = torch.rand(shape.T, shape.B) < 0.05 if case.variant == "resets" else None

    def ours() -> None:
        layer.zero_grad(set_to_none=True)
        layer(x, resets=resets)[0].backward(dy)

    def stepwise() -> None:
        layer.zero_grad(set_to_none=True)
        by_operators(layer, x, resets).backward(dy)

    def time(peer: Callable[[], object]) -> Any:
        return time_pair(ours, peer, budget_s)

    against_plain, against_steps = time(lambda: training_step(plain, x, dy)), time(stepwise)
    return {
        "cell": case.cell,
        "variant": case.variant,
        "shape": str(shape),
        "ms": against_plain.ours_s * 1e3,
        "cost": 1 / against_plain.ratio,
        "by_operators": against_steps.ratio,
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table, and which of them miss their aims."""
    lines = [
        (
            row["cell"],
            row["variant"],
            f"{row['ms']:.3f}",
            f"{row['cost']:.2f}",
            f"{row['by_operators']:.1f}",
        )
        for row in rows
    ]
    missed = [
        f"{row['cell']} {row['variant']}"
        for row in rows
        if row["cost"] > limit(row["variant"]) or row["by_operators"] < LEAST
    ]
    aims = f"cost {MOST}, layer norm {MOST_NORMED}; by operators {LEAST}"
    told = f"missed ({aims}): {', '.join(missed) or 'none'}"
    return align(HEADER, lines) + "\n\n" + told


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("variants", __doc__)
    add_cells(parser)
    add_threads(parser)
    parser.add_argument("--shape", type=Shape.parse, default=Shape.parse(SHAPE), help="T,B,I,H")
    parser.add_argument("--seconds", type=float, default=0.6, help="time for each pair (0.6)")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write JSON."""
    options = parse()
    facts = start(options.threads)
    rows = [
        measure(case, options.shape, options.seconds)
        for case in with_progress(cases(options.cells), lambda case: " ".join(case))
    ]
    print(f"\n{as_table(rows)}\n\n{results.write(options.out, 'variants', facts, rows)}")


if __name__ == "__main__":
    main()
