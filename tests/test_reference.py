"""The specification against torch.nn in float64: single steps, layers, every gradient.

Tolerances: both sides compute the same sums in float64, in another order; each is held to what
rnncells.testing.tolerance derives from eps and the length of the sum.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rnncells import _C, reference
from rnncells.testing import (
    TORCH_LAYERS,
    assert_parity,
    evaluate,
    make_problem,
    tolerance,
    torch_layer,
    torch_options,
)
from rnncells.variants import ENGINE_CELLS, declare

TORCH_CELLS = {
    "rnn_tanh": nn.RNNCell,
    "rnn_relu": nn.RNNCell,
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
}


@pytest.mark.parametrize("cell", TORCH_LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("bias", "states"), [(True, True), (False, False)])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (7, 3, 5, 4), (2, 5, 1, 6)])
def test_layer_is_torch_nn(
    cell: str, bidirectional: bool, bias: bool, states: bool, sizes: tuple[int, int, int, int]
) -> None:
    problem = make_problem(
        cell, *sizes, bidirectional=bidirectional, bias=bias, states=states, kinks=True
    )
    ours = evaluate(reference.layer, problem)
    theirs = evaluate(torch_layer, problem)
    assert_parity(ours, theirs, problem, torch.float64)


@pytest.mark.parametrize("cell", TORCH_CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_step_is_torch_nn(cell: str, bias: bool) -> None:
    module = TORCH_CELLS[cell](5, 4, bias=bias, dtype=torch.float64, **torch_options(cell))
    x = torch.randn(3, 5, dtype=torch.float64)
    states = tuple(torch.randn(3, 4, dtype=torch.float64) for _ in reference.CELLS[cell].states)
    ours = reference.CELLS[cell](x, states, *module.parameters())
    theirs = module(x, states if cell == "lstm" else states[0])
    problem = make_problem(cell, 1, 3, 5, 4)
    for mine, other in zip(ours, theirs if cell == "lstm" else [theirs], strict=True):
        # The states of a step are of size 1.
        assert (mine - other).abs().max() <= tolerance("h_n", problem, torch.float64)


def test_minimal_gated_unit_by_hand() -> None:
    """torch.nn has no such cell: the paper's equations, unit by unit, on plain numbers."""
    B, I, H = 2, 3, 4
    problem = make_problem("mgu", 1, B, I, H)
    x, h = problem.inputs["x"][0].tolist(), problem.inputs["h_0"][0].tolist()
    w, u = problem.inputs["w_ih"].tolist(), problem.inputs["w_hh"].tolist()
    b, d = problem.inputs["b_ih"].tolist(), problem.inputs["b_hh"].tolist()
    (found,) = reference.mgu(
        problem.inputs["x"][0],
        (problem.inputs["h_0"][0],),
        *(problem.inputs[name] for name in problem.weight_names),
    )
    for row in range(B):
        f = []
        for k in range(H):
            total = b[k] + d[k]
            total += sum(w[k][i] * x[row][i] for i in range(I))
            total += sum(u[k][j] * h[row][j] for j in range(H))
            f.append(1 / (1 + math.exp(-total)))
        for k in range(H):
            total = b[H + k] + d[H + k]
            total += sum(w[H + k][i] * x[row][i] for i in range(I))
            total += sum(u[H + k][j] * f[j] * h[row][j] for j in range(H))
            expected = (1 - f[k]) * h[row][k] + f[k] * math.tanh(total)
            # The state is of size 1.
            assert abs(found[row, k].item() - expected) <= tolerance("h_n", problem, torch.float64)


def test_declares_what_the_kernels_declare() -> None:
    declared = _C.cells()
    assert declared.keys() == reference.CELLS.keys() | ENGINE_CELLS.keys()
    for name in declared:
        cell = declare(name, "")
        own = sum(times for _, times in cell.extras)
        own += len(cell.gates) * cell.per_unit_recurrence
        assert declared[name]["unit_parameters"] == own
        assert declared[name]["per_unit_recurrence"] == cell.per_unit_recurrence
        assert declared[name]["gates"] == len(cell.gates)
        assert declared[name]["states"] == len(cell.states)


def test_twice_differentiable(cell: str) -> None:
    problem = make_problem(cell, 2, 2, 2, 2)
    inputs = [value.requires_grad_() for value in problem.inputs.values()]
    states = len(problem.state_names)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        y, last = reference.layer(tensors[0], tensors[1 : 1 + states], tensors[1 + states :], cell)
        return y, *last

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_traceable() -> None:
    problem = make_problem("lstm", 3, 2, 2, 2, bidirectional=True)
    traced = torch.compile(reference.layer, fullgraph=True, backend="eager")
    expected = evaluate(reference.layer, problem)
    # The same operations in the same order: the same bits.
    for name, value in evaluate(traced, problem).items():
        assert torch.equal(value, expected[name]), name


def test_a_cell_names_its_gates_and_states() -> None:
    with pytest.raises(TypeError, match=r"gates: expected their names, .* got 2"):
        reference.Cell(reference.gru, 2, ("h",))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"states: expected their names, .* got 'h'"):
        reference.Cell(reference.gru, ("f",), "h")  # type: ignore[arg-type]


def test_a_cell_of_ones_own_needs_no_name() -> None:
    """With a projection, both directions, padded and packed; and the reference keeps no trace."""
    before = dict(reference.CELLS)
    own = reference.Cell(reference.lstm, ("i", "f", "g", "o"), ("h", "c"))
    for packed in (False, True):
        named, mine = (
            make_problem(
                cell, 5, 3, 2, 4, bidirectional=True, proj=3, lengths="draw", packed=packed
            )
            for cell in ("lstm", own)
        )
        assert (mine.cell, mine.given, named.given) == ("lstm", own, "lstm")
        expected = evaluate(reference.layer, named)
        for name, value in evaluate(reference.layer, mine).items():
            assert torch.equal(value, expected[name]), name
    assert before == reference.CELLS
