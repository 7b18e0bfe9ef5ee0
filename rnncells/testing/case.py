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
        words += [f"{name}={value}" for name, value in self.options.items()]
        words += [str(self.dtype).removeprefix("torch."), self.lengths]
        words += [] if self.device == "cpu" else [self.device]
        words += ["with states" if self.states else "no states", f"loss={self.loss}"]
        return " ".join(words + ["strided"] * self.strided)


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


def known_options(factory: Callable[..., Any], cell: str, stacks: bool = True) -> list[Options]:
    """Those of :data:`OPTIONS` that a factory's signature takes; a projection is the LSTM's."""
    parameters = inspect.signature(factory).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return [
        options
        for options in OPTIONS
        if all(every or name in parameters for name in options)
        and (cell == "lstm" or "proj_size" not in options)
        and (stacks or "num_layers" not in options)
    ]


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
        T, B, *widths = size
        I, H = widths or (0, 0)
        if H and chosen.get("proj_size", 0) >= H:
            continue
        for start, kind in enumerate(lengths):
            round_ = place // len(turns)
            loss, given = turns[(place + round_ + start) % len(turns)]
            yield Case(
                T=T,
                B=B,
                I=I,
                H=H,
                options=chosen,
                dtype=dtype,
                device=device,
                lengths=kind,
                states=states[given],
                loss=losses[loss],
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
