"""The published tables made again: tiny runs of each job, and the form of what is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import results
from bench.forecast import __main__ as command
from bench.forecast import chicago, course, m4, synthetic
from bench.forecast.report import as_line, as_text, draw
from bench.forecast.rows import Model, Row, Run, time_epochs, trained
from rnncells.forecast import Panel, panel_from_arrays

for package in ("numpy", "lightning_fabric"):
    pytest.importorskip(package)

DATA = Path(__file__).parents[3] / "shared" / "data"
TINY = Run(seeds=(0,), epochs=1)


@pytest.fixture(autouse=True)
def _short_courses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow layers where only the way through is looked at."""
    monkeypatch.setattr(course, "UNITS", (2,))


def ridership() -> Panel:
    """As Chicago's, with a week in it, but made up: from 2018-10-01 on."""
    days = (date(2020, 4, 1) - date(2018, 10, 1)).days
    step = torch.arange(days, dtype=torch.float64)
    rest = (step % 7 >= 5).double()
    noise = torch.rand(days, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    riders = torch.stack([8e5 - 4e5 * rest, 7e5 - 3e5 * rest], 1) * (0.9 + 0.2 * noise[:, None])
    types = torch.stack([1 - rest, rest * (step % 7 == 5), rest * (step % 7 == 6)], 1)
    names = ["bus", "rail", "W", "A", "U"]
    values = torch.cat([riders, types], 1)
    panel = panel_from_arrays(values, targets=names, start="2018-10-01", freq="D")
    return panel.roles(names[:2], future=names[2:])


def hours() -> Panel:
    """Three series with days in them, of unequal lengths."""
    return panel_from_arrays(
        [100 + 20 * (torch.arange(n) / 3.82).sin() + torch.rand(n) for n in (432, 440, 450)]
    )


def check(rows: list[Row]) -> None:
    """Each row has a name of its own, and figures, or stands in print alone."""
    assert len({(row.job, row.model) for row in rows}) == len(rows)
    for row in rows:
        assert row.scores or row.published is not None
        assert all(figure == figure for figure in row.scores.values())
        if row.each:
            assert next(iter(row.scores.values())) == pytest.approx(sum(row.each) / len(row.each))
            assert row.line is not None
        assert row.seconds is None


def test_synthetic() -> None:
    rows = list(synthetic.rows(TINY, 60))
    check(rows)
    assert {row.job for row in rows} == {synthetic.ONE, synthetic.TEN}
    assert all(list(row.scores) == ["validation MSE", "test MSE"] for row in rows)
    assert len([row for row in rows if row.each]) == 15


def test_chicago() -> None:
    rows = list(chicago.tables(TINY, ridership()))
    check(rows)
    assert {row.job for row in rows} == {chicago.RAIL, chicago.TYPES, chicago.AHEAD}
    ahead = [row for row in rows if row.job == chicago.AHEAD]
    for row in ahead:  # the figure is the mean of the 14 days
        days = [row.scores[f"day {day}"] for day in range(1, 15)]
        assert row.scores[chicago.VALIDATION] == pytest.approx(sum(days) / 14)


def test_the_next_day_s_type_comes_a_day_early() -> None:
    panel = ridership()
    early = chicago.next_type(panel)
    assert early.columns == panel.columns
    assert early.past == ("W", "A", "U")
    assert torch.equal(early.values[:-1, 2:], panel.values[1:, 2:])
    assert torch.equal(early.values[:, :2], panel.values[:, :2])


def test_course() -> None:
    rows = list(course.rows(TINY))
    check(rows)
    for row in rows[:4]:  # the baselines, to the digits printed
        assert row.published == pytest.approx(row.scores[course.MAE], abs=1.5e-2)


def test_m4() -> None:
    rows = list(m4.table(TINY, hours()))
    check(rows)
    assert all(list(row.scores) == [m4.MASE, m4.SMAPE] for row in rows if row.scores)


@pytest.mark.parametrize(("module", "rows"), [(chicago, 2), (m4, 1)])
def test_baselines_of_real_series(module: object, rows: int) -> None:
    """The figures that need no training, from the files themselves."""
    if not (DATA / module.FILE).exists():  # type: ignore[attr-defined]
        pytest.skip("the file is not at hand")
    found: Iterator[Row] = module.rows(TINY, DATA)  # type: ignore[attr-defined]
    figures = [next(iter(next(found).scores.values())) for _ in range(rows)]
    due = [41_274, 36_592] if module is chicago else [1.228]
    assert figures == pytest.approx(due, rel=1e-4 if module is chicago else 5e-4)


def test_every_seed_is_another_network() -> None:
    waves = synthetic.Waves(40, 1)
    model = Model(
        "GRU",
        synthetic.recurrent("gru", 1, residual=True),
        waves.to_sequence,
        synthetic.TRAINING,
        published=0.5,
        note="so",
    )
    line = Row("job", "line", scores={"validation MSE": 0.25, "test MSE": 0.5})
    [row] = trained("job", model, waves.score, Run(seeds=(3, 4), epochs=1), line)
    assert len(set(row.each)) == 2
    assert (row.published, row.line, row.note) == (0.5, 0.25, "so")
    [again] = trained("job", model, waves.score, Run(seeds=(4,), epochs=1), line)
    assert again.each == row.each[1:]


def test_times_are_of_both_sides_and_of_recurrent_layers_only() -> None:
    waves = synthetic.Waves(40, 1)
    model = Model(
        "GRU", synthetic.recurrent("gru", 1, residual=True), waves.to_sequence, synthetic.TRAINING
    )
    seconds = time_epochs(model, rounds=1)
    assert seconds is not None
    assert seconds["ratio"] == pytest.approx(seconds["torch.nn"] / seconds["ours"])
    dense = Model("none", lambda _: torch.nn.Linear(1, 1), waves.to_sequence, synthetic.TRAINING)
    assert time_epochs(dense) is None


def test_record_is_kept_row_by_row_and_job_by_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.JOBS, "synthetic", lambda run, folder: synthetic.rows(run, 40))
    written: list[int] = []
    write = results.write

    def count_and_write(folder: Path, name: str, facts: Any, rows: list[Any]) -> Path:
        written.append(len(rows))
        return write(folder, name, facts, rows)

    monkeypatch.setattr(results, "write", count_and_write)
    command.main(["--jobs", "course", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path)])
    count = len(written)
    assert written == list(range(1, count + 1))
    command.main(
        ["--jobs", "synthetic,m4", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path)]
    )
    assert "without m4: no m4_hourly_train.csv.gz in --data FOLDER" in capsys.readouterr().out
    record = json.loads((tmp_path / "forecast.json").read_text())
    assert {"torch", "commit", "threads"} <= set(record["machine"])
    rows = [Row(**row) for row in record["rows"]]
    assert rows[0].job == synthetic.ONE
    assert len([row for row in rows if row.job == course.JOB]) == count
    assert (tmp_path / "forecast.txt").read_text() == as_text(rows) + "\n"
    # only some networks: the others' rows stay, in their places
    command.main(["--jobs", "course", "--models", "GRU", "--epochs", "1", "--out", str(tmp_path)])
    after = [Row(**row) for row in json.loads((tmp_path / "forecast.json").read_text())["rows"]]
    assert [row.model for row in after] == [row.model for row in rows]
    changed = [row.model for row, before in zip(after, rows, strict=True) if row != before]
    assert changed == ["GRU, to sequence"]
    # times alone: the scores stay
    timed = ["--seeds", "0", "--timing", "--models", "GRU", "--epochs", "1"]
    command.main(["--jobs", "course", *timed, "--out", str(tmp_path)])
    record = json.loads((tmp_path / "forecast.json").read_text())
    assert {"commit", "date"} == set(record["machine"]["timed"])
    for row, before in zip(record["rows"], after, strict=True):
        assert (row["seconds"] is not None) == (row["model"] == "GRU, to sequence")
        assert {**row, "seconds": None} == before.as_dict()
    # scores alone: the times stay
    command.main(["--jobs", "course", "--models", "GRU", "--epochs", "1", "--out", str(tmp_path)])
    again = json.loads((tmp_path / "forecast.json").read_text())
    assert again["machine"]["timed"] == record["machine"]["timed"]
    assert [row["seconds"] for row in again["rows"]] == [row["seconds"] for row in record["rows"]]
    with pytest.raises(SystemExit):
        command.main(["--jobs", "course", "--seeds", "0", "--out", str(tmp_path)])


