"""Padded batches with the length of each sequence: what torch.nn does by packing, without packing.

Both sides are in float64 and take the same sums in another order; `close` of test_layers says how
far apart they may be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy
import pytest
import torch
from hypothesis import strategies
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnncells
from tests.test_layers import PAIRS, Layer, close, flat, twins
from tests.test_packed import KINDS, as_hx, initial

T, B, I, H = 6, 4, 3, 5
LENGTHS = [4, 1, 6, 4]

Leaves = list[Tensor]


def differentiate(y: Tensor, last: Any, wrt: Leaves) -> Leaves:
    """The output, the last states, and the gradients of a loss that weighs each in its own way."""
    after = flat(last)
    loss = y.square().sum() + sum(((k + 1) * state.sin()).sum() for k, state in enumerate(after))
    return [y, *after, *torch.autograd.grad(loss, wrt)]


def leaves(x: Tensor, states: Leaves | None) -> tuple[Tensor, Any, Leaves]:
    x = x.clone().requires_grad_()
    given = [state.clone().requires_grad_() for state in states or []]
    return x, as_hx(given) if given else None, [x, *given]


def with_lengths(layer: Any, x: Tensor, lengths: Any, states: Leaves | None = None) -> Leaves:
    x, hx, wrt = leaves(x, states)
    y, last = layer(x, hx, lengths=lengths)
    return differentiate(y, last, [*wrt, *layer.parameters()])


def packing(layer: Any, x: Tensor, lengths: Any, states: Leaves | None = None) -> Leaves:
    """The same with torch.nn: pack, run, unpack to the input's length."""
    x, hx, wrt = leaves(x, states)
    first, steps = layer.batch_first, x.shape[1 if layer.batch_first else 0]
    packed = pack_padded_sequence(x, torch.as_tensor(lengths), first, enforce_sorted=False)
    y, last = layer(packed, hx)
    y, _ = pad_packed_sequence(y, first, total_length=steps)
    return differentiate(y, last, [*wrt, *layer.parameters()])


