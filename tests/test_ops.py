"""The operators as torch sees them: schema, fake kernels, autograd, vmap, and what they keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import _C, reference
from rnncells.testing import Problem, assert_parity, evaluate, make_problem

FORWARD = torch.ops.rnncells.layer_forward.default
BACKWARD = torch.ops.rnncells.layer_backward.default


def forward_arguments(
    problem: Problem, dtype: torch.dtype, save: bool = True, requires_grad: bool = False
) -> tuple[Any, ...]:
    inputs = {
        name: value.to(dtype, copy=True).requires_grad_(requires_grad)
        for name, value in problem.inputs.items()
    }
    return (
        inputs["x"],
        [inputs[name] for name in problem.state_names],
        [inputs[name] for name in problem.weight_names],
        problem.lengths,
        problem.batch_sizes,
        problem.cell,
        problem.bidirectional,
        save,
    )


def backward_arguments(
    problem: Problem, dtype: torch.dtype, needs: list[int] | None = None, given: str = "all"
) -> tuple[Any, ...]:
    x, states, weights, lengths, batch_sizes, cell, bidirectional, save = forward_arguments(
        problem, dtype
    )
    arguments = x, states, weights, lengths, batch_sizes
    y, _, reserve = FORWARD(*arguments, cell, bidirectional, save)
    grad_y = problem.cotangents["y"].to(dtype) if given != "last" else None
    grad_last = [problem.cotangents[name].to(dtype) for name in problem.output_names[1:]]
    if given == "y":
        grad_last = []
    needs = [1] * len(problem.inputs) if needs is None else needs
    return (grad_y, grad_last, *arguments, y, reserve, cell, bidirectional, needs)


@pytest.mark.parametrize(
    ("dtype", "save"),
    [(torch.float32, True), (torch.float64, True), (torch.float32, False)],
)
def test_opcheck_forward(cell: str, dtype: torch.dtype, save: bool) -> None:
    problem = make_problem(cell, 3, 2, 2, 3, bidirectional=save, states=save)
    torch.library.opcheck(FORWARD, forward_arguments(problem, dtype, save, requires_grad=save))


@pytest.mark.parametrize(
    ("dtype", "given"),
    [(torch.float32, "all"), (torch.float64, "y"), (torch.float64, "last")],
)
def test_opcheck_backward(cell: str, dtype: torch.dtype, given: str) -> None:
    problem = make_problem(cell, 3, 2, 2, 3, bidirectional=given == "all")
    torch.library.opcheck(BACKWARD, backward_arguments(problem, dtype, given=given))


# What make_problem is told.
KINDS: dict[str, dict[str, Any]] = {
    "padded": {"lengths": [1, 4, 2]},
    "packed": {"lengths": [4, 2, 1], "packed": True},
    "projection": {"proj": 2},
    "padded projection": {"lengths": [3, 4, 1], "proj": 2},
}


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (cell, kind)
        for cell, facts in _C.cells().items()
        for kind, options in KINDS.items()
        # Open cells: test_open_cells.
        if not facts["open"] and (facts["projects"] or "proj" not in options)
    ],
)
@pytest.mark.parametrize("bidirectional", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_opcheck_of_every_kind(cell: str, kind: str, bidirectional: bool) -> None:
    problem = make_problem(cell, 4, 3, 2, 5, bidirectional=bidirectional, **KINDS[kind])
    arguments = forward_arguments(problem, torch.float64, requires_grad=True)
    torch.library.opcheck(FORWARD, arguments)
    torch.library.opcheck(BACKWARD, backward_arguments(problem, torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lengths", [None, [1, 3]])
def test_opcheck_in_16_bits(cell: str, dtype: torch.dtype, lengths: list[int] | None) -> None:
    problem = make_problem(cell, 3, 2, 2, 3, lengths=lengths)
    torch.library.opcheck(FORWARD, forward_arguments(problem, dtype, requires_grad=True))
    torch.library.opcheck(BACKWARD, backward_arguments(problem, dtype))


def test_opcheck_backward_of_some(cell: str) -> None:
    problem = make_problem(cell, 3, 2, 2, 3)
    needs = [k % 2 for k in range(len(problem.inputs))]
    arguments = backward_arguments(problem, torch.float64, needs)
    torch.library.opcheck(BACKWARD, arguments)
    every = BACKWARD(*backward_arguments(problem, torch.float64))
    some = BACKWARD(*arguments)
    for value, expected in zip(some, every[1::2], strict=True):
        assert torch.equal(value, expected)


def test_operators_are_the_reference(cell: str) -> None:
    problem = make_problem(cell, 4, 3, 2, 5, bidirectional=True)
    expected = evaluate(reference.layer, problem)
    y, last, _ = FORWARD(*forward_arguments(problem, torch.float64))
    grads = BACKWARD(*backward_arguments(problem, torch.float64))
    found = dict(zip(problem.output_names, (y, *last), strict=True))
    found |= {f"grad {name}": grad for name, grad in zip(problem.inputs, grads, strict=True)}
    assert_parity(found, expected, problem, torch.float64)


def test_inference_keeps_nothing(cell: str) -> None:
    problem = make_problem(cell, 5, 3, 2, 7)
    kept = FORWARD(*forward_arguments(problem, torch.float32, save=True))
    dropped = FORWARD(*forward_arguments(problem, torch.float32, save=False))
    assert bool(kept[2].numel()) == bool(_C.cells()[cell]["reserve"])
    assert dropped[2].numel() == 0
    assert torch.equal(kept[0], dropped[0])


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("sizes", [(5, 3, 2, 7), (3, 33, 17, 16), (2, 1, 1, 130)], ids=str)
def test_reserve_shape_depends_on_sizes_and_dtype_alone(
    cell: str, sizes: tuple[int, int, int, int]
) -> None:
    problem = make_problem(cell, *sizes, bidirectional=True)
    before = _C.get_isa()
    shapes = set()
    try:
        for isa in _C.supported_isas():
            _C.set_isa(isa)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                reserve = FORWARD(*forward_arguments(problem, torch.float32))[2]
                shapes.add((tuple(reserve.shape), reserve.stride(), reserve.dtype))
    finally:
        _C.set_isa(before)
    assert len(shapes) == 1


def test_backward_writes_nothing_it_was_given(cell: str, isa: str) -> None:
    problem = make_problem(cell, 5, 3, 2, 7, bidirectional=True)
    arguments = backward_arguments(problem, torch.float32)

    def tensors() -> list[Tensor]:
        flat = [t for a in arguments for t in (a if isinstance(a, list) else [a])]
        return [t for t in flat if isinstance(t, Tensor)]

    before = [t.clone() for t in tensors()]
    first = BACKWARD(*arguments)
    for tensor, copy in zip(tensors(), before, strict=True):
        assert torch.equal(tensor, copy)
    for again, once in zip(BACKWARD(*arguments), first, strict=True):
        assert torch.equal(again, once)


@pytest.mark.parametrize("weights_too", [False, True])
def test_vmap_forward(cell: str, weights_too: bool) -> None:
    problems = [make_problem(cell, 4, 2, 3, 5, bidirectional=True, seed=k) for k in range(3)]
    arguments = [forward_arguments(problem, torch.float64) for problem in problems]
    x = torch.stack([a[0] for a in arguments], dim=1)
    states = [torch.stack(s, dim=2) for s in zip(*(a[1] for a in arguments), strict=True)]
    weights = arguments[0][2]
    if weights_too:
        weights = [torch.stack(w) for w in zip(*(a[2] for a in arguments), strict=True)]

    def run(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, last, _ = FORWARD(x, states, weights, None, None, cell, True, True)
        return y, last

    y, last = torch.vmap(run, in_dims=(1, 2, 0 if weights_too else None))(x, states, weights)
    for k, problem in enumerate(problems):
        ws = arguments[k if weights_too else 0][2]
        inputs = problem.inputs | dict(zip(problem.weight_names, ws, strict=True))
        expected = evaluate(reference.layer, replace(problem, inputs=inputs), wrt=())
        found = dict(zip(problem.output_names, (y[k], *(s[k] for s in last)), strict=True))
        assert_parity(found, expected, problem, torch.float64)


def test_vmap_backward(cell: str) -> None:
    problems = [make_problem(cell, 4, 2, 3, 5, seed=k) for k in range(3)]
    # The weights are the first's; everything else is each problem's own.
    weights = forward_arguments(problems[0], torch.float64)[2]
    shared = [
        replace(p, inputs=p.inputs | dict(zip(p.weight_names, weights, strict=True)))
        for p in problems
    ]
    arguments = [backward_arguments(problem, torch.float64) for problem in shared]
    grad_y, x, y, reserve = (torch.stack([a[k] for a in arguments]) for k in (0, 2, 7, 8))
    grad_last, states = (
        [torch.stack(s) for s in zip(*(a[k] for a in arguments), strict=True)] for k in (1, 3)
    )
    needs = arguments[0][-1]

    def run(
        grad_y: Tensor,
        grad_last: list[Tensor],
        x: Tensor,
        states: list[Tensor],
        y: Tensor,
        reserve: Tensor,
    ) -> list[Tensor]:
        grads: list[Tensor] = BACKWARD(
            grad_y, grad_last, x, states, weights, None, None, y, reserve, cell, False, needs
        )
        return grads

    grads = torch.vmap(run)(grad_y, grad_last, x, states, y, reserve)
    for k, problem in enumerate(shared):
        expected = {n: v for n, v in evaluate(reference.layer, problem).items() if "grad" in n}
        found = {f"grad {n}": g[k] for n, g in zip(problem.inputs, grads, strict=True)}
        assert_parity(found, expected, problem, torch.float64)
