"""``rnncells impute``: what is filled, what is marked, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.forecast import as_panel
from rnncells.forecast.command import filling, main
from rnncells.forecast.command.filling import fill
from rnncells.forecast.options import Options
from tests.forecast.commands import (
    hours,
    numbers,
    read,
    refused,
    rows_of,
    run,
    run_json,
    write,
)
from tests.forecast.forecasters import frame_of, waves

pytest.importorskip("lightning_fabric")
np = pytest.importorskip("numpy")

Capsys = pytest.CaptureFixture[str]
TRAINED = ["--hidden-size", "16", "--epochs", "40", "--learning-rate", "0.02", "--context", "24"]
TRAINED += ["--stride", "2", "--batch-size", "16", "--patience", "none"]
QUICK = ["--hidden-size", "4", "--epochs", "1", "--context", "24"]
HOLES = {(0, 20), (0, 21), (1, 100), (1, 101), (1, 102)}  # series and step


def holed(tmp_path: Path, lacking: set[tuple[int, int]] = HOLES) -> tuple[str, Tensor]:
    """Two series of 150 hours with empty cells, and some rows that are not there at all; and the
    truth."""
    y = waves(2, 150).double()
    rows = []
    for place, (one, stamp, value) in enumerate(rows_of(y)):
        key = divmod(place, 150)
        if key not in lacking:
            rows.append([stamp, "" if key in HOLES else value, f"note {place}", one])
    return write(tmp_path / "holed.csv", rows, ("ds", "y", "note", "unique_id")), y


def test_gaps_are_filled_and_marked_and_nothing_else_changes(
    tmp_path: Path, capsys: Capsys
) -> None:
    path, y = holed(tmp_path, {(0, 21), (1, 101)})
    status = main(["impute", path, *TRAINED])
    out, _ = capsys.readouterr()  # the straight line may do better, and is then told
    assert status == 0
    found = read(out)
    assert list(found[0]) == ["ds", "y", "note", "unique_id", "y_filled"]
    assert len(found) == 300
    before = {(row["unique_id"], row["ds"]): row for row in read(Path(path).read_text())}
    for place, row in enumerate(found):
        key = divmod(place, 150)
        assert (row["unique_id"], row["ds"]) == ("ab"[key[0]], hours(key[1], 1)[0])
        assert row["y_filled"] == str(int(key in HOLES))
        if key not in HOLES:
            old = before[row["unique_id"], row["ds"]]
            assert (row["y"], row["note"]) == (old["y"], old["note"])
    assert found[21]["note"] == ""
    assert found[20]["note"] == "note 20"
    holes = [150 * one + step for one, step in sorted(HOLES)]
    error = numbers(found, "y")[holes] - y.flatten()[holes]
    # a wave of amplitude 1, whose mean is off by 0.7
    assert error.abs().mean() < 0.3


def test_the_numbers_are_those_of_the_function(tmp_path: Path, capsys: Capsys) -> None:
    path, y = holed(tmp_path, set())
    for one, step in HOLES:
        y[one, step] = torch.nan
    panel = as_panel(y, ids=["a", "b"])
    options = Options(hidden_size=4, epochs=1)
    expected = fill(panel, options, 24, None, 24)
    out = tmp_path / "out.csv"
    words = ["impute", path, *QUICK, "--out", str(out), "--json"]
    assert main(words) == 0
    text, _ = capsys.readouterr()
    assert torch.equal(numbers(read(out.read_text()), "y"), expected.values.flatten())
    assert f'"error": {expected.error!r}' in text
    assert f'"error_of_straight_line": {expected.interpolated!r}' in text


def test_what_is_measured_was_seen_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    y = waves(2, 130).double()
    y[1, :, 0] = y[1, :, 0].flip(0) * 2
    y[:, 7] = torch.nan
    parts: dict[str, Any] = {}
    real: Any = getattr(filling, "fit")  # noqa: B009 - which the module only imports

    def watched(net: Any, train: Any, check: Any, training: Any) -> Any:
        parts.update(train=train.series, check=check and check.series)
        return real(net, train, check, training)

    def measured(net: Any, test: Any) -> tuple[float, float]:
        parts["test"] = test.series
        return 1.0, 2.0

    monkeypatch.setattr(filling, "fit", watched)
    monkeypatch.setattr(filling, "_try", measured)
    options = Options(hidden_size=4, epochs=1)
    fill(as_panel(y), options, 24, None, 24)
    for number in range(2):
        learned = y[number, :82][~y[number, :82].isnan()]
        mean, deviation = learned.mean(), learned.std(correction=0)
        scaled = ((y[number] - mean) / deviation).float()
        for name, first, last in (("train", 0, 82), ("check", 82, 106), ("test", 106, 130)):
            close = torch.testing.assert_close
            close(parts[name][number], scaled[first:last], equal_nan=True)
    # what is hidden to measure moves neither scaler nor weights
    before = dict(parts)
    y[:, 110] += 1000
    fill(as_panel(y), options, 24, None, 24)
    for name in ("train", "check"):
        pairs = zip(parts[name], before[name], strict=True)
        assert all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in pairs)
    assert not torch.equal(parts["test"][0], before["test"][0])
    fill(as_panel(y[:, :119]), options, 24, None, 24)  # too short to hold back
    assert len(parts["train"][0]) == 119


def test_json_tells_what_was_filled(tmp_path: Path, capsys: Capsys) -> None:
    rows = [[step, value, -value] for step, value in enumerate(waves(1, 40).flatten().tolist())]
    rows[7][1] = rows[9][2] = "NA"
    path = write(tmp_path / "short.csv", rows[:20] + rows[21:], ("step", "u", "v"))
    words = ["impute", path, *QUICK, "--time", "step", "--target", "u,v"]
    found = run_json(capsys, *words)
    told = [(one["step"], one["column"]) for one in found["filled"]]
    assert told == [("7", "u"), ("9", "v"), ("20", "u"), ("20", "v")]
    assert (found["rows_added"], found["error"]) == (1, None)
    filled = read(run(capsys, *words))
    assert list(filled[0]) == ["step", "u", "v", "u_filled", "v_filled"]
    assert [row["step"] for row in filled] == [str(step) for step in range(40)]
    assert float(filled[7]["u"]) == found["filled"][0]["value"]


def test_a_file_without_gaps_comes_back(tmp_path: Path, capsys: Capsys) -> None:
    rows = rows_of(waves(1))
    found = read(run(capsys, "impute", write(tmp_path / "whole.csv", rows), *QUICK))
    assert [[row["unique_id"], row["ds"], row["y"]] for row in found] == [
        [one, stamp, str(value)] for one, stamp, value in rows
    ]
    assert {row["y_filled"] for row in found} == {"0"}


def test_the_straight_line_is_told_where_it_is_better(tmp_path: Path, capsys: Capsys) -> None:
    path, _ = holed(tmp_path)
    assert main(["impute", path, *QUICK]) == 0
    assert "warning: the straight line between neighbours finds" in capsys.readouterr().err


def test_parquet_too(tmp_path: Path, capsys: Capsys) -> None:
    frame = frame_of("polars", waves(1, 40), note=[None, *["x"] * 39])
    frame = frame.filter(np.arange(40) != 12)
    frame.write_parquet(tmp_path / "one.parquet")
    found = read(run(capsys, "impute", tmp_path / "one.parquet", *QUICK))
    assert [row["note"] for row in found] == ["", *["x"] * 11, "", *["x"] * 27]
    assert found[12]["y_filled"] == "1"


def test_what_cannot_be_filled(tmp_path: Path, capsys: Capsys) -> None:
    rows = [*rows_of(waves(1)), *[["b", stamp, ""] for stamp in hours(0, 60)]]
    path = write(tmp_path / "empty.csv", rows)
    told = refused(capsys, 1, "impute", path, *QUICK)
    assert "series 'b': expected values in every feature" in told
    path, _ = holed(tmp_path)
    told = refused(capsys, 1, "impute", path, "--context", "151")
    assert "--context: expected at most 150 steps, the longest series', got 151" in told
    told = refused(capsys, 2, "impute", path, "--horizon", "3")
    assert "unrecognized arguments: --horizon 3" in told
    marked = write(tmp_path / "marked.csv", [["1", 2, 0], ["2", "", 0]], ("ds", "y", "y_filled"))
    assert "column 'y_filled', which marks would take" in refused(capsys, 2, "impute", marked)
