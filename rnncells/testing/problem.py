"""Problems: one layer's arguments with the gradients that its outputs receive, and how to run them.

Everything a problem holds is in float64; :func:`evaluate` converts it to the dtype that an
implementation is to compute in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncells import reference
from rnncells.reference import Cell
from rnncells.testing.shapes import Shapes, named_outputs

Runner = Callable[..., tuple[Tensor, Sequence[Tensor]]]
Loss = Literal["y", "last", "both", "sum", "positive"]

# Their mantissas are shorter than float32's, in which make_problem draws.
HALF = (torch.float16, torch.bfloat16)

TORCH_LAYERS: dict[str, type[RNNBase]] = {
    "rnn_tanh": nn.RNN,
    "rnn_relu": nn.RNN,
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}


@dataclass(frozen=True)
class LayerShape:
    """The sizes of one layer: what the length of its sums depends on.

    ``steps`` is T, ``rows`` the time steps of all sequences together (T * B where all are full),
    ``outputs`` is P: ``units`` without a projection.
    """

    steps: int
    rows: int
    inputs: int
    units: int
    outputs: int
    gates: int
    directions: int
    projected: bool


@dataclass(frozen=True, eq=False)
class Problem:
    """One layer's arguments, in the layout of :func:`rnncells.reference.layer`, all in float64.

    ``inputs`` holds ``x``, the initial states and the weights by name, in the order of the
    arguments; ``cotangents`` the gradients of the outputs ``y`` and the last states that the loss
    looks at. ``lengths`` [B] or ``batch_sizes`` [T], int64, are there where the sequences are
    padded or packed. ``cell`` is a name in :data:`rnncells.reference.CELLS`; where it is none of
    those, ``own`` is the cell and ``cell`` what to call it.
    """

    cell: str
    bidirectional: bool
    inputs: dict[str, Tensor]
    cotangents: dict[str, Tensor]
    lengths: Tensor | None = None
    batch_sizes: Tensor | None = None
    own: Cell | None = None

    @property
    def given(self) -> str | Cell:
        """The cell as a run is given it: its name, or one's own itself."""
        return self.cell if self.own is None else self.own

    @property
    def declared(self) -> Cell:
        """The cell's declaration."""
        return reference.declaration(self.given)

    @property
    def state_names(self) -> list[str]:
        return [f"{state}_0" for state in self.declared.states if f"{state}_0" in self.inputs]

    @property
    def weight_names(self) -> list[str]:
        others = {"x", *self.state_names}
        return [name for name in self.inputs if name not in others]

    @property
    def output_names(self) -> list[str]:
        return ["y", *(f"{state}_n" for state in self.declared.states)]

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs, by their names."""
        shape = self.shape
        y = (*self.inputs["x"].shape[:-1], shape.directions * shape.outputs)
        others = [shape.units] * (len(self.declared.states) - 1)
        last = [(shape.directions, self.batch, width) for width in (shape.outputs, *others)]
        return dict(zip(self.output_names, (y, *last), strict=True))

    @property
    def batch(self) -> int:
        """The number of sequences."""
        packed = self.batch_sizes
        return self.inputs["x"].shape[1] if packed is None else int(packed[0])

    @property
    def shape(self) -> LayerShape:
        """The layer's sizes."""
        x, weight, recurrent = (self.inputs[name] for name in ("x", "w_ih", "w_hh"))
        if self.batch_sizes is not None:
            steps, rows = len(self.batch_sizes), int(x.shape[0])
        else:
            steps, rows = x.shape[0], x.shape[0] * x.shape[1]
            rows = rows if self.lengths is None else int(self.lengths.sum())
        gates = len(self.declared.gates)
        per_unit = self.declared.per_unit_recurrence
        return LayerShape(
            steps=steps,
            rows=rows,
            inputs=weight.shape[1],
            units=weight.shape[0] // gates,
            outputs=recurrent.shape[-1] // (gates if per_unit else 1),
            gates=gates,
            directions=2 if self.bidirectional else 1,
            projected="w_hr" in self.inputs,
        )

    @property
    def outside(self) -> Tensor | None:
        """Where a padded ``x`` is behind a sequence's end, [T, B]; None where nothing is padded."""
        if self.lengths is None:
            return None
        return torch.arange(self.inputs["x"].shape[0]).unsqueeze(1) >= self.lengths

    def __str__(self) -> str:
        shape, packed = self.shape, self.batch_sizes
        words = [self.cell, f"T={shape.steps}", f"B={self.batch}"]
        words += [f"I={shape.inputs}", f"H={shape.units}"]
        words += [f"P={shape.outputs}"] if shape.projected else []
        words += ["bidirectional"] if self.bidirectional else []
        words += [f"lengths={self.lengths.tolist()}"] if self.lengths is not None else []
        words += [f"batch_sizes={packed.tolist()}"] if packed is not None else []
        return " ".join(words)

    def rounded(self, dtype: torch.dtype) -> Problem:
        """The same problem with the values that ``dtype`` has: for float16 and bfloat16."""

        def to(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: cast(cast(value, dtype), value.dtype) for name, value in values.items()}

        return replace(self, inputs=to(self.inputs), cotangents=to(self.cotangents))


