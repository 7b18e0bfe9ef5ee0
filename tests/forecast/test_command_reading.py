"""What the command line reads: files of several kinds, and what is wrong with them, row by row."""

from __future__ import annotations

import gzip
import sys
from argparse import Namespace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from rnncells.forecast import load_laguardia
from rnncells.forecast.command.arguments import UsageError
from rnncells.forecast.command.reading import read_table
from rnncells.forecast.command.series import Source, read_series
from rnncells.forecast.command.writing import stamp_texts
from tests.forecast.commands import SHORT, hours, read, refused, rows_of, run, write
from tests.forecast.forecasters import HORIZON, frame_of, waves

np = pytest.importorskip("numpy")
Capsys = pytest.CaptureFixture[str]


def series(path: Any, gaps: str = "error", **more: Any) -> Source:
    """Read a file as a command does."""
    names = ("id", "target", "past", "future", "static", "freq", "season", "time_format")
    options = dict.fromkeys(names) | {"data": str(path), "time": "ds"} | more
    return read_series(Namespace(**options), gaps)


def text(tmp_path: Path, content: str) -> Path:
    """A file with this content."""
    path = tmp_path / "data.csv"
    path.write_text(content, encoding="utf-8")
    return path


def test_rows_in_any_order_and_lengths(tmp_path: Path) -> None:
    content = "y,unique_id,ds\n3,b,2024-01-02\n1,a,2024-01-01\n2,b,2024-01-01\n,a,2024-01-02\n"
    source = series(text(tmp_path, content + "4,b,2024-01-03\n"))
    panel = source.panel
    assert panel.ids == ("b", "a")
    assert panel.lengths.tolist() == [3, 2]
    assert panel.values[:4, 0].tolist() == [2, 3, 4, 1]
    assert panel.values[4].isnan().all()
    assert source.place.tolist() == [2, 0, 4, 1, 3]
    assert (panel.frequency and panel.frequency.name, source.season) == ("D", 7)
    assert stamp_texts(source, panel.stamps("b")) == ["2024-01-01", "2024-01-02", "2024-01-03"]


