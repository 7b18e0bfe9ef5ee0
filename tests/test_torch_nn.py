"""What torch's own test_nn.py asks of its recurrent modules, asked of ours.

Where torch's tests compare the CPU with cuDNN, these compare our layers with torch.nn's, in
float64; `close` of test_layers says how far apart the two may be.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnncells
from tests.test_layers import PAIRS, Layer, close, flat, twins

PROJECTED = pytest.param(
    functools.partial(rnncells.LSTM, proj_size=3),
    functools.partial(nn.LSTM, proj_size=3),
    id="LSTM-projected",
)
WIDE = pytest.param(
    functools.partial(rnncells.LSTM, proj_size=40),
    functools.partial(nn.LSTM, proj_size=40),
    id="LSTM-projected",
)
RELU = pytest.param(
    functools.partial(rnncells.RNN, nonlinearity="relu"),
    functools.partial(nn.RNN, nonlinearity="relu"),
    id="RNN-relu",
)
CELLS = [
    pytest.param(rnncells.RNNCell, nn.RNNCell, id="RNNCell"),
    pytest.param(rnncells.LSTMCell, nn.LSTMCell, id="LSTMCell"),
    pytest.param(rnncells.GRUCell, nn.GRUCell, id="GRUCell"),
]


def is_lstm(layer: object) -> bool:
    return isinstance(layer, (nn.LSTM, rnncells.LSTM))


# ----------------------------------------------------------------- the 64 combinations of options
I, H, P, LAYERS, T, B = 10, 6, 3, 2, 7, 6
LENGTHS = [7, 5, 5, 2, 1, 1]


def spread(tensor: Tensor, contiguous: bool) -> Tensor:
    """The same values, with every second one in memory where not ``contiguous``."""
    return tensor if contiguous else torch.stack([torch.zeros_like(tensor), tensor], -1)[..., 1]


def run(layer: Any, x: Any, states: list[Tensor], weighing: list[Tensor]) -> list[Tensor]:
    """Outputs, last states, and the gradients of all that went in and of the weights."""
    packed = isinstance(x, PackedSequence)
    data = (x.data if packed else x).detach().requires_grad_()
    given = [state.detach().requires_grad_() for state in states]
    hx = tuple(given) if len(given) == 2 else given[0]
    y, last = layer(PackedSequence(data, *x[1:]) if packed else data, hx)
    outputs = [y.data if packed else y, *flat(last)]
    wrt = [data, *given, *itertools.chain(*layer.all_weights)]
    return [*outputs, *torch.autograd.grad(outputs, wrt, weighing)]


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, RELU, PROJECTED])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["both ways", "forward"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "time first"])
@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "spread"])
@pytest.mark.parametrize("lengths", [None, "list", "tensor"])
@pytest.mark.parametrize(  # what does not depend on chance
    "dropout", [0, pytest.param(1, marks=pytest.mark.slow)]
)
def test_all_combinations(
    ours: Layer,
    theirs: Layer,
    bias: bool,
    bidirectional: bool,
    batch_first: bool,
    contiguous: bool,
    lengths: str | None,
    dropout: int,
) -> None:
    options = {"bias": bias, "bidirectional": bidirectional, "batch_first": batch_first}
    mine, other = twins(ours, theirs, I, H, LAYERS, dropout=dropout, **options, dtype=torch.float64)
    directions, lead = 1 + bidirectional, (B, T) if batch_first else (T, B)
    outputs = other.proj_size or H
    random = functools.partial(torch.randn, dtype=torch.float64)
    x: Any = spread(random(*lead, I), contiguous)
    widths = [outputs, H] if is_lstm(other) else [outputs]
    states = [spread(random(LAYERS * directions, B, n), contiguous) for n in widths]
    weighing = [spread(random(*lead, directions * outputs), contiguous)]
    weighing += [spread(torch.randn_like(state), contiguous) for state in states]
    if lengths is not None:
        counts = LENGTHS if lengths == "list" else torch.tensor(LENGTHS)
        x = pack_padded_sequence(x, counts, batch_first)
        weighing[0] = pack_padded_sequence(weighing[0], counts, batch_first).data
    found, expected = (run(layer, x, states, weighing) for layer in (mine, other))
    for a, b in zip(found, expected, strict=True):
        assert close(a, b)


# ------------------------------------------------------------------------------ argument checks
def bad_shapes(proj_size: int = 0) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Shapes of the input, h_0 and c_0, one size of one of which is wrong."""
    good = [6, 4, 3], [2, 4, proj_size or 5], [2, 4, 5]
    yield [6, 7, 3], good[1], good[2]
    yield [6, 4, 7], good[1], good[2]
    for dim, which in itertools.product(range(3), (1, 2)):
        bad = [list(shape) for shape in good]
        bad[which][dim] = 7
        yield bad[0], bad[1], bad[2]


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_sizes_that_do_not_fit(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, 3, 5, 2)
    for x, h, c in bad_shapes(other.proj_size):
        if not is_lstm(other) and c != [2, 4, 5]:
            continue
        hx: Any = torch.randn(h)
        hx = (hx, torch.randn(c)) if is_lstm(other) else hx
        messages = []
        for layer in (mine, other):
            with pytest.raises(RuntimeError) as raised:
                layer(torch.randn(x), hx)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_projection_where_there_is_none(ours: Layer, theirs: Layer) -> None:
    if theirs is nn.LSTM:
        assert ours(30, 20, 2, proj_size=10).weight_hr_l1.shape == (10, 20)
        return
    message = "proj_size argument is only supported for LSTM, not RNN or GRU"
    for kind in (ours, theirs):
        with pytest.raises(ValueError, match=message):
            kind(30, 20, 2, proj_size=10)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_time_steps_and_no_sequences(ours: Layer, theirs: Layer, bidirectional: bool) -> None:
    layer = ours(5, 6, bidirectional=bidirectional)
    for batch in (10, 0):
        with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0 in"):
            layer(torch.ones(0, batch, 5))
    y, _ = layer(torch.ones(4, 0, 5))
    assert y.shape == (4, 0, 6 * (1 + bidirectional))
    y.sum().backward()


