"""torch.utils.flop_counter counts our layers as it counts the products of the reference."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

import rnncells
import rnncells.flops  # registers
from rnncells import reference
from rnncells.autograd import run_layer
from rnncells.reference import CELLS
from rnncells.testing import make_problem

T, B, I, H, P = 4, 3, 2, 5, 3
LENGTHS = [2, 4, 1]


def count(call: Callable[..., object], *arguments: object) -> int:
    with FlopCounterMode(display=False) as counter:
        call(*arguments)
    return counter.get_total_flops()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("cell", "proj"), [*((cell, 0) for cell in CELLS), ("lstm", P)])
def test_as_the_products_of_the_reference(cell: str, bidirectional: bool, proj: int) -> None:
    """Which torch counts by its own formulas, forward and backward."""
    problem = make_problem(cell, T, B, I, H, bidirectional=bidirectional, proj=proj)
    names = ["x", *problem.state_names, *problem.weight_names]

    def step(run: Any, wanted: list[str], inputs: dict[str, Tensor]) -> Tensor:
        states = [inputs[name] for name in problem.state_names]
        weights = [inputs[name] for name in problem.weight_names]
        y: Tensor = run(inputs["x"], states, weights, cell, bidirectional)[0]
        if wanted:
            torch.autograd.grad(y.sum(), [inputs[name] for name in wanted])
        return y

    # The states' gradients are always among them: without, the first step needs no product.
    some = [*problem.state_names, names[-1]]
    for wanted in ([], names, names[1:], some):
        inputs = {n: problem.inputs[n].clone().requires_grad_(n in wanted) for n in names}
        ours, theirs = (count(step, run, wanted, inputs) for run in (run_layer, reference.layer))
        assert ours == theirs > 0


def test_of_unequal_lengths_the_rows_count() -> None:
    """Those that there are, packed or padded; of lengths that have no values, all there may be."""
    layer, x = rnncells.LSTM(I, H), torch.randn(T, B, I)
    a_row = 2 * 4 * H * (I + H)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    assert count(lambda: layer(packed)) == sum(LENGTHS) * a_row
    assert count(lambda: layer(x, lengths=LENGTHS)) == sum(LENGTHS) * a_row
    trained = count(lambda: layer(x, lengths=LENGTHS)[0].sum().backward())
    assert trained == sum(LENGTHS) * (a_row + 2 * 4 * H * (I + 2 * H))
    with FakeTensorMode(allow_non_fake_inputs=True):
        lengths = torch.ones(B, dtype=torch.int64)
        assert count(lambda: layer(torch.randn(T, B, I), lengths=lengths)) == T * B * a_row
    layer, lengths = layer.to("meta"), torch.ones(B, dtype=torch.int64, device="meta")
    assert count(lambda: layer(x.to("meta"), lengths=lengths)) == T * B * a_row


def test_by_module() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = rnncells.GRU(I, H, 2), torch.nn.Linear(H, 1)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.inner(x)[0])

    with FlopCounterMode(display=False) as counter:
        Model()(torch.randn(T, B, I))
    found = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    inner, head = 2 * T * B * 3 * H * ((I + H) + (H + H)), 2 * T * B * H
    assert found["Model.inner"] == inner
    assert found["Model.head"] == head
    assert found["Global"] == inner + head


def test_the_counter_is_not_imported_with_rnncells() -> None:
    code = "import sys, rnncells; sys.exit('torch.utils.flop_counter' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
