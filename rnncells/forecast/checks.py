"""What forecasting asks of its data: rank, type, length, no NaN or infinity that nobody named."""

from __future__ import annotations

from operator import index
from typing import Literal

from torch import Tensor

from rnncells.checks import require_tensor

__all__ = ["Missing", "check_columns", "check_positive", "check_same_shape", "check_series"]

Missing = Literal["error", "skip"]


def check_series(series: Tensor, missing: Missing = "error", name: str = "series") -> None:
    """Check a series [time, features] in floating point.

    Infinity is always refused; NaN, the sign of a missing value, is refused unless ``missing`` is
    ``"skip"``.

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
    if missing not in ("error", "skip"):
        raise ValueError(f"missing: expected 'error' or 'skip', got {missing!r}")
    _refuse_where(series.isinf(), name, "an infinity", "")
    if missing == "error":
        _refuse_where(series.isnan(), name, "a NaN", "; say missing='skip' to leave gaps out")


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
