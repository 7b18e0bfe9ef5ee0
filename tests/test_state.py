"""``stateful``, ``return_sequences`` and ``go_backwards``: against the plain layer, which is held
against the reference elsewhere.

Both sides run the same kernels on the same sequences, cut or turned round otherwise: they are held
to assert_close's tolerance for the dtype, a hundred roundings of values below 1.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import rnncells
from tests.kinds import KINDS, Layer, kinds

T, B, I, H = 7, 3, 2, 4
LENGTHS = [7, 2, 5]
# Every kind of stack: (num_layers, bidirectional, batch_first).
STACKS = list(itertools.product((1, 2), (False, True), (False, True)))
stacks = pytest.mark.parametrize(("layers", "bidirectional", "batch_first"), STACKS)
same = torch.testing.assert_close


def make(kind: Any, layers: int = 1, bidirectional: bool = False, **options: Any) -> Any:
    torch.manual_seed(1)
    return kind(I, H, layers, bidirectional=bidirectional, **options).double()


def states_of(hx: Any) -> list[Tensor]:
    return [hx] if isinstance(hx, Tensor) else list(hx)


def draw(batch_first: bool = False, batch: int = B) -> Tensor:
    x = torch.randn(T, batch, I, dtype=torch.float64)
    return x.transpose(0, 1).contiguous() if batch_first else x


def packed(x: Tensor, batch_first: bool = False) -> PackedSequence:
    return pack_padded_sequence(x, LENGTHS, batch_first, enforce_sorted=False)


# --- stateful


@kinds
@stacks
@pytest.mark.parametrize("form", ["padded", "lengths", "packed"])
def test_states_go_from_call_to_call(
    kind: Any, layers: int, bidirectional: bool, batch_first: bool, form: str
) -> None:
    options = {"batch_first": batch_first}
    keeping = make(kind, layers, bidirectional, stateful=True, **options)
    plain = make(kind, layers, bidirectional, **options)
    hx = None
    for _ in range(3):
        x: Any = draw(batch_first)
        given: dict[str, Any] = {"lengths": LENGTHS} if form == "lengths" else {}
        x = packed(x, batch_first) if form == "packed" else x
        y, last = keeping(x, **given)
        expected, hx = plain(x, hx, **given)
        same([*y] if form == "packed" else y, [*expected] if form == "packed" else expected)
        same(states_of(last), states_of(hx))


@kinds
def test_pieces_of_a_sequence_are_the_sequence(kind: Any) -> None:
    layer, x = make(kind, 2, stateful=True), draw()
    whole, last = make(kind, 2)(x)
    pieces = [layer(piece) for piece in x.split(3)]
    same(torch.cat([y for y, _ in pieces]), whole)
    same(pieces[-1][1], last)


@kinds
def test_reset_and_given_states_go_first(kind: Any) -> None:
    layer, plain = make(kind, stateful=True), make(kind)
    x = draw()
    first, hx = layer(x)
    assert not torch.allclose(layer(x)[0], first)
    layer.reset_states()
    same(layer(x)[0], first)
    again, last = layer(x, hx)  # given ones, and what comes of them is carried on
    same(again, plain(x, hx)[0])
    same(layer(x)[0], plain(x, last)[0])
    layer.reset_states()
    layer(draw(batch=B + 2))  # of any size now


@kinds
def test_one_sequence_without_a_batch(kind: Any) -> None:
    layer, plain, x = make(kind, 2, True, stateful=True), make(kind, 2, True), draw()
    hx = None
    for one in (x[:, 0], x[:, 1]):
        y, _ = layer(one)
        expected, hx = plain(one, hx)
        same(y, expected)
    # It is a batch of one.
    same(layer(x[:, 2:])[0].squeeze(1), plain(x[:, 2], hx)[0])


@kinds
def test_gradients_end_at_the_call(kind: Any) -> None:
    """Truncated BPTT: backward of each call by itself, the same as with detached states."""
    layer, plain = make(kind, stateful=True), make(kind)
    hx = None
    for _ in range(3):
        x = draw().requires_grad_()
        layer.zero_grad()
        plain.zero_grad()
        layer(x)[0].square().sum().backward()
        mine, x.grad = x.grad, None
        y, last = plain(x, hx)
        y.square().sum().backward()
        same(mine, x.grad)
        for a, b in zip(layer.parameters(), plain.parameters(), strict=True):
            same(a.grad, b.grad)
        hx = last.detach() if isinstance(last, Tensor) else tuple(s.detach() for s in last)


@kinds
def test_what_the_caller_does_to_the_last_states(kind: Any) -> None:
    layer, plain, x = make(kind, stateful=True), make(kind), draw()
    with torch.no_grad():
        _, last = layer(x)
        kept = [state.clone() for state in states_of(last)]
        for state in states_of(last):
            state.zero_()
        hx = tuple(kept) if len(kept) > 1 else kept[0]
        same(layer(x)[0], plain(x, hx)[0])


def test_a_batch_of_another_size() -> None:
    layer = make(rnncells.GRU, stateful=True)
    layer(draw())
    for x in (draw(batch=2), draw()[:, 0], pack_padded_sequence(draw(batch=2), [7, 2])):
        with pytest.raises(ValueError, match=r"^stateful: .* 3 sequences, and the input has [12];"):
            layer(x)
    expected = make(rnncells.GRU)
    x = draw()
    same(layer(x)[0].shape, expected(x)[0].shape)  # the states are still there: B fits


def test_errors_are_those_of_the_plain_layer() -> None:
    layer, plain = make(rnncells.LSTM, stateful=True), make(rnncells.LSTM)
    layer(draw())
    for bad in (draw().unsqueeze(0), [1, 2], draw()[..., :1], draw()[:0], draw().long()):
        with pytest.raises((ValueError, TypeError, RuntimeError)) as expected:
            plain(bad)
        with pytest.raises(expected.type) as found:
            layer(bad)
        assert str(found.value) == str(expected.value)


def test_where_the_states_live() -> None:
    """Beside the parameters: not in state_dict, in copies and pickles, and .to() moves them."""
    layer, x = make(rnncells.LSTM, stateful=True), draw()
    keys = set(layer.state_dict())
    _, hx = layer(x)
    assert set(layer.state_dict()) == keys
    expected = make(rnncells.LSTM)(x, hx)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same(other(x)[0], expected)
    layer.float()
    y, _ = layer(x.float())
    assert y.dtype == torch.float32
    same(y, expected.float())
    layer.to("meta")
    assert layer(x.float().to("meta"))[0].is_meta


def test_inference_mode_and_back() -> None:
    """States of inference mode start a call that is trained."""
    layer, plain, x = make(rnncells.GRU, stateful=True), make(rnncells.GRU), draw()
    with torch.inference_mode():
        layer(x)
    y, _ = layer(x)
    y.sum().backward()
    same(y, plain(x, plain(x)[1].detach())[0])
    with torch.inference_mode():
        layer(x)


def test_under_autocast_and_after_it() -> None:
    layer = make(rnncells.GRU, stateful=True).float()
    x = draw().float()
    with torch.autocast("cpu", torch.bfloat16):
        _, low = layer(x)
        assert low.dtype == torch.bfloat16
        layer(x)
    assert layer(x)[0].dtype == torch.float32


def test_frozen_weights_and_recompute() -> None:
    for options in ({}, {"recompute": True}):
        layer, plain, x = make(rnncells.LSTM, stateful=True, **options), make(rnncells.LSTM), draw()
        with torch.no_grad(), layer.frozen():
            _, hx = layer(x)
            same(layer(x)[0], plain(x, hx)[0])


def test_compiled() -> None:
    """The states are carried by the compiled layer as by the eager one, in two graphs: one for a
    call with carried states, and one for a call without."""
    torch._dynamo.reset()
    layer, plain = make(rnncells.LSTM, stateful=True), make(rnncells.LSTM, stateful=True)
    counter = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(layer, fullgraph=True, backend=counter)
    for reset in (False, False, False, True, False, True):
        if reset:
            layer.reset_states()
            plain.reset_states()
        x = draw()
        same(fast(x), plain(x))
    assert counter.frame_count == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_keeps_no_state() -> None:
    layer, x = make(rnncells.GRU, stateful=True), draw()
    words = "stateful: a traced or exported program keeps no state"
    with pytest.raises(NotImplementedError, match=words):
        torch.jit.trace(layer, (x,))
    with pytest.raises(Exception, match=words):
        torch.export.export(layer, (x,))
    with pytest.raises(NotImplementedError, match=r"stateful: states inside of torch\.func"):
        torch.func.grad(lambda x: layer(x)[0].sum())(x)
    assert layer._carried is None


# --- return_sequences=False


@kinds
@stacks
@pytest.mark.parametrize("form", ["padded", "lengths", "packed"])
def test_the_last_output_alone(
    kind: Any, layers: int, bidirectional: bool, batch_first: bool, form: str
) -> None:
    options = {"batch_first": batch_first}
    layer = make(kind, layers, bidirectional, return_sequences=False, **options)
    plain = make(kind, layers, bidirectional, **options)
    x: Any = draw(batch_first).requires_grad_()
    given: dict[str, Any] = {"lengths": LENGTHS} if form == "lengths" else {}
    run = packed(x, batch_first) if form == "packed" else x
    y, last = layer(run, **given)
    every, expected_last = plain(run, **given)
    if form == "packed":
        every, _ = pad_packed_sequence(every, batch_first)
    every = every.transpose(0, 1) if batch_first else every
    ends = [n - 1 for n in (LENGTHS if given or form == "packed" else [T] * B)]
    expected = every[ends, range(B)]
    if bidirectional:  # whose second direction ends at the first step
        expected = torch.cat([expected[:, :H], every[0, :, H:]], dim=1)
    assert y.shape == (B, H * (1 + bidirectional))
    same(y, expected)
    same(states_of(last), states_of(expected_last))
    (mine,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)  # packed once
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    same(mine, theirs)


def test_the_last_output_of_one_sequence_and_of_a_projection() -> None:
    layer = make(rnncells.LSTM, 2, True, return_sequences=False, proj_size=3)
    x = draw()
    y, (h, _) = layer(x)
    same(y, torch.cat([h[-2], h[-1]], dim=1))
    one, _ = layer(x[:, 1])
    assert one.shape == (6,)
    same(one, y[1])


# --- go_backwards


@kinds
@stacks
@pytest.mark.parametrize("form", ["padded", "lengths", "packed"])
def test_backwards_is_the_sequence_turned_round(
    kind: Any, layers: int, bidirectional: bool, batch_first: bool, form: str
) -> None:
    options = {"batch_first": batch_first}
    layer = make(kind, layers, bidirectional, go_backwards=True, **options)
    plain = make(kind, layers, bidirectional, **options)
    x = draw(batch_first)
    ends = [T] * B if form == "padded" else LENGTHS
    for k, n in enumerate(ends):
        (x[k] if batch_first else x[:, k])[n:] = torch.nan  # never read, and never moved
    given: dict[str, Any] = {"lengths": LENGTHS} if form == "lengths" else {}
    y, last = layer(packed(x, batch_first) if form == "packed" else x, **given)
    if form == "packed":
        y, _ = pad_packed_sequence(y, batch_first)
    for k, n in enumerate(ends):
        own = (x[k] if batch_first else x[:, k])[:n].flip(0)
        expected, expected_last = plain(own)
        same((y[k] if batch_first else y[:, k])[:n], expected)
        same([s[:, k] for s in states_of(last)], states_of(expected_last))
        assert not (y[k] if batch_first else y[:, k])[n:].any()


@kinds
def test_backwards_is_the_reverse_direction(kind: Any) -> None:
    """Of a bidirectional layer: its second half, in the order in which it is computed."""
    both, layer, x = make(kind, 1, True), make(kind, go_backwards=True), draw().requires_grad_()
    layer.load_state_dict(
        {
            name.removesuffix("_reverse"): value
            for name, value in both.state_dict().items()
            if name.endswith("_reverse")
        }
    )
    y, expected = layer(x)[0], both(x)[0][..., H:].flip(0)
    same(y, expected)
    mine, theirs = (torch.autograd.grad(each.square().sum(), x)[0] for each in (y, expected))
    same(mine, theirs)


# --- all together


@kinds
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("backwards", [False, True])
def test_together(kind: Any, lengths: list[int] | None, backwards: bool) -> None:
    options = {"stateful": True, "return_sequences": False, "go_backwards": backwards}
    layer, plain = make(kind, 2, True, **options), make(kind, 2, True)
    hx = None
    for _ in range(2):
        x = draw()
        y, last = layer(x, lengths=lengths)
        if backwards:
            x = torch.stack(
                [torch.cat([x[:n, k].flip(0), x[n:, k]]) for k, n in enumerate(lengths or [T] * B)],
                dim=1,
            )
        _, hx = plain(x, hx, lengths=lengths)
        h = states_of(hx)[0]
        same(y, torch.cat([h[-2], h[-1]], dim=1))
        same(states_of(last), states_of(hx))


def test_lengths_out_of_range_are_told_as_ever() -> None:
    layer, plain = make(rnncells.GRU, go_backwards=True), make(rnncells.GRU)
    for lengths in ([0, 1, 2], [1, 2, T + 1], [1, 2]):
        with pytest.raises(RuntimeError) as expected:
            plain(draw(), lengths=lengths)
        with pytest.raises(RuntimeError) as found:
            layer(draw(), lengths=lengths)
        assert str(found.value) == str(expected.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("option", [{"return_sequences": False}, {"go_backwards": True}])
def test_compile_export_and_trace(option: dict[str, bool]) -> None:
    torch._dynamo.reset()
    layer, x = make(rnncells.GRU, 2, True, **option), draw()
    expected = layer(x)
    same(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), expected)
    sizes = {"input": {0: torch.export.Dim("T", min=2), 1: torch.export.Dim("B", min=2)}}
    program = torch.export.export(layer.eval(), (x,), dynamic_shapes=sizes)
    longer = torch.randn(T + 2, B + 1, I, dtype=torch.float64)
    same(program.module()(longer), layer(longer))
    same(torch.jit.trace(layer, (x,))(x), expected)


def test_options_changed_afterwards_are_seen() -> None:
    """Small calls in inference go past Python: not those of such a layer."""
    layer, x = make(rnncells.GRU), torch.randn(1, 1, I, dtype=torch.float64)
    with torch.no_grad():
        first, hx = layer(x)
        layer.stateful = True
        same(layer(x)[0], first)
        same(layer(x)[0], make(rnncells.GRU)(x, hx)[0])
        layer.stateful = False
        same(layer(x)[0], first)


def test_convert_back_leaves_what_torch_has_not() -> None:
    model = nn.Sequential(*(kind(I, H, stateful=True) for kind in KINDS))
    for layer in model:
        layer(torch.randn(T, B, I))
    report = rnncells.conversion_report(model, back=True)
    assert [left.reason.partition(" has ")[2] for left in report.left] == [
        "nothing like its stateful=True"
    ] * len(KINDS)


# --- what is refused, and what it says of itself


@pytest.mark.parametrize("option", ["stateful", "return_sequences", "go_backwards"])
def test_flags_of_no_meaning(option: str) -> None:
    for kind in KINDS:
        with pytest.raises(TypeError, match=f"^{option} should be of type bool, got: int"):
            kind(I, H, **{option: 1})


def test_repr_says_what_is_not_the_default() -> None:
    layer = rnncells.LSTM(2, 3, stateful=True, return_sequences=False, go_backwards=True)
    assert repr(layer) == ("LSTM(2, 3, stateful=True, return_sequences=False, go_backwards=True)")
    layer = rnncells.LSTM(2, 3, recompute=True, init="keras", forget_bias=2)
    assert repr(layer) == "LSTM(2, 3, recompute=True, init='keras', forget_bias=2)"
    assert repr(rnncells.GRU(2, 3)) == "GRU(2, 3)"


@kinds
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_output_is_apart_from_the_last_states(kind: Layer, bidirectional: bool) -> None:
    layer: Any = kind(3, 5, return_sequences=False, bidirectional=bidirectional)
    y, last = layer(torch.randn(4, 2, 3))
    h = last[0] if isinstance(last, tuple) else last
    before = h.detach().clone()
    y.detach().zero_()
    assert torch.equal(h, before)
    y, _ = layer(torch.randn(3, 4, 3)[0])  # of one sequence
    y.detach().zero_()


@pytest.mark.parametrize("option", ["go_backwards", "input_dropout"])
def test_packed_rows_under_a_default_device(option: str) -> None:
    told: dict[str, Any] = {option: True if option == "go_backwards" else 0.5}
    layer = rnncells.GRU(3, 5, **told)
    packed = pack_padded_sequence(torch.randn(4, 2, 3), torch.tensor([4, 2]))
    with torch.device("meta"):
        assert layer(packed)[0].data.device.type == "cpu"


@pytest.mark.parametrize(
    "options", [{"stateful": True}, {"go_backwards": True}, {"input_dropout": 0.5}]
)
def test_packed_sequences_in_one_graph(options: dict[str, Any]) -> None:
    """As without compilation, in two calls and for other lengths."""
    torch._dynamo.reset()
    told: dict[str, Any] = options
    layer = rnncells.LSTM(3, 5, bidirectional=True, **told)
    fast = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    for lengths in ([5, 3, 2], [4, 4, 1]):
        packed = pack_padded_sequence(torch.randn(5, 3, 3), torch.tensor(lengths))
        torch.manual_seed(4)
        expected = layer(packed)
        torch.manual_seed(4)
        found = fast(packed)
        assert torch.equal(found[0].data, expected[0].data)
        assert all(map(torch.equal, found[1], expected[1]))
    if "stateful" in options:
        other = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
        with pytest.raises(RuntimeError):
            fast(other)
