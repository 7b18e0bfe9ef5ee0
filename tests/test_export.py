"""torch.export: a layer as a program whose batch and number of time steps are open.

The exported program holds our operators, one call a layer, and runs them as they are: the same
kernels on the same numbers, so the results are compared bit by bit with the layer's.
"""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import rnncells
from tests.kinds import Layer, cells, kinds, mostly_slow

I, H = 3, 5
OTHER_SIZES = [(2, 2), (9, 3), (31, 8)]
BATCH, TIME = Dim("batch"), Dim("time")

one_kind = mostly_slow(rnncells.GRU)
STACKS = [(1, False, False), (2, True, True)]
stacks = pytest.mark.parametrize(
    ("layers", "bidirectional", "batch_first"),
    [
        *STACKS,
        *(
            pytest.param(*stack, marks=pytest.mark.slow)
            for stack in itertools.product((1, 2, 3), (False, True), (False, True))
            if stack not in STACKS
        ),
    ],
)
strictly = pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])


def states_of(layer: Any, batch: int) -> Any:
    shape = (layer.num_layers * (2 if layer.bidirectional else 1), batch, H)
    states = [torch.randn(shape) for _ in range(2)]
    return tuple(states) if isinstance(layer, rnncells.LSTM) else states[0]


def inputs(layer: Any, steps: int, batch: int) -> tuple[Tensor, Any, Tensor]:
    """A padded batch, initial states, lengths."""
    x = torch.randn(*((batch, steps) if layer.batch_first else (steps, batch)), I)
    return x, states_of(layer, batch), torch.randint(1, steps + 1, (batch,))


def flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in flat(part)]


def same_bits(found: Any, expected: Any) -> bool:
    mine, other = flat(found), flat(expected)
    return len(mine) == len(other) and all(map(torch.equal, mine, other))


def export(layer: Any, with_lengths: bool, strict: bool) -> ExportedProgram:
    """Exported at T = 6, B = 4 with both open; takes x, states and, where asked, lengths."""
    x, hx, lengths = inputs(layer, 6, 4)
    order = (BATCH, TIME) if layer.batch_first else (TIME, BATCH)
    state = {1: BATCH}
    shapes: dict[str, Any] = {
        "input": dict(enumerate(order)),
        "hx": (state, state) if isinstance(hx, tuple) else state,
    }
    rest: dict[str, Any] = {}
    if with_lengths:
        rest, shapes["lengths"] = {"lengths": lengths}, {0: BATCH}
    return torch.export.export(layer, (x, hx), rest, dynamic_shapes=shapes, strict=strict)


def calls(program: ExportedProgram) -> list[torch.fx.Node]:
    operator = torch.ops.rnncells.layer_forward.default
    return [node for node in program.graph.nodes if node.target is operator]


def check(program: Any, layer: Any, with_lengths: bool) -> None:
    """The program gives the layer's results on sizes other than it was exported with."""
    run = program.module() if isinstance(program, ExportedProgram) else program
    for steps, batch in OTHER_SIZES:
        x, hx, lengths = inputs(layer, steps, batch)
        rest = {"lengths": lengths} if with_lengths else {}
        assert same_bits(run(x, hx, **rest), layer(x, hx, **rest))


@kinds
@stacks
@strictly
def test_batch_and_time_are_open(
    kind: Layer, layers: int, bidirectional: bool, batch_first: bool, strict: bool
) -> None:
    layer: Any = kind(I, H, layers, bidirectional=bidirectional, batch_first=batch_first).eval()
    program = export(layer, False, strict)
    assert len(calls(program)) == layers
    check(program, layer, False)


@kinds
@strictly
def test_lengths(kind: Layer, strict: bool) -> None:
    layer: Any = kind(I, H, 2, bidirectional=True, batch_first=True).eval()
    program = export(layer, True, strict)
    assert len(calls(program)) == 2
    check(program, layer, True)
    x, hx, lengths = inputs(layer, 7, 3)
    lengths[1] = 8
    with pytest.raises(RuntimeError, match="lengths"):
        program.module()(x, hx, lengths=lengths)


