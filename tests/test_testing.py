"""The parity suite itself: right layers pass, and each planted fault is found and named."""

from __future__ import annotations

import doctest
import itertools
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pad_packed_sequence

import rnncells
import rnncells.testing
from rnncells import reference
from rnncells.autograd import run_layer
from rnncells.reference import Cell, States
from rnncells.testing import (
    Case,
    Lengths,
    Report,
    assert_layer_parity,
    assert_parity,
    evaluate,
    make_problem,
    parity_report,
    scale,
    tolerance,
    torch_layer,
)
from rnncells.testing.arithmetic import CoarseArithmetic
from rnncells.testing.case import SIZES, WIDTHS, draw_up, known_options

EXACT = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
FEW = [(1, 1, 1, 1), (3, 2, 5, 7), (9, 4, 3, 8)]


def quick_or_slow(value: Any, *quick: Any) -> Any:
    """A parameter set of its own, marked slow where it is not one of the quick ones."""
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=() if value in quick else pytest.mark.slow)


class PlainLSTM(nn.Module):
    """An LSTM written step by step, right as it stands; a fault is planted by overriding a method.

    In 16 bits it computes in float32, and rounds the states at each step.
    """

    faulty: ClassVar[set[str]] = set()  # the tensors that a fault in a subclass may show in

    def __init__(self, input_size: int, hidden_size: int, bidirectional: bool = False) -> None:
        super().__init__()
        self.hidden_size, self.directions = hidden_size, 1 + bidirectional
        like = nn.LSTM(input_size, hidden_size, bidirectional=bidirectional)
        for name, parameter in like.named_parameters():
            self.register_parameter(name, parameter)

    def weight(self, name: str, dtype: torch.dtype) -> Tensor:
        value: Tensor = getattr(self, name)
        return value.to(dtype)

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32 if dtype in HALF else dtype

    def gates(self, total: Tensor) -> tuple[Tensor, ...]:
        return total.chunk(4, dim=-1)

    def masked(self, x_t: Tensor, inside: Tensor) -> Tensor:
        return x_t.masked_fill(~inside, 0)

    def kept(self, after: Tensor, before: Tensor, inside: Tensor) -> Tensor:
        return torch.where(inside, after, before)

    def finish(self, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return y, (h, c)

    def forward(
        self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        stored, dtype = x.dtype, self.arithmetic(x.dtype)
        shape = self.directions, x.shape[1], self.hidden_size
        h_0, c_0 = hx or (x.new_zeros(shape), x.new_zeros(shape))
        outputs, lasts = [], []
        for d in range(self.directions):
            names = [f"{kind}_l0{'_reverse' * d}" for kind in ("weight_ih", "weight_hh")]
            names += [name.replace("weight", "bias") for name in names]
            w_ih, w_hh, b_ih, b_hh = (self.weight(name, dtype) for name in names)
            h, c, ys = h_0[d].to(dtype), c_0[d].to(dtype), []
            for t in range(len(x))[:: -1 if d else 1]:
                inside = torch.ones((), dtype=torch.bool)
                if lengths is not None:
                    inside = (t < lengths).unsqueeze(1)
                x_t = self.masked(x[t], inside).to(dtype)
                i, f, g, o = self.gates(linear(x_t, w_ih, b_ih) + linear(h, w_hh, b_hh))
                c_t = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h_t = torch.sigmoid(o) * torch.tanh(c_t)
                h = self.kept(h_t.to(stored).to(dtype), h, inside)
                c = self.kept(c_t.to(stored).to(dtype), c, inside)
                ys.append(self.masked(h, inside))
            outputs.append(torch.stack(ys[:: -1 if d else 1]))
            lasts.append((h, c))
        last = [torch.stack(state).to(stored) for state in zip(*lasts, strict=True)]
        return self.finish(torch.cat(outputs, dim=-1).to(stored), last[0], last[1])


WEIGHTS = {"grad weight_ih_l0", "grad weight_hh_l0", "grad bias_ih_l0", "grad bias_hh_l0"}
GRADIENTS = WEIGHTS | {"grad x", "grad h_0", "grad c_0"}
OUTPUTS = {"y", "h_n", "c_n"}


class WrongGateOrder(PlainLSTM):
    faulty = OUTPUTS | GRADIENTS

    def gates(self, total: Tensor) -> tuple[Tensor, ...]:
        i, f, g, o = super().gates(total)
        return i, g, f, o


class DetachedLastState(PlainLSTM):
    faulty = GRADIENTS | {"h_n"}

    def finish(self, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return y, (h.detach(), c)


class NoBiasGradient(PlainLSTM):
    faulty: ClassVar = {"grad bias_hh_l0"}

    def weight(self, name: str, dtype: torch.dtype) -> Tensor:
        value = super().weight(name, dtype)
        return value.detach() if name == "bias_hh_l0" else value


class Scaled(torch.autograd.Function):
    """The identity, with a gradient that is off by 1e-3."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 1.001


class GradientOff(PlainLSTM):
    faulty: ClassVar = {"grad weight_hh_l0"}

    def weight(self, name: str, dtype: torch.dtype) -> Tensor:
        value = super().weight(name, dtype)
        return Scaled.apply(value) if name == "weight_hh_l0" else value


class StateAtT(PlainLSTM):
    """The states walk on over the padding."""

    faulty = {"h_n", "c_n"} | GRADIENTS

    def kept(self, after: Tensor, before: Tensor, inside: Tensor) -> Tensor:
        return after


class Masked(torch.autograd.Function):
    """Zeros behind the end, whose backward forgets that."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, inside: Tensor) -> Tensor:
        return value.masked_fill(~inside, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class LeakingGradient(PlainLSTM):
    """What comes in behind a sequence's end flows on, into the weights' gradients."""

    faulty = GRADIENTS

    def masked(self, x_t: Tensor, inside: Tensor) -> Tensor:
        return Masked.apply(x_t, inside)


class ProductWithPadding(torch.autograd.Function):
    """A masked input whose product with the gates' gradients takes the unmasked rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, inside)
        return linear(x.masked_fill(~inside, 0), weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inside = ctx.saved_tensors
        return (grad @ weight).masked_fill(~inside, 0), grad.mT @ x, None


class LeakingPadding(nn.GRU):
    """A GRU that reads the padding in one product only: in a weight's gradient, times zero."""

    faulty: ClassVar = {"grad weight_ih_l0"}

    def forward(self, x: Tensor, hx: Any = None, lengths: Tensor | None = None) -> Any:  # type: ignore[override]
        ((w_ih, w_hh, b_ih, b_hh),) = self.all_weights
        h = x.new_zeros(x.shape[1], self.hidden_size) if hx is None else hx[0]
        ys, every = [], torch.ones(x.shape[1], 1, dtype=torch.bool)
        for t, x_t in enumerate(x):
            inside = every if lengths is None else (t < lengths).unsqueeze(1)
            total = ProductWithPadding.apply(x_t, w_ih, inside) + b_ih
            x_r, x_z, x_n = total.chunk(3, dim=-1)
            h_r, h_z, h_n = linear(h, w_hh, b_hh).chunk(3, dim=-1)
            z = torch.sigmoid(x_z + h_z)
            n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
            h = torch.where(inside, (1 - z) * n + z * h, h)
            ys.append(h.masked_fill(~inside, 0))
        return torch.stack(ys), h.unsqueeze(0)


class HalfAccumulation(PlainLSTM):
    """Everything in 16 bits: autograd sums each step's weight gradients so."""

    faulty = GRADIENTS

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


class WrongDtype(PlainLSTM):
    faulty: ClassVar = {"y"}

    def finish(self, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return y.float(), (h, c)


class StaleOutput(PlainLSTM):
    """The last state stands in the output behind a sequence's end."""

    faulty: ClassVar = {"y"}

    def masked(self, x_t: Tensor, inside: Tensor) -> Tensor:
        behind = x_t.detach().nan_to_num() if x_t.shape[-1] == self.hidden_size else 0
        return torch.where(inside, x_t, torch.as_tensor(behind, dtype=x_t.dtype))


def found(report: Report) -> set[str]:
    return {row.tensor for row in report.failures}


def in_kinds(report: Report) -> set[str]:
    return {row.case.lengths for row in report.failures}


@pytest.mark.parametrize("dtypes", [EXACT, HALF], ids=["exact", "half"])
def test_the_right_layer_passes(dtypes: tuple[torch.dtype, ...]) -> None:
    report = assert_layer_parity(PlainLSTM, "lstm", dtypes=dtypes, sizes=FEW)
    assert {case.lengths for case in report.cases} == {"full", "padded"}
    assert any(case.options.get("bidirectional") for case in report.cases)


@pytest.mark.parametrize(
    "fault",
    [WrongGateOrder, DetachedLastState, NoBiasGradient, GradientOff],
    ids=lambda f: f.__name__,
)
def test_faults_are_found_and_named(fault: type[PlainLSTM]) -> None:
    report = parity_report(fault, "lstm", sizes=FEW[1:], options=[{}])
    assert found(report) == fault.faulty
    assert in_kinds(report) == {"full", "padded"}


def test_a_detached_state_is_said_to_be_detached() -> None:
    report = parity_report(DetachedLastState, "lstm", sizes=FEW[1:], losses=["last"])
    notes = {row.note for row in report.failures if row.tensor == "h_n"}
    assert notes == {"detached: no gradient goes back from it"}
    assert "detached" in str(report)


def test_a_missing_gradient_is_said_to_be_missing() -> None:
    report = parity_report(NoBiasGradient, "lstm", sizes=FEW[1:])
    assert {row.note for row in report.failures} == {"no gradient"}
    assert found(report) == {"grad bias_hh_l0"}


@pytest.mark.parametrize("padding", [math.nan, 100.0])
@pytest.mark.parametrize("fault", [StateAtT, LeakingGradient], ids=lambda f: f.__name__)
def test_faults_of_lengths_are_found(fault: type[PlainLSTM], padding: float) -> None:
    report = parity_report(fault, "lstm", sizes=FEW[1:], options=[{}], padding=padding)
    assert found(report) == fault.faulty
    assert in_kinds(report) == {"padded"}


def test_a_product_with_the_padding_is_found() -> None:
    lengths: list[Lengths] = ["full", "padded"]
    report = parity_report(LeakingPadding, "gru", sizes=FEW[1:], options=[{}], lengths=lengths)
    assert found(report) == LeakingPadding.faulty
    assert in_kinds(report) == {"padded"}
    assert {row.note for row in report.failures} == {"not finite; is the padding, NaN, read?"}
    # Times a gradient of zero, a padding that is a number is harmless.
    assert_layer_parity(
        LeakingPadding, "gru", sizes=FEW[1:], options=[{}], lengths=lengths, padding=100.0
    )


def test_an_output_behind_the_end_is_found() -> None:
    report = parity_report(StaleOutput, "lstm", sizes=[(9, 4, 3, 8)], options=[{}])
    assert found(report) == {"y"}
    assert in_kinds(report) == {"padded"}
    assert all("not zero behind" in row.note for row in report.failures)


@pytest.mark.parametrize("dtype", HALF)
def test_sums_in_16_bits_are_found(dtype: torch.dtype) -> None:
    """The default cases have a long one, which is there for this."""
    report = parity_report(HalfAccumulation, "lstm", dtypes=[dtype], lengths=["full"], options=[{}])
    assert found(report) & WEIGHTS
    assert found(report) <= HalfAccumulation.faulty
    assert {row.case.T for row in report.failures} == {1024}
    assert_layer_parity(PlainLSTM, "lstm", cases=[row.case for row in report.failures[:1]])


def test_a_wrong_dtype_is_found() -> None:
    report = parity_report(WrongDtype, "lstm", dtypes=HALF, sizes=FEW[1:], options=[{}])
    assert found(report) == {"y"}
    assert {row.note for row in report.failures} >= {"torch.float32, expected torch.float16"}


class Shaped(nn.LSTM):
    """An LSTM whose outputs are given otherwise, and whose backward is never to be run."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        y, (h, c) = super().forward(input, hx)
        assert y.requires_grad
        y.register_hook(self.refuse)
        return self.given(y, h, c)

    def refuse(self, grad: Tensor) -> Tensor:
        raise AssertionError("a backward pass after a wrong shape")

    def given(self, y: Tensor, h: Tensor, c: Tensor) -> Any:
        raise NotImplementedError


def shaped(given: Callable[[Tensor, Tensor, Tensor], Any]) -> type[Shaped]:
    return type("Shaped", (Shaped,), {"given": lambda self, y, h, c: given(y, h, c)})


# With T=3, B=2, I=4, H=5, two layers: what is given for y, h, c, and what is to be said of it.
SHAPES: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Any], str]] = {
    "batch first": (
        lambda y, h, c: (y.transpose(0, 1), (h, c)),
        "y has shape [2, 3, 5], expected [3, 2, 5] (its first two dimensions are exchanged)",
    ),
    "transposed": (
        lambda y, h, c: (y.mT, (h, c)),
        "y has shape [3, 5, 2], expected [3, 2, 5] (its dimensions are in another order)",
    ),
    "one step short": (
        lambda y, h, c: (y[1:], (h, c)),
        "y has shape [2, 2, 5], expected [3, 2, 5]",
    ),
    "no c_n": (lambda y, h, c: (y, h), "c_n is missing, expected shape [2, 2, 5]"),
    "no layers": (
        lambda y, h, c: (y, (h[:, 0], c)),
        "h_n has shape [2, 5], expected [2, 2, 5] (its first dimension is missing)",
    ),
    "one layer": (
        lambda y, h, c: (y, (h[1:], c[1:])),
        "h_n has shape [1, 2, 5], expected [2, 2, 5]; c_n has shape [1, 2, 5], expected [2, 2, 5]",
    ),
    "a state too many": (lambda y, h, c: (y, (h, c, c)), "3 last states, expected 2"),
    "a nested state": (
        lambda y, h, c: (y, ((h, c), c)),
        "h_n is a tuple, expected a tensor of shape [2, 2, 5]",
    ),
    "no states": (
        lambda y, h, c: y,
        "expected two values, y and the last states, got a Tensor of shape [3, 2, 5]",
    ),
    "apart": (
        lambda y, h, c: (y, h, c),
        "expected two values, y and the last states, got 3 values",
    ),
}


@pytest.mark.parametrize(("given", "said"), SHAPES.values(), ids=list(SHAPES))
def test_wrong_shapes_are_said_first(given: Any, said: str) -> None:
    layer = shaped(given)(4, 5, num_layers=2)
    report = parity_report(layer, "lstm", sizes=[(3, 2)], lengths=["full"])
    assert {(row.tensor, row.note) for row in report.rows} == {("shape", said)}
    assert not report.passed
    count = len(report.cases)
    assert str(report).splitlines()[1] == (
        f"wrong shapes in {count} of {count} cases, of which nothing else was compared: {said}, "
        f"in {report.cases[0]}"
    )
    assert said in report.table()


def test_other_cases_than_those_of_a_wrong_shape_are_compared() -> None:
    """With T = 1 there is nothing to exchange in one sequence."""

    class BatchFirst(nn.GRU):
        def forward(self, input: Any, hx: Any = None) -> Any:
            y, h = super().forward(input, hx)
            return y.transpose(0, 1), h

    report = parity_report(BatchFirst(3, 5), "gru", sizes=[(1, 1), (3, 2)], lengths=["full"])
    assert found(report) == {"shape"}
    assert {case.T for case in report.cases if len(report.of(case)) == 1} == {3}
    assert {row.tensor for row in report.rows if row.case.T == 1} >= {"y", "h_n", "grad x"}
    assert [line[:4] for line in str(report).splitlines()[:2]] == ["Batc", "wron"]


def test_the_wrong_shapes_that_show_most_are_said() -> None:
    layer = shaped(lambda y, h, c: (y.transpose(0, 1), h))(3, 5)
    report = parity_report(layer, "lstm", sizes=[(1, 1), (3, 2)], lengths=["full"])
    assert {case.T for case in report.cases[:1]} == {1}
    said = "y has shape [2, 3, 5], expected [3, 2, 5] (its first two dimensions are exchanged); c_n"
    assert said in str(report).splitlines()[1]


def test_shapes_are_said_in_the_layout_of_the_layer() -> None:
    class TimeFirst(nn.GRU):
        def forward(self, input: Any, hx: Any = None) -> Any:
            y, h = super().forward(input, hx)
            return y.transpose(0, 1), h

    layer = TimeFirst(3, 5, batch_first=True)
    report = parity_report(layer, "gru", sizes=[(3, 2)], lengths=["full"])
    assert {row.note for row in report.rows} == {
        "y has shape [3, 2, 5], expected [2, 3, 5] (its first two dimensions are exchanged)"
    }


def test_a_padded_output_of_packed_sequences_is_a_wrong_shape() -> None:
    class Padded(nn.GRU):
        def forward(self, input: Any, hx: Any = None) -> Any:
            y, h = super().forward(input, hx)
            return (y if isinstance(y, Tensor) else pad_packed_sequence(y)[0]), h

    report = parity_report(Padded(3, 5), "gru", sizes=[(3, 2)], losses=["last"])
    assert {row.note for row in report.failures} == {
        "y is a Tensor of shape [3, 2, 5], expected a PackedSequence, as the input is one"
    }
    assert in_kinds(report) == {"packed", "sorted"}


@pytest.mark.parametrize("packed", [False, True])
def test_a_function_of_wrong_shapes(packed: bool) -> None:
    def short(*arguments: Any) -> Any:
        y, last = reference.layer(*arguments)
        return y[1:], last

    def function(x: Any, states: Any, weights: Any, *others: Any) -> Any:
        return short(x, states, weights, *others)

    problem = make_problem("lstm", 3, 2, 4, 6, bidirectional=True, proj=5, packed=packed)
    rows = [*problem.inputs["x"].shape[:-1]]
    wanted, got = [*rows, 10], [rows[0] - 1, *rows[1:], 10]
    with pytest.raises(ValueError, match=re.escape(f"y has shape {got}, expected {wanted}")):
        evaluate(short, problem)
    kind: Lengths = "packed" if packed else "full"
    report = parity_report(function, "lstm", sizes=[(3, 2, 4, 6)], lengths=[kind])
    assert found(report) == {"shape"}


def test_a_layer_that_raises_is_reported_and_the_cause_kept() -> None:
    class Broken(nn.GRU):
        def forward(self, input: Any, hx: Any = None) -> Any:
            if hx is None:
                raise RuntimeError("no state, no step\nand more")
            return super().forward(input, hx)

    report = parity_report(Broken(3, 5), "gru", lengths=["full"])
    assert found(report) == {"call"}
    assert {row.note for row in report.failures} == {"raised RuntimeError: no state, no step"}
    assert any(not row.failed for row in report.rows)
    with pytest.raises(AssertionError, match="no state, no step") as raised:
        assert_layer_parity(Broken(3, 5), "gru")
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_another_cell_is_found() -> None:
    report = parity_report(nn.RNN(3, 5), "rnn_relu", lengths=["full"])
    assert {"y", "h_n", "grad x"} <= found(report)


def test_what_nobody_asked_for_is_found() -> None:
    class Coupled(nn.GRU):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, input: Any, hx: Any = None) -> Any:
            y, h = super().forward(input, hx)
            return y * self.gain, h

    report = parity_report(Coupled(3, 5), "gru", lengths=["full"], losses=["y"])
    assert found(report) == {"grad gain"}


def test_the_report_reproduces_a_failure() -> None:
    report = parity_report(GradientOff, "lstm", sizes=FEW[1:], factor=1.5)
    row = report.failures[0]
    call = report.reproduce(row.case)
    assert call in str(report)
    names = {"layer": GradientOff, "parity_report": parity_report, "Case": Case, "torch": torch}
    again = eval(call, names)
    assert [str(r) for r in again.rows] == [str(r) for r in report.of(row.case)]


def test_the_report_says_what_it_found() -> None:
    good = assert_layer_parity(nn.GRU(3, 5), "gru")
    assert str(good).startswith("GRU(3, 5) against gru: 24 cases, ")
    assert "all within their limits" in str(good)
    assert good.passed
    assert not good.failures
    assert good.worst.share < 1
    bad = parity_report(GradientOff(3, 5), "lstm", lengths=["full"])
    lines = str(bad).splitlines()
    assert lines[0] == "GradientOff() against lstm: 8 of 8 cases FAIL"
    named = [line for line in lines if line.startswith("FAIL")]
    assert named
    assert all("grad weight_hh_l0" in line for line in named)
    assert sum("reproduce: " in line for line in lines) == Report.shown
    assert "and 4 failing cases more" in lines[-1]
    for case, row in itertools.product(bad.cases, bad.rows):
        assert str(case) in bad.table()
        assert str(row) in bad.table()
    assert bad.worst.tensor == "grad weight_hh_l0"


def test_nothing_held_is_no_pass() -> None:
    assert not parity_report(nn.GRU, "gru", cases=[]).passed


def test_the_factor_loosens() -> None:
    options: dict[str, Any] = {"sizes": FEW[1:], "dtypes": [torch.float32], "options": [{}]}
    assert found(parity_report(GradientOff, "lstm", **options)) == {"grad weight_hh_l0"}
    assert_layer_parity(GradientOff, "lstm", factor=1000, **options)
    assert not parity_report(nn.LSTM, "lstm", factor=1e-3, **options).passed


LAYERS: dict[str, tuple[Any, str]] = {
    "torch-tanh": (nn.RNN, "rnn_tanh"),
    "torch-relu": (partial(nn.RNN, nonlinearity="relu"), "rnn_relu"),
    "torch-lstm": (nn.LSTM, "lstm"),
    "torch-gru": (nn.GRU, "gru"),
    "ours-tanh": (rnncells.RNN, "rnn_tanh"),
    "ours-relu": (partial(rnncells.RNN, nonlinearity="relu"), "rnn_relu"),
    "ours-lstm": (rnncells.LSTM, "lstm"),
    "ours-gru": (rnncells.GRU, "gru"),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)]
)
def test_layers(name: str, dtype: torch.dtype) -> None:
    layer, cell = LAYERS[name]
    report = assert_layer_parity(layer, reference=cell, dtypes=[dtype])
    left_out = {str(each) for each in report.left_out}
    assert left_out == {
        "proj_size=2 with H=1: a projection is narrower than the hidden size"
        if cell == "lstm"
        else "proj_size: only an LSTM is held with a projection",
        *([] if name.startswith("ours") else ["padded: forward takes no lengths"]),
    }
    kinds = {"full", "packed", "sorted"} | ({"padded"} if name.startswith("ours") else set())
    assert {case.lengths for case in report.cases} == kinds
    told = {name for case in report.cases for name in case.options}
    projected = {"proj_size"} if cell == "lstm" else set()
    assert told == {"bias", "bidirectional", "num_layers"} | projected


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", [quick_or_slow(name, "torch-lstm") for name in [*LAYERS][:4]])
def test_layers_of_torch_in_16_bits(name: str) -> None:
    # Short ones: over many steps autograd sums the weights' gradients of torch.nn's layers in 16
    # bits, and they leave the limits.
    layer, cell = LAYERS[name]
    assert_layer_parity(layer, cell, dtypes=HALF, sizes=[(3, 2, 5, 7), (9, 4, 3, 16)])


@pytest.mark.parametrize("name", [quick_or_slow(name, "ours-gru") for name in [*LAYERS][4:]])
def test_our_layers_in_16_bits(name: str) -> None:
    """The long case too: 4096 rows, summed in float32."""
    layer, cell = LAYERS[name]
    report = assert_layer_parity(layer, cell, dtypes=HALF)
    assert max(case.T * case.B for case in report.cases) == 4096


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALF)
def test_kinks_in_16_bits(dtype: torch.dtype) -> None:
    """Roundings carry arguments of ReLU over its kink, and gradients jump: no false alarm."""
    layer, cell = LAYERS["torch-relu"]
    for seed in range(0, 1500, 300):
        assert_layer_parity(
            layer, cell, dtypes=[dtype], sizes=[(3, 2, 5, 7), (9, 4, 3, 16)], seed=seed
        )


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(8, 16, num_layers=2, bidirectional=True),
        nn.LSTM(4, 6, num_layers=2, dropout=0.5).eval(),
        nn.LSTM(4, 6, proj_size=3, batch_first=True, bidirectional=True),
        nn.LSTM(4, 6, dtype=torch.float16),
        rnncells.LSTM(4, 6, num_layers=3, batch_first=True),
    ],
    ids=str,
)
def test_instances(layer: nn.Module) -> None:
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert_layer_parity(layer, reference="lstm")
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype


@pytest.mark.parametrize(
    ("cell", "dtypes"),
    [
        quick_or_slow((cell, dtypes), ("lstm", EXACT), ("mgu", EXACT), ("gru", HALF))
        for cell, dtypes in itertools.product(reference.CELLS, (EXACT, HALF))
    ],
)
def test_functions(cell: str, dtypes: tuple[torch.dtype, ...]) -> None:
    sizes = FEW if (cell, dtypes) == ("gru", HALF) else None
    report = assert_layer_parity(run_layer, cell, dtypes=dtypes, sizes=sizes)
    assert {case.lengths for case in report.cases} == {"full", "padded", "packed"}
    told = {name for case in report.cases for name in case.options}
    assert told == {"bias", "bidirectional"} | ({"proj_size"} if cell == "lstm" else set())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    assert_layer_parity(nn.LSTM, "lstm", devices=["cuda"], dtypes=[torch.float64])


@pytest.mark.parametrize("sized", [True, False], ids=["factory", "module"])
def test_the_cases_have_every_pair(sized: bool) -> None:
    cases = list(
        draw_up(
            [(*s, *w) for s, w in zip(SIZES, WIDTHS, strict=True)] if sized else SIZES,
            known_options(nn.GRU, "GRU", "gru")[0] if sized else [{}],
            [torch.float32, torch.float64],
            ["cpu"],
            ["full", "packed", "sorted"],
            [True, False],
            ["both", "y", "last", "sum"],
            seed=0,
        )
    )
    seen = [
        {
            "size": case.T,
            "option": str(case.options),
            "dtype": case.dtype,
            "lengths": case.lengths,
            "states": case.states,
            "loss": case.loss,
            "strided": case.strided,
        }
        for case in cases
    ]
    for one, other in itertools.combinations(seen[0], 2):
        if not sized and {one, other} <= {"size", "dtype", "states", "loss", "strided"}:
            continue  # one module has 24 cases: every such pair with each kind of lengths is more
        pairs = {(case[one], case[other]) for case in seen}
        every = itertools.product({c[one] for c in seen}, {c[other] for c in seen})
        assert pairs == set(every), (one, other)
    assert len(cases) == (96 if sized else 24)
    assert len({case.seed for case in cases}) == len(cases)


# Other layouts


class Fused(nn.Module):
    """A GRU with one bias, weights [I, 3 H] and the gates in the order z, r, n."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        bound = 1 / math.sqrt(hidden_size)
        self.kernel = nn.Parameter(torch.empty(input_size, 3 * hidden_size).uniform_(-bound, bound))
        self.recurrent = nn.Parameter(
            torch.empty(hidden_size, 3 * hidden_size).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(3 * hidden_size).uniform_(-bound, bound))

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = x.new_zeros(x.shape[1], self.hidden_size) if h is None else h[0]
        ys = []
        for x_t in x:
            x_z, x_r, x_n = (x_t @ self.kernel + self.bias).chunk(3, dim=-1)
            h_z, h_r, h_n = (state @ self.recurrent).chunk(3, dim=-1)
            z, r = torch.sigmoid(x_z + h_z), torch.sigmoid(x_r + h_r)
            state = (1 - z) * torch.tanh(x_n + r * h_n) + z * state
            ys.append(state)
        return torch.stack(ys), state.unsqueeze(0)

    def as_the_specification_has_it(self) -> list[Tensor]:
        def reordered(columns: Tensor) -> Tensor:
            z, r, n = columns.chunk(3, dim=-1)
            return torch.cat([r, z, n], dim=-1).mT if columns.dim() > 1 else torch.cat([r, z, n])

        bias = reordered(self.bias)
        weights = [reordered(self.kernel), reordered(self.recurrent)]
        return [*weights, bias, torch.zeros_like(bias)]


def test_another_layout() -> None:
    report = assert_layer_parity(Fused, "gru", parameters=Fused.as_the_specification_has_it)
    assert {row.tensor for row in report.rows} == {
        *("y", "h_n", "grad x", "grad h_0", "grad kernel", "grad recurrent", "grad bias")
    }
    wrong = parity_report(
        Fused, "gru", parameters=lambda m: [m.kernel.mT, m.recurrent.mT, m.bias, 0 * m.bias]
    )
    assert {"y", "grad kernel", "grad bias"} <= found(wrong)


def test_parametrised_and_tied_weights() -> None:
    normed = parametrizations.weight_norm(nn.LSTM(3, 5), "weight_hh_l0")
    report = assert_layer_parity(normed, "lstm")
    tensors = {row.tensor for row in report.rows}
    assert "grad parametrizations.weight_hh_l0.original0" in tensors
    assert "grad weight_hh_l0" not in tensors

    class Tied(nn.GRU):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.bias_hh_l0 = self.bias_ih_l0

    tied = assert_layer_parity(Tied(3, 5), "gru")
    assert "grad bias_hh_l0" not in {row.tensor for row in tied.rows}


def test_frozen_parameters_are_left_out() -> None:
    layer = rnncells.GRU(3, 5)
    layer.weight_hh_l0.requires_grad_(False)
    report = assert_layer_parity(layer, "gru")
    tensors = {row.tensor for row in report.rows}
    assert "grad weight_hh_l0" not in tensors
    assert "grad weight_ih_l0" in tensors


def test_another_call() -> None:
    """A cell that is stepped by hand, and returns no sequence."""

    def call(
        module: nn.GRUCell, x: Tensor, states: list[Tensor] | None, lengths: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        h, ys = None if states is None else states[0][0], []
        for x_t in x:
            h = module(x_t, h)
            ys.append(h)
        return torch.stack(ys), [ys[-1].unsqueeze(0)]

    def weights(m: nn.GRUCell) -> list[Tensor]:
        return [m.weight_ih, m.weight_hh, m.bias_ih, m.bias_hh]

    for cell in (nn.GRUCell, rnncells.GRUCell):
        report = assert_layer_parity(cell, "gru", parameters=weights, call=call, options=[{}])
        assert {case.lengths for case in report.cases} == {"full"}


def coupled(
    x: Tensor,
    states: States,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> States:
    """A cell of one's own: a leaky memory m, and a hidden state that reads it."""
    h, m = states
    f, n = (linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)).chunk(2, dim=-1)
    f = torch.sigmoid(f)
    m = f * m + (1 - f) * torch.tanh(n)
    return torch.tanh(m), m


COUPLED = Cell(coupled, gates=("f", "n"), states=("h", "m"))


class Coupled(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, wrong: bool = False) -> None:
        super().__init__()
        self.hidden_size, self.wrong = hidden_size, wrong
        self.w = nn.Parameter(torch.randn(2 * hidden_size, input_size) / 3)
        self.u = nn.Parameter(torch.randn(2 * hidden_size, hidden_size) / 3)

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        zeros = x.new_zeros(x.shape[1], self.hidden_size)
        h, m = (zeros, zeros) if hx is None else (hx[0][0], hx[1][0])
        ys = []
        for x_t in x:
            f, n = (x_t @ self.w.T + h @ self.u.T).chunk(2, dim=-1)
            f = torch.sigmoid(f)
            m = m + (1 - f) * (torch.tanh(n) - m * (not self.wrong))
            h = torch.tanh(m)
            ys.append(h)
        return torch.stack(ys), (h.unsqueeze(0), m.unsqueeze(0))


def test_a_cell_of_ones_own() -> None:
    report = assert_layer_parity(Coupled, COUPLED, parameters=lambda m: [m.w, m.u])
    assert {"m_n", "grad m_0"} <= {row.tensor for row in report.rows}
    assert "reference, " in report.reproduce(report.cases[0])
    wrong = parity_report(partial(Coupled, wrong=True), COUPLED, parameters=lambda m: [m.w, m.u])
    assert {"y", "m_n", "grad w", "grad u"} <= found(wrong)


def test_a_function_for_a_cell_of_ones_own() -> None:
    def by_hand(x: Tensor, states: Any, weights: Any, cell: Cell, bidirectional: bool) -> Any:
        assert cell is COUPLED
        h, m = states or (x.new_zeros(1, x.shape[1], weights[1].shape[1]),) * 2
        h, m, ys = h[0], m[0], []
        for x_t in x:
            h, m = coupled(x_t, (h, m), *weights)
            ys.append(h)
        return torch.stack(ys), [h.unsqueeze(0), m.unsqueeze(0)]

    assert_layer_parity(by_hand, COUPLED, options=[{}, {"bias": False}])
    assert_layer_parity(reference.layer, COUPLED)


# What is refused


class NoCopy(nn.GRU):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("not this one")


REFUSED: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "cell": (nn.GRU, "gruu", {}, ValueError, "reference: unknown cell 'gruu'; known: .*'gru'"),
    "step": (nn.GRU, coupled, {}, TypeError, r"reference: expected .*Cell\(step, gates, states\)"),
    "layer": (3, "gru", {}, TypeError, "layer: expected a module, a factory .*, got int"),
    "no module": (lambda I, H: 3, "gru", {}, TypeError, "layer: expected a module from .*int"),
    "names": (
        Coupled(2, 3),
        "rnn_tanh",
        {},
        ValueError,
        "Coupled has no weight_ih_l0 .*parameters=",
    ),
    "gates": (nn.LSTM(3, 5), "gru", {}, ValueError, "parameters: layer 0 has weights of shapes"),
    "one bias": (
        Fused(3, 5),
        "gru",
        {"parameters": lambda m: [m.kernel.mT, m.recurrent.mT, m.bias]},
        ValueError,
        "zeros where a layer has only one",
    ),
    "not tensors": (
        Fused(3, 5),
        "gru",
        {"parameters": lambda m: [1]},
        TypeError,
        "list of tensors",
    ),
    "sizes": (nn.GRU, "gru", {"sizes": [(3, 2)]}, ValueError, r"expected \(T, B, I, H\)"),
    "own sizes": (
        nn.GRU(3, 5),
        "gru",
        {"sizes": [(3, 2, 1, 1)]},
        ValueError,
        r"expected \(T, B\),",
    ),
    "no size": (nn.GRU(3, 5), "gru", {"sizes": [(3, 0)]}, ValueError, "each at least 1"),
    "options": (nn.GRU(3, 5), "gru", {"options": [{}]}, ValueError, "options: they are for a"),
    "case": (nn.GRU, "gru", {"cases": [Case(3, 2)]}, ValueError, "cases: a size I, H is needed"),
    "own case": (nn.GRU(3, 5), "gru", {"cases": [Case(3, 2, 3, 5)]}, ValueError, "cases: no size"),
    "dropout": (
        nn.GRU(3, 5, 2, dropout=0.1),
        "gru",
        {},
        ValueError,
        "dropout=0.1 in training mode",
    ),
    "copy": (NoCopy(3, 5), "gru", {}, TypeError, r"NoCopy cannot be copied \(not this one\)"),
    "function": (run_layer, "gru", {"call": print}, ValueError, "they are for modules"),
    "option": (Coupled, COUPLED, {"options": [{"depth": 2}]}, TypeError, "unexpected keyword"),
}


@pytest.mark.parametrize(
    ("layer", "cell", "options", "error", "message"), REFUSED.values(), ids=list(REFUSED)
)
def test_refused(
    layer: Any, cell: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        parity_report(layer, cell, **options)


def test_a_refused_option_says_where_it_came_from() -> None:
    with pytest.raises(TypeError) as raised:
        parity_report(Coupled, COUPLED, options=[{"depth": 2}])
    assert raised.value.__notes__ == [
        "Coupled(1, 1, depth=2) raised; options= says what a factory is told"
    ]


@pytest.mark.parametrize("options", [{"T": 0}, {"B": 0}, {"lengths": "some"}, {"loss": "all"}])
def test_a_case_is_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Case(**{"T": 1, "B": 1} | options)


# What is left out


def left_out(report: Report) -> list[str]:
    return [str(each) for each in report.left_out]


def said_to_be_left_out(report: Report) -> list[str]:
    lines = str(report).splitlines()
    return [line.removeprefix("left out: ") for line in lines if line.startswith("left out: ")]


def refusing(refused: Callable[[nn.GRU, Any], bool]) -> type[nn.GRU]:
    """A GRU that implements no input of some kind."""

    class Refusing(nn.GRU):
        def forward(self, input: Any, hx: Any = None) -> Any:
            if refused(self, input):
                raise NotImplementedError("not this\nand more")
            return super().forward(input, hx)

    return Refusing


def is_packed(input: Any) -> bool:
    return not isinstance(input, Tensor)


def test_options_and_lengths_that_a_layer_does_not_take() -> None:
    report = assert_layer_parity(Coupled, COUPLED, parameters=lambda m: [m.w, m.u])
    takes = "Coupled takes no such option"
    is_none = "Coupled is none of torch.nn's layers, nor a subclass of theirs"
    assert left_out(report) == [
        f"bidirectional: {takes}",
        f"bias: {takes}",
        f"num_layers: {takes}",
        "proj_size: only an LSTM is held with a projection",
        "padded: forward takes no lengths",
        f"packed: {is_none}",
        f"sorted: {is_none}",
    ]
    assert said_to_be_left_out(report) == [
        f"bidirectional, bias, num_layers: {takes}",
        "proj_size: only an LSTM is held with a projection",
        "padded: forward takes no lengths",
        f"packed, sorted: {is_none}",
    ]
    for line in left_out(report):
        assert f"left out: {line}" in report.table().splitlines()


def test_what_was_asked_for_is_all_that_is_told() -> None:
    report = assert_layer_parity(Coupled, COUPLED, parameters=lambda m: [m.w, m.u],
                                 options=[{}], lengths=["full"])  # fmt: skip
    assert report.left_out == []
    assert "left out" not in str(report) + report.table()


def test_an_option_less_leaves_the_others() -> None:
    class OneWay(nn.LSTM):
        def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
            super().__init__(input_size, hidden_size, num_layers)

    report = assert_layer_parity(OneWay, "lstm", lengths=["full"])
    assert {case.options_told for case in report.cases} == {"", "num_layers=2"}
    assert said_to_be_left_out(report) == [
        f"bidirectional, bias, proj_size: {OneWay.__qualname__} takes no such option"
    ]


def test_lengths_that_a_layer_refuses() -> None:
    layer = refusing(lambda layer, input: is_packed(input))(3, 5)
    report = assert_layer_parity(layer, "gru")
    reason = "NotImplementedError: not this"
    assert left_out(report)[1:] == [f"packed: {reason}", f"sorted: {reason}"]
    assert said_to_be_left_out(report)[1:] == [f"packed, sorted: {reason} (16 cases)"]
    refused = [case for each in report.left_out for case in each.cases]
    assert {case.lengths for case in refused} == {"packed", "sorted"}
    assert len(set(refused)) == 16
    assert all(f"  {case}" in report.table().splitlines() for case in refused)
    asked = parity_report(layer, "gru", lengths=["full", "packed"])
    assert not asked.left_out
    assert found(asked) == {"call"}
    assert in_kinds(asked) == {"packed"}


def test_an_option_that_a_layer_refuses() -> None:
    layer = refusing(lambda layer, input: layer.bidirectional)
    given: dict[str, Any] = {"sizes": FEW[1:], "lengths": ["full"]}
    report = assert_layer_parity(layer, "gru", **given)
    assert {case.options_told for case in report.cases} == {"", "bias=False"}
    refused = "bidirectional=True, num_layers=2 bidirectional=True: NotImplementedError: not this"
    assert f"{refused} (8 cases)" in said_to_be_left_out(report)
    asked = parity_report(layer, "gru", options=[{}, {"bidirectional": True}], **given)
    assert {row.case.options_told for row in asked.failures} == {"bidirectional=True"}


def test_what_a_layer_does_not_take_together() -> None:
    layer = refusing(lambda layer, input: is_packed(input) and not layer.bias)
    report = assert_layer_parity(layer, "gru", sizes=FEW[1:2])
    assert "bias=False packed, bias=False sorted: NotImplementedError: not this (4 cases)" in (
        said_to_be_left_out(report)
    )


def test_a_dtype_that_a_layer_refuses() -> None:
    layer = refusing(lambda layer, input: not is_packed(input) and input.dtype == torch.float64)
    whole = refusing(lambda layer, input: layer.weight_ih_l0.dtype == torch.float64)(3, 5)
    report = assert_layer_parity(whole, "gru")
    assert {case.dtype for case in report.cases} == {torch.float32}
    assert "float64: NotImplementedError: not this (12 cases)" in said_to_be_left_out(report)
    asked = parity_report(whole, "gru", dtypes=EXACT)
    assert {row.case.dtype for row in asked.failures} == {torch.float64}
    # What is refused of the plainest cases alone is no dtype, and a failure.
    assert found(parity_report(layer(3, 5), "gru")) == {"call"}


def test_a_layer_that_refuses_everything_fails() -> None:
    with pytest.raises(AssertionError, match="24 of 24 cases FAIL") as raised:
        assert_layer_parity(refusing(lambda layer, input: True)(3, 5), "gru")
    assert isinstance(raised.value.__cause__, NotImplementedError)


def test_what_a_function_or_a_call_does_not_take() -> None:
    def full(x: Any, states: Any, weights: Any, cell: str, bidirectional: bool) -> Any:
        return reference.layer(x, states, weights, cell, bidirectional)

    few: dict[str, Any] = {"sizes": FEW[1:2]}
    name = full.__qualname__
    assert left_out(assert_layer_parity(full, "mgu", **few)) == [
        f"num_layers: {name} is one layer",
        "proj_size: only an LSTM is held with a projection",
        f"padded: {name} takes no lengths",
        f"packed: {name} takes no batch_sizes",
    ]
    packed = assert_layer_parity(run_layer, "lstm", **few)
    assert left_out(packed) == [
        "num_layers: run_layer is one layer",
        "packed rows without initial states: a function is given initial states with them",
    ]

    def call(module: nn.GRU, x: Tensor, states: Any, lengths: Any) -> Any:
        return module(x, None if states is None else states[0])

    called = assert_layer_parity(nn.GRU(3, 5), "gru", call=call)
    assert left_out(called) == ["padded: call= may heed no lengths; lengths= asks for it"]


# The pieces


def test_the_scale_does_not_vanish_where_a_gradient_does() -> None:
    """One weight, two steps, and a loss that makes its gradient cancel."""
    problem = make_problem("rnn_tanh", 2, 1, 1, 1, states=False, loss="y", bias=False)
    for name in ("w_ih", "x"):
        problem.inputs[name].fill_(0.5)
    problem.inputs["w_hh"].zero_()  # then both steps have the same gradient
    problem.cotangents["y"][:] = torch.tensor([1.0, -1.0 + 2.0**-20]).view(2, 1, 1)
    expected = evaluate(reference.layer, problem)
    largest = expected["grad w_ih"].abs().max().item()
    assert largest < 1e-6
    assert scale("grad w_ih", problem, torch.float32) > 0.02
    actual = evaluate(run_layer, problem, torch.float32, ["w_ih"])
    assert_parity(actual, expected, problem, torch.float32)
    actual["grad w_ih"] += 1e-4 * scale("grad w_ih", problem, torch.float32)
    with pytest.raises(AssertionError, match=r"FAIL grad w_ih"):
        assert_parity(actual, expected, problem, torch.float32)


def test_parity_of_some_results_needs_all_outputs_and_knows_every_name() -> None:
    problem = make_problem("gru", 2, 2, 2, 2)
    expected = evaluate(reference.layer, problem)
    some = evaluate(run_layer, problem, torch.float64, ["x"])
    assert_parity(some, expected, problem, torch.float64)
    with pytest.raises(AssertionError, match="against"):
        assert_parity(some | {"grad z": some["y"]}, expected, problem, torch.float64)
    del some["y"]
    with pytest.raises(AssertionError, match="y"):
        assert_parity(some, expected, problem, torch.float64)


def test_parity_wants_zeros_behind_the_end() -> None:
    problem = make_problem("gru", 4, 2, 2, 3, lengths=[4, 2])
    expected = evaluate(reference.layer, problem)
    actual = evaluate(reference.layer, problem)
    assert_parity(actual, expected, problem, torch.float64)
    actual["y"][3, 1, 0] = 1e-20
    with pytest.raises(AssertionError, match="not zero behind the end"):
        assert_parity(actual, expected, problem, torch.float64)


@pytest.mark.parametrize("loss", ["y", "last", "both", "sum", "positive"])
@pytest.mark.parametrize("proj", [0, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_padded_and_torch_agree(loss: Any, proj: int, bidirectional: bool) -> None:
    """The same sequences, packed and padded, through the reference and through torch.nn."""
    T, B, lengths = 6, 4, [6, 5, 5, 1]  # in order, so that packing moves no sequence
    results = []
    for packed, run in itertools.product((False, True), (reference.layer, torch_layer)):
        problem = make_problem(
            "lstm", T, B, 3, 4, bidirectional=bidirectional, loss=loss, lengths=lengths,
            packed=packed, proj=proj,
        )  # fmt: skip
        assert problem.shape.rows == sum(lengths)
        assert (problem.batch_sizes is not None) == packed
        results.append((problem, evaluate(run, problem)))
    inside = torch.arange(T).unsqueeze(1) < torch.tensor(lengths)
    for problem, actual in results[1:]:
        padded = dict(results[0][1])
        if problem.batch_sizes is not None:
            padded |= {name: padded[name][inside] for name in ("y", "grad x")}
        assert_parity(actual, padded, problem, torch.float64)


def test_problems_are_checked() -> None:
    for lengths in ([3, 2, 1], [3], [2, 2], [3, 0], [4, 3]):
        with pytest.raises(ValueError, match="lengths: expected 2 numbers from 1 to 3"):
            make_problem("gru", 3, 2, 2, 2, lengths=lengths)
    with pytest.raises(ValueError, match="proj: gru"):
        make_problem("gru", 3, 2, 2, 4, proj=2)
    problem = make_problem("gru", 3, 2, 2, 2)
    with pytest.raises(ValueError, match=r"has values that torch\.float16 lacks"):
        evaluate(reference.layer, problem, torch.float16)
    evaluate(reference.layer, problem.rounded(torch.float16), torch.float16)


def test_drawn_lengths_cover() -> None:
    problem = make_problem("gru", 5, 200, 1, 1, lengths="draw")
    assert problem.lengths is not None
    assert set(problem.lengths.tolist()) == {1, 2, 3, 4, 5}
    assert problem.outside is not None
    assert problem.inputs["x"].isnan().any(2).equal(problem.outside)
    packed = make_problem("gru", 5, 200, 1, 1, packed=True)
    assert packed.batch_sizes is not None
    assert packed.batch_sizes.tolist() == sorted(packed.batch_sizes.tolist(), reverse=True)
    assert packed.inputs["x"].shape == (int(packed.batch_sizes.sum()), 1)


def test_sixteen_bits_are_held_to_no_sum_of_their_own() -> None:
    """A sum over 4096 rows adds to float16's limit what it adds in float32, not in float16."""
    long, short = (make_problem("gru", 1, B, 3, 8) for B in (4096, 1))
    for dtype in HALF:
        eps = torch.finfo(dtype).eps
        grown = tolerance("grad w_ih", long, dtype) - tolerance("grad w_ih", short, dtype)
        assert 0 < grown < 64 * torch.finfo(torch.float32).eps
        assert 8 * eps <= tolerance("y", short, dtype) < 8.1 * eps


def test_coarse_arithmetic() -> None:
    x = torch.rand(1000, dtype=torch.float64)
    base = x.clone()
    eps = 2.0**-10
    with CoarseArithmetic(eps):
        product, total, view = x * 3, x + x, x.view(10, 100)
        view.add_(0)
    assert torch.equal(x, base)  # views are the same memory, and not touched
    assert torch.equal(total, 2 * base)
    off = (product / (3 * base) - 1) / eps
    assert off.abs().max() <= 0.5 + 1e-9
    # Uniform from -1/2 to 1/2: the mean within four of its own deviations, 1 / sqrt(12 * 1000).
    assert off.mean().abs() < 4 / math.sqrt(12 * 1000)
    assert off.std() > 0.25
    with CoarseArithmetic(eps):
        again = x * 3
    assert torch.equal(again, product)  # the same errors each time


def test_the_example_in_the_docstring() -> None:
    results = doctest.testmod(rnncells.testing)
    assert results.attempted >= 10
    assert results.failed == 0