def test_text_tells_what_is_missing_and_what_was_timed() -> None:
    rows = [
        Row("job", "only in print", 0.5, note="by others"),
        Row(
            "job",
            "GRU",
            41_274.4,
            0.02,
            {"MSE": 0.0123456},
            [0.012, 0.0127],
            {"ours": 0.5, "torch.nn": 2.0, "ratio": 4.0},
        ),
    ]
    text = as_text(rows)
    head, _, first, second, note = text.splitlines()[2:]
    assert [one.strip() for one in head.split("  ") if one] == [
        "model",
        "published",
        "least squares",
        "MSE",
        "lowest",
        "highest",
        "s an epoch, ours",
        "s an epoch, torch.nn",
        "ratio",
    ]
    assert first.split() == ["only", "in", "print", "(1)", "0.500"]
    assert second.split() == [
        "GRU",
        "41,274",
        "0.02000",
        "0.01235",
        "0.01200",
        "0.01270",
        "0.500",
        "2.000",
        "4.000",
    ]
    assert note == "(1) by others"
    assert as_line(rows[0]) == "job: only in print: in print 0.500"
    assert as_line(rows[1]) == "job: GRU: MSE 0.01235"


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        Row("one", "print", 0.5),
        Row("one", "GRU", None, 0.2, {"MSE": 0.1}, [0.1]),
        Row("two", "naive", 3.0, None, {"MAE": 2.0}),
    ]
    path = draw(rows, tmp_path / "rows.png")
    assert path is not None
    assert path.read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "m5"], "--jobs: expected some of synthetic, chicago, course, m4, got m5"),
        (["--seeds", "0"], "--threads, --seeds and --epochs are at least 1"),
        (["--epochs", "-1"], "--threads, --seeds and --epochs are at least 1"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.parse(arguments)
    assert message in capsys.readouterr().err
