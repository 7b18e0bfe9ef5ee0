"""The table of what the notes hold: what it names is there, row by row."""

from __future__ import annotations

import json
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
RESULTS = TESTS.parent / "bench" / "results"
TABLE = [
    line.strip("| ").split(" | ")
    for line in (RESULTS / "forecast-rows.md").read_text().splitlines()[2:]
]


def test_every_item_has_its_row() -> None:
    assert [int(cells[0]) for cells in TABLE] == list(range(1, 27))
    assert all(len(cells) == 3 for cells in TABLE)


def test_every_test_named_is_there() -> None:
    named = [name for cells in TABLE for name in re.findall(r"`(\S+)::(\w+)`", cells[2])]
    assert len(named) > 26
    for file, test in named:
        assert f"\ndef {test}(" in (TESTS / file).read_text(), f"{file}::{test}"


def test_every_result_named_is_there() -> None:
    record = json.loads((RESULTS / "forecast.json").read_text())["rows"]
    models: dict[str, list[str]] = {}
    for row in record:
        if row["scores"]:
            models.setdefault(row["job"], []).append(row["model"])
    for number, _, shown in TABLE:
        job = ""
        for part in shown.split("; "):
            if "`" in part:  # tests
                continue
            where, _, model = part.rpartition(": ")
            job = where or job
            assert model in models.get(job, []), f"row {number}: {job}: {model}"