def make_problem(
    cell: str | Cell,
    T: int,
    B: int,
    I: int,
    H: int,
    *,
    bidirectional: bool = False,
    bias: bool = True,
    states: bool = True,
    loss: Loss = "both",
    lengths: Literal["draw"] | Sequence[int] | None = None,
    packed: bool = False,
    proj: int = 0,
    padding: float = math.nan,
    kinks: bool = False,
    seed: int = 0,
) -> Problem:
    """Draws a problem; the values are representable in float32, so that float32 and float64 compute
    on the same ones. :meth:`Problem.rounded` makes them representable in 16 bits.

    Args:
        cell: a name in :data:`rnncells.reference.CELLS`, or a cell of one's own.
        T, B, I, H: time steps, batch, input size, hidden size.
        bidirectional, bias: of the layer.
        states: whether initial states are given.
        loss: which outputs the loss looks at: the sequence ``"y"``, the ``"last"`` states, or
            ``"both"``, weighted at random from -1 to 1; or the sequence weighted alike, ``"sum"``:
            what ``y.sum().backward()`` sends, ones without strides; or ``"positive"``, from 1/2 to
            3/2, which makes sums over time grow with every term.
        lengths: the time steps of each of the B sequences, from 1 to T and at least one of them T,
            or ``"draw"`` for such; None where all have T.
        packed: give the rows packed, [N, I] with ``batch_sizes``, in place of padded with
            ``lengths``. The sequences are put in order, the longest first.
        proj: the size P of the projection; 0 for none.
        padding: what stands in ``x`` behind a sequence's end. NaN shows whoever reads it.
        kinks: let ReLU's arguments come near zero, where a rounding may change a gradient by all
            of its value. By default each unit is driven clearly above or clearly below zero by the
            first feature.
        seed: of the draw.

    Raises:
        ValueError: ``lengths`` are not as above, or ``proj`` is given for a cell that uses its
            hidden state unit by unit.
    """
    declared = reference.declaration(cell)
    if proj and cell in ("gru", "mgu", "indrnn"):
        raise ValueError(f"proj: {cell} mixes its hidden state unit by unit, so P has to be H")
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, bound: float = 1.0) -> Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float32)
        return (2 * bound * values - bound).float().double()

    D, rows, P, bound = 1 + bidirectional, len(declared.gates) * H, proj or H, 1 / math.sqrt(H)
    inputs = {"x": uniform(T, B, I, bound=math.sqrt(3))}
    widths = dict(zip(declared.states, [P] + [H] * (len(declared.states) - 1), strict=True))
    for state in declared.states if states else ():
        inputs[f"{state}_0"] = uniform(D, B, widths[state])
        if state in declared.positive:
            inputs[f"{state}_0"] = above_zero(inputs[f"{state}_0"], torch.float32)
    for suffix in ("", "_reverse")[:D]:
        inputs[f"w_ih{suffix}"] = uniform(rows, I, bound=bound)
        per_unit = declared.per_unit_recurrence
        inputs[f"w_hh{suffix}"] = uniform(*([rows] if per_unit else [rows, P]), bound=bound)
        if bias:
            inputs[f"b_ih{suffix}"] = uniform(rows, bound=bound)
            inputs[f"b_hh{suffix}"] = uniform(rows, bound=bound)
        if proj:
            inputs[f"w_hr{suffix}"] = uniform(P, H, bound=bound)
    if declared.kinked and not kinks:
        _drive_units(inputs, I, H)

    own = cell if isinstance(cell, Cell) else None
    problem = Problem(name_of(cell), bidirectional, inputs, {}, own=own)
    cotangents = draw_cotangents(loss, problem.output_shapes, uniform)
    problem = replace(problem, cotangents=cotangents)
    if lengths is None and not packed:
        return problem
    found = draw_lengths(T, B, seed) if lengths is None or lengths == "draw" else lengths
    return _cut(problem, check_lengths(found, T, B), packed, padding)


