"""The layers' options beside torch.nn's: dropout, zoneout, activations, peepholes, resets."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import pack_padded_sequence

import rnncells
from rnncells import reference
from rnncells.layer_variant import drop_input
from tests.kinds import KINDS, Layer, kinds

RATES = {"recurrent_dropout": 0.4, "input_dropout": 0.3, "weight_dropout": 0.2, "zoneout": 0.25}
ROUND: dict[str, dict[str, Any]] = {
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "input_dropout": {"input_dropout": 0.3},
    "weight_dropout": {"weight_dropout": 0.2},
    "zoneout": {"zoneout": 0.25},
    "activation": {"activation": "softsign"},
    "all": {**RATES, "activation": "silu"},
}


def outputs(result: tuple[Tensor, Any]) -> list[Tensor]:
    y, last = result
    states: tuple[Tensor, ...] = last if isinstance(last, tuple) else (last,)
    return [y, *states]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(outputs(a), outputs(b), strict=True))


def specified(layer: Any, x: Tensor, **told: Any) -> list[Tensor]:
    """One layer in evaluation, by the reference."""
    options = {
        name: getattr(layer, name)
        for name in ("activation", "recurrent_activation", "reset_after", "peephole", "coupled")
    }
    zoneout = layer.zoneout
    pair = zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout)
    pair = pair if isinstance(layer, rnncells.LSTM) else (pair[0], 0.0)
    cell = layer._cell
    if cell == "rnn_relu" and options["activation"] is None:
        options["activation"] = "relu"
    variant = reference.Variant(zoneout=pair, **options)
    weights = list(layer.parameters())
    y, last = reference.layer(x, [], weights, cell, layer.bidirectional, variant=variant, **told)
    return [y, *last]


@kinds
@pytest.mark.parametrize("options", ROUND.values(), ids=list(ROUND))
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_evaluation_is_the_specification(
    kind: Layer, options: dict[str, Any], bidirectional: bool, uneven: bool
) -> None:
    """Dropout is off, zoneout its expectation."""
    layer: Any = kind(3, 7, bidirectional=bidirectional, dtype=torch.float64, **options).eval()
    x, resets = torch.randn(6, 4, 3, dtype=torch.float64), torch.rand(6, 4) < 0.3
    lengths = torch.tensor([6, 2, 5, 1]) if uneven else None
    expected = specified(layer, x, lengths=lengths, resets=resets)
    for ours, theirs in zip(
        outputs(layer(x, lengths=lengths, resets=resets)), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"peephole": True},
        {"coupled": True},
        {"peephole": True, "coupled": True, "proj_size": 3},
        {"recurrent_activation": "hard_sigmoid", "activation": "relu"},
    ],
    ids=str,
)
def test_lstm_s_own(options: dict[str, Any]) -> None:
    layer = rnncells.LSTM(3, 7, bidirectional=True, dtype=torch.float64, **options).eval()
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    for ours, theirs in zip(outputs(layer(x)), specified(layer, x), strict=True):
        torch.testing.assert_close(ours, theirs)
    gates = 3 if layer.coupled else 4
    assert layer.weight_ih_l0.shape == (gates * 7, 3)
    if layer.peephole:
        assert layer.weight_peephole_l0_reverse.shape == ((gates - 1) * 7,)
    else:
        assert "weight_peephole_l0" not in layer.state_dict()


def test_gru_reset_before() -> None:
    layer = rnncells.GRU(3, 7, reset_after=False, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    for ours, theirs in zip(outputs(layer(x)), specified(layer, x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_activation_relu_is_torch_s() -> None:
    ours = rnncells.SimpleRNN(3, 5, activation="relu")
    theirs = torch.nn.RNN(3, 5, nonlinearity="relu")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(6, 4, 3)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


@kinds
@pytest.mark.parametrize("option", RATES)
def test_training_draws_from_torch_s_generator(kind: Layer, option: str) -> None:
    layer: Any = kind(3, 9, num_layers=2, **{option: RATES[option]})
    x = torch.randn(6, 4, 3)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert same(first, layer(x))
    assert not same(first, second)
    layer.eval()
    state = torch.get_rng_state()
    assert same(layer(x), layer(x))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("option", ["recurrent_dropout", "input_dropout", "weight_dropout"])
def test_dropout_keeps_the_mean(option: str) -> None:
    """What is dropped is made up for by the rest: checked where the layer is linear."""
    layer = KINDS[0](2, 3, activation="identity", **{option: 0.5})
    plain = rnncells.SimpleRNN(2, 3, activation="identity")
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 1, 2)
    runs = 4000 if option == "weight_dropout" else 1
    with torch.no_grad():
        if runs == 1:
            mean = layer(x.expand(2, 20000, 2).contiguous())[0].mean(1)
        else:
            mean = torch.stack([layer(x)[0] for _ in range(runs)]).mean(0)[:, 0]
        torch.testing.assert_close(mean, plain(x)[0][:, 0], rtol=0.1, atol=0.03)


@kinds
def test_one_mask_for_all_time_steps(kind: Layer) -> None:
    """A dropped input feature is dropped at every step: the gradient says which."""
    layer: Any = kind(5, 9, input_dropout=0.5)
    x = torch.randn(6, 4, 5, requires_grad=True)
    layer(x)[0].sum().backward()
    assert x.grad is not None
    dropped = x.grad == 0
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert 0 < dropped.float().mean() < 1
    dropped_of_sequences = dropped[0]
    assert not torch.equal(dropped_of_sequences[0], dropped_of_sequences[1])


@kinds
def test_packed_is_padded(kind: Layer) -> None:
    """The same masks, where the sequences are sorted."""
    layer: Any = kind(3, 7, bidirectional=True, **RATES)
    x, lengths = torch.randn(6, 4, 3), torch.tensor([6, 5, 2, 1])
    torch.manual_seed(3)
    y, _ = layer(x, lengths=lengths)
    torch.manual_seed(3)
    packed, _ = layer(pack_padded_sequence(x, lengths))
    expected = pack_padded_sequence(y, lengths).data
    assert torch.equal(packed.data, expected)


@kinds
def test_compiled(kind: Layer) -> None:
    layer: Any = kind(3, 7, **RATES)
    fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(6, 4, 3)
    resets = torch.rand(6, 4) < 0.5
    torch.manual_seed(5)
    expected = layer(x, resets=resets)
    torch.manual_seed(5)
    assert same(fast(x, resets=resets), expected)
    y, _ = fast(x)
    y.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@kinds
def test_recompute_and_checkpoint(kind: Layer) -> None:
    from torch.utils.checkpoint import checkpoint

    layer: Any = kind(3, 7, **RATES)
    again = copy.deepcopy(layer)
    again.recompute = True
    x = torch.randn(6, 4, 3)

    def gradients(run: Any, owner: torch.nn.Module) -> list[Tensor]:
        torch.manual_seed(9)
        run(x).sum().backward()
        return [p.grad for p in owner.parameters() if p.grad is not None]

    third = copy.deepcopy(layer)
    expected = gradients(lambda x: layer(x)[0], layer)
    found = gradients(lambda x: again(x)[0], again)
    checked = gradients(lambda x: checkpoint(lambda x: third(x)[0], x, use_reentrant=False), third)
    for a, b, c in zip(expected, found, checked, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)


@kinds
def test_layouts_of_resets(kind: Layer) -> None:
    layer: Any = kind(3, 7).eval()
    x, resets = torch.randn(6, 4, 3), torch.rand(6, 4) < 0.4
    y, _ = layer(x, resets=resets)
    one, _ = layer(x[:, 2], resets=resets[:, 2])
    torch.testing.assert_close(one, y[:, 2])
    layer.batch_first = True
    first, _ = layer(x.transpose(0, 1), resets=resets.T)
    torch.testing.assert_close(first.transpose(0, 1), y)


@kinds
def test_frozen(kind: Layer) -> None:
    layer: Any = kind(3, 40, zoneout=0.2, activation="tanh").eval()
    x = torch.randn(6, 40, 3)
    with torch.no_grad():
        expected = layer(x)
        with layer.frozen():
            assert same(layer(x), expected)


@kinds
def test_vmap_of_zoneout(kind: Layer) -> None:
    layer: Any = kind(3, 7, zoneout=0.3).eval()
    x = torch.randn(2, 6, 4, 3)
    with torch.no_grad():
        y = torch.vmap(lambda x: layer(x)[0])(x)
        torch.testing.assert_close(y, torch.stack([layer(one)[0] for one in x]))


@pytest.mark.parametrize(
    ("kind", "options", "error", "told"),
    [
        (
            "GRU",
            {"recurrent_dropout": 1.0},
            ValueError,
            "recurrent_dropout: expected a probability",
        ),
        ("GRU", {"input_dropout": -0.1}, ValueError, "from 0 to below 1, got -0.1"),
        ("GRU", {"weight_dropout": "a"}, TypeError, "weight_dropout: expected a number, got str"),
        ("GRU", {"zoneout": (0.1, 0.1)}, ValueError, "zoneout: expected one number; got"),
        ("LSTM", {"zoneout": (0.1,)}, ValueError, "one number, or a pair for h and c"),
        ("LSTM", {"zoneout": float("nan")}, ValueError, "zoneout: expected a probability"),
        ("LSTM", {"zoneout": 0.1, "proj_size": 2}, ValueError, "zoneout= and proj_size="),
        ("LSTM", {"activation": "elu"}, ValueError, "activation: expected None or one of 'tanh'"),
        ("SimpleRNN", {"recurrent_activation": "tanh"}, ValueError, "SimpleRNN has no gates"),
        ("SimpleRNN", {"peephole": True}, ValueError, "peephole: only for an LSTM, not SimpleRNN"),
        ("LSTM", {"reset_after": False}, ValueError, "reset_after: only a GRU has a reset gate"),
        ("GRU", {"reset_after": 1}, TypeError, "reset_after should be of type bool"),
    ],
)
def test_bad_options(kind: str, options: dict[str, Any], error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        getattr(rnncells, kind)(3, 5, **options)


@pytest.mark.parametrize(
    ("kind", "name", "value", "told"),
    [
        ("GRU", "input_dropout", 1.0, "input_dropout: expected a probability"),
        ("LSTM", "zoneout", 2.0, "zoneout: expected a probability"),
        ("SLSTM", "return_cell_states", True, "return_cell_states: only for an LSTM, not SLSTM"),
        ("MinimalGatedUnit", "activation", "relu", "MinimalGatedUnit has its own and no other"),
        ("GRU", "forget_bias", 3.0, "only an LSTM has a forget gate, not GRU"),
        ("LSTM", "forget_bias", float("nan"), "forget_bias: expected a finite number"),
        ("LSTM", "init", "zz", "init: expected one of"),
        ("LSTM", "peephole", True, "peephole: a layer's parameters depend on it"),
        ("GRU", "layer_norm", "gates", "layer_norm: a layer's parameters depend on it"),
    ],
)
def test_bad_options_afterwards(kind: str, name: str, value: Any, told: str) -> None:
    """The layer stays as it was."""
    layer = getattr(rnncells, kind)(3, 5)
    before = repr(layer)
    with pytest.raises(ValueError, match=told):
        setattr(layer, name, value)
    assert repr(layer) == repr(copy.deepcopy(layer)) == before
    layer(torch.randn(4, 2, 3))


def test_good_options_afterwards() -> None:
    layer = rnncells.LSTM(3, 5)
    layer.zoneout, layer.peephole, layer.activation = [0.1, 0.2], False, "silu"  # type: ignore[assignment]
    assert layer.zoneout == (0.1, 0.2)
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(outputs(layer.eval()(x)), specified(layer, x))


@pytest.mark.filterwarnings("error")
def test_vmap_draws_for_each_sample() -> None:
    """With randomness="different" each has its own masks; and where there is no sample."""
    rates: dict[str, Any] = RATES
    layer = rnncells.GRU(3, 5, **rates)
    x = torch.randn(1, 6, 4, 3).expand(3, -1, -1, -1)
    with torch.no_grad():
        torch.manual_seed(2)
        y = torch.vmap(lambda one: layer(one)[0], randomness="different")(x)
        assert len({one.sum().item() for one in y}) == 3
        none = torch.vmap(lambda one: layer(one)[0], randomness="different")(x[:0])
    assert none.shape == (0, 6, 4, 5)


def test_input_dropout_rounds_once_in_16_bits() -> None:
    x, seed = torch.randn(4, 3, 50).bfloat16(), torch.tensor([3])
    wide = drop_input(x.float(), None, seed, 0.1)
    assert torch.equal(drop_input(x, None, seed, 0.1), wide.bfloat16())


def test_one_graph_for_every_batch() -> None:
    """Input dropout does not bind a compiled or exported layer to the batch that it saw."""
    rates: dict[str, Any] = RATES
    layer = rnncells.GRU(3, 5, **rates)
    counter = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(layer, fullgraph=True, backend=counter)
    for batch in range(2, 7):
        fast(torch.randn(4, batch, 3))
    assert counter.frame_count <= 2
    shapes = {"input": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}}
    program = torch.export.export(layer, (torch.randn(4, 3, 3),), dynamic_shapes=shapes)
    assert program.module()(torch.randn(6, 8, 3))[0].shape == (6, 8, 5)


def test_the_hard_sigmoid_ends_flat() -> None:
    """At 3 and -3, where the kernels' slope is torch's."""
    x = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = reference.ACTIVATIONS["hard_sigmoid"](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, torch.tensor([0.0, 1 / 6, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("resets", "error", "told"),
    [
        (torch.zeros(4, 6, dtype=torch.bool), ValueError, r"expected shape \[6, 4\], got \[4, 6\]"),
        (torch.zeros(6, 4), TypeError, "expected a Tensor of bool, got torch.float32"),
        ([[False]], TypeError, "expected a Tensor of bool, got list"),
    ],
)
def test_bad_resets(resets: Any, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        rnncells.GRU(3, 5)(torch.randn(6, 4, 3), resets=resets)


def test_resets_have_no_place() -> None:
    resets = torch.zeros(3, 2, dtype=torch.bool)
    packed = pack_padded_sequence(torch.randn(3, 2, 3), torch.tensor([3, 2]))
    with pytest.raises(ValueError, match="resets: not for a PackedSequence"):
        rnncells.GRU(3, 5)(packed, resets=resets)
    with pytest.raises(ValueError, match="resets: not with go_backwards=True"):
        rnncells.GRU(3, 5, go_backwards=True)(torch.randn(3, 2, 3), resets=resets)


def test_repr_says_what_is_not_default() -> None:
    layer = rnncells.LSTM(3, 5, zoneout=(0.1, 0.2), peephole=True)
    assert repr(layer) == "LSTM(3, 5, zoneout=(0.1, 0.2), peephole=True)"
    assert repr(rnncells.LSTM(3, 5)) == "LSTM(3, 5)"
