"""Bad input is refused before any kernel runs, and the message says what, what for and what came.

Where torch.nn has a type and a message, ours are the same; `TORCH` marks those, and torch.nn is
asked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import rnncells
from rnncells import cuda
from rnncells.autograd import run_layer
from rnncells.testing import make_problem

T, B, I, H = 4, 2, 3, 5
LAYERS = [(rnncells.RNN, nn.RNN), (rnncells.LSTM, nn.LSTM), (rnncells.GRU, nn.GRU)]
CELLS = [
    (rnncells.RNNCell, nn.RNNCell),
    (rnncells.LSTMCell, nn.LSTMCell),
    (rnncells.GRUCell, nn.GRUCell),
]
layers = pytest.mark.parametrize(("ours", "theirs"), LAYERS, ids=["RNN", "LSTM", "GRU"])
cells = pytest.mark.parametrize(("ours", "theirs"), CELLS, ids=["RNNCell", "LSTMCell", "GRUCell"])
Factory = Callable[..., Any]


def states(theirs: Factory, *shape: int, **options: Any) -> Any:
    state = torch.randn(*shape, **options)
    return (state, state) if theirs in (nn.LSTM, nn.LSTMCell) else state


def name(theirs: Factory) -> str:
    return theirs.__name__


def pretend_cuda(module: nn.Module) -> None:
    """Under FakeTensorMode: parameters that say they are on a device, where there need be none."""
    for parameter, value in list(module.named_parameters()):
        setattr(module, parameter, nn.Parameter(torch.empty(value.shape, device="cuda")))


# ---------------------------------------------------------------------------- forward of layers
# Each: input, states or None, exception, message; the braces are filled for each layer below.
def forward_cases(theirs: Factory) -> dict[str, tuple[Any, Any, type[Exception], str]]:
    lstm = theirs is nn.LSTM
    x = torch.randn(T, B, I)
    which = r"hidden\[0\] size" if lstm else "hidden size"
    also = "hx and cx should also be" if lstm else "hx should also be"
    return {
        "rank 1": (x[0, 0], None, ValueError, f"{name(theirs)}: Expected input to be 2D or 3D"),
        "rank 4": (x[None], None, ValueError, "Expected input to be 2D or 3D, got 4D"),
        "features": (x[..., :2], None, RuntimeError, r"input.size\(-1\) must .* Expected 3, got 2"),
        "float64 input": (
            x.double(),
            None,
            ValueError,
            r"RNN input dtype \(torch.float64\) does not match weight dtype \(torch.float32\)",
        ),
        "integer input": (x.long(), None, ValueError, r"RNN input dtype \(torch.int64\) does not"),
        "half input": (x.half(), None, ValueError, r"RNN input dtype \(torch.float16\) does not"),
        "no steps": (x[:0], None, RuntimeError, "Expected sequence length to be larger than 0"),
        "no steps unbatched": (x[:0, 0], None, RuntimeError, "Expected sequence length to be"),
        "state batch": (
            x,
            states(theirs, 1, B + 1, H),
            RuntimeError,
            rf"Expected {which} \(1, 2, 5\), got \[1, 3, 5\]",
        ),
        "state features": (
            x,
            states(theirs, 1, B, H + 1),
            RuntimeError,
            rf"Expected {which} \(1, 2, 5\), got \[1, 2, 6\]",
        ),
        "state layers": (
            x,
            states(theirs, 2, B, H),
            RuntimeError,
            rf"Expected {which} \(1, 2, 5\), got \[2, 2, 5\]",
        ),
        "state rank": (x, states(theirs, B, H), RuntimeError, f"For batched 3-D input, {also} 3-D"),
        "state rank unbatched": (
            x[:, 0],
            states(theirs, 1, 1, H),
            RuntimeError,
            f"For unbatched 2-D input, {also} 2-D",
        ),
        "input elsewhere": (
            x.to("meta"),
            None,
            RuntimeError,
            "Input and parameter tensors are not at the same device, "
            "found input tensor at meta and parameter tensor at cpu",
        ),
        "states elsewhere": (
            x,
            states(theirs, 1, B, H, device="meta"),
            RuntimeError,
            "Input and hidden tensors are not at the same device, "
            "found input tensor at cpu and hidden tensor at meta",
        ),
    }


@layers
@pytest.mark.parametrize("case", forward_cases(nn.GRU))
def test_layer_forward_as_torch_nn(ours: Factory, theirs: Factory, case: str) -> None:
    x, hx, exception, message = forward_cases(theirs)[case]
    for layer in (theirs, ours):
        with pytest.raises(exception, match=message) as raised:
            layer(I, H)(x, hx)
        assert raised.type is exception


@layers
@pytest.mark.parametrize("kind", ["list", "NoneType"])
def test_layer_input_is_no_tensor(ours: Factory, theirs: Factory, kind: str) -> None:
    with pytest.raises(TypeError, match=f"expected a Tensor or a PackedSequence, got {kind}"):
        ours(I, H)([1.0] if kind == "list" else None)


@layers
def test_layer_states_of_another_kind(ours: Factory, theirs: Factory) -> None:
    x = torch.randn(T, B, I)
    h = torch.randn(1, B, H)
    label = r"hx\[0\]" if theirs is nn.LSTM else "hx"
    message = f"{label}: expected dtype torch.float32 as the input has, got torch.float64"
    with pytest.raises(RuntimeError, match=message):
        ours(I, H)(x, states(theirs, 1, B, H, dtype=torch.float64))
    if theirs is nn.LSTM:
        with pytest.raises(RuntimeError, match=r"hx\[1\]: expected dtype .* got torch.float64"):
            ours(I, H)(x, (h, h.double()))
        with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(1, 2, 5\), got"):
            ours(I, H)(x, (h, h[:, :1]))
        with pytest.raises(TypeError, match=r"hx: expected a pair of Tensors .* got Tensor"):
            ours(I, H)(x, h)
        with pytest.raises(RuntimeError, match=r"lstm expects two hidden states .* got 3"):
            ours(I, H)(x, (h, h, h))
        with pytest.raises(TypeError, match=r"hx\[1\]: expected a Tensor, got NoneType"):
            ours(I, H)(x, (h, None))
    else:
        with pytest.raises(TypeError, match="hx: expected a Tensor, got tuple"):
            ours(I, H)(x, (h,))


@layers
@pytest.mark.filterwarnings("ignore:Complex modules")
def test_layer_complex(ours: Factory, theirs: Factory) -> None:
    layer = ours(I, H).to(torch.complex64)
    message = r"input: expected one of torch.float32, .*, torch.bfloat16, got torch.complex64"
    with pytest.raises(TypeError, match=message):
        layer(torch.randn(T, B, I, dtype=torch.complex64))


@layers
@pytest.mark.skipif(not cuda.why_missing(), reason="this build has a CUDA engine")
def test_layer_on_cuda(ours: Factory, theirs: Factory) -> None:
    layer = ours(I, H)
    with FakeTensorMode():
        pretend_cuda(layer)
        message = "input: expected a tensor on the CPU, got one on cuda:0; .* has no CUDA engine"
        with pytest.raises(NotImplementedError, match=message):
            layer(torch.empty(T, B, I, device="cuda"))


@layers
@pytest.mark.parametrize("parameter", ["bias_ih_l0", "bias_hh_l1", "weight_hh_l1"])
def test_layer_lacks_a_parameter(ours: Factory, theirs: Factory, parameter: str) -> None:
    x = torch.randn(T, B, I)
    for lose in (lambda m: setattr(m, parameter, None), lambda m: delattr(m, parameter)):
        layer = ours(I, H, 2)
        lose(layer)
        with pytest.raises(
            TypeError, match=rf"{parameter}: expected a Tensor of shape \[.*\], got"
        ):
            layer(x)


@layers
def test_layer_has_a_bad_parameter(ours: Factory, theirs: Factory) -> None:
    x = torch.randn(T, B, I)
    layer = ours(I, H)
    good = layer.weight_hh_l0
    rows = good.shape[0]
    layer.weight_hh_l0 = nn.Parameter(torch.randn(rows, H + 1))
    message = rf"weight_hh_l0: expected shape \[{rows}, 5\], got \[{rows}, 6\]"
    with pytest.raises(RuntimeError, match=message):
        layer(x)
    layer.weight_hh_l0 = nn.Parameter(good.detach().double())
    message = "weight_hh_l0: expected dtype torch.float32 as the input has, got torch.float64"
    with pytest.raises(RuntimeError, match=message):
        layer(x)
    layer.weight_hh_l0 = nn.Parameter(good.detach().to("meta"))
    with pytest.raises(RuntimeError, match=r"not at the same device, .* meta \(weight_hh_l0\)"):
        layer(x)


# ------------------------------------------------------------------------ construction of layers
@layers
@pytest.mark.parametrize(
    ("arguments", "options", "exception", "message"),
    [
        ((0, 5), {}, ValueError, "input_size must be greater than zero"),
        ((-1, 5), {}, ValueError, "input_size must be greater than zero"),
        ((3, 0), {}, ValueError, "hidden_size must be greater than zero"),
        ((3.0, 5), {}, TypeError, "input_size should be of type int, got: float"),
        ((3, "5"), {}, TypeError, "hidden_size should be of type int, got: str"),
        ((3, 5, 0), {}, ValueError, "num_layers must be greater than zero"),
        ((3, 5), {"bias": 1}, TypeError, "bias should be of type bool, got: int"),
        ((3, 5), {"batch_first": "a"}, TypeError, "batch_first should be of type bool, got: str"),
        ((3, 5), {"dropout": 1.5}, ValueError, r"dropout should be a number in range \[0, 1\]"),
        ((3, 5), {"dropout": -0.1}, ValueError, r"dropout should be a number in range \[0, 1\]"),
        ((3, 5), {"dropout": True}, ValueError, r"dropout should be a number in range \[0, 1\]"),
    ],
)
def test_layer_options_as_torch_nn(
    ours: Factory,
    theirs: Factory,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    exception: type[Exception],
    message: str,
) -> None:
    for layer in (theirs, ours):
        with pytest.raises(exception, match=message):
            layer(*arguments, **options)


def test_projections() -> None:
    for layer in (nn.LSTM, rnncells.LSTM):
        with pytest.raises(ValueError, match="proj_size should be a positive integer or zero"):
            layer(I, H, proj_size=-1)
        with pytest.raises(ValueError, match="proj_size has to be smaller than hidden_size"):
            layer(I, H, proj_size=H)
    for other in (nn.RNN, nn.GRU, rnncells.RNN, rnncells.GRU):
        with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
            other(I, H, proj_size=2)  # type: ignore[call-arg]


def test_unknown_options() -> None:
    makers: list[Factory] = [rnncells.RNN, rnncells.LSTM, rnncells.GRU]
    for maker in makers:
        with pytest.raises(TypeError, match="unexpected keyword argument 'batchfirst'"):
            maker(I, H, batchfirst=True)
    for rnn in (nn.RNN, rnncells.RNN):
        with pytest.raises(ValueError, match="Unknown nonlinearity 'sigmoid'"):
            rnn(I, H, nonlinearity="sigmoid")


# -------------------------------------------------------------------------------------- cells
def cell_cases(theirs: Factory) -> dict[str, tuple[Any, Any, type[Exception], str]]:
    lstm = theirs is nn.LSTMCell
    x = torch.randn(B, I)
    hidden = r"hx\[0\]" if lstm else "hidden"
    return {
        "rank 3": (x[None], None, ValueError, f"{name(theirs)}: Expected input to be 1D or 2D"),
        "features": (x[:, :2], None, RuntimeError, "inconsistent input_size: got 2 expected 3"),
        "state features": (
            x,
            states(theirs, B, H + 1),
            RuntimeError,
            "hidden0 has inconsistent hidden_size: got 6, expected 5",
        ),
        "state batch": (
            x,
            states(theirs, B + 1, H),
            RuntimeError,
            "Input batch size 2 doesn't match hidden0 batch size 3",
        ),
        "state rank": (
            x,
            states(theirs, 1, B, H),
            ValueError,
            f"{name(theirs)}: Expected {hidden} to be 1D or 2D, got 3D instead",
        ),
    }


@cells
@pytest.mark.parametrize("case", cell_cases(nn.GRUCell))
def test_cell_step_as_torch_nn(ours: Factory, theirs: Factory, case: str) -> None:
    x, hx, exception, message = cell_cases(theirs)[case]
    for cell in (theirs, ours):
        with pytest.raises(exception, match=message) as raised:
            cell(I, H)(x, hx)
        assert raised.type is exception


def foreign_cases(theirs: Factory) -> dict[str, tuple[Any, Any, type[Exception], str]]:
    """Where torch.nn's words are about its own products, or its error comes by accident."""
    lstm = theirs is nn.LSTMCell
    x = torch.randn(B, I)
    hx = r"hx\[0\]" if lstm else "hx"
    return {
        "no tensor": ([1.0], None, TypeError, "input: expected a Tensor, got list"),
        "integer input": (
            x.long(),
            None,
            RuntimeError,
            "input: expected dtype torch.float32 as weight_ih has, got torch.int64",
        ),
        "float64 input": (x.double(), None, RuntimeError, "input: expected dtype torch.float32"),
        "state kind": (
            x,
            states(theirs, B, H, dtype=torch.float64),
            RuntimeError,
            f"{hx}: expected dtype torch.float32 as the input has, got torch.float64",
        ),
        "state unbatched": (
            x,
            states(theirs, H),
            RuntimeError,
            f"for 2D input, {hx} should also be 2D, got 1D instead",
        ),
        "state batched": (
            x[0],
            states(theirs, 1, H),
            RuntimeError,
            f"for 1D input, {hx} should also be 1D, got 2D instead",
        ),
        "input elsewhere": (x.to("meta"), None, RuntimeError, "not at the same device"),
        "states elsewhere": (
            x,
            states(theirs, B, H, device="meta"),
            RuntimeError,
            rf"not at the same device, .* cpu and hidden tensor at meta \({hx}\)",
        ),
        "state number": (
            x,
            torch.randn(B, H) if lstm else (torch.randn(B, H),),
            TypeError,
            "hx: expected a pair of Tensors" if lstm else "hx: expected a Tensor, got tuple",
        ),
    }


