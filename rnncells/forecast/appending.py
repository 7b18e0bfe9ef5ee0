"""More steps at the ends of a panel's series."""

from __future__ import annotations

from dataclasses import replace

import torch

from rnncells.forecast.panel import Panel
from rnncells.forecast.spans import offsets_of

__all__ = ["append", "on_grid"]


def on_grid(points: Panel, panel: Panel, name: str) -> Panel:
    """Points that follow a panel's series, with the stamps that they then have.

    Args:
        points: new steps of some of the panel's series.
        panel: up to the step before.
        name: of the points, for messages.

    Raises:
        ValueError: stamps that do not follow the series' last.
    """
    if panel.frequency is None or panel.starts is None:
        return points
    numbers = [panel.ids.index(one) for one in points.ids]
    due = tuple(
        int(panel.frequency.stamps(panel.starts[number], int(panel.lengths[number])))
        for number in numbers
    )
    if points.starts is not None and points.starts != due:
        at = next(n for n, start in enumerate(points.starts) if start != due[n])
        first = points.stamps(points.ids[at])[0]
        last = panel.stamps(points.ids[at])[-1]
        raise ValueError(
            f"{name}: expected steps that follow the series, series {points.ids[at]!r} ends with "
            f"{last}, got {first} as the next stamp (its steps are {panel.frequency.name!r} apart)"
        )
    return replace(points, starts=due, frequency=panel.frequency)


def append(panel: Panel, points: Panel) -> Panel:
    """The panel with points of some of its series at their ends (copied)."""
    more = {one: points.series(one).to(panel.values.dtype) for one in points.ids}
    parts = [
        part for one in panel.ids for part in (panel.series(one), more.get(one, panel.values[:0]))
    ]
    lengths = [len(panel.series(one)) + len(more.get(one, ())) for one in panel.ids]
    return replace(panel, values=torch.cat(parts), offsets=offsets_of(lengths))
