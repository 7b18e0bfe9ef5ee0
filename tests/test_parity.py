"""The engine against the float64 reference: outputs and every gradient, every cell, ISA and dtype.

Every tolerance is rnncells.testing.tolerance's: derived there from eps and the length of the sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnncells import _C, reference
from rnncells.autograd import run_layer
from rnncells.testing import (
    TORCH_LAYERS,
    Loss,
    Problem,
    assert_parity,
    evaluate,
    make_problem,
    torch_layer,
)

AWKWARD = (1, 3, 15, 16, 17, 33, 127, 257)
DTYPES = (torch.float32, torch.float64)
Sizes = tuple[int, int, int, int]

# T, B, I, H: each awkward size at least once in each place, nothing large beside something large.
FEW: list[Sizes] = [
    (1, 1, 1, 1),
    (1, 17, 3, 33),
    (1, 3, 33, 257),
    (3, 1, 127, 15),
    (3, 127, 257, 16),
    (3, 257, 15, 33),
    (15, 3, 16, 17),
    (16, 33, 1, 3),
    (17, 15, 33, 1),
    (33, 16, 15, 16),
    (127, 1, 17, 127),
    (257, 3, 1, 15),
]


def times(k: int, v: int) -> int:
    """The product of two elements of the field of eight, as polynomials modulo x^3 + x + 1."""
    product = 0
    for bit in range(3):
        if k >> bit & 1:
            product ^= v << bit
    for bit in (4, 3):
        if product >> bit & 1:
            product ^= 0b1011 << (bit - 3)
    return product


def covering_grid() -> Iterator[tuple[Sizes, dict[str, Any]]]:
    """64 rows in which every two of T, B, I, H take every pair of awkward sizes.

    An orthogonal array: the lines a + k b of the plane over the field of eight. Two more lines give
    the flags.
    """
    for a, b in itertools.product(range(8), range(8)):
        T, B, I, H = (AWKWARD[v] for v in (a, b, a ^ b, a ^ times(2, b)))
        flags = a ^ times(3, b)
        loss = "y" if a ^ times(4, b) < 2 else "both"
        options = {
            "bidirectional": bool(flags & 1),
            "bias": bool(flags & 2),
            "states": bool(flags & 4),
            "loss": loss,
        }
        yield (T, B, I, H), options


@contextmanager
def using(isa: str, threads: int) -> Iterator[str]:
    before = _C.get_isa(), torch.get_num_threads(), _C.thread_threshold()
    _C.set_isa(isa)
    torch.set_num_threads(threads)
    _C.set_thread_threshold(0)  # or the small problems here would stay on one thread
    try:
        yield f"{isa}, {threads} threads"
    finally:
        _C.set_isa(before[0])
        torch.set_num_threads(before[1])
        _C.set_thread_threshold(before[2])


def check_everywhere(problem: Problem, dtypes: tuple[torch.dtype, ...] = DTYPES) -> None:
    expected = evaluate(reference.layer, problem)
    for isa, threads in itertools.product(_C.supported_isas(), (1, 2)):
        with using(isa, threads) as note:
            for dtype in dtypes:
                actual = evaluate(run_layer, problem, dtype)
                assert_parity(actual, expected, problem, dtype, note)


@pytest.mark.parametrize(("place", "sizes"), list(enumerate(FEW)), ids=str)
def test_awkward_sizes(cell: str, place: int, sizes: Sizes) -> None:
    bidirectional, states, bias = place % 2 == 0, place % 3 != 0, place % 4 != 0
    check_everywhere(
        make_problem(cell, *sizes, bidirectional=bidirectional, bias=bias, states=states)
    )


def test_the_grid_has_every_pair() -> None:
    rows = [sizes for sizes, _ in covering_grid()]
    for i, j in itertools.combinations(range(4), 2):
        assert {(row[i], row[j]) for row in rows} == set(itertools.product(AWKWARD, AWKWARD))


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "options"), list(covering_grid()), ids=lambda v: str(v)[:20])
def test_awkward_sizes_in_every_pair(cell: str, sizes: Sizes, options: dict[str, Any]) -> None:
    check_everywhere(make_problem(cell, *sizes, **options))


@pytest.mark.parametrize("sizes", [(5, 4, 3, 17), (33, 5, 7, 16)], ids=str)
def test_relu_through_its_kink(sizes: Sizes) -> None:
    # In float64 alone: no argument of these lies within its rounding of zero, in float32 some do.
    check_everywhere(make_problem("rnn_relu", *sizes, kinks=True), (torch.float64,))


@pytest.mark.parametrize("cell", TORCH_LAYERS)
@pytest.mark.parametrize("sizes", [(7, 3, 5, 17), (16, 17, 1, 3)], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_is_torch_nn(cell: str, sizes: Sizes, bidirectional: bool, bias: bool) -> None:
    problem = make_problem(
        cell, *sizes, bidirectional=bidirectional, bias=bias, states=bias, kinks=True
    )
    actual, expected = (evaluate(run, problem) for run in (run_layer, torch_layer))
    assert_parity(actual, expected, problem, torch.float64)


@pytest.mark.parametrize("loss", ["y", "last"])
@pytest.mark.parametrize("states", [False, True])
def test_loss_on_some_outputs(cell: str, loss: Loss, states: bool) -> None:
    check_everywhere(make_problem(cell, 5, 3, 4, 7, bidirectional=True, loss=loss, states=states))


@pytest.mark.parametrize("name", ["h_n", "c_n"])
def test_loss_on_one_last_state(name: str) -> None:
    problem = make_problem("lstm", 5, 3, 4, 7)
    check_everywhere(replace(problem, cotangents={name: problem.cotangents[name]}))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_some_inputs(cell: str, dtype: torch.dtype) -> None:
    problem = make_problem(cell, 4, 3, 5, 6, bidirectional=True)
    expected = evaluate(reference.layer, problem)
    names = list(problem.inputs)
    patterns = [{name} for name in names] + [set(names) - {name} for name in names] + [set()]
    for wrt in patterns:
        actual = evaluate(run_layer, problem, dtype, wrt)
        wanted = {
            name: value
            for name, value in expected.items()
            if not name.startswith("grad ") or name.removeprefix("grad ") in wrt
        }
        assert_parity(actual, wanted, problem, dtype, f"gradients of {sorted(wrt)}")


def test_expanded_gradients_of_the_outputs(cell: str) -> None:
    # What y.sum().backward() sends: one value with strides of zero.
    problem = make_problem(cell, 5, 3, 4, 7, bidirectional=True)
    ones = {k: v.new_ones(()).expand(v.shape) for k, v in problem.cotangents.items()}
    check_everywhere(replace(problem, cotangents=ones))


def stored_as(t: Tensor, *order: int) -> Tensor:
    """The same values, laid out in memory with the dimensions in another order."""
    back = sorted(range(len(order)), key=lambda k: order[k])
    return t.permute(order).contiguous().permute(back)


# The same values with other strides.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda t: t,
    "last first": lambda t: stored_as(t, *reversed(range(t.dim()))),
    "swapped": lambda t: stored_as(t, *((1, 0, 2), (1, 0), (0,))[3 - t.dim()]),
    "every other": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
    "offset": lambda t: torch.cat([t, t])[t.shape[0] :],
}


@settings(max_examples=100)
@given(
    cell=st.sampled_from(sorted(reference.CELLS)),
    dtype=st.sampled_from(DTYPES),
    isa=st.sampled_from(_C.supported_isas()),
    threads=st.sampled_from([1, 2]),
    sizes=st.tuples(*(st.integers(1, most) for most in (6, 20, 20, 40))),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    states=st.booleans(),
    layouts=st.lists(st.sampled_from(sorted(LAYOUTS)), min_size=3, max_size=3),
    left_out=st.integers(0, 2**11 - 1),
    seed=st.integers(0, 2**16),
)
def test_any_sizes_layouts_and_flags(
    cell: str,
    dtype: torch.dtype,
    isa: str,
    threads: int,
    sizes: Sizes,
    bidirectional: bool,
    bias: bool,
    states: bool,
    layouts: list[str],
    left_out: int,
    seed: int,
) -> None:
    problem = make_problem(
        cell, *sizes, bidirectional=bidirectional, bias=bias, states=states, seed=seed
    )
    wrt = [name for k, name in enumerate(problem.inputs) if not left_out >> k & 1]
    of_x, of_states, of_weights = (LAYOUTS[name] for name in layouts)

    def run(
        x: Tensor, states: list[Tensor], weights: list[Tensor], cell: str, bidirectional: bool
    ) -> tuple[Tensor, list[Tensor]]:
        states = [of_states(state) for state in states]
        weights = [of_weights(weight) for weight in weights]
        return run_layer(of_x(x), states, weights, cell, bidirectional)

    expected = evaluate(reference.layer, problem, wrt=wrt)
    with using(isa, threads) as note:
        assert_parity(evaluate(run, problem, dtype, wrt), expected, problem, dtype, note)


@pytest.mark.parametrize("dtype", DTYPES)
def test_expanded_inputs(cell: str, dtype: torch.dtype) -> None:
    T, B, I, H = 5, 4, 3, 7
    problem = make_problem(cell, T, B, I, H)

    def expanded(runner: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor, states: list[Tensor], *rest: Any) -> tuple[Tensor, list[Tensor]]:
            states = [state[:, :1].expand(1, B, H) for state in states]
            return runner(x[:, :1].expand(T, B, I), states, *rest)

        return run

    # The gradients of what is expanded are sums over the batch, which the tolerance does not count.
    wrt = problem.weight_names
    expected = evaluate(expanded(reference.layer), problem, wrt=wrt)
    actual = evaluate(expanded(run_layer), problem, dtype, wrt)
    assert_parity(actual, expected, problem, dtype)


def test_zero_batch(cell: str) -> None:
    problem = make_problem(cell, 3, 0, 2, 5, bidirectional=True)
    expected = evaluate(reference.layer, problem)
    for name, value in evaluate(run_layer, problem, torch.float32).items():
        assert value.shape == expected[name].shape, name
        assert not value.any(), name
