"""Dropout on the recurrent product, zoneout and resets, in the engine against the specification.

The specification gets the masks that the engine draws, from the operator ``layer_draw``.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells import _C, reference
from rnncells.autograd import run_layer
from rnncells.ops import layer_draw
from rnncells.testing import Problem, assert_parity, evaluate, make_problem
from rnncells.testing.problem import call
from rnncells.variants import Text, Varied, read, reference_layer, write
from tests.test_parity import using

DTYPES = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
SEED = torch.tensor([-3_141_592_653_589_793_238])

RATES = {
    "dropout": Text(recurrent_dropout=0.4),
    "zoneout": Text(zoneout=(0.3, 0.2)),
    "both": Text(recurrent_dropout=0.25, zoneout=(0.1, 0.5)),
    "none": Text(),
}


def draw_resets(problem: Problem) -> Tensor:
    T, B = problem.shape.steps, problem.batch
    resets = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.3
    if T > 1:
        resets[1] = True  # all of a step
        resets[-1] = False
    return resets


def weights_of(problem: Problem) -> list[Tensor]:
    return [problem.inputs[name] for name in problem.weight_names]


def varied_as(name: str, problem: Problem, drawn: bool = True, resets: bool = True) -> Varied:
    rates = RATES[name]
    if rates.zoneout:
        given = 2 if problem.cell == "lstm" else 1  # of h, and of the LSTM's c
        rates = rates._replace(zoneout=rates.zoneout[:given])
    packed = problem.batch_sizes is not None
    marks = draw_resets(problem) if resets and not packed else None
    return Varied(write(rates), SEED if drawn else None, marks)


def specified(varied: Varied) -> Any:
    def run(x: Tensor, states: Any, weights: Any, cell: str, both: bool, *uneven: Any) -> Any:
        lengths, batch_sizes = uneven or (None, None)
        return reference_layer(x, states, weights, cell, both, lengths, batch_sizes, varied)

    return run


def check(problem: Problem, varied: Varied, dtypes: tuple[torch.dtype, ...] = DTYPES) -> None:
    problems = {dtype: problem.rounded(dtype) if dtype in HALF else problem for dtype in dtypes}
    expected = {one: evaluate(specified(varied), one) for one in set(problems.values())}
    run = partial(run_layer, varied=varied)
    for isa, threads in itertools.product(_C.supported_isas(), (1, 2)):
        with using(isa, threads) as note:
            for dtype, one in problems.items():
                assert_parity(evaluate(run, one, dtype), expected[one], one, dtype, note)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
def test_parity(cell: str, rates: str, lengths: str, bidirectional: bool) -> None:
    packed = lengths == "packed"
    if packed and rates == "none":
        return  # there is nothing left of a variant
    problem = make_problem(
        cell,
        *(7, 5, 3, 19),
        bidirectional=bidirectional,
        states=packed or rates != "zoneout",
        lengths=None if lengths == "full" else "draw",
        packed=packed,
    )
    check(problem, varied_as(rates, problem))


SIZES = [(1, 1, 1, 1), (3, 17, 33, 65), (40, 3, 2, 7), (2, 70, 40, 33)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("drawn", [True, False], ids=["training", "inference"])
def test_sizes(cell: str, sizes: tuple[int, int, int, int], drawn: bool) -> None:
    problem = make_problem(cell, *sizes, bidirectional=sizes[0] % 2 == 1)
    for rates, resets in (("both", False), ("zoneout", True)):
        check(problem, varied_as(rates, problem, drawn, resets))


@pytest.mark.parametrize("rates", ["dropout", "both"])
def test_16_bits(cell: str, rates: str) -> None:
    problem = make_problem(cell, 5, 4, 3, 17, bidirectional=True)
    check(problem, varied_as(rates, problem), HALF)


@pytest.mark.parametrize("resets", [False, True])
def test_projection(resets: bool) -> None:
    for lengths in (None, "draw"):
        problem = make_problem("lstm", 6, 5, 3, 17, bidirectional=True, proj=5, lengths=lengths)
        check(problem, varied_as("dropout", problem, resets=resets))


@pytest.mark.parametrize("lengths", ["full", "padded", "packed"])
def test_recompute_has_the_same_bits(cell: str, lengths: str) -> None:
    packed = lengths == "packed"
    problem = make_problem(
        *(cell, 60, 40, 3, 20),
        bidirectional=True,
        states=packed,
        lengths=None if lengths == "full" else "draw",
        packed=packed,
    )
    varied = varied_as("both", problem)
    expected = evaluate(partial(run_layer, varied=varied), problem, torch.float32)
    actual = evaluate(partial(run_layer, varied=varied, recompute=True), problem, torch.float32)
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name


def test_threads_change_no_bit(cell: str) -> None:
    problem = make_problem(cell, 20, 23, 3, 20, bidirectional=True)
    varied = varied_as("both", problem)
    run = partial(run_layer, varied=varied)
    with using(_C.get_isa(), 1):
        expected = evaluate(run, problem, torch.float32)
    for threads in (2, 4, 5):
        with using(_C.get_isa(), threads):
            for name, value in evaluate(run, problem, torch.float32).items():
                assert torch.equal(value, expected[name]), (name, threads)


def test_resets_are_pieces_run_one_by_one(cell: str) -> None:
    T, B, cut = 9, 3, 4
    problem = make_problem(cell, T, B, 3, 6, bidirectional=True)
    x, weights = problem.inputs["x"], weights_of(problem)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[cut] = True
    y, last = run_layer(x, [], weights, cell, True, varied=Varied(resets=resets))
    first, _ = run_layer(x[:cut], [], weights, cell, True)
    second, _ = run_layer(x[cut:], [], weights, cell, True)
    assert torch.equal(y, torch.cat([first, second]))
    for state in last:
        assert state.shape[0] == 2


def test_zoneout_of_nothing_and_of_nearly_all(cell: str) -> None:
    problem = make_problem(cell, 5, 2, 3, 6)
    x, weights = problem.inputs["x"], weights_of(problem)
    states = [torch.randn(1, 2, 6, dtype=x.dtype) for _ in range(_C.cells()[cell]["states"])]
    rates = Text(zoneout=tuple([1 - 2**-33] * len(states)))
    y, last = run_layer(x, states, weights, cell, varied=Varied(write(rates), SEED))
    assert torch.equal(y, states[0].expand(5, 2, 6))
    assert all(torch.equal(a, b) for a, b in zip(last, states, strict=True))


@pytest.mark.parametrize("rates", ["dropout", "both"])
# Along one direction drawn by chance; in the full grids along each.
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_second_derivatives(cell: str, rates: str, fast: bool) -> None:
    problem = make_problem(cell, 4, 2, 2, 3, bidirectional=True, lengths=[4, 2], padding=0.5)
    varied = varied_as(rates, problem)
    names = list(problem.inputs)
    leaves = [problem.inputs[name].detach().clone().requires_grad_() for name in names]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(names, tensors, strict=True))
        return tuple(call(partial(run_layer, varied=varied), problem, inputs).values())

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=fast)


def test_draws_are_philox() -> None:
    """The first counter of the generator's published test vectors, and the rate of events."""
    drawn = layer_draw(torch.tensor([0]), 0, 0, [1, 1, 64], 0.42)
    # Counter and key zero: 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (Random123's kat_vectors).
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    for w, word in enumerate(words):
        assert bool(drawn[0, 0, 16 * w]) == (word < 0.42 * 2**32)
    many = layer_draw(SEED, 1, 1, [50, 40, 100], 0.3)
    assert abs(many.double().mean().item() - 0.3) < 5 * (0.21 / many.numel()) ** 0.5
    for other in (
        layer_draw(SEED + 1, 1, 1, [50, 40, 100], 0.3),
        layer_draw(SEED, 2, 1, [50, 40, 100], 0.3),
        layer_draw(SEED, 1, 0, [50, 40, 100], 0.3),
    ):
        both = (many & other).double().mean().item()
        assert abs(both - 0.09) < 5 * (0.09 * 0.91 / many.numel()) ** 0.5