@cells
@pytest.mark.parametrize("case", foreign_cases(nn.GRUCell))
def test_cell_step(ours: Factory, theirs: Factory, case: str) -> None:
    x, hx, exception, message = foreign_cases(theirs)[case]
    with pytest.raises(exception, match=message):
        ours(I, H)(x, hx)


@cells
@pytest.mark.skipif(not cuda.why_missing(), reason="this build has a CUDA engine")
def test_cell_on_cuda(ours: Factory, theirs: Factory) -> None:
    cell = ours(I, H)
    with FakeTensorMode():
        pretend_cuda(cell)
        with pytest.raises(NotImplementedError, match=r"on cuda:0; .* has no CUDA engine"):
            cell(torch.empty(B, I, device="cuda"))


@cells
@pytest.mark.parametrize("parameter", ["weight_ih", "weight_hh"])
def test_cell_lacks_a_parameter(ours: Factory, theirs: Factory, parameter: str) -> None:
    cell = ours(I, H)
    setattr(cell, parameter, None)
    with pytest.raises(TypeError, match=f"{parameter}: expected a Tensor of shape .* got nothing"):
        cell(torch.randn(B, I))


@cells
@pytest.mark.parametrize("parameter", ["bias_ih", "bias_hh"])
def test_cell_has_lost_a_bias(ours: Factory, theirs: Factory, parameter: str) -> None:
    for maker in (theirs, ours):
        cell = maker(I, H)
        delattr(cell, parameter)
        with pytest.raises(AttributeError, match=f"has no attribute '{parameter}'"):
            cell(torch.randn(B, I))


