"""float32 at T=200, H=256: within 5e-6 of the float64 reference, each output and each gradient.

The bound is the project's own: about 42 eps, where torch.nn is at about 17. The table that pytest
prints at the end has the largest error of any tensor, ours and torch.nn's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from rnncells import reference
from rnncells.autograd import run_layer
from rnncells.testing import (
    TORCH_LAYERS,
    Problem,
    Runner,
    evaluate,
    make_problem,
    relative_error,
    torch_layer,
)

T, B, I, H = 200, 8, 16, 256
LIMIT = 5e-6


def errors(run: Runner, problem: Problem, expected: dict[str, Tensor]) -> dict[str, float]:
    found = evaluate(run, problem, torch.float32)
    return {name: relative_error(value, expected[name]) for name, value in found.items()}


@cache
def yardstick(cell: str) -> tuple[Problem, dict[str, Tensor], dict[str, float]]:
    """The problem, what the reference makes of it, and torch.nn's errors."""
    problem = make_problem(cell, T, B, I, H)
    expected = evaluate(reference.layer, problem)
    theirs = errors(torch_layer, problem, expected) if cell in TORCH_LAYERS else {}
    return problem, expected, theirs


def worst(of: dict[str, float]) -> str:
    if not of:
        return "-"
    name = max(of, key=lambda key: of[key])
    return f"{of[name]:.1e} ({name})"


def test_long_and_wide(cell: str, isa: str, record_property: Callable[[str, object], None]) -> None:
    problem, expected, theirs = yardstick(cell)
    ours = errors(run_layer, problem, expected)
    record_property(
        "accuracy", f"{cell:9} {isa:9} rnncells {worst(ours):22} torch.nn {worst(theirs):22}"
    )
    assert all(error <= LIMIT for error in ours.values()), (isa, ours, theirs)
