"""How far float32 is from float64, ours and torch.nn's side by side.

The reference is torch.nn in float64 with the same weights. Told for the output, the last states
and every gradient: max|difference| / max|reference|, over the whole tensor.
"""

import argparse

import torch
from torch import Tensor, nn

from bench import machine, results
from bench.command import add_cells, make_parser
from bench.layers import CELLS, Shape, make_pair
from bench.progress import with_progress
from bench.table import align

SHAPE = Shape(T=200, B=16, I=32, H=256)
HEADER = ("cell", "tensor", "max|reference|", "ours", "torch.nn")


def results_and_gradients(
    layer: nn.Module, x: Tensor, states: list[Tensor], weights_of_loss: list[Tensor]
) -> dict[str, Tensor]:
    """Run forward and backward; return output, last states and every gradient, by name.

    The loss is the sum of output and last states, each element times a weight of its own.
    """
    dtype = next(layer.parameters()).dtype
    x, *states = (tensor.to(dtype, copy=True).requires_grad_() for tensor in (x, *states))
    y, last = layer(x, tuple(states) if len(states) > 1 else states[0])
    outputs = [y, *(last if isinstance(last, tuple) else [last])]
    torch.autograd.backward(outputs, [weight.to(dtype) for weight in weights_of_loss])
    names = ["h", "c"][: len(states)]
    found = dict(zip(["y", *(f"{name}_n" for name in names)], outputs, strict=True))
    found |= {f"d {name}_0": state.grad for name, state in zip(names, states, strict=True)}
    found |= {f"d {name}": weight.grad for name, weight in layer.named_parameters()}
    return {name: tensor.detach() for name, tensor in (found | {"d x": x.grad}).items()}


def differences(cell: str, shape: Shape) -> dict[str, tuple[float, float, float]]:
    """Return, for each tensor's name: max|reference|, and the differences, ours and torch.nn's."""
    torch.manual_seed(0)
    ours, peer = make_pair(cell, shape)
    reference = CELLS[cell][1](shape.I, shape.H).double()
    reference.load_state_dict(peer.state_dict())
    x = torch.randn(shape.T, shape.B, shape.I)
    count = 2 if cell == "lstm" else 1
    states = [torch.randn(1, shape.B, shape.H) for _ in range(count)]
    loss = [torch.randn(shape.T, shape.B, shape.H), *(torch.randn_like(s) for s in states)]
    true, mine, theirs = (
        results_and_gradients(layer, x, states, loss) for layer in (reference, ours, peer)
    )

    def off(found: Tensor, expected: Tensor) -> float:
        return float((found.double() - expected).abs().max() / expected.abs().max())

    return {
        name: (float(expected.abs().max()), off(mine[name], expected), off(theirs[name], expected))
        for name, expected in true.items()
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("accuracy", __doc__)
    parser.add_argument("--shape", type=Shape.parse, default=SHAPE, metavar="T,B,I,H")
    add_cells(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write JSON."""
    options = parse()
    facts = machine.facts()
    print(f"{machine.describe(facts)}\nT,B,I,H = {options.shape}\n", flush=True)
    rows = [
        {"cell": cell, "shape": str(options.shape), "tensor": name}
        | dict(zip(("max_reference", "ours", "torch"), values, strict=True))
        for cell in with_progress(options.cells, str)
        for name, values in differences(cell, options.shape).items()
    ]
    lines = [
        (
            row["cell"],
            row["tensor"],
            f"{row['max_reference']:.3g}",
            f"{row['ours']:.1e}",
            f"{row['torch']:.1e}",
        )
        for row in rows
    ]
    worst = (
        "worst",
        "",
        "",
        *(f"{max(row[side] for row in rows):.1e}" for side in ("ours", "torch")),
    )
    print(align(HEADER, [*lines, worst]))
    print(f"\n{results.write(options.out, 'accuracy', facts, rows)}")


if __name__ == "__main__":
    main()