def test_cell_nonlinearity() -> None:
    for cell in (nn.RNNCell, rnncells.RNNCell):
        with pytest.raises(RuntimeError, match="Unknown nonlinearity: sigmoid"):
            cell(I, H, nonlinearity="sigmoid")(torch.randn(B, I))


# ------------------------------------------------------------------------------- the operators
Arguments = dict[str, Any]


def layer_arguments() -> Arguments:
    problem = make_problem("lstm", T, B, I, H)
    return {
        "x": problem.inputs["x"],
        "states": [problem.inputs[name] for name in problem.state_names],
        "weights": [problem.inputs[name] for name in problem.weight_names],
        "lengths": None,
        "batch_sizes": None,
        "cell": "lstm",
        "bidirectional": False,
    }


def packed(arguments: Arguments, batch_sizes: list[int]) -> Arguments:
    sizes = torch.tensor(batch_sizes, dtype=torch.int64)
    return {"x": arguments["x"].flatten(0, 1), "batch_sizes": sizes}


def swapped(values: list[Tensor], place: int, value: Tensor) -> list[Tensor]:
    return [*values[:place], value, *values[place + 1 :]]


OPERATOR_CASES: dict[str, tuple[Callable[[Arguments], Arguments], str]] = {
    "cell": (lambda a: {"cell": "lstmm"}, "unknown cell 'lstmm'; known: .*gru"),
    "rank": (lambda a: {"x": a["x"][0]}, r"input must have shape \[T, B, I\], got \[2, 3\]"),
    "no steps": (lambda a: {"x": a["x"][:0]}, "input has no time steps"),
    "half": (lambda a: {"x": a["x"].half()}, "weight_ih must have the input's dtype Half"),
    "integers": (lambda a: {"x": a["x"].long()}, "input must be float32, .* bfloat16, got Long"),
    "features": (
        lambda a: {"x": a["x"][..., :2]},
        r"weight_ih must have shape \[20, 2\], got \[20, 3\]",
    ),
    "no weights": (lambda a: {"weights": []}, "expected 2 weights .* or 4 .*, got 0"),
    "odd number": (
        lambda a: {"weights": a["weights"] + a["weights"], "bidirectional": False},
        "expected 2 weights .*, got 8",
    ),
    "missing bias": (
        lambda a: {"weights": a["weights"][:3]},
        r"weight_hr must have shape \[5, 5\], got \[20\]",
    ),
    "projection": (
        lambda a: {"weights": [*a["weights"], a["weights"][1][:3, :3]]},
        r"weight_hr must have shape \[5, 5\], got \[3, 3\]",
    ),
    "projection of a cell that has none": (
        lambda a: {"cell": "gru", "weights": a["weights"][:3]},
        "the cell 'gru' cannot have a projection",
    ),
    "number of lengths": (
        lambda a: {"lengths": torch.tensor([4])},
        "lengths must have one entry for each of the 2 sequences, got 1",
    ),
    "length of zero": (
        lambda a: {"lengths": torch.tensor([4, 0])},
        "lengths must be from 1 to 4, the number of time steps, got 0",
    ),
    "length beyond the input": (
        lambda a: {"lengths": torch.tensor([5, 1])},
        "lengths must be from 1 to 4, .* got 5",
    ),
    "lengths' dtype": (
        lambda a: {"lengths": torch.tensor([4.0, 1.0])},
        "lengths must be int64, got Float",
    ),
    "lengths' rank": (
        lambda a: {"lengths": torch.tensor([[4, 1]])},
        r"lengths must have one dimension, got \[1, 2\]",
    ),
    "packed rank": (
        lambda a: {"batch_sizes": torch.tensor([2, 2, 2, 2])},
        r"a packed input must have shape \[N, I\], got \[4, 2, 3\]",
    ),
    "packed without states": (
        lambda a: packed(a, [2, 2, 2, 2]) | {"states": []},
        "a packed input needs initial states",
    ),
    "packed with lengths": (
        lambda a: packed(a, [2, 2, 2, 2]) | {"lengths": torch.tensor([4, 4])},
        "lengths are of no use to a packed input",
    ),
    "batch sizes' sum": (
        lambda a: packed(a, [2, 2, 2, 1]),
        "batch_sizes must sum to the 8 rows of the input, got 7",
    ),
    "batch sizes that grow": (
        lambda a: packed(a, [2, 1, 2, 2]),
        "batch_sizes must not grow, got 2 after 1",
    ),
    "batch size of zero": (
        lambda a: packed(a, [2, 2, 2, 2, 0]),
        "batch_sizes must be above zero, got 0",
    ),
    "no batch sizes": (lambda a: packed(a, []), "batch_sizes must sum to the 8 rows"),
    "states for packed rows": (
        lambda a: packed(a, [4, 4]),
        r"state 0 must have shape \[1, 4, 5\], got \[1, 2, 5\]",
    ),
    "one direction's weights": (lambda a: {"bidirectional": True}, r"weight_ih \(reverse\) must"),
    "vector for a matrix": (
        lambda a: {"weights": swapped(a["weights"], 1, a["weights"][2])},
        r"weight_hh must have two dimensions, got \[20\]",
    ),
    "hidden size": (
        lambda a: {"weights": swapped(a["weights"], 1, a["weights"][1][:-1])},
        r"weight_hh must have shape \[20, 5\], got \[19, 5\]",
    ),
    "bias": (
        lambda a: {"weights": swapped(a["weights"], 3, a["weights"][3][:-1])},
        r"bias_hh must have shape \[20\], got \[19\]",
    ),
    "weight's dtype": (
        lambda a: {"weights": swapped(a["weights"], 0, a["weights"][0].float())},
        "weight_ih must have the input's dtype Double, got Float",
    ),
    "another cell's weights": (
        lambda a: {"cell": "gru", "states": []},
        r"weight_ih must have shape \[15, 3\], got \[20, 3\]",
    ),
    "number of states": (lambda a: {"states": a["states"][:1]}, "expected 2 tensors .*, got 1"),
    "state's shape": (
        lambda a: {"states": swapped(a["states"], 1, a["states"][1][:, :1])},
        r"state 1 must have shape \[1, 2, 5\], got \[1, 1, 5\]",
    ),
    "state's dtype": (
        lambda a: {"states": swapped(a["states"], 0, a["states"][0].float())},
        "state 0 must have the input's dtype Double, got Float",
    ),
}