def test_nonlinearity() -> None:
    kinds: list[Layer] = [nn.RNN, rnncells.RNN]
    for kind in kinds:
        layer = kind(1, 10)
        assert (layer.nonlinearity, layer.mode) == ("tanh", "RNN_TANH")
        for layer in (kind(1, 10, nonlinearity="relu"), kind(2, 3, 1, "relu", True)):
            assert (layer.nonlinearity, layer.mode) == ("relu", "RNN_RELU")
        with pytest.raises(ValueError, match=r"Unknown nonlinearity 'garbage'\. Select from"):
            kind(1, 10, nonlinearity="garbage")
        with pytest.raises(TypeError):
            kind(2, 3, 1, "relu", nonlinearity="relu")


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize("batch_first", [False, True])
def test_methods_that_check_and_permute(ours: Layer, theirs: Layer, batch_first: bool) -> None:
    """What torch.nn's layers offer beside forward."""
    mine, other = twins(ours, theirs, I, H, 2, bidirectional=True, batch_first=batch_first)
    x, order = torch.randn(T, B, I), torch.tensor([2, 0, 1])
    sizes = torch.tensor([3, 2])
    for batch_sizes in (None, sizes):
        shape = other.get_expected_hidden_size(x, batch_sizes)
        assert mine.get_expected_hidden_size(x, batch_sizes) == shape
        if is_lstm(other):
            cell = other.get_expected_cell_size(x, batch_sizes)
            assert mine.get_expected_cell_size(x, batch_sizes) == cell
    shapes = [shape, cell] if is_lstm(other) else [shape]
    states = [torch.randn(n) for n in shapes]
    good: Any = tuple(states) if is_lstm(other) else states[0]
    rows = torch.randn(5, I)
    mine.check_forward_args(rows, good, sizes)
    wrong: Any = (states[0], states[1][:1]) if is_lstm(other) else states[0][:1]
    for args in ((rows, wrong, sizes), (rows[:, :2], good, sizes), (x, good, sizes)):
        messages = []
        for layer in (mine, other):
            with pytest.raises(RuntimeError) as raised:
                layer.check_forward_args(*args)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
    many: Any = tuple(torch.randn(4, 3, n) for n in (2, 5)) if is_lstm(other) else torch.randn(4, 3)
    for permutation in (None, order):
        if is_lstm(other) or permutation is None:
            pairs = zip(
                flat(mine.permute_hidden(many, permutation)),
                flat(other.permute_hidden(many, permutation)),
                strict=True,
            )
            assert all(torch.equal(a, b) for a, b in pairs)
    mine.flatten_parameters()