@kinds
def test_without_states(kind: Layer) -> None:
    layer: Any = kind(I, H, 2).eval()
    x = torch.randn(6, 4, I)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: TIME, 1: BATCH},))
    for shape in OTHER_SIZES:
        x = torch.randn(*shape, I)
        assert same_bits(program.module()(x), layer(x))


@strictly
def test_projection(strict: bool) -> None:
    layer = rnncells.LSTM(I, H, 2, bidirectional=True, proj_size=2).eval()
    x = torch.randn(6, 4, I)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: TIME, 1: BATCH},), strict=strict)
    for shape in OTHER_SIZES:
        x = torch.randn(*shape, I)
        assert same_bits(program.module()(x), layer(x))


@one_kind
def test_save_and_load(kind: Layer) -> None:
    layer: Any = kind(I, H, 2, bidirectional=True).eval()
    file = io.BytesIO()
    torch.export.save(export(layer, False, False), file)
    file.seek(0)
    check(torch.export.load(file), layer, False)


@one_kind
def test_decompositions(kind: Layer) -> None:
    """Decomposed into core operators, the program still holds ours."""
    layer: Any = kind(I, H, 2, bidirectional=True).eval()
    program = export(layer, False, False).run_decompositions()
    assert len(calls(program)) == 2
    check(program, layer, False)


@one_kind
def test_an_exported_program_compiles(kind: Layer) -> None:
    torch.compiler.reset()
    layer: Any = kind(I, H, 2).eval()
    module = export(layer, False, False).module()
    check(torch.compile(module, fullgraph=True, backend="aot_eager"), layer, False)


@kinds
@strictly
def test_inference_keeps_nothing_for_training(kind: Layer, strict: bool) -> None:
    """Exported outside ``no_grad``, as one does, the operator is told to keep nothing."""
    layer: Any = kind(I, H, 2).eval()
    assert [call.args[-1] for call in calls(export(layer, False, strict))] == [False, False]


@kinds
def test_training(kind: Layer) -> None:
    """A layer exported in training mode trains: dropout is alive, driven by torch's generator, and
    the gradients are the layer's."""
    layer: Any = kind(I, H, 2, bidirectional=True, dropout=0.4).train()
    program = export(layer, False, False).module()
    for steps, batch in OTHER_SIZES:
        x, hx, _ = inputs(layer, steps, batch)
        x.requires_grad_()
        found = []
        for run in (program, layer):
            torch.manual_seed(3)
            output = flat(run(x, hx))
            loss = torch.stack([(y**2).sum() for y in output]).sum()
            trained = [value for _, value in sorted(run.named_parameters())]
            found.append([*output, *torch.autograd.grad(loss, [x, *trained])])
        assert same_bits(*found)
    assert not same_bits(program(x, hx)[0], program(x, hx)[0])


@cells
@strictly
def test_cells(kind: Layer, strict: bool) -> None:
    cell = kind(I, H)

    def draw(batch: int) -> tuple[Tensor, Any]:
        states = tuple(torch.randn(batch, H) for _ in range(2))
        return torch.randn(batch, I), states if kind is rnncells.LSTMCell else states[0]

    x, hx = draw(4)
    shapes = ({0: BATCH}, ({0: BATCH}, {0: BATCH}) if isinstance(hx, tuple) else {0: BATCH})
    program = torch.export.export(cell, (x, hx), dynamic_shapes=shapes, strict=strict)
    for batch in (2, 3, 9):
        x, hx = draw(batch)
        assert same_bits(program.module()(x, hx), cell(x, hx))


class Forecaster(nn.Module):
    """A layer inside a model, which reads the last hidden state."""

    def __init__(self, kind: Layer) -> None:
        super().__init__()
        self.layer: Any = kind(I, H, 2, batch_first=True)
        self.head = nn.Linear(H, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


@kinds
@strictly
def test_in_a_model(kind: Layer, strict: bool) -> None:
    model = Forecaster(kind).eval()
    shapes = ({0: Dim.AUTO, 1: Dim.AUTO},)
    program = torch.export.export(
        model, (torch.randn(4, 6, I),), dynamic_shapes=shapes, strict=strict
    )
    for shape in OTHER_SIZES:
        x = torch.randn(*shape, I)
        assert same_bits(program.module()(x), model(x))
