"""Makes the published forecasting tables again: the seeds of every network, beside what is printed.

``python -m bench.forecast --data FOLDER`` runs four jobs: synthetic waves, Chicago's ridership,
a course's series, and M4 Hourly. Two of them need files that are not ours to give: FOLDER holds
cta_ridership_daily.csv and m4_hourly_train.csv.gz, as their publishers give them; without it these
jobs are left out. Results are saved after each row, and rows that were not asked for stay.

``--timing`` also times an epoch of each recurrent network on our layers and on torch.nn's; with
``--seeds 0`` it does that alone, and the times stand beside what the record already has; a run
without it leaves the record's times where they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import results
from bench.command import add_threads, make_parser, start
from bench.forecast import chicago, course, m4, synthetic
from bench.forecast.report import as_line, as_text, draw
from bench.forecast.rows import Row, Run

JOBS: dict[str, Callable[[Run, Path], Iterator[Row]]] = {
    "synthetic": lambda run, folder: synthetic.rows(run),
    "chicago": chicago.rows,
    "course": lambda run, folder: course.rows(run),
    "m4": m4.rows,
}
TABLES = (
    synthetic.ONE,
    synthetic.TEN,
    chicago.RAIL,
    chicago.TYPES,
    chicago.AHEAD,
    course.JOB,
    m4.JOB,
)
FILES = {"chicago": chicago.FILE, "m4": m4.FILE}
NAME = "forecast"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(NAME, __doc__)
    add_threads(parser)
    parser.add_argument("--jobs", default=",".join(JOBS), help="some of them, with commas (all)")
    parser.add_argument("--data", type=Path, help="the folder of the files")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind (3)")
    parser.add_argument("--models", help="train only those with these words in their name")
    parser.add_argument("--epochs", type=int, help="at most so many, for a quick look")
    parser.add_argument("--timing", action="store_true", help="also time torch.nn's layers")
    options = parser.parse_args(arguments)
    options.jobs = options.jobs.split(",")
    unknown = [job for job in options.jobs if job not in JOBS]
    if unknown:
        parser.error(f"--jobs: expected some of {', '.join(JOBS)}, got {unknown[0]}")
    least = 0 if options.timing else 1
    if min(options.threads, options.epochs or 1) < 1 or options.seeds < least:
        parser.error("--threads, --seeds and --epochs are at least 1; --seeds 0 with --timing")
    return options


def ready(jobs: list[str], folder: Path | None) -> list[str]:
    """The jobs whose files are there; the others are told."""
    found = []
    for job in jobs:
        if job in FILES and (folder is None or not (folder / FILES[job]).exists()):
            print(f"without {job}: no {FILES[job]} in --data {folder or 'FOLDER'}")
        else:
            found.append(job)
    return found


def joined(path: Path, rows: list[Row], run: Run) -> list[Row]:
    """These rows, and those of an earlier run that they do not replace.

    Args:
        path: the record of the earlier run, if there was one.
        rows: made now.
        run: where it asks for some networks only, a table's other rows stay too; where it only
            takes times, the scores do.
    """
    earlier: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    tables, made = {row.job for row in rows}, {(row.job, row.model): row for row in rows}
    some = run.only is not None or not run.seeds
    every = {
        (row["job"], row["model"]): Row(**row)
        for row in earlier
        if some or row["job"] not in tables
    }
    for key in every.keys() & made.keys():
        if not made[key].scores:
            made[key] = replace(every[key], seconds=made[key].seconds)
        elif made[key].seconds is None:
            made[key] = replace(made[key], seconds=every[key].seconds)
    return sorted((every | made).values(), key=lambda row: TABLES.index(row.job))


def facts_of(facts: dict[str, Any], path: Path, run: Run) -> dict[str, Any]:
    """The machine's facts beside those of the record's other half: scores, or times ("timed")."""
    earlier: dict[str, Any] = json.loads(path.read_text())["machine"] if path.exists() else {}
    if earlier and not run.seeds:
        return {**earlier, "timed": {name: facts[name] for name in ("commit", "date")}}
    return facts if run.timing or "timed" not in earlier else facts | {"timed": earlier["timed"]}


def main(arguments: list[str] | None = None) -> None:
    """Run the jobs; write JSON after each row, and then the text and the picture."""
    options = parse(arguments)
    facts = start(options.threads)
    run = Run(range(options.seeds), options.epochs, options.timing, options.models)
    path: Path = options.out / f"{NAME}.json"
    facts = facts_of(facts, path, run)
    rows: list[Row] = []
    for job in ready(options.jobs, options.data):
        for row in JOBS[job](run, options.data):
            rows.append(row)
            every = [one.as_dict() for one in joined(path, rows, run)]
            results.write(options.out, NAME, facts, every)
            print(as_line(row), flush=True)
    rows = joined(path, rows, run)
    text = as_text(rows)
    path.with_suffix(".txt").write_text(text + "\n")
    picture = draw(rows, path.with_suffix(".png"))
    print(f"\n{text}\n\n{path}\n{picture or 'no picture: matplotlib is not installed'}")


if __name__ == "__main__":
    main()
