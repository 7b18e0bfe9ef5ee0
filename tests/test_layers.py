"""The layers stand in for torch.nn's: signatures, parameters, initialisation, layouts, results.

Where results are compared, both sides are in float64 and take the same sums in another order;
`close` says how far apart they may be.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import rnncells

PAIRS = [
    pytest.param(rnncells.SimpleRNN, nn.RNN, id="RNN"),
    pytest.param(rnncells.LSTM, nn.LSTM, id="LSTM"),
    pytest.param(rnncells.GRU, nn.GRU, id="GRU"),
]
PROJECTED = pytest.param(
    functools.partial(rnncells.LSTM, proj_size=2),
    functools.partial(nn.LSTM, proj_size=2),
    id="LSTM-projected",
)
T, B, I, H = 4, 2, 3, 5
Layer = Callable[..., Any]


def twins(ours: Layer, theirs: Layer, *args: Any, **options: Any) -> tuple[Any, Any]:
    """A layer of each side, made from the same seed."""
    torch.manual_seed(1)
    mine = ours(*args, **options)
    torch.manual_seed(1)
    return mine, theirs(*args, **options)


def flat(states: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [states] if isinstance(states, Tensor) else list(states)


def make_states(theirs: Layer, *shape: int) -> Any:
    states = [torch.randn(shape, dtype=torch.float64) for _ in range(1 + (theirs is nn.LSTM))]
    return tuple(states) if theirs is nn.LSTM else states[0]


def close(mine: Tensor, other: Tensor) -> bool:
    """Values of size 1 from sums of fewer than 64 terms, through 3 layers of 4 steps: a walk of
    sqrt(64) * 12 half-eps roundings is 48 eps; 100 eps leaves a factor of two."""
    if mine.shape != other.shape or other.numel() == 0:
        return mine.shape == other.shape
    limit = 100 * torch.finfo(torch.float64).eps * max(1.0, other.abs().max().item())
    return (mine - other).abs().max().item() <= limit


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_parameters_are_torch_nn(
    ours: Layer, theirs: Layer, bias: bool, bidirectional: bool, layers: int
) -> None:
    options = {"num_layers": layers, "bias": bias, "bidirectional": bidirectional}
    mine, other = twins(ours, theirs, I, H, **options)
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in other.named_parameters()]
    assert list(mine.state_dict()) == list(other.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value), name
    assert isinstance(mine, nn.RNNBase)
    assert isinstance(other, nn.RNNBase)
    assert [[list(w.shape) for w in ws] for ws in mine.all_weights] == [
        [list(w.shape) for w in ws] for ws in other.all_weights
    ]


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_state_dict_goes_both_ways(ours: Layer, theirs: Layer) -> None:
    mine, other = ours(I, H, 2, bidirectional=True), theirs(I, H, 2, bidirectional=True)
    mine.load_state_dict(dict(other.state_dict()), strict=True)  # as before versions were kept
    mine.load_state_dict(other.state_dict(), strict=True, assign=True)
    assert torch.equal(mine.weight_hh_l1_reverse, other.weight_hh_l1_reverse)
    theirs(I, H, 2, bidirectional=True).load_state_dict(mine.state_dict(), strict=True)


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_resets_as_torch_nn(ours: Layer, theirs: Layer) -> None:
    mine, other = ours(I, H), theirs(I, H)
    torch.manual_seed(3)
    mine.reset_parameters()
    torch.manual_seed(3)
    other.reset_parameters()
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("ours", "positional"),
    [
        (rnncells.RNN, (I, H, 2, "relu", False, True, 0.5, True, "cpu", torch.float64)),
        (rnncells.LSTM, (I, H, 2, False, True, 0.5, True, 0, "cpu", torch.float64)),
        (rnncells.GRU, (I, H, 2, False, True, 0.5, True, "cpu", torch.float64)),
    ],
)
def test_positional_arguments(ours: Layer, positional: tuple[Any, ...]) -> None:
    layer = ours(*positional)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (I, H, 2)
    assert (layer.bias, layer.batch_first, layer.dropout) == (False, True, 0.5)
    assert layer.bidirectional is True
    assert layer.weight_ih_l0.dtype == torch.float64
    if ours is rnncells.RNN:
        assert (layer.nonlinearity, layer.mode) == ("relu", "RNN_RELU")


def test_names() -> None:
    assert rnncells.RNN is rnncells.SimpleRNN
    assert rnncells.RNNCell is rnncells.SimpleRNNCell


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_signature_is_the_documented_one(ours: Layer, theirs: Layer) -> None:
    # torch writes *args in the signature, and the arguments in the first overload, in this order.
    parameters = inspect.signature(ours).parameters.values()
    names = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    expected = ["input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first"]
    expected += ["dropout", "bidirectional", "proj_size", "device", "dtype"]
    expected.remove("nonlinearity" if theirs is not nn.RNN else "proj_size")
    if theirs is nn.GRU:
        expected.remove("proj_size")
    assert names == expected
    # What torch.nn does not have comes by keyword.
    assert [one.name for one in parameters if one.kind is one.VAR_KEYWORD] == ["options"]
    assert not any(one.kind is one.KEYWORD_ONLY for one in parameters)
    forward = inspect.signature(ours(I, H).forward).parameters
    assert list(forward) == ["input", "hx", "lengths", "resets"]
    for name in ("lengths", "resets"):  # torch.nn has none
        assert forward[name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5},
        {"bidirectional": True},
    ],
)
def test_repr(ours: Layer, theirs: Layer, options: dict[str, Any]) -> None:
    mine, other = repr(ours(I, H, **options)), repr(theirs(I, H, **options))
    assert mine.removeprefix("Simple") == other


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    ("bidirectional", "batch_first", "bias", "layers", "batched", "given"),
    # Each value of each option with each value of each other: half of the full product.
    [c for c in itertools.product((0, 1), (0, 1), (0, 1), (1, 3), (0, 1), (0, 1)) if sum(c) % 2],
)
def test_forward_and_gradients_are_torch_nn(
    ours: Layer,
    theirs: Layer,
    bidirectional: int,
    batch_first: int,
    bias: int,
    layers: int,
    batched: int,
    given: int,
) -> None:
    mine, other = twins(
        ours,
        theirs,
        I,
        H,
        layers,
        bias=bool(bias),
        batch_first=bool(batch_first),
        bidirectional=bool(bidirectional),
        dtype=torch.float64,
    )
    D = 1 + bidirectional
    shape = ((B, T, I) if batch_first else (T, B, I)) if batched else (T, I)
    x = torch.randn(shape, dtype=torch.float64)
    hx = make_states(theirs, layers * D, *((B,) if batched else ()), H) if given else None
    found = []
    for layer in (mine, other):
        leaves = [x.clone().requires_grad_()]
        states = None
        if hx is not None:
            leaves += [state.clone().requires_grad_() for state in flat(hx)]
            states = tuple(leaves[1:]) if theirs is nn.LSTM else leaves[1]
        y, last = layer(leaves[0], states)
        assert isinstance(last, tuple) == (theirs is nn.LSTM)
        loss = y.square().sum() + sum(state.sin().sum() for state in flat(last))
        grads = torch.autograd.grad(loss, [*leaves, *layer.parameters()])
        found.append([y, *flat(last), *grads])
    for a, b in zip(*found, strict=True):
        assert close(a, b)


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dropout", [0.4, 1.0])
def test_dropout_is_torch_nn_from_the_same_seed(
    ours: Layer, theirs: Layer, batch_first: bool, dropout: float
) -> None:
    options = {"num_layers": 3, "dropout": dropout, "batch_first": batch_first}
    mine, other = twins(ours, theirs, I, H, **options, bidirectional=True, dtype=torch.float64)
    x = torch.randn(6, 7, I, dtype=torch.float64)
    torch.manual_seed(2)
    y, last = mine(x)
    torch.manual_seed(2)
    expected, expected_last = other(x)
    assert close(y, expected)
    for a, b in zip(flat(last), flat(expected_last), strict=True):
        assert close(a, b)
    assert close(mine.eval()(x)[0], other.eval()(x)[0])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_dropout_draws_anew_in_training_only(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H, 2, dropout=0.5)
    x = torch.randn(T, B, I)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize("layers", [1, 2])
def test_zero_batch(ours: Layer, theirs: Layer, layers: int) -> None:
    mine, other = twins(ours, theirs, I, H, layers, bidirectional=True)
    x = torch.randn(T, 0, I)
    (y, last), (expected, expected_last) = mine(x), other(x)
    assert y.shape == expected.shape
    for a, b in zip(flat(last), flat(expected_last), strict=True):
        assert a.shape == b.shape
    y.sum().backward()
    for name, parameter in mine.named_parameters():
        assert parameter.grad is not None, name
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_not_finite_input_flows_as_in_torch_nn(
    ours: Layer, theirs: Layer, dtype: torch.dtype, isa: str
) -> None:
    mine, other = twins(ours, theirs, I, H, dtype=dtype)
    for value in (float("nan"), float("inf"), float("-inf")):
        x = torch.randn(T, 3, I, dtype=dtype)
        x[1, 1, 2] = value
        y, expected = mine(x)[0], other(x)[0]
        assert torch.equal(y.isnan(), expected.isnan())
        # A few steps of a few units, from values up to one: some tens of eps.
        bound = 100 * torch.finfo(dtype).eps
        torch.testing.assert_close(y.nan_to_num(), expected.nan_to_num(), rtol=bound, atol=bound)
        found, wanted = (
            torch.autograd.grad(z.sum(), m.parameters()) for z, m in ((y, mine), (expected, other))
        )
        for a, b in zip(found, wanted, strict=True):
            assert torch.equal(a.isnan(), b.isnan())
        # The other sequences of the batch, and the steps before, do not see it.
        assert y[:, [0, 2]].isfinite().all()
        assert y[0].isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_not_finite_input_through_relu(bad: float) -> None:
    mine, other = twins(rnncells.RNN, nn.RNN, I, H, nonlinearity="relu", dtype=torch.float64)
    x = torch.randn(T, 3, I, dtype=torch.float64)
    x[1, 1, 2] = bad
    y, expected = mine(x)[0], other(x)[0]
    assert torch.equal(y.isnan(), expected.isnan())
    assert torch.equal(y.isinf(), expected.isinf())


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_layouts_of_input_and_weights(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, I, H, dtype=torch.float64)
    wide = torch.randn(2 * B, T, 2 * I, dtype=torch.float64)
    inputs = [
        wide.transpose(0, 1)[:, ::2, ::2],
        wide[0, :, :I].unsqueeze(1).expand(T, B, I),
        wide[0, 0, :I].expand(T, B, I),
        wide.permute(2, 0, 1)[:T, :B, :I],
    ]
    for layer in (mine, other):
        with torch.no_grad():
            weight = layer.get_parameter("weight_hh_l0")
            weight.set_(weight.t().contiguous().t())
        assert not layer.get_parameter("weight_hh_l0").is_contiguous()
    for x in inputs:
        assert not x.is_contiguous()
        assert close(mine(x)[0], other(x)[0])


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_frozen_parameters_get_no_gradient(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, I, H, 2, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    for layer in (mine, other):
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(name in ("weight_hh_l0", "bias_ih_l1"))
        layer(x)[0].square().sum().backward()
    for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and b.grad is not None:
            assert close(a.grad, b.grad), name


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_gradients_in_eval_mode_and_none_without(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H).eval()
    x = torch.randn(T, B, I)
    layer(x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    with torch.no_grad():
        assert not layer(x)[0].requires_grad
    with torch.inference_mode():
        y = layer(x)[0]
    assert y.is_inference()
    assert torch.equal(y, layer(x)[0])


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_retain_graph(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H, 2, bidirectional=True)
    x = torch.randn(T, B, I, requires_grad=True)
    loss = layer(x)[0].square().sum()
    wrt = [x, *layer.parameters()]
    first = torch.autograd.grad(loss, wrt, retain_graph=True)
    second = torch.autograd.grad(loss, wrt)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_copies(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H, 2, bidirectional=True)
    x = torch.randn(T, B, I)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x)[0], layer(x)[0])
        with torch.no_grad():
            twin.weight_hh_l0.zero_()
        assert not torch.equal(twin(x)[0], layer(x)[0])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_weights_are_read_by_name(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H)
    x = torch.randn(T, B, I)
    before = layer(x)[0]
    doubled = {name: 2 * value for name, value in layer.named_parameters()}
    expected = torch.func.functional_call(theirs(I, H), doubled, (x,))[0]
    assert torch.allclose(torch.func.functional_call(layer, doubled, (x,))[0], expected)
    assert torch.equal(layer(x)[0], before)

    layer.weight_hh_l0 = nn.Parameter(2 * layer.weight_hh_l0)
    assert not torch.equal(layer(x)[0], before)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_parametrised_weights(ours: Layer, theirs: Layer) -> None:
    x = torch.randn(T, B, I)
    layer = ours(I, H)
    before = layer(x)[0]
    parametrizations.weight_norm(layer, "weight_hh_l0")
    assert torch.allclose(layer(x)[0], before, atol=1e-6)
    original = layer.parametrizations.weight_hh_l0.original0
    with torch.no_grad():
        original.mul_(3)
    assert not torch.allclose(layer(x)[0], before, atol=1e-6)
    layer(x)[0].sum().backward()
    assert original.grad is not None

    pruned = ours(I, H)
    prune.l1_unstructured(pruned, "weight_hh_l0", amount=0.5)
    y = pruned(x)[0]
    prune.remove(pruned, "weight_hh_l0")
    assert (pruned.weight_hh_l0 == 0).any()
    twin = theirs(I, H)
    twin.load_state_dict(pruned.state_dict())
    assert torch.allclose(y, twin(x)[0], atol=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_dtype_device_and_skipped_initialisation(ours: Layer, theirs: Layer) -> None:
    x = torch.randn(T, B, I)
    layer = ours(I, H)
    assert layer.double()(x.double())[0].dtype == torch.float64
    assert layer.float()(x)[0].dtype == torch.float32
    assert nn.utils.skip_init(ours, I, H)(x)[0].shape == (T, B, H)
    meta = ours(I, H, 2, device="meta")
    assert all(parameter.is_meta for parameter in meta.parameters())
    meta.to_empty(device="cpu")
    meta.load_state_dict(theirs(I, H, 2).state_dict())
    assert meta(x)[0].isfinite().all()


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_flatten_parameters_moves_nothing(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H)
    before = [parameter.data_ptr() for parameter in layer.parameters()]
    layer.flatten_parameters()
    assert [parameter.data_ptr() for parameter in layer.parameters()] == before


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_dropout_in_a_single_layer_warns(ours: Layer, theirs: Layer) -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last") as seen:
        ours(I, H, dropout=0.5)
    assert seen[0].filename == __file__
