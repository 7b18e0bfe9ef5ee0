"""What forecasting asks of its data: rank, type, length, no NaN or infinity that nobody named."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real
from operator import index
from typing import Literal

from torch import Tensor

from rnncells.checks import require_tensor

__all__ = [
    "Missing",
    "check_choice",
    "check_columns",
    "check_known",
    "check_percents",
    "check_positive",
    "check_same_shape",
    "check_series",
    "check_share",
]

Missing = Literal["error", "skip", "mask"]

ADVICE = "; say missing='skip' to leave gaps out, or 'mask' to mark them"


def check_series(series: Tensor, missing: Missing = "error", name: str = "series") -> None:
    """Check a series [time, features] in floating point.

    Infinity is always refused; NaN, the sign of a missing value, is refused where ``missing`` is
    ``"error"``.

    Raises:
        TypeError: not a tensor in floating point.
        ValueError: not of rank 2, without time steps or features, or with NaN or infinity.
    """
    if not isinstance(series, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(series).__name__}")
    if not series.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, got {series.dtype}")
    if series.dim() != 2:
        raise ValueError(
            f"{name}: expected rank 2, [time, features], got shape {list(series.shape)}"
        )
    if 0 in series.shape:
        raise ValueError(
            f"{name}: expected at least one time step and one feature, "
            f"got shape {list(series.shape)}"
        )
    check_choice("missing", missing, ("error", "skip", "mask"))
    _refuse_where(series.isinf(), name, "an infinity", "")
    if missing == "error":
        _refuse_where(series.isnan(), name, "a NaN", ADVICE)


def _refuse_where(bad: Tensor, name: str, what: str, advice: str) -> None:
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: expected finite values, got {what} at time step {row}, feature {column} "
            f"({int(bad.sum())} in all){advice}"
        )


def check_columns(columns: object, features: int, name: str = "targets") -> tuple[int, ...]:
    """Check that column numbers lie in [0, features) and that there is at least one.

    Returns:
        The columns as plain integers.

    Raises:
        TypeError: not several integers, such as a single one.
        ValueError: no column, or one outside the series.
    """
    try:
        columns = tuple(index(column) for column in columns)  # type: ignore[attr-defined]
    except TypeError:
        raise TypeError(
            f"{name}: expected a sequence of column numbers, such as (0,), got {columns!r}"
        ) from None
    if not columns or any(not 0 <= column < features for column in columns):
        raise ValueError(
            f"{name}: expected column numbers from 0 to {features - 1}, at least one, got {columns}"
        )
    return columns


def check_positive(**sizes: object) -> list[int]:
    """Check that each named size is an integer of at least one; NumPy's integers count as such.

    Returns:
        The sizes as plain integers, in the order of the call.

    Raises:
        ValueError: a size is below one or not an integer.
    """
    return [_positive(name, size) for name, size in sizes.items()]


def _positive(name: str, size: object) -> int:
    try:
        number = 0 if isinstance(size, bool) else index(size)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
    return number


def check_share(name: str, value: object) -> float:
    """Check that an option is a number from 0 to 1.

    Raises:
        TypeError: no number.
        ValueError: it lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number from 0 to 1, got {value!r}")
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return share


def check_percents(levels: object) -> list[int | float]:
    """Check the levels of intervals.

    Raises:
        TypeError: not several numbers, such as a single one.
        ValueError: one that lies outside of (0, 100).
    """
    several = list(levels) if isinstance(levels, Iterable) and not isinstance(levels, str) else None
    if several is None or any(
        isinstance(one, bool) or not isinstance(one, Real) for one in several
    ):
        raise TypeError(
            f"levels: expected a sequence of per cent, such as [80, 95], got {levels!r}"
        )
    outside = [level for level in several if not 0 < level < 100]
    if outside:
        raise ValueError(f"levels: expected per cent between 0 and 100, got {outside[0]}")
    return several


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Check that an option is one of those there are.

    Raises:
        ValueError: it is not.
    """
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(
            f"{name}: expected one of {listed}, got {value!r}{_nearest(value, choices)}"
        )


def check_known(name: str, asked: Iterable[object], known: Iterable[object], what: str) -> None:
    """Check that all that is asked for is there, such as ids or columns.

    Args:
        name: the argument.
        asked, known: what is asked for, and what there is.
        what: what they are, in the singular: ``"column"``, ``"id seen in fit"``.

    Raises:
        ValueError: some are unknown; the message says the nearest that there is.
    """
    known = list(known)
    there = set(known)
    unknown = [one for one in asked if one not in there]
    if unknown:
        few = ", ".join(map(repr, known[:8])) + (", ..." if len(known) > 8 else "")
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ValueError(
            f"{name}: no {what} {unknown[0]!r}{more}{_nearest(unknown[0], known)}; "
            f"there are {len(known)}: {few}"
        )


def _nearest(value: object, known: list[object]) -> str:
    names = {str(one): one for one in known}
    near = get_close_matches(str(value), list(names), n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""


def check_same_shape(forecast: Tensor, truth: Tensor) -> None:
    """Check that forecasts and truth have one shape and at least one element.

    Raises:
        TypeError: one of them is not a tensor.
        ValueError: the shapes differ (they are not broadcast) or are empty.
    """
    require_tensor("forecast", forecast)
    require_tensor("truth", truth)
    if forecast.shape != truth.shape:
        raise ValueError(
            f"forecast: expected the shape of truth, {list(truth.shape)}, "
            f"got {list(forecast.shape)}"
        )
    if truth.numel() == 0:
        raise ValueError(f"truth: expected at least one value, got shape {list(truth.shape)}")
