"""The engine against the float64 reference: outputs and every gradient, every cell, ISA and dtype;
sequences of equal lengths, padded and packed; with a projection.

Every tolerance is rnncells.testing.tolerance's: derived there from eps and the length of the sums.
Padding is NaN throughout, and what comes out behind a sequence's end has to be zero.
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
HALF = (torch.float16, torch.bfloat16)
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

# Sequences of unequal lengths: where the batch shrinks within a vector or a tile, and long tails.
UNEVEN: list[Sizes] = [
    (2, 2, 257, 7),
    (3, 17, 3, 33),
    (16, 33, 1, 3),
    (20, 5, 15, 16),
    (41, 3, 17, 15),
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
def using(isa: str, threads: int, regime: str = "auto") -> Iterator[str]:
    before = _C.get_isa(), torch.get_num_threads(), _C.thread_threshold()
    _C.set_isa(isa)
    _C.force_regime(regime)
    torch.set_num_threads(threads)
    _C.set_thread_threshold(0)  # or the small problems here would stay on one thread
    try:
        yield f"{isa}, {threads} threads, {regime}"
    finally:
        _C.set_isa(before[0])
        _C.force_regime("auto")
        torch.set_num_threads(before[1])
        _C.set_thread_threshold(before[2])


def check_everywhere(problem: Problem, dtypes: tuple[torch.dtype, ...] = DTYPES) -> None:
    problems = {dtype: problem.rounded(dtype) if dtype in HALF else problem for dtype in dtypes}
    expected = {one: evaluate(reference.layer, one) for one in set(problems.values())}
    uneven = problem.lengths is not None or problem.batch_sizes is not None
    one_way = uneven or "w_hr" in problem.inputs or _C.cells()[problem.cell]["units_only"]
    regimes = ("auto",) if one_way else ("units", "batch")
    for isa, threads, regime in itertools.product(_C.supported_isas(), (1, 2), regimes):
        with using(isa, threads, regime) as note:
            for dtype, one in problems.items():
                actual = evaluate(run_layer, one, dtype)
                assert_parity(actual, expected[one], one, dtype, note)


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


@pytest.mark.parametrize(("place", "sizes"), list(enumerate(UNEVEN)), ids=str)
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_lengths(cell: str, place: int, sizes: Sizes, packed: bool) -> None:
    # A packed input always comes with states: their batch is the only one it has.
    problem = make_problem(
        cell,
        *sizes,
        bidirectional=place % 2 == 0,
        bias=place != 3,
        states=packed or place % 3 != 0,
        lengths="draw",
        packed=packed,
    )
    check_everywhere(problem)


LENGTHS = {
    "all of one step but one": [1, 9, 1, 1, 1],
    "each one less": [9, 8, 7, 6, 5],
    "the longest last": [2, 3, 3, 5, 9],
    "all alike": [9, 9, 9, 9, 9],
    "two groups": [4, 9, 4, 9, 4],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_particular_lengths(cell: str, lengths: list[int], packed: bool) -> None:
    check_everywhere(
        make_problem(cell, 9, 5, 3, 6, bidirectional=True, lengths=lengths, packed=packed)
    )


@pytest.mark.parametrize("loss", ["y", "last", "sum"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_lengths_and_loss_on_some_outputs(cell: str, loss: Loss, packed: bool) -> None:
    check_everywhere(
        make_problem(cell, 6, 4, 3, 7, bidirectional=True, loss=loss, lengths="draw", packed=packed)
    )


PROJECTED: list[tuple[Sizes, int]] = [
    ((1, 3, 2, 2), 1),
    ((5, 4, 3, 17), 16),
    ((16, 33, 1, 33), 3),
    ((18, 2, 40, 16), 15),
    ((9, 17, 5, 65), 33),
]


@pytest.mark.parametrize(("sizes", "proj"), PROJECTED, ids=str)
@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
def test_projection(sizes: Sizes, proj: int, lengths: str) -> None:
    even = sizes[0] % 2 == 0
    problem = make_problem(
        "lstm",
        *sizes,
        proj=proj,
        bidirectional=not even,
        bias=sizes[1] != 4,
        states=lengths == "packed" or even,
        lengths=None if lengths == "full" else "draw",
        packed=lengths == "packed",
    )
    check_everywhere(problem)
    check_everywhere(problem, HALF)


# Around the lanes and blocks over the batch, and where an input is too wide to be part of the loop.
OVER_THE_BATCH: list[Sizes] = [
    (2, 31, 1, 20),
    (3, 32, 32, 9),
    (2, 49, 33, 7),
    (1, 64, 5, 70),
    (4, 16, 2, 24),
    (2, 8, 3, 31),
]


@pytest.mark.parametrize("sizes", OVER_THE_BATCH, ids=str)
def test_around_the_lanes_over_the_batch(cell: str, sizes: Sizes) -> None:
    problem = make_problem(cell, *sizes, bidirectional=sizes[0] == 3, states=sizes[0] != 2)
    check_everywhere(problem)
    check_everywhere(problem, HALF)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 17, 33, 17), (17, 3, 5, 33)], ids=str)
@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
def test_16_bits(cell: str, sizes: Sizes, lengths: str) -> None:
    packed = lengths == "packed"
    problem = make_problem(
        cell,
        *sizes,
        bidirectional=sizes[0] > 1,
        states=packed or sizes[0] != 17,
        lengths=None if lengths == "full" else "draw",
        packed=packed,
    )
    check_everywhere(problem, HALF)


@pytest.mark.parametrize("sizes", [(64, 64, 3, 8), (2, 2048, 3, 8)], ids=str)
def test_long_sums_in_16_bits(cell: str, sizes: Sizes) -> None:
    """4096 rows of one sign: a sum in 16 bits would come to a halt."""
    check_everywhere(make_problem(cell, *sizes, loss="positive"), HALF)


@pytest.mark.slow
def test_long_sums_over_time_in_16_bits(cell: str) -> None:
    check_everywhere(make_problem(cell, 1024, 4, 3, 8, loss="positive"), HALF)


def uneven_grid() -> Iterator[tuple[Sizes, dict[str, Any]]]:
    """The covering grid with lengths, padded and packed in turn."""
    for place, (sizes, options) in enumerate(covering_grid()):
        packed = place % 2 == 1
        yield sizes, options | {"packed": packed, "states": packed or options["states"]}


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "options"), list(uneven_grid()), ids=lambda v: str(v)[:20])
@pytest.mark.parametrize("dtypes", [DTYPES, HALF], ids=["exact", "half"])
def test_lengths_in_every_pair(
    cell: str, dtypes: tuple[torch.dtype, ...], sizes: Sizes, options: dict[str, Any]
) -> None:
    proj = sizes[3] // 2 if cell == "lstm" and sizes[1] != 17 else 0
    check_everywhere(make_problem(cell, *sizes, lengths="draw", proj=proj, **options), dtypes)


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


@pytest.mark.parametrize("lengths", ["padded", "packed"])
@pytest.mark.parametrize("cell", TORCH_LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_torch_nn(cell: str, bidirectional: bool, lengths: str) -> None:
    T, B, I, H = 7, 6, 5, 17
    for proj in (0, 5) if cell == "lstm" else (0,):
        problem = make_problem(
            *(cell, T, B, I, H),
            bidirectional=bidirectional,
            lengths="draw",
            packed=lengths == "packed",
            proj=proj,
            kinks=True,
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
@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
def test_gradients_of_some_inputs(cell: str, dtype: torch.dtype, lengths: str) -> None:
    uneven: dict[str, Any] = {} if lengths == "full" else {"lengths": [3, 4, 1]}
    proj = 4 if cell == "lstm" and uneven else 0
    problem = make_problem(
        cell, 4, 3, 5, 6, bidirectional=True, packed=lengths == "packed", proj=proj, **uneven
    )
    expected = evaluate(reference.layer, problem)
    names = list(problem.inputs)
    patterns = [{name} for name in names] + [set(names) - {name} for name in names] + [set()]
    for wrt in patterns:
        actual = evaluate(run_layer, problem, dtype, wrt)
        assert {name for name in actual if name.startswith("grad ")} == {f"grad {n}" for n in wrt}
        assert_parity(actual, expected, problem, dtype, f"gradients of {sorted(wrt)}")


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


@settings(max_examples=150)
@given(
    cell=st.sampled_from(sorted(reference.CELLS)),
    dtype=st.sampled_from(DTYPES + HALF),
    isa=st.sampled_from(_C.supported_isas()),
    threads=st.sampled_from([1, 2]),
    regime=st.sampled_from(["units", "batch"]),
    sizes=st.tuples(*(st.integers(1, most) for most in (6, 20, 20, 40))),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    states=st.booleans(),
    lengths=st.sampled_from(["full", "padded", "packed"]),
    proj=st.sampled_from([0, 0, 1, 3, 16]),
    layouts=st.lists(st.sampled_from(sorted(LAYOUTS)), min_size=3, max_size=3),
    left_out=st.integers(0, 2**11 - 1),
    seed=st.integers(0, 2**16),
)
def test_any_sizes_layouts_and_flags(
    cell: str,
    dtype: torch.dtype,
    isa: str,
    threads: int,
    regime: str,
    sizes: Sizes,
    bidirectional: bool,
    bias: bool,
    states: bool,
    lengths: str,
    proj: int,
    layouts: list[str],
    left_out: int,
    seed: int,
) -> None:
    packed = lengths == "packed"
    problem = make_problem(
        cell,
        *sizes,
        bidirectional=bidirectional,
        bias=bias,
        states=states or packed,
        lengths=None if lengths == "full" else "draw",
        packed=packed,
        proj=proj if cell == "lstm" and proj < sizes[3] else 0,
        seed=seed,
    )
    problem = problem.rounded(dtype) if dtype in HALF else problem
    wrt = [name for k, name in enumerate(problem.inputs) if not left_out >> k & 1]
    of_x, of_states, of_weights = (LAYOUTS[name] for name in layouts)

    def run(
        x: Tensor, states: list[Tensor], weights: list[Tensor], *rest: Any
    ) -> tuple[Tensor, list[Tensor]]:
        states = [of_states(state) for state in states]
        weights = [of_weights(weight) for weight in weights]
        return run_layer(of_x(x), states, weights, *rest)

    expected = evaluate(reference.layer, problem)
    with using(isa, threads, regime) as note:
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
