"""What a forecaster is given: read as a panel, and held against what it can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import index
from typing import Any

from rnncells.forecast.arrays import as_panel
from rnncells.forecast.frames import is_frame
from rnncells.forecast.panel import Id, Panel
from rnncells.forecast.spans import spans_of

__all__ = ["check_length", "check_values", "read"]

ADVICE = (
    "a forecaster that is fitted with missing='mask' marks such values for the network, and "
    "`rnncells impute` fills them"
)
KNOWN = "a column known ahead has a value at each step"


def read(y: Any, missing: str, reading: Mapping[str, Any]) -> Panel:
    """A panel of what came; ``reading`` says how a frame is read."""
    if not is_frame(y):
        return _plain_ids(as_panel(y))
    gaps = {"gaps": "mask"} if missing == "mask" else {}
    return _plain_ids(as_panel(y, **{**gaps, **reading}))


def _plain_ids(panel: Panel) -> Panel:
    """The panel with ids that can be saved: text and plain integers.

    Raises:
        TypeError: ids that are neither.
    """
    ids: list[Id] = []
    for one in panel.ids:
        if isinstance(one, str):
            ids.append(str.__str__(one))
            continue
        try:
            if isinstance(one, bool):
                raise TypeError
            ids.append(index(one))
        except TypeError:
            raise TypeError(
                f"ids: expected text or whole numbers, which can be saved, got {one!r}, "
                f"{type(one).__name__}"
            ) from None
    plain = all(type(old) is type(new) for old, new in zip(panel.ids, ids, strict=True))
    return panel if plain else replace(panel, ids=tuple(ids))


def check_values(
    panel: Panel, name: str, missing: str, start: int = 0, columns: Sequence[str] = ()
) -> None:
    """Check that no value is missing from step ``start`` on (below 0 from each series' end), or
    with ``missing="mask"``, none of these columns.

    Raises:
        ValueError: one is, with its series, step and column.
    """
    looked_at = columns if missing == "mask" else panel.columns
    gap = panel.values.isnan()
    for number, (first, last) in enumerate(spans_of(panel.lengths, start, None)):
        begin = int(panel.offsets[number])
        part = gap[begin + first : begin + last]
        for step, place in part.nonzero().tolist() if bool(part.any()) else ():
            column = panel.columns[place]
            if column in looked_at:
                advice = KNOWN if missing == "mask" else ADVICE
                raise ValueError(
                    f"{name}: expected all values, got a NaN at time step {first + step} of series "
                    f"{panel.ids[number]!r}, column {column!r}; {advice}"
                )


def check_length(panel: Panel, what: str, steps: int) -> None:
    """Check that each series has so many steps.

    Raises:
        ValueError: one has fewer.
    """
    short = (panel.lengths < steps).nonzero().flatten().tolist()
    if short:
        more = f" (and {len(short) - 1} more such series)" if len(short) > 1 else ""
        raise ValueError(
            f"y: expected at least {what} = {steps} time steps of each series, got "
            f"{int(panel.lengths[short[0]])} of {panel.ids[short[0]]!r}{more}"
        )
