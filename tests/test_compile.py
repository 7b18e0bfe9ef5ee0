"""torch.compile: a layer in one graph, forward and backward, for every number of time steps.

Backend aot_eager runs the traced graphs, forward and backward, on the operators as they are: the
same kernels on the same numbers, so the results are compared bit by bit with eager's. Inductor,
which compiles the dropout with its own random numbers and what lies around the layers, takes its
time; it has one quick test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnncells
from tests.kinds import KINDS, Layer, cells, kinds, mostly_slow

STACKS = [(1, False), (3, True)]
FULL_STACKS = [s for s in itertools.product((1, 2, 3), (False, True)) if s not in STACKS]
STEPS = (2, 3, 7, 12, 31)
T, B, I, H = 6, 4, 3, 5
LENGTHS = torch.tensor([6, 1, 4, 3])

one_kind = mostly_slow(rnncells.LSTM)
stacks = pytest.mark.parametrize(
    ("layers", "bidirectional"),
    [*STACKS, *(pytest.param(*s, marks=pytest.mark.slow) for s in FULL_STACKS)],
)
# In the quick run some have lengths and some have none, in the slow one all have both.
QUICK = [(rnncells.SimpleRNN, False), (rnncells.LSTM, True), (rnncells.GRU, True)]
batches = pytest.mark.parametrize(
    ("kind", "ragged"),
    [
        pytest.param(
            *pair,
            marks=() if pair in QUICK else pytest.mark.slow,
            id=f"{pair[0].__name__}-{'lengths' if pair[1] else 'full'}",
        )
        for pair in itertools.product(KINDS, (False, True))
    ],
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Each test starts with nothing compiled, and leaves nothing behind."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def make(kind: Layer, layers: int = 1, bidirectional: bool = False, **options: Any) -> Any:
    """A layer with dropout where it has a place."""
    options.setdefault("dropout", 0.4 if layers > 1 else 0.0)
    return kind(I, H, layers, bidirectional=bidirectional, **options)


def states_of(layer: Any, batch: int = B) -> Any:
    shape = (layer.num_layers * (2 if layer.bidirectional else 1), batch, H)
    states = [torch.randn(shape, dtype=layer.weight_ih_l0.dtype) for _ in range(2)]
    return tuple(states) if isinstance(layer, rnncells.LSTM) else states[0]


def flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in flat(part)]


def lengths_of(ragged: bool, steps: int = T) -> dict[str, Tensor]:
    """``lengths=`` for a batch of ``steps`` time steps, where there are any."""
    return {"lengths": LENGTHS.clamp(max=steps)} if ragged else {}


def train(call: Callable[..., Any], layer: nn.Module, x: Tensor, hx: Any, **rest: Any) -> Any:
    """Outputs of one call from a fixed seed, and the gradients of everything that requires one."""
    leaves = [t.detach().requires_grad_() for t in (x, *([] if hx is None else flat(hx)))]
    given = leaves[1] if isinstance(hx, Tensor) else tuple(leaves[1:]) or None
    torch.manual_seed(7)
    outputs = flat(call(leaves[0], given, **rest))
    loss = torch.stack([(output**2).sum() for output in outputs]).sum()
    trained = [p for p in layer.parameters() if p.requires_grad]
    return [*outputs, *torch.autograd.grad(loss, [*leaves, *trained])]


def same_bits(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


class Graphs:
    """A backend that keeps the forward and backward graphs, and runs them as they are."""

    def __init__(self) -> None:
        self.forward: list[torch.fx.GraphModule] = []
        self.backward: list[torch.fx.GraphModule] = []
        self.backend = aot_autograd(
            fw_compiler=self._keep(self.forward),
            bw_compiler=self._keep(self.backward),
            inference_compiler=self._keep(self.forward),
        )

    def _keep(self, graphs: list[torch.fx.GraphModule]) -> Callable[..., Any]:
        def compiler(graph: torch.fx.GraphModule, example: Any) -> Any:
            graphs.append(graph)
            return make_boxed_func(graph.forward)

        return compiler

    @staticmethod
    def calls(graph: torch.fx.GraphModule, name: str) -> list[torch.fx.Node]:
        operator = getattr(torch.ops.rnncells, name).default
        return [node for node in graph.graph.nodes if node.target is operator]


@kinds
@stacks
def test_training(kind: Layer, layers: int, bidirectional: bool) -> None:
    """Outputs and every gradient are eager's, with dropout from torch's generator."""
    layer = make(kind, layers, bidirectional)
    x, hx = torch.randn(T, B, I), states_of(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert same_bits(train(compiled, layer, x, hx), train(layer, layer, x, hx))


@kinds
@pytest.mark.parametrize("layers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_training_with_lengths(kind: Layer, layers: int) -> None:
    layer = make(kind, layers, bidirectional=True, batch_first=True)
    x, hx = torch.randn(B, T, I), states_of(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = train(compiled, layer, x, hx, lengths=LENGTHS)
    assert same_bits(found, train(layer, layer, x, hx, lengths=LENGTHS))


@batches
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference(kind: Layer, ragged: bool, mode: Callable[[], Any]) -> None:
    """Eager's bits; the operator is told to keep nothing for the backward pass."""
    layer, graphs = make(kind, 2, bidirectional=True).eval(), Graphs()
    x, hx = torch.randn(T, B, I), states_of(layer)
    compiled = torch.compile(layer, fullgraph=True, backend=graphs.backend)
    with mode():
        found = flat(compiled(x, hx, **lengths_of(ragged)))
        assert same_bits(found, flat(layer(x, hx, **lengths_of(ragged))))
    (graph,) = graphs.forward
    assert [call.args[-1] for call in graphs.calls(graph, "layer_forward")] == [False, False]


