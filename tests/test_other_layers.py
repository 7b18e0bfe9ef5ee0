"""MinimalGatedUnit, IndRNN and SLSTM: the layers' shapes, parameters, options and uses. What their
cells compute is held against the specification in test_parity and test_other_cells."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import rnncells
from rnncells import reference
from rnncells.testing import assert_layer_parity
from tests.kinds import name_of

T, B, I, H = 6, 4, 3, 7
LENGTHS = [6, 2, 5, 1]
KINDS: list[Any] = [rnncells.MinimalGatedUnit, rnncells.IndRNN, rnncells.SLSTM]
kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)
same = torch.testing.assert_close


def states_of(last: Any) -> list[Tensor]:
    return [last] if isinstance(last, Tensor) else list(last)


def make(kind: Any, layers: int = 1, bidirectional: bool = False, **options: Any) -> Any:
    torch.manual_seed(1)
    return kind(I, H, layers, bidirectional=bidirectional, dtype=torch.float64, **options)


def draw(layer: Any, batch: int = B) -> tuple[Tensor, Any]:
    """An input and initial states."""
    cell = reference.CELLS[layer._cell]
    rows = layer.num_layers * (1 + layer.bidirectional)
    states = [torch.rand(rows, batch, H, dtype=torch.float64) + 0.5 for _ in cell.states]
    x = torch.randn(T, batch, I, dtype=torch.float64)
    return x, tuple(states) if len(states) > 1 else states[0]


def specified(layer: Any, x: Tensor, hx: Any, lengths: list[int] | None = None) -> list[Tensor]:
    """The stack by the reference."""
    each = len(layer._flat_weights_names) // layer.num_layers
    directions, lasts = 1 + layer.bidirectional, []
    own = None if lengths is None else torch.tensor(lengths)
    for k in range(layer.num_layers):
        names = layer._flat_weights_names[k * each : (k + 1) * each]
        weights = [getattr(layer, name) for name in names]
        before = [state[k * directions : (k + 1) * directions] for state in states_of(hx)]
        x, last = reference.layer(x, before, weights, layer._cell, layer.bidirectional, own)
        lasts.append(last)
    return [x, *(torch.cat(state) for state in zip(*lasts, strict=True))]


@kinds
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_parameters(kind: Any, bias: bool, bidirectional: bool) -> None:
    layer = make(kind, 2, bidirectional, bias=bias)
    gates = {"mgu": 2, "indrnn": 1, "slstm": 4}[layer._cell]
    recurrent = [H] if kind is rnncells.IndRNN else [gates * H, H]
    expected: dict[str, list[int]] = {}
    for k, suffix in itertools.product((0, 1), ("", "_reverse")[: 1 + bidirectional]):
        inputs = I if k == 0 else H * (1 + bidirectional)
        expected[f"weight_ih_l{k}{suffix}"] = [gates * H, inputs]
        expected[f"weight_hh_l{k}{suffix}"] = recurrent
        for name in ("bias_ih", "bias_hh") if bias else ():
            expected[f"{name}_l{k}{suffix}"] = [gates * H]
    assert {n: list(p.shape) for n, p in layer.named_parameters()} == expected
    assert isinstance(layer, nn.RNNBase)
    bound = 1 / math.sqrt(H)
    for name, value in layer.named_parameters():
        own = kind is rnncells.IndRNN and name.startswith("weight_hh")
        assert value.abs().max() <= (1 if own else bound)
    assert repr(layer).startswith(f"{kind.__name__}(3, 7, num_layers=2")


def test_indrnn_starts_from_its_own_range() -> None:
    """U(-1, 1): the mean of 4000 squares is 1/3, here within four of its standard deviations."""
    layer: Any = rnncells.IndRNN(1, 4000)
    value = layer.weight_hh_l0.detach()
    assert abs(value.square().mean() - 1 / 3) < 0.02
    assert value.min() < -0.99
    assert value.max() > 0.99
    layer.weight_hh_l0.data.zero_()
    layer.reset_parameters()
    assert layer.weight_hh_l0.abs().max() > 0.99


@kinds
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_is_the_specification(
    kind: Any, layers: int, bidirectional: bool, lengths: list[int] | None
) -> None:
    layer = make(kind, layers, bidirectional)
    x, hx = draw(layer)
    expected = specified(layer, x, hx, lengths)
    y, last = layer(x, hx, lengths=lengths)
    same([y, *states_of(last)], expected)
    assert isinstance(last, tuple) == (kind is rnncells.SLSTM)
    layer.batch_first = True
    first, again = layer(x.transpose(0, 1), hx, lengths=lengths)
    same([first.transpose(0, 1), *states_of(again)], expected)
    zeros = [torch.zeros_like(state) for state in states_of(hx)]
    layer.batch_first = False
    same(layer(x)[0], specified(layer, x, zeros)[0])


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_parity_of_whole_layers(kind: Any, dtype: torch.dtype) -> None:
    assert_layer_parity(kind, kind.cell_name, dtypes=[dtype])


@kinds
def test_one_sequence(kind: Any) -> None:
    layer = make(kind, 2, True)
    x, hx = draw(layer)
    y, last = layer(x, hx)
    one = [state[:, 1] for state in states_of(hx)]
    alone, ends = layer(x[:, 1], tuple(one) if len(one) > 1 else one[0])
    same([alone, *states_of(ends)], [y[:, 1], *(s[:, 1] for s in states_of(last))])


@kinds
def test_packed(kind: Any) -> None:
    layer = make(kind, 2, True)
    x, hx = draw(layer)
    y, last = layer(x, hx, lengths=LENGTHS)
    packed, ends = layer(pack_padded_sequence(x, LENGTHS, enforce_sorted=False), hx)
    same([pad_packed_sequence(packed)[0], *states_of(ends)], [y, *states_of(last)])


@kinds
def test_copies_pickles_and_states(kind: Any) -> None:
    layer = make(kind, 2, True, zoneout=0.2).eval()
    x, hx = draw(layer)
    expected = layer(x, hx)
    other = kind(I, H, 2, bidirectional=True, dtype=torch.float64, zoneout=0.2).eval()
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same(twin(x, hx), expected, rtol=0, atol=0)
        assert repr(twin) == repr(layer)


@kinds
def test_gradients_reach_everything(kind: Any) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"recompute": True},
        {"recurrent_dropout": 0.3},
        {"input_dropout": 0.3, "weight_dropout": 0.3},
        {"zoneout": 0.3, "recompute": True},
        {"go_backwards": True},
    ]
    for chosen, both in itertools.product(options, (False, True)):
        layer = make(kind, 2, both, **chosen)
        x, hx = draw(layer)
        leaves = [x, *states_of(hx), *layer.parameters()]
        for leaf in leaves:
            leaf.requires_grad_()
        y, last = layer(x, hx, lengths=LENGTHS)
        sum(value.square().sum() for value in (y, *states_of(last))).backward()
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves), chosen


@kinds
@pytest.mark.parametrize("option", ["recurrent_dropout", "input_dropout", "weight_dropout"])
def test_dropout_is_drawn_in_training_alone(kind: Any, option: str) -> None:
    chosen: dict[str, Any] = {option: 0.5}
    layer, plain = make(kind, **chosen), make(kind)
    plain.load_state_dict(layer.state_dict())
    x, hx = draw(layer)
    torch.manual_seed(3)
    first, second = layer(x, hx)[0], layer(x, hx)[0]
    torch.manual_seed(3)
    assert torch.equal(layer(x, hx)[0], first)
    assert not torch.equal(first, second)
    assert torch.equal(layer.eval()(x, hx)[0], plain(x, hx)[0])


@kinds
def test_zoneout_in_evaluation_is_of_h(kind: Any) -> None:
    layer = make(kind, zoneout=0.3).eval()
    x, hx = draw(layer)
    variant = reference.Variant(zoneout=(0.3, 0.0))
    weights = list(layer.parameters())
    y, last = reference.layer(x, states_of(hx), weights, layer._cell, variant=variant)
    found, ends = layer(x, hx)
    same([found, *states_of(ends)], [y, *last])


@kinds
def test_states_from_call_to_call(kind: Any) -> None:
    layer, plain = make(kind, 2, stateful=True), make(kind, 2)
    x, _ = draw(layer)
    whole, last = plain(x)
    parts = [layer(x[:2]), layer(x[2:])]
    same(torch.cat([y for y, _ in parts]), whole)
    same(parts[-1][1], last)
    layer.reset_states()
    same(layer(x)[0], whole)


@kinds
def test_resets_and_the_last_output(kind: Any) -> None:
    layer, plain = make(kind, return_sequences=False), make(kind)
    x, _ = draw(layer)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2] = True
    y, last = plain(x[2:])
    found, ends = layer(x, resets=resets)
    same(found, y[-1])
    same(ends, last)


@kinds
def test_go_backwards(kind: Any) -> None:
    layer, plain = make(kind, go_backwards=True), make(kind)
    x, hx = draw(layer)
    same(layer(x, hx), plain(x.flip(0), hx))


@kinds
def test_second_derivatives(kind: Any) -> None:
    """Of a critic's gradient penalty, against the reference's."""
    layer = make(kind)
    x, hx = draw(layer)
    weights = list(layer.parameters())
    found = []
    ways: list[Any] = [lambda x: layer(x, hx)[0], lambda x: specified(layer, x, hx)[0]]
    for run in ways:
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(run(leaf).sin().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [leaf, *weights], allow_unused=True))
    same(*found)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_and_autocast(kind: Any, dtype: torch.dtype) -> None:
    layer = make(kind, 2, True).to(dtype)
    x = torch.randn(T, B, I, dtype=dtype)
    y, last = layer(x)
    assert {value.dtype for value in (y, *states_of(last))} == {dtype}
    with torch.autocast("cpu", torch.bfloat16):
        y, last = layer.float()(x.float())
    assert {value.dtype for value in (y, *states_of(last))} == {torch.bfloat16}


@kinds
def test_checkpoint_and_frozen(kind: Any) -> None:
    layer = make(kind)
    x, hx = draw(layer)
    for leaf in (x, *layer.parameters()):
        leaf.requires_grad_()
    leaves = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x, hx)[0].sum(), leaves)
    again = checkpoint(lambda x: layer(x, hx)[0], x, use_reentrant=False)
    same(torch.autograd.grad(again.sum(), leaves), expected, rtol=0, atol=0)
    with torch.no_grad():
        y = layer(x, hx)[0]
        with layer.frozen():
            assert torch.equal(layer(x, hx)[0], y)


@kinds
def test_per_sample_gradients(kind: Any) -> None:
    layer = make(kind)
    parameters = dict(layer.named_parameters())
    samples = torch.randn(3, T, B, I, dtype=torch.float64)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,))[0].square().sum()

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, samples)
    for k, x in enumerate(samples):
        own = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
        same([value[k] for value in found.values()], list(own))


@kinds
def test_compile(kind: Any) -> None:
    """In one graph, training with dropout alive, and the second call with other sizes."""
    torch._dynamo.reset()
    layer, plain = make(kind, 2, recurrent_dropout=0.3), make(kind, 2)
    x, hx = draw(layer)
    compiled: Any = torch.compile(plain, fullgraph=True, backend="aot_eager")
    same(compiled(x, hx), plain(x, hx))
    same(compiled(x[:3], hx), plain(x[:3], hx))
    trained: Any = torch.compile(layer, fullgraph=True, backend="aot_eager")
    trained(x, hx)[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@kinds
def test_exports(kind: Any) -> None:
    layer = make(kind).eval()
    x, _ = draw(layer)
    steps, batch = torch.export.Dim("steps", min=2), torch.export.Dim("batch", min=2)
    program = torch.export.export(layer, (x,), dynamic_shapes={"input": {0: steps, 1: batch}})
    short = x[:3, :2].contiguous()
    same(program.module()(short), layer(short))


@kinds
def test_torch_fx_takes_it_for_a_leaf(kind: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = make(kind)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.rnn(x)
            return y

    model = Model()
    x, _ = draw(model.rnn)
    same(torch.fx.symbolic_trace(model)(x), model(x))


@kinds
def test_onnx_refuses_it_by_name(kind: Any, tmp_path: Any) -> None:
    pytest.importorskip("onnxscript")
    layer, named = kind(I, H).eval(), "ONNX has no recurrent operator for the cell"
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=f"{named} '{layer._cell}'"):
        torch.onnx.export(layer, (torch.randn(T, B, I),), tmp_path / "m.onnx", dynamo=True)


@kinds
def test_convert_leaves_it(kind: Any) -> None:
    model = nn.Sequential(kind(I, H))
    assert isinstance(rnncells.convert(model, back=True)[0], kind)


def test_a_forget_bias_and_other_starts() -> None:
    plain, raised = make(rnncells.SLSTM), make(rnncells.SLSTM, forget_bias=3.0)
    difference = raised.bias_ih_l0 - plain.bias_ih_l0
    same(difference, torch.tensor([0.0, 3, 0, 0]).double().repeat_interleave(H))
    for kind in (rnncells.MinimalGatedUnit, rnncells.SLSTM):
        weight = make(kind, init="orthogonal").weight_hh_l0.detach()
        for block in weight.split(H):
            same(block @ block.T, torch.eye(H).double())


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("MinimalGatedUnit", {"activation": "relu"}, "activation: MinimalGatedUnit has its own"),
        ("MinimalGatedUnit", {"recurrent_activation": "relu"}, "recurrent_activation: Minimal"),
        ("MinimalGatedUnit", {"layer_norm": "gates"}, "layer_norm: MinimalGatedUnit has none"),
        ("MinimalGatedUnit", {"reset_after": False}, "reset_after: only a GRU has a reset gate"),
        ("MinimalGatedUnit", {"forget_bias": 1.0}, "forget_bias: only an LSTM"),
        ("MinimalGatedUnit", {"proj_size": 2}, "proj_size argument is only supported for LSTM"),
        ("IndRNN", {"recurrent_activation": "relu"}, "recurrent_activation: IndRNN has no gates"),
        ("IndRNN", {"activation": "gelu"}, "activation: expected None or one of 'tanh'"),
        ("IndRNN", {"layer_norm": "preactivation"}, "layer_norm: IndRNN has none"),
        ("IndRNN", {"init": "orthogonal"}, "init: IndRNN has no recurrent matrix for 'orthogonal'"),
        ("IndRNN", {"peephole": True}, "peephole: only for an LSTM, not IndRNN"),
        ("SLSTM", {"activation": "relu"}, "activation: SLSTM has its own and no other"),
        ("SLSTM", {"layer_norm": "gates"}, "layer_norm: SLSTM has none"),
        ("SLSTM", {"zoneout": (0.1, 0.1)}, "zoneout: expected one number"),
        ("SLSTM", {"coupled": True}, "coupled: only for an LSTM, not SLSTM"),
        ("SLSTM", {"proj_size": 2}, "proj_size argument is only supported for LSTM"),
    ],
)
def test_options_that_it_has_not(kind: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        getattr(rnncells, kind)(I, H, **options)


def test_bad_input() -> None:
    layer = rnncells.SLSTM(I, H)
    x, good = torch.randn(T, B, I), torch.ones(1, B, H)
    four = r"4 Tensors \(h_0, c_0, n_0, m_0\)"
    with pytest.raises(TypeError, match=f"hx: expected a tuple of {four}, got Tensor"):
        layer(x, good)
    with pytest.raises(TypeError, match="got Tensor; lengths are given by keyword"):
        layer(x, torch.tensor(LENGTHS))
    with pytest.raises(RuntimeError, match=f"hx: SLSTM expects {four}, got 2"):
        layer(x, (good, good))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[2\] size \(1, 4, 7\), got \[1, 3, 7"):
        layer(x, (good, good, good[:, :3], good))
    with pytest.raises(RuntimeError, match="3-D input, the states in hx should also be 3-D"):
        layer(x, (good, good, good[0], good))
    with pytest.raises(TypeError, match=r"hx\[3\]: expected a Tensor, got NoneType"):
        layer(x, (good, good, good, None))
    with pytest.raises(ValueError, match="IndRNN: Expected input to be 2D or 3D, got 1D instead"):
        rnncells.IndRNN(I, H)(torch.randn(I))
