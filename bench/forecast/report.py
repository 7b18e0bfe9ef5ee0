"""The tables and the picture of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from bench.forecast.rows import Row
from bench.table import align

__all__ = ["as_line", "as_text", "draw"]

OURS, LINE, PRINT = "#1b6ca8", "#3c8d5a", "#8a8a8a"
SECONDS = ("ours", "torch.nn", "ratio")


def as_line(row: Row) -> str:
    """One row in one line, for who is waiting."""
    told = [f"{name} {figure(value)}" for name, value in (shown(row) or row.seconds or {}).items()]
    return f"{row.job}: {row.model}: {', '.join(told) or f'in print {figure(row.published)}'}"


def as_text(rows: Sequence[Row]) -> str:
    """All tables, each under its name; notes at the end of each."""
    tables = [table(job, list(some)) for job, some in groupby(rows, key=lambda row: row.job)]
    return "\n\n".join(tables)


def table(job: str, rows: Sequence[Row]) -> str:
    """The table of one job: the figure in print, the exact line, ours, and seconds an epoch."""
    scored = next((row for row in rows if row.scores), rows[0])
    measures = shown(scored)
    timed = any(row.seconds for row in rows)
    header = ["model", "published", "least squares", *measures, "lowest", "highest"]
    header += [f"s an epoch, {name}" if name != "ratio" else name for name in SECONDS * timed]
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    lines = [
        [
            f"{row.model} ({notes.index(row.note) + 1})" if row.note else row.model,
            figure(row.published),
            figure(row.line),
            *(figure(row.scores.get(name)) for name in measures),
            figure(min(row.each, default=None)),
            figure(max(row.each, default=None)),
            *(figure((row.seconds or {}).get(name)) for name in SECONDS * timed),
        ]
        for row in rows
    ]
    told = "".join(f"\n({number}) {note}" for number, note in enumerate(notes, 1))
    return f"{job}\n\n{align(header, lines)}{told}"


def shown(row: Row) -> dict[str, float]:
    """A row's scores without those of single days, which the record keeps."""
    return {name: value for name, value in row.scores.items() if not name.startswith("day ")}


def figure(value: float | None) -> str:
    """A figure in the digits that its size deserves."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 10 else 3 if abs(value) >= 0.3 else 5
    return f"{value:.{digits}f}"


def draw(rows: Sequence[Row], path: Path) -> Path | None:
    """Write the picture as PNG: for each job what is in print, and what came out here.

    Returns:
        The path, or None where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    jobs = [(job, list(some)) for job, some in groupby(rows, key=lambda row: row.job)]
    heights = [0.9 + 0.24 * len(some) for _, some in jobs]
    page = Figure(figsize=(9.5, sum(heights) + 0.8), layout="constrained")
    every = page.subplots(len(jobs), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (job, some) in zip(every, jobs, strict=True):
        places = range(len(some))
        measure = next((name for row in some for name in row.scores), "")
        axis.plot([row.published for row in some], places, "D", color=PRINT, label="in print")
        mean = [next(iter(row.scores.values()), None) for row in some]
        axis.plot(mean, places, "o", color=OURS, label="here, mean of the seeds")
        for place, row in enumerate(some):
            axis.plot(row.each, [place] * len(row.each), "|", color=OURS)
        line = next((row.line for row in some if row.line is not None), None)
        if line is not None:
            axis.axvline(line, color=LINE, linewidth=1, label="least squares")
        axis.set_yticks(places, [row.model for row in some], fontsize=8)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_title(f"{job}: {measure}", fontsize=10, loc="left")
        axis.grid(axis="x", which="both", color="0.92")
        axis.set_axisbelow(True)
        axis.tick_params(axis="x", which="both", labelsize=8)
    handles, labels = every[0].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    page.savefig(path, dpi=120)
    return path
