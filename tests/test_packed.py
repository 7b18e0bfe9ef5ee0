"""A PackedSequence goes in and comes out as with torch.nn's layers, sorted or not.

Both sides are in float64 and take the same sums in another order; `close` of test_layers says how
far apart they may be.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

import rnncells
from tests.test_layers import PAIRS, Layer, close, flat, twins

T, B, I, H, P = 6, 4, 3, 5, 2
SORTED, MIXED = [6, 4, 4, 1], [4, 1, 6, 4]
KINDS = [
    *PAIRS,
    pytest.param(
        functools.partial(rnncells.LSTM, proj_size=P),
        functools.partial(nn.LSTM, proj_size=P),
        id="LSTM-projected",
    ),
]


def pack(x: Tensor, lengths: list[int], batch_first: bool = False) -> PackedSequence:
    return pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False)


def initial(layer: Any, batch: int = B) -> list[Tensor]:
    """Random initial states for a layer of either side."""
    rows = layer.num_layers * (1 + layer.bidirectional)
    widths = [layer.proj_size or layer.hidden_size]
    widths += [layer.hidden_size] * isinstance(layer, (nn.LSTM, rnncells.LSTM))
    return [torch.randn(rows, batch, width, dtype=torch.float64) for width in widths]


def as_hx(states: list[Tensor]) -> Any:
    return tuple(states) if len(states) == 2 else states[0]


def run(
    layer: Any, packed: PackedSequence, states: list[Tensor] | None
) -> tuple[PackedSequence, list[Tensor], list[Tensor]]:
    """The packed output, the last states, and the gradients of everything that went in."""
    data = packed.data.clone().requires_grad_()
    given = [state.clone().requires_grad_() for state in states or []]
    y, last = layer(PackedSequence(data, *packed[1:]), as_hx(given) if given else None)
    after = flat(last)
    loss = y.data.square().sum() + sum(((k + 1) * s.sin()).sum() for k, s in enumerate(after))
    return y, after, list(torch.autograd.grad(loss, [data, *given, *layer.parameters()]))


def assert_same(a: Tensor | None, b: Tensor | None) -> None:
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        assert torch.equal(a, b)


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias", "sorted_", "given"),
    # Each value of each option with each value of each other: half of the full product.
    [c for c in itertools.product((1, 2), (0, 1), (0, 1), (0, 1), (0, 1)) if sum(c) % 2],
)
def test_output_states_and_gradients_are_torch_nn(
    ours: Layer,
    theirs: Layer,
    layers: int,
    bidirectional: int,
    bias: int,
    sorted_: int,
    given: int,
) -> None:
    options = {"bias": bool(bias), "bidirectional": bool(bidirectional), "batch_first": bool(bias)}
    mine, other = twins(ours, theirs, I, H, layers, dtype=torch.float64, **options)
    x = torch.randn(T, B, I, dtype=torch.float64)
    packed = (
        pack_padded_sequence(x, torch.tensor(SORTED))  # no permutation at all
        if sorted_
        else pack(x, MIXED)
    )
    states = initial(other) if given else None
    (y, last, grads), (expected, expected_last, expected_grads) = (
        run(layer, packed, states) for layer in (mine, other)
    )
    assert isinstance(y, PackedSequence)
    for a, b in zip(y[1:], expected[1:], strict=True):
        assert_same(a, b)
    found = [y.data, *last, *grads]
    for a, b in zip(found, [expected.data, *expected_last, *expected_grads], strict=True):
        assert close(a, b)


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_sequence_as_if_alone(ours: Layer, theirs: Layer, bidirectional: bool) -> None:
    layer = ours(I, H, 2, bidirectional=bidirectional, dtype=torch.float64)
    sequences = [torch.randn(n, I, dtype=torch.float64) for n in MIXED]
    states = initial(layer)
    y, last = layer(pack_sequence(sequences, enforce_sorted=False), as_hx(states))
    padded, lengths = pad_packed_sequence(y)
    assert lengths.tolist() == MIXED
    for b, sequence in enumerate(sequences):
        alone, own = layer(sequence, as_hx([state[:, b] for state in states]))
        assert close(padded[: MIXED[b], b], alone)
        for state, whole in zip(flat(own), flat(last), strict=True):
            assert close(whole[:, b], state)


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
@pytest.mark.parametrize("dropout", [0.4, 1.0])
def test_dropout_is_torch_nn_from_the_same_seed(ours: Layer, theirs: Layer, dropout: float) -> None:
    options = {"num_layers": 3, "dropout": dropout, "bidirectional": True}
    mine, other = twins(ours, theirs, I, H, **options, dtype=torch.float64)
    packed = pack(torch.randn(T, B, I, dtype=torch.float64), MIXED)
    found = []
    for layer in (mine, other):
        torch.manual_seed(2)
        found.append(run(layer, packed, None))
    (y, last, grads), (expected, expected_last, expected_grads) = found
    for a, b in zip(
        [y.data, *last, *grads], [expected.data, *expected_last, *expected_grads], strict=True
    ):
        assert close(a, b)
    assert close(mine.eval()(packed)[0].data, other.eval()(packed)[0].data)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("lengths", [[T], [T, T, T], [1, 1], [1, 2, 3, 4, 5, 6]])
def test_shapes_of_batches(ours: Layer, theirs: Layer, lengths: list[int]) -> None:
    mine, other = twins(ours, theirs, I, H, bidirectional=True, dtype=torch.float64)
    packed = pack(torch.randn(max(lengths), len(lengths), I, dtype=torch.float64), lengths)
    (y, last), (expected, expected_last) = mine(packed), other(packed)
    assert close(y.data, expected.data)
    for a, b in zip(flat(last), flat(expected_last), strict=True):
        assert close(a, b)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_without_gradients(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H)
    packed = pack(torch.randn(T, B, I), MIXED)
    expected = layer(packed)[0].data
    assert expected.requires_grad
    with torch.no_grad():
        y = layer(packed)[0].data
    assert not y.requires_grad
    with torch.inference_mode():
        inferred = layer(packed)[0].data
    assert inferred.is_inference()
    assert torch.equal(y, expected)
    assert torch.equal(inferred, expected)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(ours: Layer, theirs: Layer, dtype: torch.dtype) -> None:
    mine, other = twins(ours, theirs, I, H, 2)
    packed = pack(torch.randn(T, B, I), MIXED)
    expected, expected_last = other.double()(packed.double())
    y, last = mine.to(dtype)(packed.to(dtype))
    # Weights, inputs and states are rounded to the dtype (half an eps each), through 12 steps.
    limit = 12 * torch.finfo(dtype).eps
    pairs = zip([y.data, *flat(last)], [expected.data, *flat(expected_last)], strict=True)
    for a, b in pairs:
        assert a.dtype == dtype
        assert (a - b).abs().max().item() <= limit


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_meta_data_gives_shapes(ours: Layer, theirs: Layer) -> None:
    layer = ours(I, H, 2, bidirectional=True, device="meta")
    packed: Any = pack(torch.randn(T, B, I), MIXED)
    packed = packed.to(device="meta")
    y, last = layer(packed)
    assert y.data.is_meta
    assert y.data.shape == (sum(MIXED), 2 * H)
    assert not y.batch_sizes.is_meta
    for state in flat(last):
        assert state.shape == (4, B, H)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_frozen_parameters_get_no_gradient(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, I, H, 2, dtype=torch.float64)
    packed = pack(torch.randn(T, B, I, dtype=torch.float64), MIXED)
    for layer in (mine, other):
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(name == "weight_hh_l1")
        layer(packed)[0].data.square().sum().backward()
    for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
    assert close(mine.weight_hh_l1.grad, other.weight_hh_l1.grad)


# ---------------------------------------------------------------------------------- bad input
def states_of(theirs: Layer, *shape: int) -> Any:
    state = torch.randn(shape)
    return (state, state) if theirs is nn.LSTM else state


CASES: dict[str, tuple[Callable[[PackedSequence], PackedSequence], Any, type[Exception], str]] = {
    "features": (
        lambda p: PackedSequence(p.data[:, :2], *p[1:]),
        None,
        RuntimeError,
        r"input.size\(-1\) must be equal to input_size. Expected 3, got 2",
    ),
    "dtype": (
        lambda p: p.double(),
        None,
        ValueError,
        r"RNN input dtype \(torch.float64\) does not match weight dtype \(torch.float32\)",
    ),
    "rank": (
        lambda p: PackedSequence(p.data[None], *p[1:]),
        None,
        RuntimeError,
        "input must have 2 dimensions, got 3",
    ),
    "state features": (
        lambda p: p,
        (1, B, H + 1),
        RuntimeError,
        r"Expected hidden(\[0\])? size \(1, 4, 5\), got \[1, 4, 6\]",
    ),
    "state layers": (
        lambda p: p,
        (2, B, H),
        RuntimeError,
        r"Expected hidden(\[0\])? size \(1, 4, 5\), got \[2, 4, 5\]",
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lengths", [SORTED, MIXED], ids=["sorted", "mixed"])
def test_bad_input_as_torch_nn(ours: Layer, theirs: Layer, case: str, lengths: list[int]) -> None:
    change, shape, exception, message = CASES[case]
    packed = change(pack(torch.randn(T, B, I), lengths))
    hx = None if shape is None else states_of(theirs, *shape)
    # torch.nn.LSTM leaves these to its products, whose messages are about other things.
    for layer in (ours,) if theirs is nn.LSTM else (theirs, ours):
        with pytest.raises(exception, match=message):
            layer(I, H)(packed, hx)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("batch", [B - 1, B + 1])
def test_states_of_another_batch(ours: Layer, theirs: Layer, batch: int) -> None:
    # torch.nn takes the first of too many without a word, where the sequences are not sorted.
    packed = pack(torch.randn(T, B, I), MIXED)
    message = rf"Expected hidden(\[0\])? size \(1, 4, 5\), got \[1, {batch}, 5\]"
    with pytest.raises(RuntimeError, match=message):
        ours(I, H)(packed, states_of(theirs, 1, batch, H))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_bad_input_with_words_of_our_own(ours: Layer, theirs: Layer) -> None:
    layer, packed = ours(I, H), pack(torch.randn(T, B, I), MIXED)
    with pytest.raises(RuntimeError, match=r"Expected hidden(\[0\])? size \(1, 4, 5\), got \[4, 5"):
        layer(packed, states_of(theirs, B, H))
    wrong = states_of(theirs, 1, B, H)
    wrong = tuple(s.double() for s in wrong) if isinstance(wrong, tuple) else wrong.double()
    with pytest.raises(RuntimeError, match=r"expected dtype torch\.float32 as the input has"):
        layer(packed, wrong)
    with pytest.raises(TypeError, match=r"hx(\[0\])?: expected a .*, got (str|list)"):
        layer(packed, ["a", "b"] if theirs is nn.LSTM else [1.0])
    empty = PackedSequence(torch.randn(0, I), torch.tensor([], dtype=torch.int64))
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0 in RNN"):
        layer(empty)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("batch_sizes", [[4, 5], [4, 4, 3, 3, 1], [4, 4, 3]])
def test_batch_sizes_that_do_not_fit(ours: Layer, theirs: Layer, batch_sizes: list[int]) -> None:
    """Growing, of more rows than there are, and of fewer."""
    rows = torch.randn(9 if batch_sizes == [4, 5] else 12, I)
    with pytest.raises(RuntimeError, match="batch_sizes"):
        ours(I, H)(PackedSequence(rows, torch.tensor(batch_sizes)))
