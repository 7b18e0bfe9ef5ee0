"""The tables of ``bench.cuda``: rows, means, and the aims with what was wanted.

Reads rows alone, as the JSON has them: a record is written where nothing of rnncells is built.
"""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.table import align

Row = dict[str, Any]
HEADER = (
    *("cell", "dtype", "mode", "T,B,I,H", "kernel", "ours ms", "peer ms", "ratio"),
    *("us/step", "roofline", "of mm", "off"),
)


def _size(row: Row, place: int) -> int:
    return int(row["shape"].split(",")[place])


def _padded(row: Row) -> bool:
    return row["peer"] == "torch.nn" and row["layout"] == "padded"


def _narrow(cell: str) -> Callable[[Row], bool]:
    """Training of one cell with at most 128 units and a batch of at most 256."""

    def of(row: Row) -> bool:
        fits = _size(row, 3) <= 128 and _size(row, 1) <= 256
        return _padded(row) and (row["cell"], row["mode"]) == (cell, "training") and fits

    return of


def _persistent(row: Row) -> bool:
    """The shape where cuDNN has its persistent kernel, in float16 and for the LSTM alone."""
    sizes = [_size(row, place) for place in (0, 1, 3)]
    return _padded(row) and sizes == [1024, 16, 768] and row["dtype"].endswith("16")


class Aim(NamedTuple):
    """What is wanted of the ratios of some rows: their geometric mean, and each of them."""

    name: str
    of: Callable[[Row], bool]
    mean: float | None
    each: float | None


AIMS = (
    *(Aim(f"{c}: H <= 128, training", _narrow(c), 1.5, 1.0) for c in ("rnn", "lstm", "gru")),
    Aim(
        "lstm float16: H 768, B 16, T 1024",
        lambda row: _persistent(row) and (row["cell"], row["dtype"]) == ("lstm", "float16"),
        None,
        1 / 1.3,
    ),
    Aim("gru: there, 16 bits", lambda row: _persistent(row) and row["cell"] == "gru", None, 1.0),
    Aim("bfloat16: there", lambda row: _persistent(row) and row["dtype"] == "bfloat16", None, 1.0),
    Aim(
        "PackedSequence",
        lambda row: row["peer"] == "torch.nn" and row["layout"] == "packed",
        2.0,
        None,
    ),
)


def timed(rows: list[Row]) -> list[Row]:
    """Return the rows that have a time."""
    return [row for row in rows if "ratio" in row]


def aims(rows: list[Row]) -> list[Row]:
    """Hold the rows against each aim; ``reached`` is None where none of its rows has a time."""
    found = []
    for aim in AIMS:
        ratios = [row["ratio"] for row in timed(rows) if aim.of(row)]
        one: Row = {"aim": aim.name, "wanted_mean": aim.mean, "wanted_each": aim.each}
        one |= {"rows": len(ratios), "mean": None, "lowest": None, "reached": None}
        if ratios:
            mean, lowest = statistics.geometric_mean(ratios), min(ratios)
            reached = mean >= (aim.mean or 0) and lowest >= (aim.each or 0)
            one |= {"mean": mean, "lowest": lowest, "reached": reached}
        found.append(one)
    return found


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def aims_table(rows: list[Row]) -> str:
    """Return the aims with what was wanted beside each."""
    verdict = {True: "reached", False: "missed", None: "not measured"}
    lines = [
        (
            one["aim"],
            str(one["rows"]),
            _number(one["mean"]),
            _number(one["wanted_mean"]),
            _number(one["lowest"]),
            _number(one["wanted_each"]),
            verdict[one["reached"]],
        )
        for one in aims(rows)
    ]
    return align(("aim", "rows", "mean", "wanted", "lowest", "wanted", ""), lines)


def means_table(rows: list[Row]) -> str:
    """Return the geometric mean of each peer, layout, cell, mode and dtype."""
    ratios: dict[tuple[str, ...], list[float]] = {}
    for row in timed(rows):
        key = tuple(row[name] for name in ("peer", "layout", "cell", "mode", "dtype"))
        ratios.setdefault(key, []).append(row["ratio"])
    lines = [
        (*key, str(len(some)), f"{min(some):.2f}", f"{statistics.geometric_mean(some):.2f}")
        for key, some in ratios.items()
    ]
    header = ("peer", "layout", "cell", "mode", "dtype", "rows", "lowest", "geometric mean")
    return align(header, lines)


def _line(row: Row) -> tuple[str, ...]:
    return (
        row["cell"],
        row["dtype"],
        row["mode"],
        row["shape"],
        row["kernel"],
        f"{row['ours_ms']:.3f}",
        f"{row['peer_ms']:.3f}",
        f"{row['ratio']:.2f}",
        f"{row['us_a_step']:.2f}",
        _number(row.get("of_roofline"), ".1%"),
        _number(row.get("of_mm"), ".1%"),
        f"{row['off']:.0e}",
    )


def named(row: Row) -> str:
    """Return what a row measures, in one line."""
    names = ("peer", "layout", "cell", "dtype", "mode", "shape")
    return " ".join(str(row[name]) for name in names)


def as_text(rows: list[Row], left: list[str]) -> str:
    """Return the rows by peer and layout, why some have no time, what was left, means, aims."""
    parts = []
    for key in dict.fromkeys((row["peer"], row["layout"]) for row in timed(rows)):
        lines = [_line(row) for row in timed(rows) if (row["peer"], row["layout"]) == key]
        parts.append(f"against {key[0]}, {key[1]}:\n{align(HEADER, lines)}")
    empty = [f"{named(row)}: {row['empty']}" for row in rows if "empty" in row]
    if empty:
        parts.append("without a time:\n" + "\n".join(empty))
    if left:
        parts.append(f"left, as the time was spent ({len(left)}):\n" + "\n".join(left))
    parts += [means_table(rows), aims_table(rows)]
    return "\n\n".join(parts)