@batches
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (3, True)])
def test_one_graph_where_time_is_dynamic(
    kind: Layer, layers: int, bidirectional: bool, ragged: bool
) -> None:
    layer = make(kind, layers, bidirectional, batch_first=True)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for steps in STEPS:
        x = torch.randn(B, steps, I)
        torch._dynamo.mark_dynamic(x, 1)
        rest = lengths_of(ragged, steps)
        torch.manual_seed(7)
        output = compiled(x, **rest)
        output[0].sum().backward()
        torch.manual_seed(7)
        assert same_bits(flat(output), flat(layer(x, **rest)))
    assert counter.frame_count == 1


@one_kind
def test_packed_sequences(kind: Layer) -> None:
    """Given to the compiled layer; torch itself cannot trace the packing."""
    layer = make(kind, 2, bidirectional=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for lengths in ([6, 1, 4, 3], [2, 6, 6, 1]):
        x = torch.randn(T, B, I)
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        runs = []
        for call in (compiled, layer):
            torch.manual_seed(7)
            output, hx = call(packed)
            assert isinstance(output, PackedSequence)
            outputs = [output.data, *flat(hx)]
            loss = torch.stack([(y**2).sum() for y in outputs]).sum()
            runs.append([*outputs, *torch.autograd.grad(loss, list(layer.parameters()))])
        assert same_bits(*runs)


@one_kind
@pytest.mark.parametrize("training", [True, False])
def test_two_graphs_at_most_by_default(kind: Layer, training: bool) -> None:
    """Torch compiles for the first T, and once more for every other."""
    layer = make(kind, 2, bidirectional=True).train(training)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    with torch.set_grad_enabled(training):
        for steps in STEPS:
            output = compiled(torch.randn(steps, B, I))
            if training:
                output[0].sum().backward()
    assert counter.frame_count <= 2


@batches
def test_the_graph_does_not_grow_with_time(kind: Layer, ragged: bool) -> None:
    """So compiling takes as long for 500 time steps as for 5: in each graph one operator call a
    layer, and no loop unrolled."""
    sizes = []
    for steps in (5, 500):
        layer, graphs = make(kind, 3, bidirectional=True), Graphs()
        compiled = torch.compile(layer, fullgraph=True, backend=graphs.backend)
        rest = lengths_of(ragged, steps)
        compiled(torch.randn(steps, B, I), **rest)[0].sum().backward()
        (forward,), (backward,) = graphs.forward, graphs.backward
        assert len(graphs.calls(forward, "layer_forward")) == 3
        assert len(graphs.calls(backward, "layer_backward")) == 3
        sizes.append((len(forward.graph.nodes), len(backward.graph.nodes)))
        torch.compiler.reset()
    assert sizes[0] == sizes[1]


def see_through(kind: Layer, width: int) -> Any:
    """Two layers with dropout 0.4 between, where the first step's unit j above sees unit j below
    alone: its output says whether that was dropped."""
    layer: Any = kind(1, width, 2, dropout=0.4)
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value.fill_(1.0 if name.startswith("bias_ih") else 0.0)
        layer.weight_ih_l1[-width:] = torch.eye(width)  # one gate, in which the output grows
    return layer


def dropped(output: Tensor) -> Tensor:
    """Which of the first step's units were dropped; there are two values only."""
    low, high = output[0].min(), output[0].max()
    assert high > low
    assert ((output[0] == low) | (output[0] == high)).all()
    return output[0] == low


def check_dropout(call: Callable[[Tensor], Any], B: int, H: int) -> None:
    x = torch.zeros(2, B, 1)
    torch.manual_seed(1)
    first, second = (dropped(call(x)[0]) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, dropped(call(x)[0]))
    torch.manual_seed(2)
    assert not torch.equal(first, dropped(call(x)[0]))
    n, p = 2 * B * H, 0.4
    hits = int(first.sum() + second.sum())
    # Five standard deviations of the binomial distribution.
    assert abs(hits - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    # Neither whole sequences nor whole units: the same bound on each row and column.
    for along in (0, 1):
        share, size = first.float().mean(along), first.shape[along]
        assert ((share - p).abs() < 5 * (p * (1 - p) / size) ** 0.5).all()


@kinds
def test_dropout_is_alive(kind: Layer) -> None:
    """At its rate, new in every call, and driven by torch's generator: from the same seed the very
    mask that eager draws, and the generator moves on as far."""
    layer = see_through(kind, 64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    check_dropout(compiled, 64, 64)
    states = []
    for call in (compiled, layer):
        torch.manual_seed(3)
        mask = dropped(call(torch.zeros(2, 64, 1))[0])
        states.append((mask, torch.get_rng_state()))
    assert same_bits(*states)
    layer.eval()
    assert not same_bits([compiled(torch.zeros(2, 64, 1))[0]], [states[0][0]])
    assert compiled(torch.zeros(2, 64, 1))[0][0].unique().numel() == 1


@one_kind
def test_evaluation_after_training(kind: Layer) -> None:
    """The compiled layer follows ``train()`` and ``eval()``."""
    layer = make(kind, 2)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(T, B, I)
    for training in (True, False, True):
        layer.train(training)
        assert same_bits(train(compiled, layer, x, None), train(layer, layer, x, None))


@kinds
def test_frozen_parts_have_no_gradient(kind: Layer) -> None:
    """Neither in ``.grad`` nor in what the compiled BPTT is asked to compute."""
    layer, graphs = make(kind, 2, dropout=0.0), Graphs()
    frozen = {"weight_hh_l0", "bias_ih_l0", "weight_ih_l1"}
    for name in frozen:
        getattr(layer, name).requires_grad_(False)
    compiled = torch.compile(layer, fullgraph=True, backend=graphs.backend)
    x = torch.randn(T, B, I)
    compiled(x)[0].sum().backward()
    found = {name: value.grad for name, value in layer.named_parameters()}
    layer.zero_grad()
    layer(x)[0].sum().backward()
    for name, value in layer.named_parameters():
        assert (found[name] is None) == (name in frozen)
        assert value.grad is None or torch.equal(value.grad, found[name])
    (backward,) = graphs.backward
    # The upper layer first; of x, weight_ih, weight_hh, bias_ih, bias_hh.
    needs = [call.args[-1] for call in graphs.calls(backward, "layer_backward")]
    assert needs == [[1, 0, 1, 1, 1], [0, 1, 0, 0, 1]]


@kinds
def test_a_frozen_layer_keeps_nothing(kind: Layer) -> None:
    """With nothing to derive, the operator is told so, in grad mode too."""
    layer, graphs = make(kind).requires_grad_(False), Graphs()
    torch.compile(layer, fullgraph=True, backend=graphs.backend)(torch.randn(T, B, I))
    (graph,) = graphs.forward
    assert [call.args[-1] for call in graphs.calls(graph, "layer_forward")] == [False]


@one_kind
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_and_a_dynamic_batch(kind: Layer, dtype: torch.dtype) -> None:
    # No dropout: torch rounds its gradient in 16 bits one way eagerly and another way compiled.
    layer = make(kind, 2, bidirectional=True, dtype=dtype, dropout=0.0)
    counter, graphs = CompileCounterWithBackend("aot_eager"), set()
    compiled = torch.compile(layer, fullgraph=True, backend=counter, dynamic=True)
    for steps, batch in ((6, 7), (9, 8), (13, 11)):
        x, hx = torch.randn(steps, batch, I, dtype=dtype), states_of(layer, batch)
        assert same_bits(train(compiled, layer, x, hx), train(layer, layer, x, hx))
        graphs.add(counter.frame_count)
    # Torch may trace the first call twice, to learn which Python numbers never change.
    assert len(graphs) == 1


def test_projection() -> None:
    layer = make(rnncells.LSTM, 2, bidirectional=True, proj_size=2)
    x = torch.randn(T, B, I)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert same_bits(train(compiled, layer, x, None), train(layer, layer, x, None))


def test_a_second_derivative_is_refused_by_torch() -> None:
    """No compiled module has one; the layer itself has."""
    layer = make(rnncells.GRU)
    x = torch.randn(T, B, I, requires_grad=True)
    for call in (torch.compile(layer, fullgraph=True, backend="aot_eager"), layer):
        (dx,) = torch.autograd.grad(call(x)[0].square().sum(), x, create_graph=True)
        if call is layer:
            assert torch.autograd.grad(dx.square().sum(), x)[0].isfinite().all()
        else:
            with pytest.raises(RuntimeError, match="double backward"):
                torch.autograd.grad(dx.square().sum(), x)


@one_kind
def test_autocast(kind: Layer) -> None:
    """Under CPU autocast the compiled layer gives what the eager one gives under it."""
    model = nn.ModuleList([nn.Linear(I, I), make(kind, 2, dropout=0.0)])

    def run(x: Tensor, hx: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return model[1](model[0](x).float(), hx)

    x = torch.randn(T, B, I)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    found, expected = (train(call, model[1], x, None) for call in (compiled, run))
    assert [t.dtype for t in found] == [t.dtype for t in expected]
    assert same_bits(found, expected)


class Loop(nn.Module):
    """A cell in a Python loop over time, as users write it."""

    def __init__(self, kind: Layer) -> None:
        super().__init__()
        self.cell = kind(I, H)
        self.head = nn.Linear(H, 2)

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        outputs = []
        for step in x:
            hx = self.cell(step, hx)
            outputs.append(self.head(hx[0] if isinstance(hx, tuple) else hx))
        return torch.stack(outputs), hx


@cells
def test_cells(kind: Layer) -> None:
    model = Loop(kind)
    states = tuple(torch.randn(B, H) for _ in range(2))
    hx = states if kind is rnncells.LSTMCell else states[0]
    x = torch.randn(T, B, I)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert same_bits(train(compiled, model, x, hx), train(model, model, x, hx))
    single = torch.compile(model.cell, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert same_bits(flat(single(x[0])), flat(model.cell(x[0])))
        assert same_bits(flat(single(x[0, 0])), flat(model.cell(x[0, 0])))


@one_kind
def test_the_three_inputs_that_specialise(kind: Layer) -> None:
    """One time step, a batch of one, and an unbatched sequence compile too."""
    layer = make(kind)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for shape in ((1, B, I), (T, 1, I), (T, I)):
        x = torch.randn(shape)
        assert same_bits(train(compiled, layer, x, None), train(layer, layer, x, None))


@one_kind
def test_lengths_out_of_range_are_refused(kind: Layer) -> None:
    layer = make(kind)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for wrong in (0, T + 1):
        lengths = LENGTHS.clone()
        lengths[2] = wrong
        with torch.no_grad(), pytest.raises(RuntimeError, match="lengths"):
            compiled(torch.randn(T, B, I), lengths=lengths)


class Tagger(nn.Module):
    """A usual model: embedding, recurrent stack, head."""

    def __init__(self, kind: Layer) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, I)
        self.layer: Any = kind(I, 8, 2, bidirectional=True, batch_first=True, dropout=0.2)
        self.head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 4))

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(words))[0])


