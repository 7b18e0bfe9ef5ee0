"""The same bits: on every run, and with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from rnncells import _C
from rnncells.autograd import run_layer
from rnncells.testing import evaluate, make_problem

# Narrow and wide, fewer rows than threads and many, one step and many.
CASES = [
    ((7, 33, 3, 20), torch.float32),
    ((7, 33, 3, 20), torch.float64),
    ((5, 64, 130, 129), torch.float32),
    ((50, 1, 1, 16), torch.float32),
    ((3, 2, 16, 257), torch.float64),
    ((1, 5, 4, 3), torch.float32),
    # Fewer sequences than threads, which share the units.
    ((9, 1, 40, 150), torch.float32),
    ((20, 3, 2, 70), torch.float64),
    ((9, 2, 3, 150), torch.bfloat16),
]


@pytest.fixture(autouse=True)
def choose_again() -> Iterator[None]:
    yield
    _C.force_regime("auto")


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("regime", ["units", "batch"])
@pytest.mark.parametrize(("sizes", "dtype"), CASES, ids=str)
def test_same_bits(
    cell: str, isa: str, regime: str, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    problem = make_problem(cell, *sizes, bidirectional=sizes[1] == 33).rounded(dtype)
    _C.force_regime(regime)
    torch.set_num_threads(1)
    first = evaluate(run_layer, problem, dtype)
    for threads in (1, 2, 2, 4, 5):
        torch.set_num_threads(threads)
        again = evaluate(run_layer, problem, dtype)
        for name, value in again.items():
            assert torch.equal(value, first[name]), (name, threads)
