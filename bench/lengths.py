"""Times training on sequences of unequal lengths, against torch.nn with a PackedSequence.

``python -m bench.lengths`` draws the lengths uniformly from 1 to T and times a training step of

- ours with ``lengths=`` on the padded batch, and with the PackedSequence, each in turn with
  torch.nn's on the same PackedSequence, which was packed outside the clock;
- ours with ``lengths=`` in turn with ours without, on an input of the same B whose T makes it the
  same number of rows ("unpadded"): what the raggedness itself costs.
"""

import argparse
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from bench import results
from bench.command import add_grid, make_parser, start
from bench.layers import Shape, make_pair, training_step
from bench.progress import with_progress
from bench.table import align
from bench.timing import time_pair

SHAPES = ("200,32,16,64",)
HEADER = ("cell", "T,B,I,H", "lengths ms", "torch ms", "ratio", "packed", "unpadded / lengths")


def measure(cell: str, shape: Shape, budget_s: float) -> dict[str, Any]:
    """Time one layer of the shape; return a row."""
    torch.manual_seed(0)
    T, B, I, H = shape
    ours, peer = make_pair(cell, shape)
    lengths = torch.randint(1, T + 1, (B,))
    padded = torch.randn(T, B, I)
    packed = pack_padded_sequence(padded, lengths, enforce_sorted=False)
    rows = int(lengths.sum())
    unpadded = torch.randn(max(1, round(rows / B)), B, I)
    dy, packed_dy, unpadded_dy = (
        torch.randn(*data.shape[:-1], H) for data in (padded, packed.data, unpadded)
    )

    def with_lengths() -> None:
        for parameter in ours.parameters():
            parameter.grad = None
        ours(padded, lengths=lengths)[0].backward(dy)

    def with_packed(layer: torch.nn.Module) -> None:
        for parameter in layer.parameters():
            parameter.grad = None
        layer(packed)[0].data.backward(packed_dy)

    by_lengths = time_pair(with_lengths, lambda: with_packed(peer), budget_s)
    by_packed = time_pair(lambda: with_packed(ours), lambda: with_packed(peer), budget_s)
    dense = time_pair(with_lengths, lambda: training_step(ours, unpadded, unpadded_dy), budget_s)
    return {
        "cell": cell,
        "shape": str(shape),
        "rows": rows,
        "unpadded_rows": unpadded.shape[0] * B,
        "lengths_ms": by_lengths.ours_s * 1e3,
        "torch_ms": by_lengths.peer_s * 1e3,
        "ratio": by_lengths.ratio,
        "packed_ms": by_packed.ours_s * 1e3,
        "packed_ratio": by_packed.ratio,
        "unpadded_ms": dense.peer_s * 1e3,
        "unpadded_ratio": dense.ratio * rows / (unpadded.shape[0] * B),
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("lengths", __doc__)
    add_grid(parser)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each pair (3)")
    options = parser.parse_args()
    options.shapes = options.shapes or [Shape.parse(text) for text in SHAPES]
    return options


def main() -> None:
    """Measure, print the table, and write JSON."""
    options = parse()
    facts = start(options.threads)
    cases = [(cell, shape) for cell in options.cells for shape in options.shapes]
    rows = [
        measure(cell, shape, options.seconds)
        for cell, shape in with_progress(cases, lambda case: " ".join(map(str, case)))
    ]
    lines = [
        (
            row["cell"],
            row["shape"],
            f"{row['lengths_ms']:.2f}",
            f"{row['torch_ms']:.1f}",
            f"{row['ratio']:.1f}",
            f"{row['packed_ratio']:.1f}",
            f"{row['unpadded_ratio']:.2f}",
        )
        for row in rows
    ]
    print(f"\n{align(HEADER, lines)}\n\n{results.write(options.out, 'lengths', facts, rows)}")


if __name__ == "__main__":
    main()