# -------------------------------------------------------------------------------- initial states
@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_are_zero_where_not_given(ours: Layer, theirs: Layer, bidirectional: bool) -> None:
    layer, x = ours(30, 20, 2, bidirectional=bidirectional), torch.randn(10, 32, 30)
    rows = 2 * (1 + bidirectional)
    h, c = torch.zeros(rows, 32, layer.proj_size or 20), torch.zeros(rows, 32, 20)
    given, last_given = layer(x, (h, c) if is_lstm(layer) else h)
    y, last = layer(x)
    for a, b in zip([given, *flat(last_given)], [y, *flat(last)], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_batch_dimension_is_a_batch_of_one(
    ours: Layer, theirs: Layer, batch_first: bool, bidirectional: bool
) -> None:
    layer = ours(I, H, 2, batch_first=batch_first, bidirectional=bidirectional)
    rows, place = 2 * (1 + bidirectional), 0 if batch_first else 1
    x = torch.randn(T, I)
    states = [torch.randn(rows, layer.proj_size or H), torch.randn(rows, H)][: 1 + is_lstm(layer)]
    hx: Any = tuple(states) if is_lstm(layer) else states[0]
    batched: Any = tuple(s.unsqueeze(1) for s in states)
    y, last = layer(x, hx)
    expected, expected_last = layer(x.unsqueeze(place), batched if is_lstm(layer) else batched[0])
    assert torch.equal(y, expected.squeeze(place))
    for a, b in zip(flat(last), flat(expected_last), strict=True):
        assert torch.equal(a, b.squeeze(1))


# --------------------------------------------------------------------------------------- dropout
@pytest.mark.parametrize("p", [0, 0.276, 0.731, 1])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_stands_between_the_layers(p: float, training: bool) -> None:
    """With every weight 1 the second layer counts what dropout has left of the first."""
    units = 1000
    layer: Any = rnncells.RNN(10, units, 2, bias=False, dropout=p, nonlinearity="relu")
    layer.double().train(training)
    for parameter in layer.parameters():
        parameter.data.fill_(1)
    x, hx = torch.ones(1, 1, 10).double(), torch.zeros(2, 1, units).double()
    y, last = layer(x, hx)
    assert y.min() == y.max()
    value = y[0, 0, 0].item()
    if p == 0 or not training:
        assert value == 10 * units
    elif p == 1:
        assert value == 0
    else:
        assert 8 * units < value < 12 * units  # six standard deviations and more
        left = value * (1 - p) / 10  # how many units are left: a whole number
        assert abs(left - round(left)) < 1e-9 * units
    assert (last[0] == 10).all()
    assert (last[1] == value).all()


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, WIDE])
@pytest.mark.parametrize("p", [0, 0.1234])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_after_saving(ours: Layer, theirs: Layer, p: float, training: bool) -> None:
    layer = ours(100, 100, 2, bias=False, dropout=p).train(training)
    x = torch.rand(1, 1, 100)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    loaded.flatten_parameters()
    (first, h1), (second, h2), (third, h3) = (one(x) for one in (layer, layer, loaded))
    same = p == 0 or not training
    for y in (second, third):
        assert torch.equal(first, y) == same
    for last in (h2, h3):
        pairs = list(zip(flat(h1), flat(last), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs) == same
        assert all(torch.equal(a[0], b[0]) for a, b in pairs)  # the first layer is before it


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, WIDE])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_that_changes(ours: Layer, theirs: Layer, training: bool) -> None:
    layer = ours(50, 50, 2, dropout=0).train(training)
    x = torch.rand(3, 2, 50)
    before: Tensor | None = None
    for p in (0, 0.5, 0, 0.7, 0.2, 1, 0.2, 0):
        layer.dropout = p
        y, again = layer(x)[0], layer(x)[0]
        assert torch.equal(y, again) == (p in (0, 1) or not training)
        if before is not None:
            assert torch.equal(y, before) == (not training)
        before = y


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_dropout_follows_the_generator(ours: Layer, theirs: Layer) -> None:
    layer, x = ours(I, H, 3, dropout=0.5), torch.randn(T, B, I)
    found = []
    for seed in (7, 8, 7):
        torch.manual_seed(seed)
        found.append(layer(x)[0])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    state = torch.get_rng_state()
    layer.eval()(x)
    assert torch.equal(torch.get_rng_state(), state)


