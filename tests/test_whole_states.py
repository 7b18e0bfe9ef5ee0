"""``return_cell_states``: the memory cells of every time step, and their gradients; and the last
output alone, which leaves no sequence in memory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import rnncells
from rnncells import _C
from rnncells.autograd import run_layer
from rnncells.ops import layer_forward
from rnncells.testing import Problem, make_problem
from rnncells.testing.problem import cast
from rnncells.variants import Text, Varied, reference_layer, write
from tests.test_parity import using

SEED = torch.tensor([271_828])
T, B, I, H = 7, 4, 3, 5
LENGTHS = [4, 7, 1, 6]


def outputs_and_gradients(run: Any, problem: Problem, dtype: torch.dtype, varied: Varied) -> Any:
    """y, the last states and the series; and the gradients of a weighted sum of all of them."""
    inputs = {name: cast(value, dtype) for name, value in problem.inputs.items()}
    inputs = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    states = [inputs[name] for name in problem.state_names]
    weights = [inputs[name] for name in problem.weight_names]
    uneven = problem.lengths, problem.batch_sizes
    y, last = run(inputs["x"], states, weights, problem.cell, problem.bidirectional, *uneven)
    generator = torch.Generator().manual_seed(3)
    found = [y, *last]
    assert len(found) == 4
    loss = sum(
        (one * torch.rand(one.shape, generator=generator, dtype=torch.float64).to(dtype)).sum()
        for one in found
    )
    return [*found, *torch.autograd.grad(loss, list(inputs.values()))]


def varied_as(name: str, problem: Problem) -> Varied:
    if name == "plain":
        return Varied("states=all")
    text = write(Text(recurrent_dropout=0.25, zoneout=(0.2, 0.4), whole_states=True))
    if problem.batch_sizes is not None:
        return Varied(text, SEED)
    steps = problem.inputs["x"].shape[0]
    resets = torch.rand(steps, problem.batch, generator=torch.Generator().manual_seed(1)) < 0.3
    return Varied(text, SEED, resets)


@pytest.mark.parametrize("name", ["plain", "drawn"])
@pytest.mark.parametrize("form", ["full", "padded", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_parity(name: str, form: str, bidirectional: bool, recompute: bool) -> None:
    for sizes in ((9, 5, 3, 20), (1, 1, 2, 3), (4, 33, 2, 18)):
        given: Any = {} if form == "full" else {"lengths": "draw", "packed": form == "packed"}
        problem = make_problem("lstm", *sizes, bidirectional=bidirectional, padding=0.5, **given)
        varied = varied_as(name, problem)

        def specified(*arguments: Any, varied: Varied = varied) -> Any:
            return reference_layer(*arguments, varied)

        def run(*arguments: Any, varied: Varied = varied) -> Any:
            return run_layer(*arguments, recompute=recompute, varied=varied)

        expected = outputs_and_gradients(specified, problem, torch.float64, varied)
        for isa, threads in itertools.product(_C.supported_isas(), (1, 2)):
            with using(isa, threads):
                for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
                    found = outputs_and_gradients(run, problem, dtype, varied)
                    for mine, theirs in zip(found, expected, strict=True):
                        torch.testing.assert_close(
                            mine.double(), theirs, rtol=tolerance, atol=tolerance * 10
                        )


OPTIONS: list[dict[str, Any]] = [
    {},
    {"peephole": True},
    {"coupled": True, "activation": "softsign"},
    {"layer_norm": "gates"},
    {"layer_norm": "preactivation"},
    {"zoneout": (0.2, 0.4)},
    {"proj_size": 2},
]


def make(**options: Any) -> Any:
    torch.manual_seed(0)
    return rnncells.LSTM(I, H, dtype=torch.float64, return_cell_states=True, **options).eval()


def draw(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(shape or (T, B, I), dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_step_is_what_a_call_for_it_leaves(options: dict[str, Any]) -> None:
    layer, x = make(**options), draw().requires_grad_()
    y, last, cells = layer(x)
    state, steps = None, []
    for t in range(T):
        _, state, _ = layer(x[t : t + 1], state)
        steps.append(state[1][0])
    expected = torch.stack(steps)
    torch.testing.assert_close(cells, expected)
    torch.testing.assert_close(cells[-1], last[1][0])
    wanted = [x, *layer.parameters()]
    weight = draw(*cells.shape)
    mine = torch.autograd.grad((cells * weight).sum(), wanted, allow_unused=True)
    theirs = torch.autograd.grad((expected * weight).sum(), wanted, allow_unused=True)
    for one, other in zip(mine, theirs, strict=True):
        zeros = torch.zeros(())
        torch.testing.assert_close(zeros if one is None else one, zeros if other is None else other)
    assert y.shape == (T, B, options.get("proj_size", H))


def test_layouts() -> None:
    whole = make(num_layers=2, bidirectional=True)
    x = draw()
    _, last, cells = whole(x)
    assert cells.shape == (T, B, 2 * H)
    first = make(num_layers=2, bidirectional=True, batch_first=True)
    turned = first(x.transpose(0, 1))
    torch.testing.assert_close(turned[2], cells.transpose(0, 1))
    one = whole(x[:, 1])
    torch.testing.assert_close(one[2], cells[:, 1])
    padded = whole(x, lengths=LENGTHS)
    packed = whole(pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False))
    assert isinstance(packed[2], PackedSequence)
    torch.testing.assert_close(pad_packed_sequence(packed[2])[0], padded[2])
    for row, n in enumerate(LENGTHS):
        assert not padded[2][n:, row].any()
        torch.testing.assert_close(padded[2][:n, row], whole(x[:n, row])[2])
    # the forward direction's last is the last time step's, the other's the first one's
    torch.testing.assert_close(last[1][2], cells[-1, :, :H])
    torch.testing.assert_close(last[1][3], cells[0, :, H:])


def test_together_with_the_other_ways_of_a_call() -> None:
    layer, x = make(), draw()
    y, _, cells = layer(x)
    alone = make(return_sequences=False)(x)
    torch.testing.assert_close(alone[0], y[-1])
    torch.testing.assert_close(alone[2], cells)
    stateful = make(stateful=True)
    pieces = [stateful(x[:3])[2], stateful(x[3:])[2]]
    torch.testing.assert_close(torch.cat(pieces), cells)
    torch.testing.assert_close(make(go_backwards=True)(x.flip(0))[2], cells)
    with torch.no_grad(), layer.frozen():
        torch.testing.assert_close(layer(x)[2], cells)
    torch._dynamo.reset()
    compiled: Any = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[2], cells)
    traced: Any = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(traced(x)[2], cells)
    parameters = dict(layer.named_parameters())

    def loss(values: Any, x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, values, (x,))[2].square().sum()

    found = torch.func.grad(loss)(parameters, x)
    expected = torch.autograd.grad(layer(x)[2].square().sum(), list(parameters.values()))
    for name, theirs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(found[name], theirs)
    batches = torch.stack([x, x / 2])
    many = torch.func.vmap(lambda one: layer(one)[2])(batches)
    torch.testing.assert_close(many[1], layer(x / 2)[2])


def test_derivatives() -> None:
    layer = make(bidirectional=True)
    x = draw(3, 2, I).requires_grad_()

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        y, _, cells = layer(x)
        return y, cells

    torch.autograd.gradcheck(run, (x,), check_forward_ad=True)
    torch.autograd.gradgradcheck(run, (x,))


def test_who_has_no_memory_cell() -> None:
    for kind in (rnncells.SimpleRNN, rnncells.GRU):
        with pytest.raises(ValueError, match=r"^return_cell_states: only for an LSTM, not "):
            kind(I, H, return_cell_states=True)
    with pytest.raises(TypeError, match=r"return_cell_states should be of type bool"):
        rnncells.LSTM(I, H, return_cell_states=1)  # type: ignore[arg-type]


SHAPES = ((7, 1, 3, 5), (1, 4, 3, 5), (2, 40, 2, 20), (9, 40, 2, 20), (6, 3, 40, 70))


@pytest.mark.parametrize("form", ["full", "padded", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
def test_the_last_output_without_a_sequence(cell: str, form: str, bidirectional: bool) -> None:
    """Room for two steps is all there is, in every regime; the last states are the same bits."""
    for sizes in SHAPES:
        given: Any = {} if form == "full" else {"lengths": "draw", "packed": form == "packed"}
        problem = make_problem(cell, *sizes, bidirectional=bidirectional, **given)
        inputs = {name: value.float() for name, value in problem.inputs.items()}
        arguments = (
            inputs["x"],
            [inputs[name] for name in problem.state_names],
            [inputs[name] for name in problem.weight_names],
            *(problem.lengths, problem.batch_sizes, cell, bidirectional),
        )
        for isa, threads in itertools.product(_C.supported_isas(), (1, 2)):
            with using(isa, threads):
                y, last, _ = layer_forward(*arguments, False)
                room, alone, _ = layer_forward(*arguments, False, variant="outputs=last")
                assert room.shape == (min(sizes[0], 2), sizes[1], y.shape[-1])
                for mine, theirs in zip(alone, last, strict=True):
                    assert torch.equal(mine, theirs)
                whole, _, _ = layer_forward(*arguments, True, variant="outputs=last")
                assert whole.shape == y.shape  # BPTT reads it