def test_the_text_is_read_as_it_was_written() -> None:
    for rates in (*RATES.values(), Text(0.1 + 0.2, (1 / 3, 0.0))):
        expected = rates if any(rates.zoneout) else rates._replace(zoneout=())
        assert read(write(rates)) == expected


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"variant": "dropout=0.1"}, "'dropout' is unknown"),
        ({"variant": "recurrent_dropout=1"}, r"must be a number in \[0, 1\), got '1'"),
        ({"variant": "recurrent_dropout=nan"}, r"\[0, 1\), got 'nan'"),
        ({"variant": "zoneout=0.1,0.1"}, "zoneout has 2 rates, and the cell 1 states"),
        ({"seed": torch.tensor([1.0])}, "seed must be one int64 on the CPU"),
        ({"resets": torch.zeros(2, 3)}, "resets must be bool, on the CPU"),
        (
            {"resets": torch.zeros(3, 2, dtype=torch.bool)},
            r"resets must have shape \[2, 3\], got \[3, 2\]",
        ),
    ],
)
def test_bad_variants(options: dict[str, Any], told: str) -> None:
    x, weights = torch.randn(2, 3, 4), [torch.randn(15, 4), torch.randn(15, 5)]
    forward = torch.ops.rnncells.layer_forward.default
    with pytest.raises((RuntimeError, ValueError), match=told):
        forward(x, [], weights, None, None, "gru", False, False, **options)


def test_what_excludes_each_other() -> None:
    weights = [torch.randn(20, 4), torch.randn(20, 3), torch.randn(3, 5)]
    forward = torch.ops.rnncells.layer_forward.default
    with pytest.raises(RuntimeError, match="zoneout and a projection exclude each other"):
        forward(torch.randn(2, 3, 4), [], weights, *_plain("lstm"), variant="zoneout=0.1")
    packed = torch.tensor([2, 1])
    states = [torch.zeros(1, 2, 5)]
    weights = [torch.randn(15, 4), torch.randn(15, 5)]
    with pytest.raises(RuntimeError, match="a packed input cannot have resets"):
        forward(
            *(torch.randn(3, 4), states, weights, None, packed, "gru", False, False),
            resets=torch.zeros(2, 2, dtype=torch.bool),
        )


def _plain(cell: str) -> tuple[Any, ...]:
    return None, None, cell, False, False


def test_opcheck() -> None:
    x = torch.randn(3, 2, 4, requires_grad=True)
    weights = [torch.randn(20, 4, requires_grad=True), torch.randn(20, 5, requires_grad=True)]
    varied = {
        "variant": "recurrent_dropout=0.25;zoneout=0.1,0.2",
        "seed": SEED,
        "resets": torch.eye(3, 2, dtype=torch.bool),
    }
    torch.library.opcheck(
        torch.ops.rnncells.layer_forward.default,
        (x, [], weights, None, None, "lstm", False, True),
        varied,
    )
    torch.library.opcheck(layer_draw, (SEED, 0, 0, [2, 3, 4], 0.5))


def test_reference_names_are_there() -> None:
    assert reference.Variant(zoneout=(0.1, 0.0)).zoneout == (0.1, 0.0)