@pytest.mark.parametrize(
    ("stamps", "form", "shown"),
    [
        (["1", "2", "3"], None, ["1", "2", "3"]),
        (["2024-01", "2024-02", "2024-03"], None, ["2024-01-01", "2024-02-01", "2024-03-01"]),
        (
            ["2024-01-01T06:00Z", "2024-01-01T08:00+01:00", "2024-01-01T08:00Z"],
            None,
            [f"2024-01-01 0{hour}:00:00+00:00" for hour in (6, 7, 8)],
        ),
        (["01/31/2001", "02/01/2001", "02/02/2001"], "%m/%d/%Y", None),
        (["01.02.24 5h+0100", "01.02.24 6h+0100", "01.02.24 7h+0100"], "%d.%m.%y %Hh%z", []),
    ],
)
def test_stamps(stamps: list[str], form: str | None, shown: Any, tmp_path: Path) -> None:
    path = text(tmp_path, "ds,y\n" + "".join(f"{stamp},1\n" for stamp in stamps))
    source = series(path, time_format=form)
    found = stamp_texts(source, source.panel.stamps())
    if shown == []:  # an offset other than UTC's comes back in UTC
        shown = [f"01.02.24 0{hour}h+0000" for hour in (4, 5, 6)]
    assert found == (stamps if shown is None else shown)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_compression(separator: str, tmp_path: Path) -> None:
    lines = [["ds", "a name", "y"], ["1", '"x, y;\t"', " 2.5"], ["2", '"two\nlines"', "NA"]]
    content = "\ufeff" + "\n".join(separator.join(line) for line in lines) + "\n\n3" + separator * 2
    with gzip.open(tmp_path / "data.csv.gz", "wt", encoding="utf-8") as file:
        file.write(content)
    table = read_table(str(tmp_path / "data.csv.gz"))
    assert table.columns == ["ds", "a name", "y"]
    assert table.texts("a name") == ["x, y;\t", "two\nlines", ""]
    assert table.numbers("y")[0] == 2.5
    assert table.numbers("y")[1:].isnan().all()
    assert table.rows.tolist() == [2, 3, 6]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "expected a head with a name for each column, got none"),
        ("ds,y,y\n1,2,3\n", "got 'y' twice"),
        ("ds,y\n", "expected at least one row below the head"),
        ("ds,y\n1,2\n2,3,4\n", "expected 2 cells in each row, as in the head, got 3 at row 3"),
        ("ds,y\n1,2\n2,x\n", "y: expected a number, got 'x' at row 3"),
        ("ds,y\n1,2\n2,inf\n", "y: expected finite values, got an infinity at row 3"),
        ("ds,y\n2024-01-01,2\n01/02/2024,3\n", "got '01/02/2024' at row 3; --time-format says"),
        ("ds,y\n2024-01-01,2\n,3\n", "got none at row 3"),
        ("ds,y\n2024-01-01T00:00Z,2\n2024-01-01T01:00,3\n", "offset from UTC.* at row 3"),
        ("ds,y\n2024-01-01,2\n", "freq: expected a frequency"),
        ("ds,y\n1,2\n2,3\n2,4\n3,5\n", "ds: .* got 2 at row 3 and again at row 4 .*--id names"),
        ("ds,y\n1,2\n2,3\n3,4\n5,5\n", "1 missing before 5 at row 5 .*; --missing mask takes"),
        ("ds,y\n1,2\n2,3\n3,4\n", "--freq: expected one that fits the stamps in 'ds', got 'h'"),
        (
            "ds,y\n2024-01-01,2\n2024-01-02,3\n2024-01-03,1\n2024-01-03 11:00,3\n",
            "mixed frequencies: .* at row 5",
        ),
        ("ds,load,yy\n1,2,3\n2,3,4\n", r"--target: no column 'y' \(did you mean 'yy'\?\)"),
    ],
)
def test_files_that_do_not_do(content: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        series(text(tmp_path, content), freq="h" if "--freq" in match else None)


def test_the_shipped_series_with_its_words() -> None:
    path = files("rnncells.forecast") / "data" / "laguardia_2013.csv.gz"
    source = series(path, "mask", time="time", target=["temperature"], past=["dew_point"])
    shipped = load_laguardia()
    assert (source.panel.frequency, source.panel.starts) == (shipped.frequency, shipped.starts)
    expected = shipped.values[:, :2]
    assert torch.equal(source.panel.values.nan_to_num(nan=99.0), expected.nan_to_num(nan=99.0))
    assert source.row(0) == 12


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(str(tmp_path / "nowhere.csv"))
    (tmp_path / "binary.csv").write_bytes(b"ds,y\n\xff\xfe")
    with pytest.raises(ValueError, match="expected a CSV file in UTF-8"):
        read_table(str(tmp_path / "binary.csv"))
    (tmp_path / "plain.csv.gz").write_text("ds,y\n1,2\n")
    with pytest.raises(ValueError, match="expected a CSV file in UTF-8, got Not a gzipped"):
        read_table(str(tmp_path / "plain.csv.gz"))


def test_columns_and_their_roles(tmp_path: Path) -> None:
    path = text(tmp_path, "ds,y,a,b\n1,2,5,3\n2,3,5,4\n3,4,6,4\n")
    source = series(path, past=["b"], season=3)
    assert (source.panel.columns, source.season) == (("y", "b"), 3)
    with pytest.raises(ValueError, match=r"--static: .* value of 'a' .* another at row 4"):
        series(path, static=["a"])
    with pytest.raises(ValueError, match=r"--past: no column 'aa' \(did you mean 'a'\?\)"):
        series(path, past=["aa"])
    with pytest.raises(ValueError, match="--id: no column 'unique_id'"):
        series(path, id="unique_id")
    with pytest.raises(UsageError, match="column 'b' has two roles"):
        series(path, past=["b"], future=["b"])


@pytest.mark.parametrize(
    ("freq", "season"),
    [("min", 60), ("15min", 96), ("h", 24), ("D", 7), ("W", 52), ("B", 5), ("MS", 12), ("QS", 4)],
)
def test_seasons(freq: str, season: int, tmp_path: Path) -> None:
    assert series(text(tmp_path, "ds,y\n2024-01-01,1\n"), freq=freq).season == season


def test_short_series_are_told_with_their_rows(tmp_path: Path, capsys: Capsys) -> None:
    rows = [*rows_of(waves(1)), *[["b", *row[1:]] for row in rows_of(waves(1, 14))]]
    path = write(tmp_path / "data.csv", rows)
    told = refused(capsys, 1, "forecast", path, *SHORT)
    assert told == (
        f"rnncells forecast: {path}: expected at least context + horizon = 15 time steps of each "
        "series, got 14 of 'b', row 62 to row 75"
    )
    told = refused(capsys, 1, "backtest", path, *SHORT, "--test", "9")
    assert "context + horizon + test = 24" in told
    assert "--test: expected at least one horizon of 3" in refused(
        capsys, 1, "backtest", path, *SHORT, "--test", "2"
    )


def test_gaps_and_missing_values_are_told_and_masked(tmp_path: Path, capsys: Capsys) -> None:
    pytest.importorskip("lightning_fabric")
    rows = rows_of(waves(1))
    rows[10][2] = ""
    path = write(tmp_path / "empty.csv", rows)
    told = refused(capsys, 1, "forecast", path, *SHORT)
    assert "y: expected a value in each row, got none at row 12 (1 in all); --missing mask" in told
    lacking = write(tmp_path / "lacking.csv", rows[:10] + rows[11:])
    told = refused(capsys, 1, "forecast", lacking, *SHORT)
    assert f"1 missing before {hours(11, 1)[0]} at row 12" in told
    words = ["--missing", "mask"]
    found = run(capsys, "forecast", path, *SHORT, *words)
    assert len(read(found)) == HORIZON
    assert run(capsys, "forecast", lacking, *SHORT, *words) == found


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_parquet(
    library: str, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightning_fabric")
    frame = frame_of(library, waves(2))
    if library == "pandas":
        pytest.importorskip("pyarrow")
        monkeypatch.setitem(sys.modules, "polars", None)
        frame.to_parquet(tmp_path / "two.parquet")
    else:
        frame.write_parquet(tmp_path / "two.parquet")
    found = run(capsys, "forecast", tmp_path / "two.parquet", *SHORT)
    assert found == run(capsys, "forecast", write(tmp_path / "two.csv", rows_of(waves(2))), *SHORT)
    (tmp_path / "no.parquet").write_text("ds,y\n")
    told = refused(capsys, 1, "forecast", tmp_path / "no.parquet", *SHORT)
    assert "expected a Parquet file" in told


def test_nothing_that_reads_parquet(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("polars", "pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "two.parquet").write_bytes(b"PAR1")
    told = refused(capsys, 1, "forecast", tmp_path / "two.parquet", *SHORT)
    assert "polars, or pandas with pyarrow, reads Parquet" in told
    assert "pip install 'rnncells[frames]'" in told
    told = refused(capsys, 1, "forecast", tmp_path / "nowhere.parquet", *SHORT)
    assert told.endswith("No such file or directory")


def test_a_wide_buffer_keeps_its_series_apart(tmp_path: Path) -> None:
    source = series(write(tmp_path / "two.csv", rows_of(waves(3, 30))))
    for number, one in enumerate("abc"):
        assert torch.equal(source.panel.series(one), waves(3, 30)[number].double())
