"""The rows of a long frame: read column by column, put in order, and held against a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from rnncells.forecast.extras import require
from rnncells.forecast.panel import Id
from rnncells.forecast.timegrid import Frequency

__all__ = ["Rows", "StampKind", "index_rows", "read_ids", "read_numbers", "read_stamps"]


class StampKind(NamedTuple):
    """What a column of stamps holds.

    Attributes:
        numbers: plain numbers, no dates.
        zone: their time zone, None where they have none.
        dates: dates without a time.
    """

    numbers: bool = False
    zone: str | None = None
    dates: bool = False


def read_stamps(column: Any, name: str) -> tuple[Any, StampKind]:
    """Stamps as int64, see :mod:`rnncells.forecast.timegrid`, and what they are.

    Raises:
        ValueError: a row without a stamp, or with one that cannot be read.
    """
    np = require("numpy")
    zone = getattr(column.dtype, "tz", None) or getattr(column.dtype, "time_zone", None)
    if zone is not None and hasattr(column, "dt") and hasattr(column.dt, "tz_convert"):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)  # pandas'
    values = column.to_numpy()
    if values.dtype.kind in "iu":
        return values.astype(np.int64), StampKind(numbers=True)
    dates = values.dtype == "M8[D]"
    if values.dtype.kind != "M":
        values, dates = _parse(values, name)
    missing = np.isnat(values)
    if missing.any():
        raise ValueError(
            f"{name}: expected a time stamp in each row, row {missing.argmax()} has none"
        )
    return values.astype("M8[us]").astype(np.int64), StampKind(
        zone=None if zone is None else str(zone), dates=dates
    )


def _parse(values: Any, name: str) -> tuple[Any, bool]:
    np = require("numpy")
    read = np.empty(len(values), "M8[us]")
    for row, value in enumerate(values.tolist()):
        try:
            read[row] = np.datetime64(value if value == value else None, "us")
        except (TypeError, ValueError):
            raise ValueError(
                f"{name}: expected dates, times, ISO texts such as '2024-01-31 18:00' or whole "
                f"numbers, got {value!r} at row {row}"
            ) from None
    return read, bool((read == read.astype("M8[D]")).all())


def read_ids(column: Any, name: str) -> tuple[tuple[Id, ...], Any]:
    """The ids in the order in which they first appear, and each row's number among them.

    Raises:
        ValueError: an id that is no text and no whole number.
    """
    numbers: dict[Any, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in column.to_numpy().tolist()]
    for value in numbers:
        if not isinstance(value, str | int) or isinstance(value, bool):
            row = codes.index(numbers[value])
            raise ValueError(
                f"{name}: expected text or whole numbers as ids, got {value!r} at row {row}"
            )
    return tuple(numbers), require("numpy").array(codes)


def read_numbers(column: Any, name: str) -> Tensor:
    """A column in float64, empty cells as NaN.

    Raises:
        TypeError: it holds no numbers.
        ValueError: an infinity.
    """
    np = require("numpy")
    try:
        if type(column).__module__.startswith("pandas"):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = column.cast(float, strict=True).to_numpy()
    except Exception:  # each library has its own
        raise TypeError(f"{name}: expected a column of numbers, got {column.dtype}") from None
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(
            f"{name}: expected finite values, got an infinity at row {infinite.argmax()} "
            f"({infinite.sum()} in all)"
        )
    return torch.tensor(values, dtype=torch.float64)


def index_rows(ids: Sequence[Any], stamps: Any, told: Any, name: str) -> dict[Any, int]:
    """Each row's number by its id and its stamp.

    Args:
        ids: of each row.
        stamps: of each row, int64 or ``datetime64[us]``.
        told: how each row is told.
        name: the argument.

    Raises:
        ValueError: a series has a stamp twice.
    """
    found: dict[Any, int] = {}
    for number, key in enumerate(zip(ids, stamps.astype("int64").tolist(), strict=True)):
        first = found.setdefault(key, number)
        if first != number:
            series = "" if key[0] is None else f" of series {key[0]!r}"
            raise ValueError(
                f"{name}: expected each time stamp once in a series, got "
                f"{_shown(key[1], stamps.dtype.kind != 'M')} at row {told[first]}{series} and "
                f"again at row {told[number]}"
            )
    return found


def _shown(stamp: int, number: bool) -> str:
    if number:
        return str(stamp)
    text = str(require("numpy").datetime64(int(stamp), "us"))
    return text.removesuffix(".000000").replace("T", " ").removesuffix(" 00:00:00")


@dataclass(frozen=True)
class Rows:
    """A frame's rows in order: by series, then by time.

    Attributes:
        ids: of the series.
        order: for each place in order, the row in the frame.
        codes: for each place the series' number.
        begins: where each series begins, and the end.
        series: each series' stamps, in order.
        numbers: whether the stamps are plain numbers.
    """

    ids: tuple[Id, ...]
    order: Any
    codes: Any
    begins: Any
    series: list[Any]
    numbers: bool

    @classmethod
    def of(cls, ids: tuple[Id, ...], codes: Any, stamps: Any, numbers: bool) -> Self:
        """Sort rows with these series' numbers (None: one series) and stamps."""
        np = require("numpy")
        codes = np.zeros(len(stamps), np.int64) if codes is None else codes
        order = np.lexsort((stamps, codes))
        begins = np.searchsorted(codes[order], np.arange(len(ids) + 1))
        series = np.split(stamps[order], begins[1:-1])
        return cls(ids, order, codes[order], begins, series, numbers)

    def where(self, place: int) -> str:
        """The row in the frame, in words."""
        series = f" of series {self.ids[self.codes[place]]!r}" if len(self.ids) > 1 else ""
        return f"row {self.order[place]}{series}"

    def refuse_duplicates(self, name: str) -> None:
        """Raises ValueError where a series has a stamp twice."""
        np = require("numpy")
        stamps = np.concatenate(self.series)
        twice = (stamps[1:] == stamps[:-1]) & (self.codes[1:] == self.codes[:-1])
        if twice.any():
            place = int(twice.argmax())
            shown = self._shown(stamps[place])
            several = "; if there are several series, id= names their column"
            several = several if len(self.ids) == 1 else ""
            raise ValueError(
                f"{name}: expected each time stamp once in a series, got {shown} "
                f"at {self.where(place)} and again at row {self.order[place + 1]} "
                f"({twice.sum()} in all){several}"
            )

    def places(self, grid: Frequency, name: str, gaps: str) -> list[Any]:
        """Each series' steps on the grid, counted from its first stamp.

        Raises:
            ValueError: a stamp off the grid, a step without a row unless ``gaps`` is ``"mask"``, or
                a series most of whose steps are longer than the grid's.
        """
        np = require("numpy")
        places = []
        for number, stamps in enumerate(self.series):
            begin = int(self.begins[number])
            place = grid.positions(int(stamps[0]), stamps)
            off = place < 0
            if off.any():
                at = int(off.argmax())
                raise ValueError(
                    f"{name}: mixed frequencies: expected time stamps {grid.name!r} apart, from "
                    f"{self._shown(stamps[0])} on, got {self._shown(stamps[at])} at "
                    f"{self.where(begin + at)} ({off.sum()} such rows)"
                )
            step = np.diff(place)
            if gaps == "mask":
                self._refuse_own_step(number, step, grid, name)
            if gaps == "error" and len(step) > 1 and step.min() > 1:
                raise ValueError(
                    f"{name}: mixed frequencies: expected time stamps {grid.name!r} apart, got "
                    f"{step.min()} times that from {self.where(begin)} on"
                )
            if gaps == "error" and (step > 1).any():
                at = int((step > 1).argmax())
                shown, where = self._shown(stamps[at + 1]), self.where(begin + at + 1)
                raise ValueError(
                    f"{name}: expected no gap in time stamps {grid.name!r} apart, "
                    f"got {step[at] - 1} missing before {shown} at {where} "
                    f"({(step - 1).sum()} in all); say gaps='mask' to mark them as missing values"
                )
            places.append(place)
        return places

    def _refuse_own_step(self, number: int, step: Any, grid: Frequency, name: str) -> None:
        """Raises ValueError where a series keeps a step of its own: gaps, but none by chance."""
        np = require("numpy")
        sizes, counts = np.unique(step, return_counts=True)
        if len(sizes) == 0 or sizes[counts.argmax()] == 1:
            return
        own, times = int(sizes[counts.argmax()]), int(counts.max())
        if times > 1 and (2 * times > len(step) or (sizes % own == 0).all()):
            theirs = replace(grid, count=grid.count * own)
            raise ValueError(
                f"{name}: mixed frequencies: expected time stamps {grid.name!r} apart, got most of "
                f"series {self.ids[number]!r} {theirs.name!r} apart, from "
                f"{self.where(int(self.begins[number]))} on; masked gaps are for single steps"
            )

    def _shown(self, stamp: Any) -> str:
        return _shown(stamp, self.numbers)