def above_zero(drawn: Tensor, dtype: torch.dtype) -> Tensor:
    """What was drawn from -1 to 1, from 1/2 to 3/2, with the values that ``dtype`` has."""
    return (1 + drawn / 2).to(dtype).double()


def draw_cotangents(
    loss: Loss, shapes: Shapes, uniform: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """The gradients of the outputs that a loss looks at, by the outputs' names.

    Args:
        loss: see :func:`make_problem`.
        shapes: of the outputs: the sequence ``y``, and each last state.
        uniform: draws a tensor of a shape, from -1 to 1.
    """
    if loss == "sum":
        return {"y": torch.ones((), dtype=torch.float64).expand(shapes["y"])}
    if loss == "positive":
        return {"y": 1 + uniform(*shapes["y"]) / 2}
    looked_at = [name for name in shapes if loss == "both" or (loss == "y") == (name == "y")]
    return {name: uniform(*shapes[name]) for name in looked_at}


def _drive_units(inputs: dict[str, Tensor], I: int, H: int) -> None:
    """Makes the first feature near 1 with weights of +-2, and the rest small beside that."""
    inputs["x"][..., 0] = (1 + inputs["x"][..., 0] / 16).float().double()
    for name, value in inputs.items():
        if name.startswith("w_ih"):
            value.mul_(2.0 ** math.floor(math.log2(min(1.0, math.sqrt(H / I)) / 8)))
            value[0::2, 0], value[1::2, 0] = 2, -2
        elif name.startswith("w_hh"):
            value.div_(4)
        elif name.startswith("b_"):
            value.div_(8)


def draw_lengths(T: int, B: int, seed: int) -> list[int]:
    """Draws the time steps of B sequences, uniformly from 1 to T; one of them has T."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    if B:
        lengths[torch.randint(B, (1,), generator=generator)] = T
    return lengths.tolist()


def check_lengths(lengths: Sequence[int], T: int, B: int) -> Tensor:
    """The lengths as a tensor [B], int64; ValueError where they are not B from 1 to T, one of them
    T."""
    found = torch.as_tensor(lengths, dtype=torch.int64)
    if found.shape != (B,) or (B and not (found.min() >= 1 and found.max() == T)):
        raise ValueError(
            f"lengths: expected {B} numbers from 1 to {T}, one of them {T}; got {list(lengths)}"
        )
    return found


def _cut(problem: Problem, lengths: Tensor, packed: bool, padding: float) -> Problem:
    """The problem with the sequences cut to their lengths, padded or packed."""
    T = problem.inputs["x"].shape[0]
    inside = torch.arange(T).unsqueeze(1) < lengths  # [T, B]
    if not packed:
        x = problem.inputs["x"].masked_fill(~inside.unsqueeze(2), padding)
        return replace(problem, inputs=problem.inputs | {"x": x}, lengths=lengths)
    order = lengths.argsort(descending=True, stable=True)
    inside = inside[:, order]
    inputs, cotangents = dict(problem.inputs), dict(problem.cotangents)
    inputs["x"] = inputs["x"][:, order][inside]
    if "y" in cotangents:  # ones without strides stay so
        y = cotangents["y"]
        cotangents["y"] = y[0, 0].expand(int(inside.sum()), -1) if _flat(y) else y[:, order][inside]
    return replace(problem, inputs=inputs, cotangents=cotangents, batch_sizes=inside.sum(1))


def _flat(value: Tensor) -> bool:
    """Whether one value stands for all."""
    return value.dim() > 0 and not any(value.stride())


def cast(value: Tensor, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    """A copy in another dtype; one value that stands for all, with strides of zero, stays so."""
    if value.numel() and _flat(value):
        return value[(0,) * value.dim()].to(device, dtype, copy=True).expand(value.shape)
    return value.to(device, dtype, copy=True)


def evaluate(
    run: Runner,
    problem: Problem,
    dtype: torch.dtype = torch.float64,
    wrt: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Runs ``run``, forward and backward, on a problem.

    Args:
        run: an implementation with the signature of :func:`rnncells.reference.layer`. It is given
            ``lengths`` and ``batch_sizes`` only where the problem has one of them, and as ``cell``
            a name, or the :class:`rnncells.reference.Cell` where that is one's own.
        problem: its arguments.
        dtype: what they are converted to first.
        wrt: the names of the inputs that require a gradient; all by default, none for the forward
            alone.

    Returns:
        ``y``, ``h_n`` (and ``c_n``), and ``grad <name>`` for each input in ``wrt``; detached.

    Raises:
        ValueError: the dtype has 16 bits and cannot represent the problem's values; or the outputs
            of ``run`` are of wrong shapes, which the message names.
    """
    wanted = list(problem.inputs) if wrt is None else [n for n in problem.inputs if n in wrt]
    inputs = {name: cast(value, dtype) for name, value in problem.inputs.items()}
    if dtype in HALF:
        for name, value in problem.inputs.items():
            if not torch.equal(inputs[name].double().nan_to_num(), value.nan_to_num()):
                raise ValueError(f"{name} has values that {dtype} lacks; use problem.rounded")
    for name in wanted:
        inputs[name].requires_grad_()
    outputs = call(run, problem, inputs)
    found = {name: value.detach() for name, value in outputs.items()}
    if wanted:
        grads = torch.autograd.grad(
            [outputs[name] for name in problem.cotangents],
            [inputs[name] for name in wanted],
            [cast(value, dtype) for value in problem.cotangents.values()],
        )
        found |= {f"grad {name}": grad for name, grad in zip(wanted, grads, strict=True)}
    return found


def call(run: Runner, problem: Problem, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs by name of ``run`` on ``inputs``, which stand for the problem's."""
    uneven = problem.lengths is not None or problem.batch_sizes is not None
    result = run(
        inputs["x"],
        [inputs[name] for name in problem.state_names],
        [inputs[name] for name in problem.weight_names],
        problem.given,
        problem.bidirectional,
        *((problem.lengths, problem.batch_sizes) if uneven else ()),
    )
    return named_outputs(result, problem.output_shapes)


def name_of(cell: str | Cell) -> str:
    """What to call a cell: its name, or for one's own that of its step."""
    if isinstance(cell, str):
        return cell
    return getattr(cell.step, "__name__", type(cell.step).__name__)


def torch_layer(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    cell: str,
    bidirectional: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """torch.nn's layer of the cell, with the signature of :func:`rnncells.reference.layer`."""
    each = len(weights) // (2 if bidirectional else 1)
    options = torch_options(cell)
    if each % 2:
        options["proj_size"] = weights[1].shape[1]
    layer = TORCH_LAYERS[cell](
        input_size=x.shape[-1],
        hidden_size=weights[each - 1 if each % 2 else 1].shape[1],
        bias=each >= 4,
        bidirectional=bidirectional,
        dtype=x.dtype,
        **options,
    )
    names = [name for name, _ in layer.named_parameters()]
    parameters = dict(zip(names, weights, strict=True))
    hx = (tuple(states) if cell == "lstm" else states[0]) if states else None
    sequences: Any = x
    if batch_sizes is not None:
        sequences = PackedSequence(x, batch_sizes)
    elif lengths is not None:
        sequences = pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = torch.func.functional_call(layer, parameters, (sequences, hx))
    if batch_sizes is not None:
        y = y.data
    elif lengths is not None:
        y, _ = pad_packed_sequence(y, total_length=x.shape[0])
    return y, list(last) if cell == "lstm" else [last]


def torch_options(cell: str) -> dict[str, Any]:
    """What torch.nn's constructors are told besides the class."""
    return {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