# --------------------------------------------------------------------------------------- weights
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_weight_norm(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, I, H, 2, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    expected = mine(x)[0]
    names = ["weight_hh_l0", *(["weight_hr_l0"] if other.proj_size else [])]
    for name in names:
        for layer in (mine, other):
            nn.utils.weight_norm(layer, name)
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in other.named_parameters()]
    assert close(mine(x)[0], expected)
    for layer in (mine, other):
        with torch.no_grad():
            layer.weight_hh_l0_g.mul_(2)
        layer(x)[0].sum().backward()
    assert close(mine(x)[0], other(x)[0])
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert close(a.grad, b.grad)
    changed = mine(x)[0]
    for name in names:
        nn.utils.remove_weight_norm(mine, name)
    assert close(mine(x)[0], changed)
    assert isinstance(mine.weight_hh_l0, nn.Parameter)


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_tied_weights(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, I, H, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    for layer in (mine, other):
        layer.bias_ih_l0_reverse = layer.bias_ih_l0
        layer.weight_hh_l1 = layer.weight_hh_l0
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
        layer(x)[0].square().sum().backward()
        optimiser.step()
        assert layer.bias_ih_l0_reverse is layer.bias_ih_l0
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in other.named_parameters()]
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert close(a, b)
    assert close(mine(x)[0], other(x)[0])
    assert mine.float().weight_hh_l1 is mine.weight_hh_l0


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_a_weight_away_for_a_while(ours: Layer, theirs: Layer) -> None:
    layer, x = ours(I, H, 2), torch.randn(3, 2, I)
    expected = layer(x)[0]
    weight = layer.weight_hh_l0
    del layer.weight_hh_l0
    assert not hasattr(layer, "weight_hh_l0")
    layer.double().float()  # goes on with what is there
    layer.weight_hh_l0 = weight
    assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_weights_of_another_memory(ours: Layer, theirs: Layer) -> None:
    layer, x = ours(I, H, batch_first=True), torch.randn(T, B, I)
    expected = layer(x)[0]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.set_(parameter.data.clone())
    assert torch.equal(layer(x)[0], expected)
    view = layer.weight_hh_l0.data
    view.fill_(4)  # what shares its memory with a parameter changes it
    assert (layer.weight_hh_l0 == 4).all()
    assert not torch.equal(layer(x)[0], expected)


