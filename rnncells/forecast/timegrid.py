"""Regular grids of time: what lies between one stamp and the next, read from stamps or from a name.

Stamps are int64: microseconds since 1970 (UTC where a zone is known) for dates and times, or plain
numbers for series that only count their steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from rnncells.forecast.extras import require

__all__ = ["Frequency", "infer_frequency"]

Kind = Literal["number", "fixed", "business", "month", "month end"]
SECOND = 1_000_000
DAY = 86_400 * SECOND
FIXED = {"W": 7 * DAY, "D": DAY, "h": 3600 * SECOND, "min": 60 * SECOND, "s": SECOND}
FIXED |= {"ms": 1000, "us": 1}
MONTHS = {"Y": 12, "Q": 3, "M": 1}


@dataclass(frozen=True)
class Frequency:
    """The step of a regular grid.

    Attributes:
        kind: ``"number"`` for stamps that are plain numbers, ``"fixed"`` for a fixed time,
            ``"business"`` for days from Monday to Friday, ``"month"`` for the same day (up to the
            28th) and time of each month, ``"month end"`` for its last day.
        count: the step in numbers, microseconds, days or months.
    """

    kind: Kind
    count: int

    @classmethod
    def parse(cls, name: str | int) -> Self:
        """Read ``"h"``, ``"15min"``, ``"D"``, ``"B"``, ``"W"``, ``"MS"``, ``"ME"``, ``"QS"``,
        ``"YE"`` and the like; an integer is the step between plain numbers.

        ``M``, ``Q`` and ``Y`` alone mean the same day of the month, as ``MS``, ``QS`` and ``YS``.

        Raises:
            ValueError: an unknown name, or a step below one.
        """
        if isinstance(name, int) and not isinstance(name, bool) and name > 0:
            return cls("number", name)
        found = re.fullmatch(r"(\d*)(W|D|h|min|s|ms|us|B|[MQY][SE]?)", str(name))
        if found is None or found[1].strip("0") == "" != found[1]:
            raise ValueError(_unknown(name))
        count, unit = int(found[1] or 1), found[2]
        if unit == "B":
            return cls("business", count)
        if unit in FIXED:
            return cls("fixed", count * FIXED[unit])
        return cls("month end" if unit.endswith("E") else "month", count * MONTHS[unit[0]])

    @property
    def name(self) -> str | int:
        """The name that :meth:`parse` reads."""
        if self.kind == "number":
            return self.count
        if self.kind == "business":
            return _counted(self.count, "B")
        units = FIXED if self.kind == "fixed" else MONTHS
        unit = next(unit for unit, size in units.items() if self.count % size == 0)
        suffix = {"fixed": "", "month": "S", "month end": "E"}[self.kind]
        return _counted(self.count // units[unit], unit + suffix)

    def stamps(self, start: int, positions: Any) -> Any:
        """The stamps (int64 array) at these positions (integers) of the grid that begins at
        ``start``."""
        np = require("numpy")
        steps = np.asarray(positions, dtype=np.int64) * self.count
        if self.kind in ("number", "fixed"):
            return start + steps
        first = np.array(start, "M8[us]")
        if self.kind == "business":
            day = first.astype("M8[D]")
            moved = np.busday_offset(day, steps, roll="forward").astype("M8[us]")
            return (moved + (first - day)).astype(np.int64)
        month = first.astype("M8[M]")
        if self.kind == "month":
            return ((month + steps).astype("M8[us]") + (first - month)).astype(np.int64)
        before_end = (month + 1).astype("M8[us]") - first
        return ((month + steps + 1).astype("M8[us]") - before_end).astype(np.int64)

    def positions(self, start: int, stamps: Any) -> Any:
        """Where the stamps lie on the grid that begins at ``start``: int64; -1 off the grid."""
        np = require("numpy")
        stamps = np.asarray(stamps, dtype=np.int64)
        if self.kind in ("number", "fixed"):
            place = (stamps - start) // self.count
        else:
            unit = "M8[D]" if self.kind == "business" else "M8[M]"
            first, there = (np.asarray(t, "M8[us]").astype(unit) for t in (start, stamps))
            if self.kind == "business":
                place = np.busday_count(first, there) // self.count
            else:
                place = (there - first).astype(np.int64) // self.count
        return np.where((place >= 0) & (self.stamps(start, place) == stamps), place, -1)


def infer_frequency(series: Sequence[Any], numbers: bool) -> Frequency:
    """The step that most pairs of neighbours keep.

    Args:
        series: for each series its stamps (int64 arrays, in order, no two alike).
        numbers: whether they are plain numbers.

    Raises:
        ValueError: no series has two stamps.
    """
    np = require("numpy")
    steps = np.concatenate([np.diff(stamps) for stamps in series])
    if len(steps) == 0:
        raise ValueError("freq: expected a frequency, because no series has two time stamps")
    most_common = _mode(steps)
    if numbers:
        return Frequency("number", most_common)
    candidates = [Frequency("fixed", most_common)]
    if most_common == DAY:
        candidates.append(Frequency("business", 1))
    if most_common >= 28 * DAY:  # of two readings without a gap, the calendar's is meant
        months = _mode(np.concatenate([np.diff(_month(stamps)) for stamps in series]))
        candidates = [Frequency("month", months), Frequency("month end", months), *candidates]
    fitting = [(found, gaps) for found in candidates if (gaps := _gaps(found, series)) is not None]
    if not fitting:
        return Frequency("fixed", most_common)
    return min(fitting, key=lambda pair: pair[1])[0]


def _gaps(frequency: Frequency, series: Sequence[Any]) -> int | None:
    """How many stamps the grid has that no series holds; None where some lie off the grid."""
    gaps = 0
    for stamps in series:
        if len(stamps) == 0:
            continue
        places = frequency.positions(int(stamps[0]), stamps)
        if (places < 0).any():
            return None
        gaps += int(places[-1]) + 1 - len(places)
    return gaps


def _month(stamps: Any) -> Any:
    return stamps.view("M8[us]").astype("M8[M]").astype("int64")


def _mode(values: Any) -> int:
    found, counts = require("numpy").unique(values, return_counts=True)
    return int(found[counts.argmax()])


def _counted(count: int, unit: str) -> str:
    return unit if count == 1 else f"{count}{unit}"


def _unknown(name: object) -> str:
    return (
        "freq: expected a frequency such as 'h', '15min', 'D', 'B', 'W', 'MS', 'ME', 'QS', 'YS', "
        f"or a whole number above 0, got {name!r}"
    )
