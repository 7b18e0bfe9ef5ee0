"""What torch's own tools, and the years, do to a module: our layers and cells take it as torch.nn's
do, and where torch.nn's fail, ours do not.

Results are compared in float64 with torch.nn's own; `close` of test_layers says how far apart the
two may be.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils._pytree import tree_leaves

import rnncells
from tests.test_layers import PAIRS, PROJECTED, Layer, close, flat, twins
from tests.test_torch_nn import CELLS

I, H, T, B = 3, 5, 4, 2
KINDS = [*PAIRS, PROJECTED]
kinds = pytest.mark.parametrize(("ours", "theirs"), [*KINDS, *CELLS])
layers = pytest.mark.parametrize(("ours", "theirs"), KINDS)
cells = pytest.mark.parametrize(("ours", "theirs"), CELLS)


def pair(ours: Layer, theirs: Layer, **options: Any) -> tuple[Any, Any]:
    return twins(ours, theirs, I, H, **options, dtype=torch.float64)


def data(module: Any) -> Tensor:
    shape = (T, B, I) if isinstance(module, nn.RNNBase) else (B, I)
    return torch.randn(shape, dtype=torch.float64)


def outputs(module: Any, x: Tensor) -> list[Tensor]:
    found = module(x)
    if isinstance(module, nn.RNNBase):
        return [found[0], *flat(found[1])]
    return flat(found)


def assert_same_step(mine: Any, other: Any, x: Tensor) -> None:
    """Outputs, gradients, and the outputs after a step down the gradients."""
    for module in (mine, other):
        module.zero_grad()
        torch.cat([y.flatten() for y in outputs(module, x)]).square().sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad
    for (name, a), (also, b) in zip(mine.named_parameters(), other.named_parameters(), strict=True):
        assert name == also
        assert close(a.grad, b.grad), name
    for a, b in zip(outputs(mine, x), outputs(other, x), strict=True):
        assert close(a, b)


def weight_name(module: Any) -> str:
    return "weight_hh_l0" if isinstance(module, nn.RNNBase) else "weight_hh"


# ------------------------------------------------------------------- norms of weights, new and old
@kinds
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrisations(ours: Layer, theirs: Layer, norm: Callable[..., Any]) -> None:
    mine, other = pair(ours, theirs)
    name = weight_name(other)
    for module in (mine, other):
        torch.manual_seed(5)  # spectral norm draws its first vectors
        norm(module, name)
        # In training it changes them when the weight is read, and torch.nn reads it twice a call.
        module.train(norm is parametrizations.weight_norm)
    x = data(other)
    for _ in range(2):
        assert_same_step(mine, other, x)
    assert list(mine.state_dict()) == list(other.state_dict())
    mine.load_state_dict(other.state_dict(), strict=True)
    assert close(outputs(mine, x)[0], outputs(other, x)[0])

    expected = outputs(mine, x)[0]
    # A copy after a move: torch.nn's layers keep a computed weight, which cannot be copied.
    twin = copy.deepcopy(mine.to(torch.float64))
    assert torch.equal(outputs(twin, x)[0], expected)
    parametrize.remove_parametrizations(mine, name)
    assert close(outputs(mine, x)[0], expected)
    assert isinstance(getattr(mine, name), nn.Parameter)


class Counting(nn.Module):
    """A parametrisation that counts how often its weight is computed."""

    times = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.times += 1
        return weight.tanh()


@kinds
def test_a_parametrised_weight_is_computed_once_a_call(ours: Layer, theirs: Layer) -> None:
    module, counting = ours(I, H, dtype=torch.float64), Counting()
    parametrize.register_parametrization(module, weight_name(module), counting)
    counting.times = 0
    outputs(module, data(module))
    assert counting.times == 1
    with parametrize.cached():
        outputs(module, data(module))
        outputs(module, data(module))
    assert counting.times == 2


@kinds
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_norms_by_hooks(ours: Layer, theirs: Layer, norm: Callable[..., Any]) -> None:
    mine, other = pair(ours, theirs)
    for module in (mine, other):
        torch.manual_seed(5)
        norm(module, weight_name(other))
    assert list(mine.state_dict()) == list(other.state_dict())
    for _ in range(2):
        assert_same_step(mine, other, data(other))
    mine.load_state_dict(other.state_dict(), strict=True)


# ----------------------------------------------------------------------------- copies and pickles
@kinds
def test_copies_and_pickles(ours: Layer, theirs: Layer) -> None:
    module = ours(I, H, dtype=torch.float64)
    module.register_forward_hook(print_nothing)
    x = data(module)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [
        copy.copy(module),
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]
    for number, twin in enumerate(copies):
        assert repr(twin) == repr(module)
        assert len(twin._forward_hooks) == 1
        for a, b in zip(outputs(twin, x), outputs(module, x), strict=True):
            assert torch.equal(a, b)
        shared = getattr(twin, weight_name(twin)) is getattr(module, weight_name(module))
        assert shared == (number == 0)


def print_nothing(*_: Any) -> None:
    """A hook that can be pickled."""


class Renaming(pickle.Unpickler):
    """Reads torch.nn's layers and cells as ours."""

    def find_class(self, module: str, name: str) -> Any:
        return getattr(rnncells if module == "torch.nn.modules.rnn" else None, name, None) or (
            super().find_class(module, name)
        )


