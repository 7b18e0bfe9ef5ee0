"""Where windows may stand: the origins in each series."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncells.forecast.checks import ADVICE, Missing, check_choice, check_series
from rnncells.forecast.panel import Panel
from rnncells.forecast.spans import Span, offsets_of, spans_of

__all__ = ["find_origins", "panel_of", "running_count"]


def panel_of(series: Tensor | Panel, missing: Missing, ahead: bool = False) -> Panel:
    """The panel that windows look at: a tensor becomes one with a single series.

    Raises:
        TypeError, ValueError: as :func:`check_series`; NaN in a panel with the series and column.
    """
    if not isinstance(series, Panel):
        check_series(series, "mask" if ahead else missing)
        names = tuple(f"column {number}" for number in range(series.shape[1]))
        return Panel(series, offsets_of([len(series)]), (0,), names)
    check_choice("missing", missing, ("error", "skip", "mask"))
    gap = series.values.isnan()
    if missing == "error" and not ahead and gap.any():
        row, column = gap.nonzero()[0].tolist()
        number = int(torch.searchsorted(series.offsets, row, right=True)) - 1
        raise ValueError(
            f"series: expected all values, got a NaN at time step "
            f"{row - int(series.offsets[number])} of {series.ids[number]!r}, column "
            f"{series.columns[column]!r} ({int(gap.sum())} in all){ADVICE}"
        )
    return series


def find_origins(
    panel: Panel,
    context: int,
    horizon: int,
    start: Span,
    stop: Span | None,
    stride: int,
    short: str,
) -> Tensor:
    """Rows of the buffer at which a window with whole context and horizon stands, [windows].

    Raises:
        ValueError: a span that is none, or series in which no window fits unless ``short`` is
            ``"skip"``.
    """
    lengths = panel.lengths
    if len(panel) == 1:
        _check_span(int(lengths[0]), context, horizon, start, stop)
    found, without = [], []
    begins = panel.offsets.tolist()
    for number, (first, last) in enumerate(spans_of(lengths, start, stop)):
        first = max(first, context)
        if last - first < horizon:
            without.append(number)
        else:
            found.append(torch.arange(first, last - horizon + 1, stride) + begins[number])
    if without and short == "error" and len(panel) > 1:
        ids = ", ".join(f"{panel.ids[n]!r} ({int(lengths[n])} steps)" for n in without[:8])
        more = f" and {len(without) - 8} more" if len(without) > 8 else ""
        raise ValueError(
            f"series: expected room for a context of {context} and a horizon of {horizon} time "
            f"steps with forecasts in steps {start} to {stop}, found none in {ids}{more}; say "
            "short='skip' to leave such series out"
        )
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def _check_span(length: int, context: int, horizon: int, start: Span, stop: Span | None) -> None:
    stop = length if stop is None else stop
    if length < context + horizon:
        raise ValueError(
            f"series: expected at least context + horizon = {context} + {horizon} time steps, "
            f"got {length}"
        )
    if isinstance(start, int) and isinstance(stop, int):
        first, last = (step + length if step < 0 else step for step in (start, stop))
        if not 0 <= first < last <= length:
            raise ValueError(
                f"start, stop: expected 0 <= start < stop <= {length}, got {start}, {stop}"
            )


def running_count(flags: Tensor) -> Tensor:
    """[rows] -> [rows + 1]: how many flags are set before each row."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), flags.cumsum(0).cpu()])
