"""Problems for the operators on the emulated card, and what they are held against: the CPU engine
in float64, whose own tests hold it against the specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import autograd, reference
from rnncells.ops import CELLS, layer_backward, layer_forward

T, B, I, H = 5, 7, 3, 9
LENGTHS = [5, 2, 3, 5, 1, 4, 5]

Found = list[Tensor]


@dataclass
class Call:
    """The arguments of both operators."""

    x: Tensor
    states: list[Tensor]
    weights: list[Tensor]
    cell: str
    bidirectional: bool = False
    lengths: Tensor | None = None
    batch_sizes: Tensor | None = None
    grad_y: Tensor | None = None
    grad_last: list[Tensor] = field(default_factory=list)
    needs: list[int] | None = None
    recompute: bool = False
    variant: str = ""
    seed: Tensor | None = None
    resets: Tensor | None = None

    def options(self) -> dict[str, Any]:
        names = ("recompute", "variant", "seed", "resets")
        return {name: getattr(self, name) for name in names}

    def forward(self, operator: Any, save: bool = True) -> tuple[Tensor, Found, Tensor]:
        given = self.x, self.states, self.weights, self.lengths, self.batch_sizes, self.cell
        y, last, reserve = operator(*given, self.bidirectional, save, **self.options())
        return y, last, reserve

    def run(self, forward: Any, backward: Any) -> Found:
        """y, the last states, and every gradient."""
        y, last, reserve = self.forward(forward)
        given = self.x, self.states, self.weights, self.lengths, self.batch_sizes
        needs = self.needs or [1] * (1 + len(self.states) + len(self.weights))
        found = backward(
            *(self.grad_y, self.grad_last, *given, y, reserve, self.cell, self.bidirectional),
            needs,
            **self.options(),
        )
        return [y, *last, *found]

    def on_card(self) -> Found:
        operators = torch.ops.rnncells_emulated
        return self.run(operators.layer_forward.default, operators.layer_backward.default)

    def expected(self) -> Found:
        """The CPU engine's, in float64."""

        def wide(value: Any) -> Any:
            if isinstance(value, list):
                return [wide(part) for part in value]
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.double() if floating else value

        fields = {name: wide(value) for name, value in vars(self).items()}
        return Call(**fields).run(layer_forward, layer_backward)


def draw(
    cell: str,
    dtype: torch.dtype,
    *,
    bidirectional: bool = False,
    kind: str = "plain",
    proj: int = 0,
    bias: bool = True,
    norms: int = 0,
) -> Call:
    """A problem; without lengths x lies batch by batch, so that its rows are no matrix; with them
    its rows are one, and padding is NaN. ``norms``: how many scales and shifts of layer norm."""

    def some(*shape: int) -> Tensor:
        return (torch.randn(*shape, dtype=torch.float64) * 0.5).to(dtype)

    directions, facts = 2 if bidirectional else 1, CELLS[cell]
    rows, outputs = facts["gates"] * H, proj or H
    per_unit = bool(facts["per_unit_recurrence"])
    recurrent = (rows,) if per_unit else (rows, outputs)
    shapes = [(rows, I), recurrent] + [(rows,)] * (2 * bias) + [(proj, H)] * bool(proj)
    shapes += [(rows if i < 2 else H,) for i in range(norms)]
    shapes += [(facts["unit_parameters"] * H,)] * (bool(facts["unit_parameters"]) and not per_unit)
    weights = [some(*shape) for _ in range(directions) for shape in shapes]
    widths = [outputs] + [H] * (facts["states"] - 1)
    states = [some(directions, B, width) for width in widths]
    if cell in reference.CELLS:
        declared = reference.CELLS[cell]
        for place, name in enumerate(declared.states):
            if name in declared.positive:
                states[place] = states[place].abs() + 0.5
    call = Call(some(B, T, I).transpose(0, 1), states, weights, cell, bidirectional)
    if kind == "packed":
        call.batch_sizes = torch.tensor([7, 6, 4, 2, 2])
        call.x = some(21, I)
    if kind == "lengths":
        call.lengths = torch.tensor(LENGTHS)
        call.x = call.x.contiguous()
        for sequence, length in enumerate(LENGTHS):
            call.x[length:, sequence] = torch.nan
    call.grad_y = some(*call.x.shape[:-1], directions * outputs)
    call.grad_last = [some(directions, B, width) for width in widths]
    return call


def assert_right(found: Found, expected: Found, dtype: torch.dtype) -> None:
    """Sums of at most a hundred terms: a hundred units in the last place at the worst. In 16 bits
    every h, kept value and share gradient is rounded, some ten times in a row."""
    units = 16 if dtype.itemsize == 2 else 100
    for place, (ours, right) in enumerate(zip(found, expected, strict=True)):
        assert (ours.dtype, ours.shape) == (dtype, right.shape), place
        error = (ours.double() - right).abs().max() / right.abs().max().clamp(min=1)
        assert error < units * torch.finfo(dtype).eps, (place, error)


def same_bits(found: Found, expected: Found) -> None:
    assert len(found) == len(expected)
    for ours, right in zip(found, expected, strict=True):
        assert torch.equal(ours, right)


def layers_agree(monkeypatch: pytest.MonkeyPatch, result: Callable[[], Found], calls: int) -> None:
    """Holds what layers give on the card, in so many calls of the operators, against what they
    give on the CPU, in float64."""
    expected = result()
    operators, made = torch.ops.rnncells_emulated, []

    def counted(operator: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            made.append(operator)
            return operator(*given, **options)

        return call

    monkeypatch.setattr(autograd, "layer_forward", counted(operators.layer_forward.default))
    monkeypatch.setattr(autograd, "layer_backward", counted(operators.layer_backward.default))
    assert_right(result(), expected, torch.float64)
    assert len(made) == calls