def fit(model: nn.Module, call: Callable[..., Tensor], steps: int) -> list[Tensor]:
    """The losses of some training steps, and the weights after them."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    words, losses = torch.randint(11, (steps, B, T)), []
    for batch in words:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(call(batch).flatten(0, 1), batch.flatten() % 4)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return [*losses, *(p.detach() for p in model.parameters())]


@kinds
def test_a_model_trains_as_it_does_eagerly(kind: Layer) -> None:
    runs = []
    for compiles in (False, True):
        torch.manual_seed(5)
        model = Tagger(kind)
        call = torch.compile(model, fullgraph=True, backend="aot_eager") if compiles else model
        runs.append(fit(model, call, 4))
    assert same_bits(*runs)


def test_inductor() -> None:
    """The default backend, which draws the dropout's numbers itself."""
    layer = see_through(rnncells.LSTM, 64)
    check_dropout(torch.compile(layer, fullgraph=True), 64, 64)
    layer = make(rnncells.GRU, 2, bidirectional=True, dropout=0.0)
    x, hx = torch.randn(T, B, I), states_of(layer)
    compiled = torch.compile(layer, fullgraph=True)
    assert same_bits(train(compiled, layer, x, hx), train(layer, layer, x, hx))


@pytest.mark.slow
@kinds
def test_inductor_in_a_model(kind: Layer) -> None:
    """The layers' kernels are the same; the head's sums may be taken in another order."""
    runs = []
    for compiles in (False, True):
        torch.manual_seed(5)
        model = Tagger(kind)
        model.layer.dropout = 0.0
        runs.append(fit(model, torch.compile(model, fullgraph=True) if compiles else model, 4))
    # Four Adam steps of 0.01 on float32: a step is lr * m / sqrt(v), whose relative error is that
    # of a gradient, some 1e-6, where the gradient is not near zero; 1e-4 has room for those.
    torch.testing.assert_close(runs[1], runs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@kinds
def test_inductor_dropout(kind: Layer) -> None:
    layer = see_through(kind, 64)
    check_dropout(torch.compile(layer, fullgraph=True), 64, 64)
