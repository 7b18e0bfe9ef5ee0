"""What ``bench.cuda`` measures, the most wanted first: a budget cuts the end off."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import torch

from bench.layers import Shape

# TF32 is float32 with torch's own setting of that name.
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
MODES = ("training", "forward")
TORCH_NN, COMPILED = PEERS = ("torch.nn", "torch.compile")

NARROW = (
    "50,32,1,20",
    "50,256,1,20",
    "400,1,64,128",
    "100,64,16,64",
    "200,256,64,64",
    "100,64,128,128",
    "1024,16,128,128",
)
PERSISTENT = ("1024,16,768,768",)  # where cuDNN has its persistent kernel, and peers publish times
WIDE = ("100,64,256,256", "50,128,512,512", "100,16,1024,1024", "50,64,2048,2048")
RAGGED = ("200,32,16,64", "200,64,256,256")
UNROLLED = ("50,32,1,20", "50,128,512,512")  # short: compilation takes a time that grows with T
UNROLLED_DTYPES = ("float32", "bfloat16")
FULL_H = (20, 32, 64, 128, 256, 512, 768, 1024, 2048)
FULL_B = (1, 16, 64, 256)
FULL_T = (50, 200, 1024)


class Case(NamedTuple):
    """One measurement: a layer of ours and its peer's, with the same weights and data."""

    cell: str
    dtype: str
    mode: str
    shape: Shape
    packed: bool = False
    peer: str = TORCH_NN

    def __str__(self) -> str:
        packed = " packed" if self.packed else ""
        return f"{self.peer}: {self.cell} {self.dtype} {self.mode} {self.shape}{packed}"


class Choice(NamedTuple):
    """What of the grid is wanted."""

    cells: Sequence[str]
    dtypes: Sequence[str] = tuple(DTYPES)
    modes: Sequence[str] = MODES
    peers: Sequence[str] = PEERS


def cases(choice: Choice) -> list[Case]:
    """Return the default grid: what an aim names first, then wide layers, then compiled ones."""
    found: list[Case] = []
    for shapes, packed, modes in (
        (PERSISTENT, False, MODES),
        (NARROW, False, ("training",)),
        (RAGGED, True, ("training",)),
        (WIDE, False, ("training",)),
        (NARROW + WIDE, False, ("forward",)),
        (RAGGED, True, ("forward",)),
    ):
        found += _some(choice, _parsed(shapes), packed, [m for m in modes if m in choice.modes])
    return _of_peers(choice, found) + _compiled(choice, _parsed(UNROLLED))


def all_cases(choice: Choice) -> list[Case]:
    """Return every H, B and T, with as many inputs as hidden units, and the default grid's rest."""
    shapes = [Shape(T, B, H, H) for H, B, T in product(FULL_H, FULL_B, FULL_T)]
    return list(
        dict.fromkeys(cases(choice) + _of_peers(choice, _some(choice, shapes, False, choice.modes)))
    )


def chosen_cases(choice: Choice, shapes: Iterable[Shape], packed: bool) -> list[Case]:
    """Return the shapes that were named, as PackedSequences too where ``packed``."""
    shapes = list(shapes)
    found = _some(choice, shapes, False, choice.modes)
    if packed:
        found += _some(choice, shapes, True, choice.modes)
    return _of_peers(choice, found) + _compiled(choice, shapes)


def _parsed(shapes: Iterable[str]) -> list[Shape]:
    return [Shape.parse(text) for text in shapes]


def _some(
    choice: Choice, shapes: Iterable[Shape], packed: bool, modes: Iterable[str]
) -> list[Case]:
    return [
        Case(cell, dtype, mode, shape, packed)
        for shape, mode, cell, dtype in product(shapes, modes, choice.cells, choice.dtypes)
    ]


def _of_peers(choice: Choice, found: list[Case]) -> list[Case]:
    return found if TORCH_NN in choice.peers else []


def _compiled(choice: Choice, shapes: Iterable[Shape]) -> list[Case]:
    if COMPILED not in choice.peers:
        return []
    dtypes = [dtype for dtype in choice.dtypes if dtype in UNROLLED_DTYPES]
    narrowed = choice._replace(dtypes=dtypes or choice.dtypes)
    shortest_first = sorted(shapes, key=lambda shape: shape.T)
    return [
        case._replace(peer=COMPILED)
        for case in _some(narrowed, shortest_first, False, choice.modes)
    ]
