"""ONNX: the exporter writes the standard operators RNN, LSTM and GRU, and onnxruntime runs them.

What onnxruntime computes is held against the layer, on sizes other than those exported.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

import rnncells
from rnncells.autograd import run_layer
from rnncells.ops import CELLS as FACTS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tanh": (rnncells.SimpleRNN, {}),
    "relu": (rnncells.SimpleRNN, {"nonlinearity": "relu"}),
    "lstm": (rnncells.LSTM, {}),
    "gru": (rnncells.GRU, {}),
}
OPERATORS = {"tanh": "RNN", "relu": "RNN", "lstm": "LSTM", "gru": "GRU"}
# What moves data about, of which the layouts and the states of a stack are made.
LAYOUT = {"Concat", "Gather", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose"}
LAYOUT |= {"Cast", "Unsqueeze"}
I, H = 3, 5
OTHER_SIZES = [(1, 1), (9, 2), (30, 7)]
BATCH, TIME = Dim("batch"), Dim("time")

kinds = pytest.mark.parametrize("kind", KINDS)


def mostly_slow(*quick: str) -> Any:
    """Every kind; the quick run takes these alone, because an export takes half a second."""
    return pytest.mark.parametrize(
        "kind",
        [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
    )


pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:# The axis name. batch:UserWarning"),  # two inputs have it
]


def make(kind: str, layers: int = 1, **options: Any) -> Any:
    layer, more = KINDS[kind]
    return layer(I, H, layers, **more, **options).eval()


def flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in flat(part)]


def states_of(layer: Any, batch: int) -> Any:
    shape = (layer.num_layers * (2 if layer.bidirectional else 1), batch, layer.hidden_size)
    states = [torch.randn(shape, dtype=layer.weight_ih_l0.dtype) for _ in range(2)]
    return tuple(states) if isinstance(layer, rnncells.LSTM) else states[0]


def inputs(
    layer: Any, steps: int, batch: int, states: bool, ragged: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments; padding holds NaN, which nobody may read."""
    x = torch.randn(steps, batch, layer.input_size, dtype=layer.weight_ih_l0.dtype)
    rest = {}
    if ragged:
        lengths = torch.randint(1, steps + 1, (batch,))
        x[torch.arange(steps).unsqueeze(1) >= lengths] = math.nan
        rest = {"lengths": lengths}
    if layer.batch_first:
        x = x.transpose(0, 1).contiguous()
    return (x, states_of(layer, batch)) if states else (x,), rest


def export(layer: Any, states: bool = False, ragged: bool = False, **options: Any) -> Any:
    """The ONNX program of a layer, exported at T = 6, B = 4 with both open."""
    arguments, rest = inputs(layer, 6, 4, states, ragged)
    order = (BATCH, TIME) if layer.batch_first else (TIME, BATCH)
    shapes: dict[str, Any] = {"input": dict(enumerate(order))}
    if states:
        shapes["hx"] = ({1: BATCH}, {1: BATCH}) if len(flat(arguments)) == 3 else {1: BATCH}
    if ragged:
        shapes["lengths"] = {0: BATCH}
    return to_onnx(layer, arguments, kwargs=rest, dynamic_shapes=shapes, **options)


def to_onnx(model: nn.Module, arguments: Any, **options: Any) -> Any:
    return torch.onnx.export(model, arguments, dynamo=True, verbose=False, **options)


def session(program: Any, **options: Any) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), settings)


def run(running: Any, *arguments: Any) -> list[Tensor]:
    names = [given.name for given in running.get_inputs()]
    tensors = flat(arguments)
    feed = {name: t.detach().numpy() for name, t in zip(names, tensors, strict=True)}
    return [torch.from_numpy(array) for array in running.run(None, feed)]


