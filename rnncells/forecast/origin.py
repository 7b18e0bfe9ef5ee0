"""What a panel was made from, so that its forecasts can go back the same way."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PLAIN", "Origin"]


@dataclass(frozen=True)
class Origin:
    """What a panel was made from, so that forecasts can go back the same way.

    Attributes:
        kind: ``"tensor"``, ``"numpy"``, ``"pandas"`` or ``"polars"``.
        form: ``"one"`` for one series [time] or [time, features], ``"many"`` for [series, time] or
            [series, time, features], ``"list"`` and ``"dict"`` of such, ``"frame"`` for a long
            frame.
        flat: the series came without an axis for features.
        names: a frame's columns of ids (None where it has none) and of stamps.
        zone: the time zone of the stamps, None where they have none.
        dates: the stamps came as dates without a time.
    """

    kind: str = "tensor"
    form: str = "one"
    flat: bool = False
    names: tuple[str | None, str] = ("unique_id", "ds")
    zone: str | None = None
    dates: bool = False


PLAIN = Origin()
