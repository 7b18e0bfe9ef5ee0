"""Times a forecaster's backtest against one predict over the same windows.

``python -m bench.backtest`` fits a forecaster for one epoch on 3000 hours of a daily wave, and
forecasts from all cut-offs of the second half. Once that is a backtest; once it is ``predict``
with as many series, each a window's context; and once the bare network over windows that are
already scaled, with neither reading, scaling nor giving back. The cost of the backtest is its time
over theirs.
"""

import argparse
from typing import Any, Literal, NamedTuple

import numpy as np

from bench import results
from bench.command import add_threads, make_parser, start
from bench.progress import with_progress
from bench.table import align
from bench.timing import time_pair
from rnncells.forecast import Forecaster
from rnncells.forecast import predict as predict_windows

STEPS, CONTEXT, HORIZON = 3000, 96, 24
HEADER = ("cell", "stride", "cut-offs", "ms", "of predict", "of the network")


class Case(NamedTuple):
    """A cell, and the steps from one cut-off to the next."""

    cell: Literal["gru", "lstm", "simple_rnn"]
    stride: int


CASES = [Case("gru", 1), Case("lstm", 1), Case("simple_rnn", 1), Case("gru", 24)]


def measure(case: Case, budget_s: float) -> dict[str, Any]:
    """Time one; return a row."""
    noise = np.random.default_rng(0).standard_normal(STEPS)
    y = np.sin(np.arange(STEPS) * 2 * np.pi / 24) + 0.1 * noise
    model = Forecaster(case.cell, horizon=HORIZON, context=CONTEXT, epochs=1).fit(y)
    first = STEPS // 2
    cuts = range(first, STEPS - HORIZON + 1, case.stride)
    series = [y[cut - CONTEXT : cut] for cut in cuts]
    fitted = model.fitted
    windows = fitted.backtest(fitted.read(y), start=first, stride=case.stride)

    def backtest() -> Any:
        return model.backtest(y, start=first, stride=case.stride)

    def predict() -> Any:
        return model.predict(series, unseen="scale")

    if len(backtest()) != len(predict()):
        raise RuntimeError("backtest and predict do not forecast as many windows")
    by_series = time_pair(backtest, predict, budget_s)
    bare = time_pair(backtest, lambda: predict_windows(fitted.net, windows), budget_s)
    return {
        "cell": case.cell,
        "stride": case.stride,
        "cut_offs": len(cuts),
        "ms": by_series.ours_s * 1e3,
        "of_predict": 1 / by_series.ratio,
        "of_network": 1 / bare.ratio,
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows in lines."""
    lines = [
        (
            row["cell"],
            str(row["stride"]),
            str(row["cut_offs"]),
            f"{row['ms']:.2f}",
            f"{row['of_predict']:.2f}",
            f"{row['of_network']:.2f}",
        )
        for row in rows
    ]
    return align(HEADER, lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser("backtest", __doc__)
    add_threads(parser)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each pair (1)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and write JSON."""
    options = parse(arguments)
    facts = start(options.threads)
    shown = with_progress(CASES, lambda case: f"{case.cell}, stride {case.stride}")
    rows = [measure(case, options.seconds) for case in shown]
    print(f"\n{as_table(rows)}\n\n{results.write(options.out, 'backtest', facts, rows)}")


if __name__ == "__main__":
    main()
