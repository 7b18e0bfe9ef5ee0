"""Panels from arrays and tensors: one series, many of one length, or a list or dict of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.checks import check_series
from rnncells.forecast.extras import require
from rnncells.forecast.frames import is_frame, panel_from_frame
from rnncells.forecast.origin import Origin
from rnncells.forecast.panel import Id, Panel
from rnncells.forecast.spans import offsets_of
from rnncells.forecast.timegrid import Frequency

__all__ = ["as_panel", "panel_from_arrays", "read_many"]


def as_panel(data: Any, **options: Any) -> Panel:
    """A panel from whatever came: a panel (itself), a long frame, or arrays and tensors.

    Args:
        data: see :func:`panel_from_frame` and :func:`panel_from_arrays`.
        options: theirs.

    Raises:
        TypeError, ValueError: theirs.
    """
    if isinstance(data, Panel):
        if options:
            raise TypeError(f"data: a Panel takes no further options, got {', '.join(options)}")
        return data
    return (panel_from_frame if is_frame(data) else panel_from_arrays)(data, **options)


def panel_from_arrays(
    data: Any,
    *,
    past: Any = None,
    future: Any = None,
    static: Any = None,
    ids: Sequence[Id] | None = None,
    targets: Sequence[str] | None = None,
    start: Any = None,
    freq: str | int | None = None,
) -> Panel:
    """A panel from NumPy arrays or tensors, which need no stamps.

    Args:
        data: the targets: one series [time] or [time, features], or many of one length [series,
            time, features], or a list of the first kind, or a dict of them by id. Whole numbers
            become float64; a single tensor in floating point is not copied. A column of a frame
            counts as an array.
        past: what is known up to now, in the same form, as long as ``data``.
        future: what is known ahead too, in the same form, as long as ``data``.
        static: [series, features], one row for each series.
        ids: of the series; by default a dict's keys, or 0, 1, 2 and so on.
        targets: names of the targets, by default ``y``, or ``y0``, ``y1`` and so on.
        start: the stamp of the first step, of all series or a list with one for each.
        freq: the step from stamp to stamp, such as ``"h"``; see :meth:`Frequency.parse`.

    Raises:
        TypeError: something that is no array or tensor of numbers.
        ValueError: wrong ranks, lengths that differ, an infinity, or a start without freq.
    """
    series, origin = read_many(data, "data")
    names = list(data) if isinstance(data, Mapping) else list(range(len(series)))
    parts = {"data": series}
    for role, given in (("past", past), ("future", future)):
        if given is not None:
            parts[role], _ = read_many(given, role)
            _check_lengths(role, parts[role], series)
    width = {role: part[0].shape[1] for role, part in parts.items()}
    rows = [one if len(parts) == 1 else torch.cat(one, dim=1) for one in _together(parts)]
    grid = None if freq is None else Frequency.parse(freq)
    if (start is None) != (grid is None):
        raise ValueError("start, freq: expected both or none of them")
    return Panel(
        rows[0] if len(rows) == 1 else torch.cat(rows),
        offsets_of([len(one) for one in rows]),
        tuple(names if ids is None else ids),
        _named("y", width["data"]) if targets is None else tuple(targets),
        tuple(f"past{number}" for number in range(width.get("past", 0))),
        tuple(f"future{number}" for number in range(width.get("future", 0))),
        None if static is None else _read(static, "static")[0].to(rows[0].dtype),
        () if static is None else _named("static", _read(static, "static")[0].shape[1]),
        None if grid is None else _starts(start, len(rows), grid),
        grid,
        origin,
    )


def read_many(data: Any, name: str) -> tuple[list[Tensor], Origin]:
    """Each series as [time, features], and how they came.

    Raises:
        TypeError: something that is no array or tensor of numbers.
        ValueError: wrong ranks, or no series at all.
    """
    if isinstance(data, Mapping):
        form, several = "dict", list(data.values())
    elif isinstance(data, list | tuple) and (not data or not isinstance(data[0], int | float)):
        form, several = "list", list(data)
    elif getattr(data, "ndim", 1) == 3:
        form, several = "many", list(data)
    else:
        form, several = "one", [data]
    if not several:
        raise ValueError(f"{name}: expected at least one series, got none")
    read = [_read(one, name if form == "one" else f"{name}[{i}]") for i, one in enumerate(several)]
    features = read[0][0].shape[1]
    for number, (one, _) in enumerate(read):
        if one.shape[1] != features:
            raise ValueError(
                f"{name}[{number}]: expected {features} features, as the first series has, "
                f"got {one.shape[1]}"
            )
    kind = "tensor" if isinstance(several[0], Tensor) else "numpy"
    return [one for one, _ in read], Origin(kind, form, flat=read[0][1])


def _read(data: Any, name: str) -> tuple[Tensor, bool]:
    if hasattr(data, "to_numpy"):  # a column of a frame
        data = data.to_numpy().copy()  # which may be read-only
    try:
        values = data if isinstance(data, Tensor) else torch.as_tensor(data)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{name}: expected an array or a tensor of numbers, got {type(data).__name__}"
        ) from None
    if values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {values.dtype}")
    if not values.is_floating_point():
        values = values.double()
    if values.dim() not in (1, 2):
        raise ValueError(
            f"{name}: expected [time] or [time, features], got shape {list(values.shape)}"
        )
    series = values.unsqueeze(1) if values.dim() == 1 else values
    check_series(series, "mask", name)
    return series, values.dim() == 1


def _together(parts: Mapping[str, list[Tensor]]) -> list[Any]:
    if len(parts) == 1:
        return parts["data"]
    dtype = parts["data"][0].dtype
    return [[one.to(dtype) for one in some] for some in zip(*parts.values(), strict=True)]


def _check_lengths(role: str, given: list[Tensor], series: list[Tensor]) -> None:
    lengths = [[len(one) for one in several] for several in (given, series)]
    if lengths[0] != lengths[1]:
        got, expected = (", ".join(map(str, each[:8])) for each in lengths)
        raise ValueError(f"{role}: expected series as long as data's ({expected}), got {got}")


def _named(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}{number}" for number in range(count))


def _starts(start: Any, series: int, grid: Frequency) -> tuple[int, ...]:
    each = list(start) if isinstance(start, list | tuple) else [start] * series
    if len(each) != series:
        raise ValueError(f"start: expected one stamp for each of {series} series, got {len(each)}")
    if grid.kind == "number":
        return tuple(int(one) for one in each)
    np = require("numpy")
    plain = [
        one.astimezone(UTC).replace(tzinfo=None) if getattr(one, "tzinfo", None) else one
        for one in each
    ]
    return tuple(int(np.datetime64(one, "us").astype("int64")) for one in plain)