def check_values(found: list[Tensor], expected: list[Tensor], terms: int, layers: int = 1) -> None:
    """Both sides round: each is off the exact result by no more than :func:`rnncells.testing.
    tolerance` says of one layer, ``(16 + 2 * sqrt(terms)) * eps`` of the largest value, for the
    products over ``terms`` inputs and units, the activations and the recurrence; and the error of a
    layer goes on through those above it."""
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        limit = 2 * layers * (16 + 2 * math.sqrt(terms)) * torch.finfo(other.dtype).eps
        difference = (mine.double() - other.double()).abs().max().item()
        assert difference <= limit * other.double().abs().max().item()


def check_graph(program: Any, operator: str, count: int, others: set[str] = LAYOUT) -> None:
    """A valid model of standard operators alone: ours, one a layer, and what lays data out."""
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not model.functions
    assert all(node.domain == "" for node in model.graph.node)
    names = [node.op_type for node in model.graph.node]
    assert names.count(operator) == count
    assert set(names) <= {operator} | others


def check(layer: Any, kind: str, states: bool, ragged: bool, **options: Any) -> None:
    program = export(layer, states, ragged, **options)
    check_graph(program, OPERATORS[kind], layer.num_layers)
    running = session(program)
    width = max(layer.input_size, layer.hidden_size * (1 + layer.bidirectional))
    for steps, batch in OTHER_SIZES:
        arguments, rest = inputs(layer, steps, batch, states, ragged)
        expected = flat(layer(*arguments, **rest))
        found = run(running, arguments, *rest.values())
        check_values(found, expected, width + layer.hidden_size, layer.num_layers)


@kinds
@pytest.mark.parametrize(
    ("layers", "bidirectional", "batch_first", "bias", "states"),
    [
        (2, True, True, True, True),
        pytest.param(1, False, False, False, False, marks=pytest.mark.slow),
    ],
)
def test_layers(
    kind: str, layers: int, bidirectional: bool, batch_first: bool, bias: bool, states: bool
) -> None:
    options = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
    check(make(kind, layers, **options), kind, states, ragged=False)


@kinds
def test_lengths(kind: str) -> None:
    """As sequence_lens: padding is not read, outputs behind an end are zero, states its own."""
    layer = make(kind, 2, bidirectional=True, batch_first=True)
    check(layer, kind, states=True, ragged=True)


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_full_grid(kind: str, layers: int, ragged: bool) -> None:
    for flags in itertools.product((False, True), repeat=4):
        if sum(flags) % 2 == ragged:  # one half with lengths, the other without
            continue
        bidirectional, batch_first, bias, states = flags
        options = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
        check(make(kind, layers, **options), kind, states, ragged)


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("opset", [18, 20, 22])
def test_opsets(kind: str, opset: int) -> None:
    check(make(kind, 2, bidirectional=True), kind, True, True, opset_version=opset)


@mostly_slow("lstm")
def test_the_weights_become_constants(kind: str, tmp_path: Path) -> None:
    """Weights too large for the exporter to fold, onnxruntime folds when it loads the model: what
    is left to run is the operator, and a view of its output."""
    layer, more = KINDS[kind]
    path = tmp_path / "optimised.onnx"
    session(
        export(layer(I, 96, **more).eval()),
        optimized_model_filepath=str(path),
        graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    )
    names = [node.op_type for node in onnx.load(path).graph.node]
    assert sorted(names) == sorted([OPERATORS[kind], "Squeeze"])


@mostly_slow("gru")
def test_a_wide_layer(kind: str) -> None:
    """Sums of 200 terms, and more units than a vector has lanes."""
    layer, more = KINDS[kind]
    check(layer(40, 160, bidirectional=True, **more).eval(), kind, True, False)


@mostly_slow("lstm")
def test_float16(kind: str) -> None:
    """onnxruntime computes in float32 what it has no float16 kernel for, and rounds what comes out;
    our engine sums in float32. A hidden state rounded in each step is off by half an eps, and what
    it carries on shrinks with each step: 4 eps leave room for some."""
    layer = make(kind, bidirectional=True).half()
    program = export(layer)
    check_graph(program, OPERATORS[kind], 1)
    x = torch.randn(9, 2, I).half()
    for found, expected in zip(run(session(program), x), flat(layer(x)), strict=True):
        assert found.dtype == torch.float16
        limit = 4 * torch.finfo(torch.float16).eps * expected.abs().max().item()
        assert (found - expected).abs().max().item() <= limit


