"""BPTT and its derivative against differences, in float64.

The tolerances are torch's defaults (absolute 1e-5, relative 1e-3): a central difference with a step
of 1e-6 is right to about eps / 1e-6 = 2e-10 of the rounding and 1e-12 of the curvature.
ReLU's arguments are kept away from its kink, where there is no derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import reference
from rnncells.autograd import run_layer
from rnncells.testing import Problem, make_problem


def function_and_inputs(problem: Problem) -> tuple[Callable[..., Any], list[Tensor]]:
    states = len(problem.state_names)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        x, weights = tensors[0], list(tensors[1 + states :])
        before = list(tensors[1 : 1 + states])
        uneven = problem.lengths, problem.batch_sizes
        y, last = run_layer(x, before, weights, problem.cell, problem.bidirectional, *uneven)
        return y, *last

    return run, [value.requires_grad_() for value in problem.inputs.values()]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("bias", "states"), [(True, True), (False, False)])
def test_gradcheck(cell: str, isa: str, bidirectional: bool, bias: bool, states: bool) -> None:
    problem = make_problem(cell, 3, 2, 2, 3, bidirectional=bidirectional, bias=bias, states=states)
    run, inputs = function_and_inputs(problem)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=False)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_gradcheck_of_lengths(cell: str, isa: str, packed: bool) -> None:
    proj = 2 if cell == "lstm" else 0
    problem = make_problem(
        cell, 3, 3, 2, 3, bidirectional=True, lengths=[2, 3, 1], packed=packed, proj=proj
    )
    run, inputs = function_and_inputs(problem)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_gradgradcheck_of_lengths(cell: str, packed: bool) -> None:
    proj = 1 if cell == "lstm" else 0
    problem = make_problem(cell, 3, 2, 2, 2, lengths=[1, 3], packed=packed, proj=proj)
    run, inputs = function_and_inputs(problem)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("given", [False, True])
def test_gradgradcheck(cell: str, given: bool) -> None:
    problem = make_problem(cell, 2, 2, 1, 2, bias=given, states=given)
    run, inputs = function_and_inputs(problem)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_gradgradcheck_bidirectional(cell: str) -> None:
    run, inputs = function_and_inputs(make_problem(cell, 3, 2, 2, 3, bidirectional=True))
    # Along random directions: all the elements of all the weights would take seconds.
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_gradient_penalty(cell: str) -> None:
    """A loss on a gradient, as the reference has it: a second derivative for every parameter."""
    penalties = []
    for layer in (run_layer, reference.layer):
        problem = make_problem(cell, 4, 3, 2, 5)
        inputs = {name: value.requires_grad_() for name, value in problem.inputs.items()}
        y, _ = layer(
            inputs["x"],
            [inputs[name] for name in problem.state_names],
            [inputs[name] for name in problem.weight_names],
            cell,
        )
        (grad_x,) = torch.autograd.grad(y.square().sum(), inputs["x"], create_graph=True)
        weights = [inputs[name] for name in problem.weight_names]
        penalties.append(torch.autograd.grad(grad_x.square().sum(), weights))
    for ours, expected in zip(*penalties, strict=True):
        # Sums of fewer than 256 terms of the size of the largest: sqrt(256) half-eps walks, twice
        # through the graph and with a factor of four: 64 eps.
        limit = 64 * torch.finfo(torch.float64).eps * expected.abs().max()
        assert (ours - expected).abs().max() <= limit