def padding(lengths: list[int], steps: int = T) -> Tensor:
    """[T, B], true behind the end of a sequence."""
    return torch.arange(steps).unsqueeze(1) >= torch.tensor(lengths)


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias", "batch_first", "given"),
    # Each value of each option with each value of each other: half of the full product.
    [c for c in itertools.product((1, 3), (0, 1), (0, 1), (0, 1), (0, 1)) if sum(c) % 2],
)
def test_as_torch_nn_packs(
    ours: Layer,
    theirs: Layer,
    layers: int,
    bidirectional: int,
    bias: int,
    batch_first: int,
    given: int,
) -> None:
    options = {
        "num_layers": layers,
        "bidirectional": bool(bidirectional),
        "bias": bool(bias),
        "batch_first": bool(batch_first),
    }
    mine, other = twins(ours, theirs, I, H, **options, dtype=torch.float64)
    x = torch.randn((B, T, I) if batch_first else (T, B, I), dtype=torch.float64)
    states = initial(other) if given else None
    found = with_lengths(mine, x, LENGTHS, states)
    for a, b in zip(found, packing(other, x, LENGTHS, states), strict=True):
        assert close(a, b)


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_padding_is_never_read(ours: Layer, theirs: Layer, bidirectional: bool, bad: float) -> None:
    layer = ours(I, H, 2, bidirectional=bidirectional, dtype=torch.float64)
    x, behind = torch.randn(T, B, I, dtype=torch.float64), padding(LENGTHS)
    states = initial(layer)
    expected = with_lengths(layer, x.masked_fill(behind[..., None], 0), LENGTHS, states)
    found = with_lengths(layer, x.masked_fill(behind[..., None], bad), LENGTHS, states)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    y, dx = found[0], found[1 + len(states)]
    assert (y[behind] == 0).all()
    assert (dx[behind] == 0).all()
    assert (dx[~behind] != 0).any(dim=-1).all()


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_full_lengths_are_none(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    pairs = zip(with_lengths(layer, x, [T] * B), with_lengths(layer, x, None), strict=True)
    for a, b in pairs:
        assert close(a, b)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    "make",
    [
        tuple,
        numpy.array,
        lambda n: [numpy.int32(k) for k in n],
        lambda n: [torch.tensor(k) for k in n],
        *(
            lambda n, dtype=dtype: torch.tensor(n, dtype=dtype)
            for dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
        ),
        lambda n: torch.tensor(n).repeat_interleave(2)[::2],
    ],
)
def test_any_integers_will_do(ours: Layer, theirs: Layer, make: Callable[..., Any]) -> None:
    layer, x = ours(I, H), torch.randn(T, B, I)
    (y, last), (expected, expected_last) = (
        layer(x, lengths=lengths) for lengths in (make(LENGTHS), LENGTHS)
    )
    for a, b in zip([y, *flat(last)], [expected, *flat(expected_last)], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_lengths_from_another_device_come_to_the_cpu(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H)
    with FakeTensorMode(allow_non_fake_inputs=True):  # stands in for a GPU
        lengths = torch.empty(B, dtype=torch.int32, device="cuda")
        y, last = layer(torch.randn(T, B, I), lengths=lengths)
    assert y.shape == (T, B, H)
    assert y.device.type == "cpu"
    for state in flat(last):
        assert state.shape == (1, B, H)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("lengths", [[], torch.tensor([]), torch.empty(0, dtype=torch.int64)])
def test_zero_batch(ours: Layer, theirs: Layer, lengths: Any) -> None:
    layer = ours(I, H, 2)
    y, last = layer(torch.randn(T, 0, I), lengths=lengths)
    assert y.shape == (T, 0, H)
    for state in flat(last):
        assert state.shape == (2, 0, H)
    y.sum().backward()
    for parameter in layer.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_dropout_between_layers(ours: Layer, theirs: Layer) -> None:
    x = torch.randn(T, B, I, dtype=torch.float64)
    options = {"num_layers": 2, "dtype": torch.float64}
    mine, other = twins(ours, theirs, I, H, **options, dropout=1.0)
    for a, b in zip(with_lengths(mine, x, LENGTHS), packing(other, x, LENGTHS), strict=True):
        assert close(a, b)
    layer = ours(I, H, **options, dropout=0.5)
    y, again = (layer(x, lengths=LENGTHS)[0] for _ in range(2))
    behind = padding(LENGTHS)
    assert not torch.equal(y, again)
    assert (y[behind] == 0).all()
    layer.eval()
    assert torch.equal(layer(x, lengths=LENGTHS)[0], layer(x, lengths=LENGTHS)[0])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(ours: Layer, theirs: Layer, dtype: torch.dtype) -> None:
    mine, other = twins(ours, theirs, I, H, 2, bidirectional=True)
    x = torch.randn(T, B, I)
    expected = packing(other.double(), x.double(), LENGTHS)
    found = with_lengths(mine.to(dtype), x.to(dtype), LENGTHS)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        # Weights, inputs, states and gradients are rounded to the dtype (half an eps each), through
        # 12 steps forward and 12 back, and gradients add up over B sequences.
        limit = 24 * torch.finfo(dtype).eps * max(1.0, b.abs().max().item())
        assert (a - b).abs().max().item() <= limit


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_without_gradients(ours: Layer, theirs: Layer) -> None:
    layer, x = ours(I, H, 2, bidirectional=True), torch.randn(T, B, I)
    expected = layer(x, lengths=LENGTHS)[0]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = layer(x, lengths=LENGTHS)[0]
        assert not y.requires_grad
        assert torch.equal(y, expected)


@strategies.composite
def batches(draw: Callable[..., Any]) -> dict[str, Any]:
    steps = draw(strategies.integers(1, 9))
    lengths = draw(strategies.lists(strategies.integers(1, steps), min_size=1, max_size=7))
    options = {
        "num_layers": draw(strategies.integers(1, 2)),
        "bidirectional": draw(strategies.booleans()),
        "batch_first": draw(strategies.booleans()),
    }
    sizes = draw(strategies.tuples(strategies.integers(1, 5), strategies.integers(1, 20)))
    kind = draw(strategies.integers(0, len(PAIRS) - 1))
    return {"kind": kind, "steps": steps, "lengths": lengths, "options": options, "sizes": sizes}


@hypothesis.given(batches())
@hypothesis.settings(max_examples=40)
def test_any_batch(batch: dict[str, Any]) -> None:
    ours, theirs = PAIRS[batch["kind"]].values
    inputs, units = batch["sizes"]
    mine, other = twins(ours, theirs, inputs, units, **batch["options"], dtype=torch.float64)
    lead = (batch["steps"], len(batch["lengths"]))
    if batch["options"]["batch_first"]:
        lead = lead[::-1]
    x = torch.randn(*lead, inputs, dtype=torch.float64)
    states = initial(other, len(batch["lengths"]))
    found, expected = (
        run(layer, x, batch["lengths"], states)
        for run, layer in ((with_lengths, mine), (packing, other))
    )
    for a, b in zip(found, expected, strict=True):
        assert close(a, b)


# ---------------------------------------------------------------------------------- bad input
BAD: list[tuple[Any, type[Exception], str]] = [
    ([4, 1, 6], RuntimeError, r"Expected `len\(lengths\)` to be equal .* got 3 \(batch_size=4\)"),
    (torch.tensor([4, 1, 6, 4, 1]), RuntimeError, r"but got 5 \(batch_size=4\)"),
    (torch.tensor(4), RuntimeError, r"lengths: expected shape \[4\], got \[\]"),
    (torch.ones(4, 1).long(), RuntimeError, r"lengths: expected shape \[4\], got \[4, 1\]"),
    (torch.tensor([4.0, 1, 6, 4]), TypeError, "lengths: expected integers, got torch.float32"),
    (torch.ones(4).bool(), TypeError, "lengths: expected integers, got torch.bool"),
    ([4.0, 1.0, 6.0, 4.0], TypeError, "lengths: expected a Tensor or a sequence .* 'float'"),
    ([True] * 4, TypeError, "lengths: expected a Tensor or a sequence of integers; 'bool'"),
    (6, TypeError, "lengths: expected a Tensor or a sequence of integers; 'int'"),
    ("4164", TypeError, "lengths: expected a Tensor or a sequence of integers; 'str'"),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(("lengths", "exception", "message"), BAD)
def test_lengths_that_do_not_fit(
    ours: Layer, theirs: Layer, lengths: Any, exception: type[Exception], message: str
) -> None:
    for batch_first in (False, True):
        x = torch.randn((B, T, I) if batch_first else (T, B, I))
        with pytest.raises(exception, match=message):
            ours(I, H, batch_first=batch_first)(x, lengths=lengths)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_lengths_where_there_is_no_padded_batch(ours: Layer, theirs: Layer) -> None:
    with pytest.raises(ValueError, match="lengths: expected a batched 3-D input, got an unbatched"):
        ours(I, H)(torch.randn(T, I), lengths=[T])
    packed = pack_padded_sequence(torch.randn(T, B, I), torch.tensor([6, 5, 2, 1]))
    with pytest.raises(ValueError, match="lengths: a PackedSequence has its own"):
        ours(I, H)(packed, lengths=[6, 5, 2, 1])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("lengths", [[4, 0, 6, 4], [4, 7, 6, 4], [4, -1, 6, 4]])
@pytest.mark.parametrize("grad", [False, True])
def test_lengths_out_of_range(ours: Layer, theirs: Layer, lengths: list[int], grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        for given in (lengths, torch.tensor(lengths)):
            with pytest.raises(RuntimeError, match="lengths must be from 1 to"):
                ours(I, H)(torch.randn(T, B, I), lengths=given)


def test_lengths_only_by_name() -> None:
    layer: Any = rnncells.GRU(I, H)
    with pytest.raises(TypeError, match="positional argument"):
        layer(torch.randn(T, B, I), None, LENGTHS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lengths'"):
        nn.GRU(I, H)(torch.randn(T, B, I), lengths=LENGTHS)  # what is ours alone


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_lengths_in_the_place_of_states(ours: Layer, theirs: Layer, batch: int) -> None:
    """They are refused as states that do not fit, and the message says where lengths go."""
    layer, x = ours(I, H), torch.randn(T, batch, I)
    hint = "; lengths are given by keyword, lengths=$"
    for lengths in ([T] * batch, (T,) * batch, torch.tensor([T] * batch)):
        with pytest.raises((TypeError, RuntimeError), match=hint):
            layer(x, lengths)
    for states in ([], torch.randn(batch), [torch.randn(1, batch, H)] * 3):
        with pytest.raises((TypeError, RuntimeError)) as raised:
            layer(x, states)
        assert "lengths" not in str(raised.value)


def test_lengths_are_taken_as_they_were_at_the_call() -> None:
    """NumPy writes into a tensor without anybody being told; BPTT keeps to the call's lengths."""
    layer, x = rnncells.GRU(3, 5), torch.randn(4, 2, 3, requires_grad=True)
    own = numpy.array([4, 2])
    y, _ = layer(x, lengths=torch.from_numpy(own))
    own[:] = 4
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert not dx[2:, 1].any()


def test_a_list_of_lengths_knows_no_default_device() -> None:
    layer, x = rnncells.GRU(3, 5), torch.randn(4, 2, 3)
    expected = layer(x, lengths=[4, 2])[0]
    with torch.device("meta"):
        assert torch.equal(layer(x, lengths=[4, 2])[0], expected)
