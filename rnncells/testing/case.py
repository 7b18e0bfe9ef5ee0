"""Cases: what a layer is run on, and which cases a layer is held to unless they are told."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

import torch

from rnncells.testing.problem import HALF, Loss

Lengths = Literal["full", "padded", "packed", "sorted"]
Options = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """One run of a layer. Its ``repr`` makes it again; its ``str`` is a line of a report.

    Attributes:
        T, B: time steps and batch.
        I, H: input and hidden size; 0 where the layer is an instance and has its own.
        options: what a factory is told besides, as torch.nn's constructors have it: ``bias``,
            ``bidirectional``, ``num_layers``, ``proj_size``.
        dtype, device: of the layer and its input.
        lengths: ``"full"``: all sequences have T time steps. Otherwise each has its own, from 1 to
            T: ``"padded"``, with ``lengths=``; or ``"packed"``, as a PackedSequence; or
            ``"sorted"``, as a PackedSequence of sequences in order, the longest first.
        states: whether initial states are given.
        loss: the outputs that the loss looks at, and their weights: ``"y"``, ``"last"``,
            ``"both"``, ``"sum"``, ``"positive"``; see :func:`rnncells.testing.make_problem`.
        strided: whether the input lies in memory with gaps.
        seed: of what is drawn: input, states, loss and lengths, and a factory's or a function's
            weights.
    """

    T: int
    B: int
    I: int = 0
    H: int = 0
    options: Options = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    lengths: Lengths = "full"
    states: bool = True
    loss: Loss = "both"
    strided: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("lengths", Lengths), ("loss", Loss)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name}: expected one of {get_args(allowed)}, got {getattr(self, name)!r}"
                )
        if self.T < 1 or self.B < 1:
            raise ValueError(f"T and B: expected at least 1, got {self.T} and {self.B}")

    def __repr__(self) -> str:
        told = []
        for place, each in enumerate(fields(self)):
            value = getattr(self, each.name)
            default = {} if each.name == "options" else each.default
            if default is MISSING or value != default:
                told.append(f"{each.name}={value!r}" if place > 1 else f"{value!r}")
        return f"Case({', '.join(told)})"

    def __str__(self) -> str:
        words = [f"T={self.T} B={self.B}"]
        words += [f"I={self.I} H={self.H}"] if self.H else []
        words += [self.options_told] if self.options else []
        words += [self.dtype_told, self.lengths]
        words += [] if self.device == "cpu" else [self.device]
        words += ["with states" if self.states else "no states", f"loss={self.loss}"]
        return " ".join(words + ["strided"] * self.strided)

    @property
    def options_told(self) -> str:
        """The options in words."""
        return " ".join(f"{name}={value}" for name, value in self.options.items())

    @property
    def dtype_told(self) -> str:
        """The dtype in a word."""
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class LeftOut:
    """Something that a layer was not held to.

    Attributes:
        what: an option, a kind of lengths, a dtype, or some of them together.
        reason: why it was left out.
        cases: those that the layer refused; none where no case was drawn up.
    """

    what: str
    reason: str
    cases: tuple[Case, ...] = ()

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


# T, B, and I, H where they can be chosen: one step, a few, more; sizes that fill no vector.
SIZES = ((1, 1), (3, 2), (11, 5), (6, 33))
WIDTHS = ((1, 1), (5, 7), (3, 16), (33, 20))
# 4096 rows, and one step after another: sums that 16 bits cannot hold.
LONG = (1024, 4)
LONG_WIDTH = (3, 8)

OPTIONS: tuple[Options, ...] = (
    {},
    {"bidirectional": True},
    {"bias": False},
    {"num_layers": 2, "bidirectional": True},
    {"proj_size": 2, "bidirectional": True},
)


def known_options(
    factory: Callable[..., Any], title: str, cell: str, stacks: bool = True
) -> tuple[list[Options], list[LeftOut]]:
    """Those of :data:`OPTIONS` that a factory's signature takes, and those left out.

    Args:
        factory, title: what makes the layer, and what to call it.
        cell: its name; a projection is the LSTM's.
        stacks: whether there may be several layers.
    """
    parameters = inspect.signature(factory).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    without: dict[str, str] = {}
    for name in dict.fromkeys(name for options in OPTIONS for name in options):
        if name == "proj_size" and cell != "lstm":
            without[name] = "only an LSTM is held with a projection"
        elif name == "num_layers" and not stacks:
            without[name] = f"{title} is one layer"
        elif not every and name not in parameters:
            without[name] = f"{title} takes no such option"
    known = [
        {name: value for name, value in options.items() if name not in without}
        for options in OPTIONS
        if next(iter(options), "") not in without  # the first is what a set is there for
    ]
    return list(known), [LeftOut(*each) for each in without.items()]


def too_narrow(options: Options, size: Sequence[int]) -> bool:
    """Whether a projection is not below the hidden size of (T, B, I, H)."""
    return len(size) == 4 and options.get("proj_size", 0) >= size[3]


def draw_up(
    sizes: Sequence[tuple[int, ...]],
    options: Sequence[Options],
    dtypes: Sequence[torch.dtype],
    devices: Sequence[str],
    lengths: Sequence[Lengths],
    states: Sequence[bool],
    losses: Sequence[Loss],
    seed: int,
) -> Iterator[Case]:
    """Every size with every option, dtype, device and kind of lengths; losses and states in turn.

    Each kind of lengths has turns of its own, and begins elsewhere. A new round of turns is put off
    by one, or the same turns would always meet the same sizes.
    """
    turns = list(itertools.product(range(len(losses)), range(len(states))))
    every = itertools.product(options, dtypes, devices, sizes)
    for place, (chosen, dtype, device, size) in enumerate(every):
        if too_narrow(chosen, size):
            continue
        T, B, *widths = size
        I, H = widths or (0, 0)
        for start, kind in enumerate(lengths):
            round_ = place // len(turns)
            loss, given = turns[(place + round_ + start) % len(turns)]
            yield Case(
                T,
                B,
                I,
                H,
                chosen,
                dtype,
                device,
                kind,
                states[given],
                losses[loss],
                strided=(loss + given + round_) % 2 == 1,
                seed=seed + place * len(lengths) + start,
            )


def draw_up_long(
    dtypes: Sequence[torch.dtype], devices: Sequence[str], sized: bool, seed: int
) -> Iterator[Case]:
    """For 16 bits: a loss without signs, so that the sums over time grow with every row."""
    I, H = LONG_WIDTH if sized else (0, 0)
    for dtype, device in itertools.product(dtypes, devices):
        if dtype in HALF:
            T, B = LONG
            yield Case(T, B, I, H, dtype=dtype, device=device, loss="positive", seed=seed)
