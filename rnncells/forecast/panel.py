"""One or many series on a regular grid of time, in one buffer, each column in its role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from rnncells.forecast.checks import check_known, check_series
from rnncells.forecast.extras import require
from rnncells.forecast.origin import PLAIN, Origin
from rnncells.forecast.spans import Span, offsets_of, spans_of
from rnncells.forecast.timegrid import Frequency

__all__ = ["Id", "Panel"]

Id = str | int


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """One or many series, of unequal lengths if they are, all with the same columns.

    NaN stands for a missing value, in any column; nothing is filled.

    Attributes:
        values: [rows, columns], floating point: the series one after another, the targets' columns
            first, then the past's, then the future's.
        offsets: [series + 1], int64: series i has the rows from offsets[i] up to offsets[i + 1].
        ids: of the series, no two alike.
        targets: names of the columns to forecast.
        past: names of the columns known up to now.
        future: names of the columns known ahead too, such as the calendar's.
        static: [series, static features], what stays the same in a series; or None.
        static_names: names of its columns.
        starts: for each series the stamp of its first step, see :mod:`rnncells.forecast.timegrid`;
            None where the series came without stamps.
        frequency: the step from one row to the next; None where there are no stamps.
        origin: what the panel was made from.

    Raises:
        TypeError: values that are no tensor in floating point.
        ValueError: an infinity, names or ids twice, or sizes that do not fit together.
    """

    values: Tensor
    offsets: Tensor
    ids: tuple[Id, ...]
    targets: tuple[str, ...] = ("y",)
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: Tensor | None = None
    static_names: tuple[str, ...] = ()
    starts: tuple[int, ...] | None = None
    frequency: Frequency | None = None
    origin: Origin = PLAIN

    def __post_init__(self) -> None:
        check_series(self.values, "mask", "values")
        if len(self.columns) != self.values.shape[1] or not self.targets:
            raise ValueError(
                f"targets, past, future: expected {self.values.shape[1]} names, at least one of "
                f"them a target, got {', '.join(self.columns)}"
            )
        for name, several in (("ids", self.ids), ("targets, past, future", self.columns)):
            if len(set(several)) != len(several):
                twice = next(one for one in several if several.count(one) > 1)
                raise ValueError(f"{name}: expected no name twice, got {twice!r} again")
        if len(self.offsets) != len(self.ids) + 1 or int(self.offsets[-1]) != len(self.values):
            raise ValueError(f"ids: expected one for each series, got {len(self.ids)} ids")
        if self.static is not None and len(self.static) != len(self.ids):
            raise ValueError(
                f"static: expected a row for each of {len(self.ids)} series, got {len(self.static)}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        roles = (("targets", self.targets), ("past", self.past), ("future", self.future))
        columns = [f"{role} {', '.join(names)}" for role, names in roles if names]
        steps = f"{int(self.lengths.min())} to {int(self.lengths.max())} steps"
        every = [] if self.frequency is None else [f"every {self.frequency.name}"]
        return f"Panel({'; '.join([f'{len(self)} series', steps, *every, *columns])})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the buffer's order."""
        return (*self.targets, *self.past, *self.future)

    @property
    def lengths(self) -> Tensor:
        """Time steps of each series, [series], int64."""
        return self.offsets.diff()

    def series(self, identity: Id) -> Tensor:
        """One series, a view [time, columns].

        Raises:
            ValueError: no series has this id.
        """
        return self.values[self.rows(self._number(identity))]

    def column(self, name: str) -> Tensor:
        """One column of all series, a view [rows].

        Raises:
            ValueError: no column has this name.
        """
        check_known("name", [name], self.columns, "column")
        return self.values[:, self.columns.index(name)]

    def stamps(self, identity: Id | None = None) -> Any:
        """The stamps of one series, by default the first: NumPy's ``datetime64[us]``, or integers.

        Raises:
            ValueError: no such series, or the panel has no stamps.
        """
        number = 0 if identity is None else self._number(identity)
        rows = self.rows(number)
        frequency, starts = self.grid()
        stamps = frequency.stamps(starts[number], range(rows.stop - rows.start))
        return stamps if frequency.kind == "number" else stamps.view("M8[us]")

    def times(self, identity: Id | None = None) -> list[datetime]:
        """The stamps of one series, by default of the first, as Python's, in UTC.

        Raises:
            ValueError: no such series, or no stamps, or stamps that are plain numbers.
        """
        stamps = self.stamps(identity)
        if stamps.dtype.kind != "M":
            raise ValueError("panel: expected stamps with dates, got plain numbers")
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        return [epoch + timedelta(microseconds=us) for us in stamps.view("int64").tolist()]

    def steps_at(self, stamp: Any) -> tuple[int, ...]:
        """For each series its first time step at or after ``stamp``: where to cut.

        Args:
            stamp: a date, a time, its ISO text, or a number where the stamps are numbers.

        Raises:
            ValueError: the panel has no stamps, or the text is none.
        """
        np = require("numpy")
        frequency, _ = self.grid()
        if frequency.kind != "number":
            if getattr(stamp, "tzinfo", None) is not None:
                stamp = stamp.astimezone(UTC).replace(tzinfo=None)
            stamp = np.datetime64(stamp, "us")
        return tuple(int(np.searchsorted(self.stamps(one), stamp)) for one in self.ids)

    def select(self, ids: Sequence[Id]) -> Self:
        """Some of the series, in this order (copied).

        Raises:
            ValueError: no series at all, or an id that is unknown.
        """
        check_known("ids", ids, self.ids, "series")
        if not ids:
            raise ValueError("ids: expected at least one, got none")
        numbers = [self._number(identity) for identity in ids]
        rows = [self.values[self.rows(number)] for number in numbers]
        return replace(
            self,
            values=torch.cat(rows),
            offsets=offsets_of([len(part) for part in rows]),
            ids=tuple(ids),
            static=None if self.static is None else self.static[numbers],
            starts=None if self.starts is None else tuple(self.starts[n] for n in numbers),
        )

    def roles(
        self, targets: Sequence[str], past: Sequence[str] = (), future: Sequence[str] = ()
    ) -> Self:
        """The same series with columns in other roles; those not named are left out (copied).

        Raises:
            ValueError: a name that is unknown or there twice.
        """
        chosen = (*targets, *past, *future)
        check_known("targets, past, future", chosen, self.columns, "column")
        return replace(
            self,
            values=self.values[:, [self.columns.index(name) for name in chosen]],
            targets=tuple(targets),
            past=tuple(past),
            future=tuple(future),
        )

    def with_values(self, values: Tensor) -> Self:
        """The same series with other values [rows, columns], such as scaled ones."""
        return replace(self, values=values)

    def to(self, dtype: torch.dtype) -> Self:
        """The same series in another dtype, such as ``torch.float32`` to train on."""
        static = None if self.static is None else self.static.to(dtype)
        return replace(self, values=self.values.to(dtype), static=static)

    def cut(self, start: Span = 0, stop: Span | None = None) -> Self:
        """The steps from ``start`` up to ``stop`` of each series, by default its end (copied).

        Args:
            start, stop: a time step for all series, or one for each; below 0 from the end.

        Raises:
            ValueError: a series of which nothing is left.
        """
        parts, starts = [], []
        for number, (first, last) in enumerate(spans_of(self.lengths, start, stop)):
            if first >= last:
                raise ValueError(
                    f"start, stop: expected at least one step of each series, "
                    f"got none of {self.ids[number]!r} ({int(self.lengths[number])} steps)"
                )
            parts.append(self.values[self.rows(number)][first:last])
            if self.frequency is not None and self.starts is not None:
                starts.append(int(self.frequency.stamps(self.starts[number], first)))
        return replace(
            self,
            values=torch.cat(parts),
            offsets=offsets_of([len(part) for part in parts]),
            starts=tuple(starts) if self.starts is not None else None,
        )

    @cached_property
    def _numbers(self) -> dict[Id, int]:
        return {identity: number for number, identity in enumerate(self.ids)}

    def _number(self, identity: Id) -> int:
        if identity not in self._numbers:
            check_known("id", [identity], self.ids, "series")
        return self._numbers[identity]

    def rows(self, number: int) -> slice:
        """Where in the buffer the series of this number lies."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def grid(self) -> tuple[Frequency, tuple[int, ...]]:
        """The frequency, and each series' first stamp.

        Raises:
            ValueError: the panel has no stamps.
        """
        if self.frequency is None or self.starts is None:
            raise ValueError(
                "panel: expected series with time stamps, got none; say start and freq"
            )
        return self.frequency, self.starts