@kinds
def test_a_pickle_of_torch_nn_becomes_ours(ours: Layer, theirs: Layer) -> None:
    other = theirs(I, H, dtype=torch.float64)
    mine = Renaming(io.BytesIO(pickle.dumps(other))).load()
    assert type(mine) is type(ours(I, H))
    assert_same_step(mine, other, data(other))


@layers
@pytest.mark.parametrize("age", ["0.1", "1.0", "1.7"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_states_of_older_torch(
    ours: Layer, theirs: Layer, age: str, bias: bool, bidirectional: bool
) -> None:
    """What torch.nn's layers kept of themselves over the years."""
    options = {"bias": bias, "bidirectional": bidirectional, "num_layers": 2}
    mine, other = pair(ours, theirs, **options)
    state = dict(other.__getstate__())
    if other.proj_size == 0:
        del state["proj_size"]  # came with 1.8
    if age != "1.7":
        del state["_flat_weights"], state["_flat_weights_names"]  # came with 1.4
        state["_data_ptrs"] = []
    if age == "0.1":
        state["all_weights"] = other.all_weights
        del state["_all_weights"], state["_data_ptrs"]
    kind: Any = type(mine)
    old = kind.__new__(kind)
    old.__setstate__(state)
    assert repr(old) == repr(mine)
    assert [[w.shape for w in ws] for ws in old.all_weights] == [
        [w.shape for w in ws] for ws in other.all_weights
    ]
    x = data(other)
    for a, b in zip(outputs(old, x), outputs(other, x), strict=True):
        assert close(a, b)
    again = pickle.loads(pickle.dumps(old))
    assert torch.equal(outputs(again, x)[0], outputs(old, x)[0])


@kinds
def test_state_dict_without_versions_and_by_assignment(ours: Layer, theirs: Layer) -> None:
    mine, other = pair(ours, theirs)
    x = data(other)
    mine.load_state_dict(dict(other.state_dict()), strict=True)
    assert close(outputs(mine, x)[0], outputs(other, x)[0])
    with torch.device("meta"):
        empty = ours(I, H)
    empty.load_state_dict(other.state_dict(), strict=True, assign=True)
    assert close(outputs(empty, x)[0], outputs(other, x)[0])
    lacking = other.state_dict()
    del lacking[weight_name(other)]
    with pytest.raises(RuntimeError, match=rf"Missing key.*{weight_name(other)}"):
        mine.load_state_dict(lacking)


# ----------------------------------------------------------------------------- weights and memory
@layers
def test_flat_weights(ours: Layer, theirs: Layer) -> None:
    """torch.nn's second list of the weights: here it always shows what stands under the names."""
    layer = ours(I, H, 2, bidirectional=True)
    names = layer._flat_weights_names
    assert names == theirs(I, H, 2, bidirectional=True)._flat_weights_names
    assert [id(w) for w in layer._flat_weights] == [id(w) for ws in layer.all_weights for w in ws]
    layer.weight_hh_l0 = nn.Parameter(torch.zeros_like(layer.weight_hh_l0))
    assert layer._flat_weights[names.index("weight_hh_l0")] is layer.weight_hh_l0
    fresh = [nn.Parameter(torch.ones_like(w)) for w in layer._flat_weights]
    layer._flat_weights = fresh
    assert all(a is b for a, b in zip(layer._flat_weights, fresh, strict=True))
    assert layer.bias_hh_l1 is fresh[names.index("bias_hh_l1")]
    del layer.bias_hh_l1
    assert layer._flat_weights[names.index("bias_hh_l1")] is None


@layers
def test_a_replica_for_data_parallel(ours: Layer, theirs: Layer) -> None:
    """torch.nn.DataParallel gives each replica its weights as plain tensors."""
    mine, other = pair(ours, theirs)
    replica = mine._replicate_for_data_parallel()
    for name, parameter in mine.named_parameters():
        setattr(replica, name, parameter.detach())
    assert not list(replica.parameters())
    x = data(other)
    assert close(outputs(replica, x)[0], outputs(other, x)[0])
    assert [id(w) for w in mine._flat_weights] == [id(w) for w in mine.parameters()]


@kinds
def test_vectors_memory_and_moves(ours: Layer, theirs: Layer) -> None:
    mine, other = pair(ours, theirs)
    x = data(other)
    vector = nn.utils.parameters_to_vector(mine.parameters())
    assert torch.equal(vector, nn.utils.parameters_to_vector(other.parameters()))
    for module in (mine, other):
        nn.utils.vector_to_parameters(vector / 2, module.parameters())
    assert close(outputs(mine, x)[0], outputs(other, x)[0])
    assert all(parameter.is_shared() for parameter in mine.share_memory().parameters())
    assert close(outputs(mine, x)[0], outputs(other, x)[0])
    mine.to(torch.bfloat16).to("cpu", torch.float64)
    mine.load_state_dict(other.state_dict())
    assert_same_step(mine, other, x)


@kinds
def test_without_initialisation(ours: Layer, theirs: Layer) -> None:
    kind = ours.func if ours is PROJECTED.values[0] else ours  # type: ignore[attr-defined]
    options = {"proj_size": 2} if kind is not ours else {}
    module = nn.utils.skip_init(kind, I, H, **options, dtype=torch.float64)
    other = theirs(I, H, dtype=torch.float64)
    module.load_state_dict(other.state_dict(), strict=True)
    assert_same_step(module, other, data(other))
    meta = ours(I, H, device="meta", dtype=torch.float64)
    expected = [y.shape for y in outputs(other, data(other))]
    found = outputs(meta, data(meta).to("meta"))
    assert all(y.is_meta for y in found)
    assert [y.shape for y in found] == expected
    meta.to_empty(device="cpu").load_state_dict(other.state_dict(), strict=True)
    assert_same_step(meta, other, data(other))


@kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(ours: Layer, theirs: Layer, dtype: torch.dtype) -> None:
    mine, other = pair(ours, theirs)
    x = data(other)
    found = outputs(mine.to(dtype), x.to(dtype))
    torch.cat([y.flatten() for y in found]).sum().backward()
    for a, b in zip(found, outputs(other, x), strict=True):
        assert a.dtype == dtype
        # Weights, inputs and states rounded to the dtype (half an eps each), through 4 steps.
        assert (a - b).abs().max().item() <= 4 * torch.finfo(dtype).eps
    assert all(parameter.grad.dtype == dtype for parameter in mine.parameters())


# ------------------------------------------------------------------------------------------ hooks
@kinds
def test_hooks(ours: Layer, theirs: Layer) -> None:
    calls = []
    mine, other = pair(ours, theirs)
    for module in (mine, other):
        seen: list[Any] = []
        module.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(len(args)))
        module.register_forward_hook(lambda m, args, out, seen=seen: seen.append(len(flat(out))))
        module.register_full_backward_hook(
            lambda m, into, out, seen=seen: seen.append([g is not None for g in into])
        )
        weight = getattr(module, weight_name(other))
        weight.register_hook(lambda grad: 2 * grad)
        weight.register_post_accumulate_grad_hook(lambda w, seen=seen: seen.append(w.grad.shape))
        x = torch.ones_like(data(other)).requires_grad_()
        outputs(module, x)[0].sum().backward()
        calls.append(seen)
    assert calls[0] == calls[1]
    assert len(calls[0]) == 4
    assert close(getattr(mine, weight_name(other)).grad, getattr(other, weight_name(other)).grad)


# ------------------------------------------------------------------------- cells and their biases
@cells
@pytest.mark.parametrize("lost", [("bias_ih",), ("bias_hh",), ("bias_ih", "bias_hh")])
def test_a_bias_that_is_none(ours: Layer, theirs: Layer, lost: tuple[str, ...]) -> None:
    mine, other = pair(ours, theirs)
    for module, name in ((m, name) for m in (mine, other) for name in lost):
        setattr(module, name, None)
    assert_same_step(mine, other, data(other))


@cells
def test_a_bias_that_comes_later(ours: Layer, theirs: Layer) -> None:
    mine, other = pair(ours, theirs, bias=False)
    bias = torch.randn(mine.weight_ih.shape[0], dtype=torch.float64)
    for module in (mine, other):
        module.bias_hh = nn.Parameter(bias.clone())
    assert_same_step(mine, other, data(other))


@cells
@pytest.mark.parametrize("given", [False, True])
def test_cell_without_units(ours: Layer, theirs: Layer, given: bool) -> None:
    options: list[dict[str, Any]] = [{}, {"bias": False}]
    if theirs is nn.RNNCell:
        options.append({"nonlinearity": "relu"})
    for option in options:
        for cell in (ours(10, 0, **option), theirs(10, 0, **option)):
            x = torch.randn(3, 10, requires_grad=True)
            h: Any = torch.randn(3, 0)
            hx = (h, h) if theirs is nn.LSTMCell else h
            after = flat(cell(x, hx) if given else cell(x))
            assert [state.shape for state in after] == [(3, 0)] * len(after)
            assert [state.shape for state in flat(cell(x[0]))] == [(0,)] * len(after)
            after[0].sum().backward()
            assert x.grad is not None
            assert torch.equal(x.grad, torch.zeros(3, 10))
            for parameter in cell.parameters():
                assert parameter.grad.shape == parameter.shape


@cells
def test_cell_without_features(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, 0, H, dtype=torch.float64)
    assert_same_step(mine, other, torch.randn(B, 0, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_torch_fx_takes_our_modules_for_leaves(kind: str) -> None:
    """As it does torch.nn's."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = getattr(rnncells, kind)(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            found = self.inner(x)
            y: Tensor = found if kind in ("RNNCell", "GRUCell") else found[0]
            return y.relu()

    model, x = Model(), torch.randn(4, 3) if kind.endswith("Cell") else torch.randn(4, 2, 3)
    traced = torch.fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["inner"]
    assert torch.equal(traced(x), model(x))


# --------------------------------------------------------------------------------- torch.jit.trace
@kinds
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of the checks of sizes
def test_jit_trace(ours: Layer, theirs: Layer) -> None:
    """The trace is saved, runs other sizes than it saw, and has the layer's gradients."""
    mine, _ = pair(ours, theirs)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(mine, (data(mine),)), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    sizes = (T + 3, B + 1, I) if isinstance(mine, nn.RNNBase) else (B + 1, I)
    x = torch.randn(sizes, dtype=torch.float64, requires_grad=True)
    leaves = {"input": x, **dict(mine.named_parameters())}
    copies = {"input": x, **dict(loaded.named_parameters())}
    y, again = (torch.cat([t.flatten() for t in tree_leaves(m(x))]) for m in (mine, loaded))
    assert torch.equal(y, again)
    expected = torch.autograd.grad(y.square().sum(), list(leaves.values()))
    found = torch.autograd.grad(again.square().sum(), [copies[name] for name in leaves])
    for name, a, b in zip(leaves, found, expected, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace_of_the_last_output(steps: int) -> None:
    """Recorded where y is working space, and trained."""
    for kind in (rnncells.SimpleRNN, rnncells.LSTM, rnncells.GRU):
        layer = kind(I, H, return_sequences=False)
        x = torch.randn(steps, B, I)
        traced = torch.jit.trace(layer, (x,))
        found = torch.autograd.grad(traced(x)[0].square().sum(), list(traced.parameters()))
        expected = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
        torch.testing.assert_close(found, expected)


# ---------------------------------------------------------------------------- dynamic quantisation
@kinds
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.quantize_per_tensor:UserWarning")
def test_dynamic_quantisation_leaves_our_modules(ours: Layer, theirs: Layer) -> None:
    """It knows torch.nn's by their classes; what lies beside ours is quantised."""
    inner = ours(I, H)
    model = nn.ModuleDict({"inner": inner, "head": nn.Linear(H, 1)}).eval()
    quantised = torch.ao.quantization.quantize_dynamic(model)
    assert type(quantised["head"]) is not nn.Linear
    assert type(quantised["inner"]) is type(inner)
    x = data(inner).float()
    for a, b in zip(outputs(quantised["inner"], x), outputs(inner, x), strict=True):
        assert torch.equal(a, b)
