"""What each cell declares, and what an option changes about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from rnncells.reference import steps
from rnncells.reference.steps import States
from rnncells.reference.variants import PLAIN, Terms, Variant

Step = Callable[..., States]


@dataclass(eq=False)  # neither frozen nor with an object as a default: torch 2.11 traces it
class Cell:
    """A cell as the specification knows it: its step, and the order of its gates and states.

    Calling it takes one step: ``CELLS["gru"](x, (h,), w_ih, w_hh, b_ih, b_hh)``.

    Attributes:
        step: takes ``x, states, w_ih, w_hh, b_ih, b_hh`` and returns the states after it; a cell
            with options or extras also takes ``terms``, a :class:`rnncells.reference.Terms`.
        gates, states: their names, in order; the hidden state is the first.
        extras: further parameters: their names, and how many times H each has. They come last in
            the list of a direction's weights.
        variant: its options; None for none.
        per_unit_recurrence: ``w_hh`` is [gates * H], values of the units, and there is no recurrent
            product.
        positive: states that are sums of positive numbers, and so are drawn above zero by
            :mod:`rnncells.testing`.
        kinked: its activation has a kink, as ReLU has; :mod:`rnncells.testing` keeps clear of it.
    """

    step: Step
    gates: tuple[str, ...]
    states: tuple[str, ...]
    extras: tuple[tuple[str, int], ...] = ()
    variant: Variant | None = None
    per_unit_recurrence: bool = False
    positive: tuple[str, ...] = ()
    kinked: bool = False

    def __post_init__(self) -> None:
        named: dict[str, object] = {"gates": self.gates, "states": self.states}
        for name, value in named.items():
            if not isinstance(value, (tuple, list)) or not value:
                raise TypeError(f"{name}: expected their names, as in ('f', 'n'), got {value!r}")

    def __call__(
        self,
        x: Tensor,
        states: States,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
        *extras: Tensor,
        mask: Tensor | None = None,
    ) -> States:
        if (self.variant or PLAIN) == PLAIN and mask is None and not extras:
            return self.step(x, states, w_ih, w_hh, b_ih, b_hh)
        named = zip([name for name, _ in self.extras], extras, strict=True)
        terms = Terms(self.variant or PLAIN, dict(named), mask)
        return self.step(x, states, w_ih, w_hh, b_ih, b_hh, terms=terms)


CELLS: dict[str, Cell] = {
    "rnn_tanh": Cell(steps.rnn_tanh, gates=("h",), states=("h",)),
    "rnn_relu": Cell(steps.rnn_relu, gates=("h",), states=("h",), kinked=True),
    "lstm": Cell(steps.lstm, gates=("i", "f", "g", "o"), states=("h", "c")),
    "gru": Cell(steps.gru, gates=("r", "z", "n"), states=("h",)),
    "mgu": Cell(steps.mgu, gates=("f", "n"), states=("h",)),
    "indrnn": Cell(
        steps.indrnn, gates=("h",), states=("h",), per_unit_recurrence=True, kinked=True
    ),
    "slstm": Cell(
        steps.slstm, gates=("i", "f", "z", "o"), states=("h", "c", "n", "m"), positive=("n",)
    ),
}

# Those whose step asks its Terms for activations and norms; every other cell has its own alone.
_VARIED = ("rnn_tanh", "rnn_relu", "lstm", "gru", "mgu", "indrnn")


def declaration(cell: str | Cell, variant: Variant = PLAIN) -> Cell:
    """The cell of a name in :data:`CELLS`, with its options; one's own cell is its own declaration.

    The options change the declaration so: with ``layer_norm="gates"`` it has the extras
    ``norm_ih`` and ``norm_hh`` [gates * H], scales, and the LSTM ``norm_c`` and ``norm_c_shift``
    [H]; with ``"preactivation"`` ``norm`` and ``norm_shift`` [gates * H]; with ``peephole``
    ``peephole`` [3 * H], of i, f and o; with ``coupled`` the gates are f, g, o, and ``peephole``
    [2 * H] of f and o.

    Raises:
        KeyError: for an unknown name.
        ValueError: for an option that the cell does not have, or two that exclude each other.
    """
    if isinstance(cell, Cell):
        if variant != PLAIN:
            raise ValueError("variant: a Cell brings its own, and none can be given beside it")
        return cell
    found = CELLS[cell]
    if variant == PLAIN:
        return found
    for problem in _problems(cell, variant):
        raise ValueError(problem)
    gates = found.gates[1:] if variant.coupled else found.gates
    step = found.step if variant.reset_after else steps.gru_reset_before
    extras, per_unit = _extras(cell, len(gates), variant), found.per_unit_recurrence
    return Cell(step, gates, found.states, extras, variant, per_unit, found.positive)


def _extras(cell: str, gates: int, variant: Variant) -> tuple[tuple[str, int], ...]:
    extras = []
    if variant.layer_norm == "gates":
        extras += [("norm_ih", gates), ("norm_hh", gates)]
        if cell == "lstm":
            extras += [("norm_c", 1), ("norm_c_shift", 1)]
    if variant.layer_norm == "preactivation":
        extras += [("norm", gates), ("norm_shift", gates)]
    if variant.peephole:
        extras += [("peephole", gates - 1)]  # every gate but the candidate
    return tuple(extras)


def _problems(cell: str, variant: Variant) -> Iterator[str]:
    """What the cell does not have, and what does not go together, in words."""
    norm, own = variant.layer_norm, cell not in _VARIED
    gated = cell in ("lstm", "gru", "mgu")
    two_products = cell == "mgu" or not variant.reset_after
    if variant.activation is not None and own:
        yield f"activation: '{cell}' has its own and no other"
    if variant.recurrent_activation is not None and not gated:
        yield f"recurrent_activation: '{cell}' has no gates that take one"
    if not variant.reset_after and cell != "gru":
        yield f"reset_after: '{cell}' has no reset gate"
    if cell != "lstm":
        if variant.peephole:
            yield f"peephole: '{cell}' has no memory cell that gates look at"
        if variant.coupled:
            yield f"coupled: '{cell}' has no input and forget gates to couple"
        if variant.zoneout[1]:
            yield f"zoneout: for '{cell}' that of c must be 0, got {variant.zoneout[1]}"
    if norm is not None and own:
        yield f"layer_norm: '{cell}' has none"
    if norm == "gates" and cell == "indrnn":
        yield "layer_norm: 'indrnn' has no recurrent product for 'gates'"
    if norm == "gates" and two_products:
        yield (
            "layer_norm: 'gates' needs the products of all gates at once, which a cell of two "
            "product phases (reset_after=False, the minimal gated unit) does not have"
        )
    if norm == "preactivation" and variant.peephole:
        yield "layer_norm: 'preactivation' and peephole exclude each other"
