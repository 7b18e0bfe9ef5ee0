"""What is measured: one layer of each cell, ours and torch.nn's with the same weights."""

from argparse import ArgumentTypeError
from typing import NamedTuple

import torch
from torch import Tensor, nn

import rnncells

CELLS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "rnn": (rnncells.SimpleRNN, nn.RNN),
    "lstm": (rnncells.LSTM, nn.LSTM),
    "gru": (rnncells.GRU, nn.GRU),
}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Shape(NamedTuple):
    """Sizes of one measurement: T time steps, B rows of the batch, I inputs, H hidden units."""

    T: int
    B: int
    I: int
    H: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read ``T,B,I,H`` from a command line; ArgumentTypeError if not four positive sizes."""
        try:
            shape = cls(*(int(size) for size in text.split(",")))
        except (TypeError, ValueError):
            message = f"a shape is T,B,I,H, four whole numbers, and not {text!r}"
            raise ArgumentTypeError(message) from None
        if min(shape) < 1:
            raise ArgumentTypeError(f"the sizes T,B,I,H are at least 1, and {text!r} has less")
        return shape

    def __str__(self) -> str:
        return ",".join(map(str, self))


def make_pair(cell: str, shape: Shape) -> tuple[nn.Module, nn.Module]:
    """Return our layer and torch.nn's, float32, with the same weights."""
    ours, peer = (kind(shape.I, shape.H) for kind in CELLS[cell])
    ours.load_state_dict(peer.state_dict())
    return ours, peer


def make_data(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return an input [T, B, I] and a gradient for the output [T, B, H], standard normal."""
    return torch.randn(shape.T, shape.B, shape.I), torch.randn(shape.T, shape.B, shape.H)


def forward(layer: nn.Module, x: Tensor) -> None:
    """Run the layer for its output alone."""
    with torch.inference_mode():
        layer(x)


def training_step(layer: nn.Module, x: Tensor, dy: Tensor) -> None:
    """Run the layer forward and backward, for the gradient of each weight and bias."""
    for parameter in layer.parameters():
        parameter.grad = None
    y, _ = layer(x)
    y.backward(dy)


def gradients_of(layer: nn.Module) -> dict[str, Tensor]:
    """Return a copy of each weight's and bias's gradient, by its name."""
    return {
        name: weight.grad.clone()
        for name, weight in layer.named_parameters()
        if weight.grad is not None
    }


def required_flops(cell: str, shape: Shape, training: bool) -> int:
    """Count the multiplications and additions in the matrix products that the result requires.

    A product of gates x H by the input, and one by the hidden state, in each step. Training adds
    the gradients of both weights and that of the hidden state; the input needs none.
    """
    T, B, I, H = shape
    one_unit_of_width = 2 * T * B * GATES[cell] * H
    widths = (I + H) + (I + 2 * H) if training else I + H
    return one_unit_of_width * widths
