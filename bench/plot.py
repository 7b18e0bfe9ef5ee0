"""The picture of a timing: how many times as fast as torch.nn, for each shape and cell."""

from pathlib import Path
from typing import Any

from bench.layers import CELLS

TITLES = {"forward": "forward alone (inference)", "training": "forward and backward"}
COLOURS = {"rnn": "#1b6ca8", "lstm": "#d1495b", "gru": "#3c8d5a"}
ADVICE = "no picture: matplotlib is not installed (pip install 'rnncells[forecast]' brings it)"


def draw(path: Path, caption: str, rows: list[dict[str, Any]]) -> Path | None:
    """Write the picture as PNG and return its path, or None where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure = Figure(figsize=(11, 2.1 + 0.42 * len(shapes)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (mode, title) in zip(axes, TITLES.items(), strict=True):
        for offset, cell in zip((-0.22, 0, 0.22), CELLS, strict=True):
            mine = [row for row in rows if row["cell"] == cell and row["mode"] == mode]
            axis.errorbar(
                [row["ratio"] for row in mine],
                [shapes.index(row["shape"]) + offset for row in mine],
                xerr=[
                    [row["ratio"] - row["ratio_low"] for row in mine],
                    [row["ratio_high"] - row["ratio"] for row in mine],
                ],
                fmt="o",
                markersize=5,
                color=COLOURS[cell],
                label=cell.upper(),
            )
        axis.axvline(1, color="0.3", linewidth=1)
        axis.set_xscale("log")
        ticks = [0.5, 1, 2, 5, 10, 20, 50]
        low, high = axis.get_xlim()
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlim(min(low, 0.8), max(high, 2.5))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("times as fast as torch.nn (quartiles; right of 1 is faster)")
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(shapes)), shapes)
    axes[0].set_ylabel("T, B, I, H")
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(CELLS), frameon=False)
    figure.suptitle(caption, fontsize=8, color="0.35")
    figure.savefig(path, dpi=130)
    return path
