"""``recompute=True``: the same gradients from a reserve that holds the states alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnncells
from rnncells import _C
from rnncells.autograd import run_layer
from rnncells.testing import Problem, evaluate, make_problem
from tests.kinds import kinds

# One chunk of time steps and several, fewer rows than threads, a last vector that is not full.
SIZES = [(3, 2, 3, 5), (40, 70, 3, 33), (23, 1, 40, 150), (300, 5, 2, 9)]


@pytest.fixture(autouse=True)
def lanes_over_the_units() -> Iterator[None]:
    """Recomputing has them always; sums of gradients are in another order elsewhere."""
    _C.force_regime("units")
    yield
    _C.force_regime("auto")


recomputing = partial(run_layer, recompute=True)


def assert_same_bits(problem: Problem, dtype: torch.dtype) -> None:
    expected = evaluate(run_layer, problem, dtype)
    for name, value in evaluate(recomputing, problem, dtype).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_same_bits(
    cell: str, isa: str, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    flags = SIZES.index(sizes)
    problem = make_problem(cell, *sizes, bidirectional=flags % 2 == 0, states=flags < 2)
    assert_same_bits(problem.rounded(dtype), dtype)


@pytest.mark.parametrize(("packed", "states"), [(False, False), (False, True), (True, True)])
def test_same_bits_with_unequal_lengths(cell: str, packed: bool, states: bool) -> None:
    """Sequences that end, or begin, inside a chunk, between chunks, and in all of them."""
    T, B = 60, 40
    lengths = [T, 1, *torch.randint(1, T + 1, (B - 2,)).tolist()]
    problem = make_problem(
        cell, T, B, 3, 20, bidirectional=True, states=states, lengths=lengths, packed=packed
    )
    assert_same_bits(problem, torch.float32)


@pytest.mark.parametrize("lengths", [None, "some"])
def test_same_bits_with_a_projection(lengths: str | None) -> None:
    options: dict[str, Any] = {"proj_size": 4, "bidirectional": True}
    layers = [rnncells.LSTM(3, 9, **options, recompute=again) for again in (False, True)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(130, 12, 3)
    given = None if lengths is None else torch.randint(1, 131, (12,))
    found = []
    for layer in layers:
        y, _ = layer(x, lengths=given)
        found.append(torch.autograd.grad(y.square().sum(), list(layer.parameters())))
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("threads", [2, 4])
def test_same_bits_on_several_threads(cell: str, threads: int) -> None:
    problem = make_problem(cell, 60, 3, 3, 70)
    expected = evaluate(run_layer, problem, torch.float32)
    torch.set_num_threads(threads)
    for name, value in evaluate(recomputing, problem, torch.float32).items():
        assert torch.equal(value, expected[name]), name


@kinds
def test_only_the_states_are_kept(kind: type[nn.Module]) -> None:
    layer, x = kind(3, 8, recompute=True), torch.randn(7, 4, 3)
    kept: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
    cells = 1 if kind is rnncells.LSTM else 0
    assert (1, 7, 4, cells * 8) in kept
    assert all(len(shape) < 4 or shape[3] <= 8 for shape in kept)


@kinds
def test_everything_else_holds(kind: type[nn.Module]) -> None:
    layer, x = kind(2, 3, recompute=True).double(), torch.randn(4, 2, 2).double().requires_grad_()
    parameters = list(layer.parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        names = [name for name, _ in layer.named_parameters()]
        y: Tensor = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)[0]
        return y

    assert torch.autograd.gradcheck(run, (x, *parameters))
    assert torch.autograd.gradgradcheck(run, (x, *parameters))
    compiled = torch.compile(layer, fullgraph=True)
    expected = torch.autograd.grad(layer(x)[0].sum(), parameters)
    for found, wanted in zip(
        torch.autograd.grad(compiled(x)[0].sum(), parameters), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted)

    def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, values, x.unsqueeze(1))[0]
        return y.sum()

    values = {name: value.detach() for name, value in layer.named_parameters()}
    found = torch.func.vmap(torch.func.grad(loss), (None, 1))(values, x.detach())
    for (_, gradient), wanted in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(gradient.sum(0), wanted)


def test_the_option() -> None:
    layer = rnncells.GRU(2, 3, recompute=True)
    assert repr(layer) == "GRU(2, 3, recompute=True)"
    assert not rnncells.GRU(2, 3).recompute
    with pytest.raises(TypeError, match="recompute should be of type bool, got: int"):
        rnncells.LSTM(2, 3, recompute=1)  # type: ignore[arg-type]