# ----------------------------------------------------------------------------------- derivatives
@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
@pytest.mark.parametrize("bias", [True, False])
def test_first_and_second_derivative(ours: Layer, theirs: Layer, bias: bool) -> None:
    layer = ours(4, 4, bias=bias, dtype=torch.float64)
    x = torch.rand(1, 3, 4, dtype=torch.float64, requires_grad=True)

    def outputs(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        y, last = layer(x)
        return (y, *flat(last))

    inputs = (x, *layer.parameters())
    assert gradcheck(outputs, inputs, fast_mode=True)
    assert gradgradcheck(outputs, inputs, fast_mode=True)


@pytest.mark.parametrize(("ours", "theirs"), [*PAIRS, PROJECTED])
def test_backward_twice_through_a_kept_graph(ours: Layer, theirs: Layer) -> None:
    layer, x = ours(I, 20, 2), torch.randn(T, B, I, requires_grad=True)
    y, _ = layer(x)
    y.sum().backward(retain_graph=True)
    wrt = [x, *layer.parameters()]
    once = [value.grad.clone() for value in wrt if value.grad is not None]
    y.sum().backward(retain_graph=True)
    for value, grad in zip(wrt, once, strict=True):
        assert value.grad is not None
        assert torch.equal(value.grad, 2 * grad)


@pytest.mark.parametrize(("ours", "theirs"), CELLS)
def test_backward_from_one_output(ours: Layer, theirs: Layer) -> None:
    """Where only one of the states has a gradient."""
    mine, other = twins(ours, theirs, I, H, dtype=torch.float64)
    x = torch.randn(B, I, dtype=torch.float64)
    for index in range(2 if theirs is nn.LSTMCell else 1):
        found = []
        for cell in (mine, other):
            leaf = x.clone().requires_grad_()
            state = flat(cell(leaf))[index]
            # torch.nn's hidden state does not depend on nothing: all parameters take part
            found.append(torch.autograd.grad(state.sum(), [leaf, *cell.parameters()]))
        for a, b in zip(*found, strict=True):
            assert close(a, b)


# ----------------------------------------------------------------------------------------- cells
@pytest.mark.parametrize(("ours", "theirs"), CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_steps_of_a_cell(ours: Layer, theirs: Layer, bias: bool) -> None:
    mine, other = twins(ours, theirs, I, 20, bias=bias, dtype=torch.float64)
    x = torch.randn(3, I, dtype=torch.float64)
    states = []
    for cell in (mine, other):
        hx: Any = torch.ones(3, 20, dtype=torch.float64)
        hx = (hx, hx) if theirs is nn.LSTMCell else hx
        for _ in range(6):
            hx = cell(x, hx)
        states.append(hx)
        torch.cat(flat(hx)).sum().backward()
    for a, b in zip(flat(states[0]), flat(states[1]), strict=True):
        assert close(a, b)
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert close(a.grad, b.grad)


@pytest.mark.parametrize(("ours", "theirs"), CELLS)
def test_sizes_that_do_not_fit_a_cell(ours: Layer, theirs: Layer) -> None:
    mine, other = twins(ours, theirs, 10, 20)
    good = torch.randn(3, 10), torch.randn(3, 20)
    cases = [(torch.randn(3, 11), good[1]), (good[0], torch.randn(3, 21))]
    cases += [(good[0], torch.randn(n, 20)) for n in (1, 5)]  # no broadcasting
    for x, h in cases:
        given = [h]
        if theirs is nn.LSTMCell:
            given = [(h, good[1]), (good[1], h), (h, h)]  # type: ignore[list-item]
        for hx in given:
            messages = []
            for cell in (mine, other):
                with pytest.raises(RuntimeError) as raised:
                    cell(x, hx)
                messages.append(str(raised.value))
            assert messages[0] == messages[1]


@pytest.mark.parametrize(("ours", "theirs"), CELLS)
def test_cell_without_a_batch_dimension(ours: Layer, theirs: Layer) -> None:
    cell = ours(I, H)
    x, states = torch.randn(I), [torch.randn(H) for _ in range(1 + (theirs is nn.LSTMCell))]
    hx: Any = tuple(states) if len(states) == 2 else states[0]
    batched: Any = tuple(s[None] for s in states) if len(states) == 2 else states[0][None]
    for given, expected in ((cell(x, hx), cell(x[None], batched)), (cell(x), cell(x[None]))):
        for a, b in zip(flat(given), flat(expected), strict=True):
            assert torch.equal(a, b[0])