@pytest.mark.parametrize("case", OPERATOR_CASES)
@pytest.mark.parametrize("grad", [False, True])
def test_layer_function(case: str, grad: bool) -> None:
    arguments = layer_arguments()
    change, message = OPERATOR_CASES[case]
    arguments |= change(arguments)
    if grad and arguments["weights"]:
        arguments["weights"][0] = arguments["weights"][0].clone().requires_grad_()
    with pytest.raises(RuntimeError, match=message):
        run_layer(**arguments)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("grad_y", lambda t: t[..., :-1], r"grad_y must have shape \[4, 2, 5\], got \[4, 2, 4\]"),
        ("grad_y", lambda t: t.float(), "grad_y must have the input's dtype Double, got Float"),
        ("grad_last", lambda ts: ts[:1], "expected 2 tensors .*grad_last.* got 1"),
        (
            "grad_last",
            lambda ts: [t[:, 1:] for t in ts],
            r"grad_last 0 must have shape \[1, 2, 5\]",
        ),
        ("y", lambda t: t[1:], r"y must have shape \[4, 2, 5\], got \[3, 2, 5\]"),
        ("reserve", lambda t: t[:, 1:], r"reserve must have shape \[1, 4, 2, 25\], got \[1, 3"),
        ("reserve", lambda t: t.new_empty(0), r"reserve must have shape .*, got \[0\]"),
        ("needs", lambda flags: flags[1:], "needs must have 7 entries, got 6"),
    ],
)
def test_backward_operator(name: str, change: Callable[[Any], Any], message: str) -> None:
    given = layer_arguments()
    y, last, reserve = torch.ops.rnncells.layer_forward(**given, save=True)
    count = 1 + len(given["states"]) + len(given["weights"])
    arguments = {"grad_y": y, "grad_last": last, **given, "y": y, "reserve": reserve}
    arguments["needs"] = [1] * count
    assert len(torch.ops.rnncells.layer_backward(**arguments)) == count
    arguments[name] = change(arguments[name])
    with pytest.raises(RuntimeError, match=message):
        torch.ops.rnncells.layer_backward(**arguments)