@pytest.mark.parametrize("kind", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_float64(kind: str) -> None:
    """The standard has it, and onnxruntime does not: ONNX's own evaluator runs it."""
    layer = make(kind).double()
    program = export(layer, states=True)
    check_graph(program, OPERATORS[kind], 1)
    evaluator = onnx.reference.ReferenceEvaluator(program.model_proto)
    arguments, _ = inputs(layer, 6, 4, states=True, ragged=False)
    feed = dict(zip(evaluator.input_names, (t.numpy() for t in flat(arguments)), strict=True))
    found = [torch.from_numpy(array) for array in evaluator.run(None, feed)]
    check_values(found, flat(layer(*arguments)), I + H)


CELLS: dict[str, Any] = {
    "tanh": lambda: rnncells.SimpleRNNCell(I, H),
    "relu": lambda: rnncells.SimpleRNNCell(I, H, nonlinearity="relu"),
    "lstm": lambda: rnncells.LSTMCell(I, H),
    "gru": lambda: rnncells.GRUCell(I, H, bias=False),
}


@kinds
@pytest.mark.parametrize("states", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_cells(kind: str, states: bool) -> None:
    """A step is a sequence of one; without states ONNX has zeros too, and a GRU without biases."""
    cell = CELLS[kind]().eval()

    def draw(batch: int) -> tuple[Any, ...]:
        x, *given = torch.randn(batch, I), *(torch.randn(batch, H) for _ in range(2))
        if not states:
            return (x,)
        return x, tuple(given) if kind == "lstm" else given[0]

    open_batch: Any = {0: BATCH}
    hx = (open_batch, open_batch) if kind == "lstm" else open_batch
    shapes = (open_batch, hx) if states else (open_batch,)
    program = to_onnx(cell, draw(4), dynamic_shapes=shapes)
    check_graph(program, OPERATORS[kind], 1)
    running = session(program)
    for batch in (1, 3, 9):
        arguments = draw(batch)
        check_values(run(running, arguments), flat(cell(*arguments)), I + H)


@mostly_slow("gru")
def test_one_sequence(kind: str) -> None:
    """Unbatched, [T, I]."""
    layer = make(kind, 2)
    program = to_onnx(layer, (torch.randn(6, I),), dynamic_shapes=({0: TIME},))
    check_graph(program, OPERATORS[kind], 2)
    x = torch.randn(11, I)
    check_values(run(session(program), x), flat(layer(x)), 2 * H, layers=2)


class Tagger(nn.Module):
    """A usual model, with a weight that is computed."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, I)
        self.layer = make(kind, 2, bidirectional=True, batch_first=True, dropout=0.3)
        parametrizations.weight_norm(self.layer, "weight_hh_l0")
        self.head = nn.Linear(2 * H, 4)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(words))[0])


@mostly_slow("lstm")
def test_in_a_model(kind: str, tmp_path: Path) -> None:
    """Through a file, which onnxruntime opens by itself; nothing of ours is needed there."""
    model = Tagger(kind).eval()
    words = torch.randint(11, (4, 6))
    program = to_onnx(model, (words,), dynamic_shapes=({0: BATCH, 1: TIME},))
    program.save(tmp_path / "model.onnx")
    running = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert names.count(OPERATORS[kind]) == 2
    words = torch.randint(11, (3, 20))
    # The head is one more layer, with a sum over 2 * H.
    check_values(run(running, words), [model(words)], 3 * H, layers=3)


@mostly_slow("gru")
def test_the_layer_is_left_as_it_was(kind: str) -> None:
    layer = make(kind, 2)
    x = torch.randn(6, 4, I)
    before = flat(layer(x))
    export(layer)
    assert not torch.onnx.is_in_onnx_export()
    assert all(map(torch.equal, flat(layer(x)), before))


class Direct(nn.Module):
    """One layer of any cell and any weights, run on what it is given."""

    def __init__(self, cell: str, projection: int = 0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        rows = FACTS[cell]["gates"] * H
        shapes = [(rows, I), (rows, projection or H), (rows,), (rows,)]
        shapes += [(projection, H)] if projection else []
        self.cell = cell
        self.weights = nn.ParameterList([torch.randn(*shape, dtype=dtype) for shape in shapes])

    def forward(self, x: Tensor, batch_sizes: Tensor | None = None) -> Tensor:
        states = []
        if batch_sizes is not None:
            states = [x.new_zeros(1, 4, H) for _ in range(FACTS[self.cell]["states"])]
        return run_layer(x, states, list(self.weights), self.cell, batch_sizes=batch_sizes)[0]


@pytest.mark.parametrize(
    ("model", "arguments", "named"),
    [
        (Direct("mgu"), (torch.zeros(6, 4, I),), "the cell 'mgu'"),
        (
            Direct("lstm", projection=2),
            (torch.zeros(6, 4, I),),
            "an LSTM with a projection (proj_size)",
        ),
        (Direct("gru"), (torch.zeros(9, I), torch.tensor([4, 3, 2])), "a PackedSequence; run the "),
        (
            Direct("gru", dtype=torch.bfloat16),
            (torch.zeros(6, 4, I, dtype=torch.bfloat16),),
            "bfloat16; export the model in float32 or float16",
        ),
    ],
    ids=["mgu", "projection", "packed", "bfloat16"],
)
def test_what_onnx_has_no_operator_for(model: nn.Module, arguments: Any, named: str) -> None:
    """The exporter wraps our error: the sentence stands in its message, and it is the cause."""
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as raised:
        to_onnx(model.eval(), arguments)
    sentence = f"rnncells: ONNX has no recurrent operator for {named}"
    assert sentence in str(raised.value)
    assert isinstance(raised.value.__cause__, NotImplementedError)
    assert str(raised.value.__cause__).startswith(sentence)


def test_a_projected_layer_is_refused() -> None:
    layer = rnncells.LSTM(I, H, 2, proj_size=2).eval()
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=r"projection \(proj_size\)"):
        export(layer)


class Packing(nn.Module):
    """A model that packs what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = rnncells.GRU(I, H)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.layer(pack_padded_sequence(x, lengths, enforce_sorted=False))[1]


def test_a_packed_sequence_is_refused() -> None:
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match="for a PackedSequence; run the"):
        to_onnx(Packing().eval(), (torch.zeros(6, 4, I), torch.tensor([6, 1, 4, 3])))


def test_wrong_lengths_are_refused_by_onnxruntime() -> None:
    layer = make("gru")
    running = session(export(layer, ragged=True))
    with pytest.raises(Exception, match="sequence_lens"):
        run(running, torch.zeros(6, 4, I), torch.tensor([6, 7, 1, 1]))


def test_a_program_of_torch_export_is_not_translated() -> None:
    """It holds our operator already, which the exporter names; it takes the layer itself."""
    layer = make("gru")
    program = torch.export.export(layer, (torch.zeros(6, 4, I),))
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=r"rnncells\.layer_forward"):
        torch.onnx.export(program, dynamo=True, verbose=False)


@kinds
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_exporter_by_torchscript_is_refused(kind: str, tmp_path: Path) -> None:
    """In one sentence, and before it writes anything."""
    layer, path = make(kind), tmp_path / "layer.onnx"
    for model in (layer, layer.eval(), nn.Sequential(layer)):
        with pytest.raises(NotImplementedError, match=r"^rnncells: .* with dynamo=True$"):
            torch.onnx.export(model, (torch.randn(4, 2, I),), path, dynamo=False)
    with pytest.raises(NotImplementedError, match=r"^rnncells: .* with dynamo=True$"):
        torch.onnx.export(rnncells.GRUCell(I, H), (torch.randn(2, I),), path, dynamo=False)
    assert not path.exists()
