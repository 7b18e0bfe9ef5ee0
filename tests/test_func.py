"""torch.func: gradients, per-sample ones, vmap, second derivatives, and forward mode."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacrev, jvp, vmap
from torch.testing import assert_close

from rnncells.autograd import run_layer
from rnncells.ops import CELLS
from rnncells.variants import PLAIN, declare, reference_layer

Run = Callable[..., tuple[Tensor, list[Tensor]]]
STEPS, BATCH, INPUTS, UNITS, SAMPLES = 4, 3, 2, 5, 6


def specification(
    x: Tensor, states: list[Tensor], weights: list[Tensor], cell: str, bidirectional: bool
) -> tuple[Tensor, list[Tensor]]:
    return reference_layer(x, states, weights, cell, bidirectional, None, None, PLAIN)


class Problem:
    """A layer in float64, and a loss that every output enters."""

    def __init__(self, cell: str, bidirectional: bool) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return 0.5 * torch.randn(*shape, dtype=torch.float64, generator=generator)

        directions, rows = 1 + bidirectional, CELLS[cell]["gates"] * UNITS
        self.cell, self.bidirectional, self.count = cell, bidirectional, CELLS[cell]["states"]
        self.x = draw(STEPS, BATCH, INPUTS)
        self.samples = draw(SAMPLES, STEPS, BATCH, INPUTS)
        self.rest = [draw(directions, BATCH, UNITS) for _ in range(self.count)]
        declared = declare(cell, "")
        for name in declared.positive:
            place = declared.states.index(name)
            self.rest[place] = self.rest[place].abs() + 0.5
        per_unit = CELLS[cell]["per_unit_recurrence"]
        for _ in range(directions):
            recurrent = (rows,) if per_unit else (rows, UNITS)
            self.rest += [draw(rows, INPUTS), draw(*recurrent), draw(rows), draw(rows)]
            values = 0 if per_unit else CELLS[cell]["unit_parameters"]
            self.rest += [draw(values * UNITS)] if values else []

    def loss(self, run: Run) -> Callable[..., Tensor]:
        def value(x: Tensor, *rest: Tensor) -> Tensor:
            states, weights = list(rest[: self.count]), list(rest[self.count :])
            y, last = run(x, states, weights, self.cell, self.bidirectional)
            return (y**2).sum() + sum((state**3).sum() for state in last)

        return value

    @property
    def all(self) -> tuple[int, ...]:
        return tuple(range(1 + len(self.rest)))


@pytest.fixture(
    params=[(cell, both) for cell in CELLS if not CELLS[cell]["middle"] for both in (False, True)],
    ids=str,
)
def problem(request: pytest.FixtureRequest) -> Problem:
    return Problem(*request.param)


def same(ours: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    # Sums of at most a few hundred terms of order one in float64: far inside these.
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_grad(problem: Problem) -> None:
    def take(run: Run) -> tuple[Tensor, ...]:
        return grad(problem.loss(run), problem.all)(problem.x, *problem.rest)

    same(take(run_layer), take(specification))


def test_per_sample_gradients(problem: Problem) -> None:
    def take(run: Run) -> tuple[Tensor, ...]:
        one = grad(problem.loss(run), problem.all)
        return vmap(one, in_dims=(0, *[None] * len(problem.rest)))(problem.samples, *problem.rest)

    same(take(run_layer), take(specification))


def test_gradient_of_a_vmap(problem: Problem) -> None:
    def take(run: Run) -> tuple[Tensor, ...]:
        def total(*rest: Tensor) -> Tensor:
            return vmap(lambda x: problem.loss(run)(x, *rest))(problem.samples).sum()

        return grad(total, problem.all[:-1])(*problem.rest)

    same(take(run_layer), take(specification))


def test_no_samples(problem: Problem) -> None:
    """Zero of something: empty results of one sample's shapes, as torch's own operators give."""
    nothing, count = problem.samples[:0], len(problem.rest)

    def output(x: Tensor, *rest: Tensor, lengths: Tensor | None = None) -> Tensor:
        states, weights = rest[: problem.count], rest[problem.count :]
        return run_layer(x, states, weights, problem.cell, problem.bidirectional, lengths)[0]

    def energy(x: Tensor, *rest: Tensor) -> Tensor:
        return output(x, *rest).square().sum()

    shape = output(problem.x, *problem.rest).shape
    for lengths in (None, torch.tensor([2, 1, 4])):
        found = vmap(lambda x, n=lengths: output(x, *problem.rest, lengths=n))(nothing)
        assert found.shape == (0, *shape)
    nested = vmap(vmap(lambda x: output(x, *problem.rest)))
    assert nested(problem.samples[:, None][:, :0]).shape == (SAMPLES, 0, *shape)

    one = grad(energy, problem.all)
    per_sample = vmap(one, in_dims=(0, *[None] * count))(nothing, *problem.rest)
    models = [t.new_empty(0, *t.shape) for t in problem.rest]
    per_model = vmap(one, in_dims=(None, *[0] * count))(problem.x, *models)
    for found in (per_sample, per_model):
        shapes = [(0, *t.shape) for t in (problem.x, *problem.rest)]
        assert [t.shape for t in found] == shapes

    def total(*rest: Tensor) -> Tensor:
        return vmap(lambda x: energy(x, *rest))(nothing).sum()

    for g in grad(total, problem.all[:-1])(*problem.rest):
        assert not g.any()


def test_second_derivative(problem: Problem) -> None:
    def take(run: Run) -> tuple[Tensor, ...]:
        def penalty(*inputs: Tensor) -> Tensor:
            return (grad(problem.loss(run))(*inputs) ** 2).sum()

        return grad(penalty, problem.all)(problem.x, *problem.rest)

    same(take(run_layer), take(specification))


def test_grad_inside_eager_autograd(problem: Problem) -> None:
    def take(run: Run) -> tuple[Tensor, ...]:
        rest = [t.clone().requires_grad_() for t in problem.rest]
        penalty = (grad(problem.loss(run))(problem.x, *rest) ** 2).sum()
        return torch.autograd.grad(penalty, rest)

    same(take(run_layer), take(specification))


def test_forward_mode(problem: Problem) -> None:
    """A tangent is what a difference quotient goes to; and torch.func's equals dual numbers'."""
    states, weights = problem.rest[: problem.count], problem.rest[problem.count :]

    def output(x: Tensor, weight: Tensor) -> Tensor:
        own = [weight, *weights[1:]]
        return run_layer(x, states, own, problem.cell, problem.bidirectional)[0]

    inputs = problem.x, weights[0]
    directions = tuple(torch.rand_like(t) for t in inputs)
    y, tangent = jvp(output, inputs, directions)[:2]
    assert_close(y, output(*inputs))
    step = 1e-6  # its square, and eps / step, are the errors of a central difference
    ahead, behind = (
        output(*(t + sign * step * d for t, d in zip(inputs, directions, strict=True)))
        for sign in (1, -1)
    )
    assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(inputs, directions, strict=True)]
        assert_close(forward_ad.unpack_dual(output(*duals)).tangent, tangent)
        assert forward_ad.unpack_dual(output(*inputs)).tangent is None


def test_hessians(problem: Problem) -> None:
    """Forward over reverse, and reverse over reverse."""
    states, weights = problem.rest[: problem.count], problem.rest[problem.count :]

    def energy(x: Tensor) -> Tensor:
        y = run_layer(x, states, weights, problem.cell, problem.bidirectional)[0]
        return y.square().sum()

    expected = jacrev(jacrev(energy))(problem.x)
    assert_close(hessian(energy)(problem.x), expected)
    direction = torch.rand_like(problem.x)
    product = jvp(grad(energy), (problem.x,), (direction,))[1]
    dims = problem.x.dim()
    assert_close(product, torch.tensordot(expected, direction, dims))


def test_batched_gradients(problem: Problem) -> None:
    """torch.autograd's own vmap, which is not torch.func's."""

    def output(x: Tensor, weight: Tensor) -> Tensor:
        states, weights = problem.rest[: problem.count], problem.rest[problem.count + 1 :]
        every = [weight, *weights]
        return run_layer(x, states, every, problem.cell, problem.bidirectional)[0].sum(dim=1)

    inputs = problem.x, problem.rest[problem.count]
    jacobian = torch.autograd.functional.jacobian
    for found, expected in zip(
        jacobian(output, inputs, vectorize=True), jacobian(output, inputs), strict=True
    ):
        assert_close(found, expected)
