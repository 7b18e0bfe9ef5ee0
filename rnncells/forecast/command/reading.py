"""The columns of a CSV or Parquet file: CSV by Python's own reader, Parquet by polars or pandas."""

from __future__ import annotations

import csv
import gzip
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor, from_numpy

from rnncells.forecast.extras import require
from rnncells.forecast.rows import StampKind, read_ids, read_numbers, read_stamps

__all__ = ["Table", "read_table"]

MISSING = ("", "NA", "NaN", "nan", "N/A", "null", "None")
OFFSET = re.compile(r":\d\d.*(Z|[+-]\d\d(:?\d\d)?)$")
EXAMPLES = "dates, times, ISO texts such as '2024-01-31 18:00' or whole numbers"


class Table(ABC):
    """A file's columns.

    Attributes:
        path: of the file.
        columns: their names.
        rows: how each row is told, [rows], int64.
    """

    path: str
    columns: list[str]
    rows: Any

    @abstractmethod
    def stamps(self, name: str, form: str | None) -> tuple[Any, StampKind]:
        """As :func:`rnncells.forecast.rows.read_stamps`; ``form`` is theirs, where it is not ISO's.

        Raises:
            ValueError: a row without a stamp, or with one that cannot be read.
        """

    @abstractmethod
    def ids(self, name: str) -> tuple[tuple[Any, ...], Any]:
        """As :func:`rnncells.forecast.rows.read_ids`."""

    @abstractmethod
    def numbers(self, name: str) -> Tensor:
        """[rows], float64, NaN in empty cells.

        Raises:
            TypeError, ValueError: something else than numbers, or an infinity.
        """

    @abstractmethod
    def texts(self, name: str) -> list[str]:
        """The cells as they are written."""


class TextTable(Table):
    """A table of texts."""

    def __init__(self, path: str, lines: Iterable[tuple[int, list[str]]]) -> None:
        self.path = path
        numbered = iter(lines)
        _, head = next(numbered, (1, []))
        self.columns = [name.strip() for name in head]
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if not self.columns or twice:
            what = f"{twice[0]!r} twice" if twice else "none"
            raise ValueError(f"{path}: expected a head with a name for each column, got {what}")
        cells, rows = [], []
        for line, row in numbered:
            if len(row) != len(head):
                raise ValueError(
                    f"{path}: expected {len(head)} cells in each row, as in the head, got "
                    f"{len(row)} at row {line}"
                )
            cells.append(row)
            rows.append(line)
        if not rows:
            raise ValueError(f"{path}: expected at least one row below the head, got none")
        texts = zip(*cells, strict=True)
        self._cells = {name: list(each) for name, each in zip(self.columns, texts, strict=True)}
        self.rows = require("numpy").array(rows)

    def stamps(self, name: str, form: str | None) -> tuple[Any, StampKind]:
        np, cells = require("numpy"), [cell.strip() for cell in self._cells[name]]
        if form is None and all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells):
            return np.array(cells).astype(np.int64), StampKind(numbers=True)
        zoned = any(OFFSET.search(cell) for cell in cells) if form is None else "%z" in form
        ticks = np.array(
            [
                self._stamp(name, cell, form, zoned, row)
                for cell, row in zip(cells, self.rows.tolist(), strict=True)
            ],
            "M8[us]",
        )
        dates = not zoned and bool((ticks == ticks.astype("M8[D]")).all())
        return ticks.astype(np.int64), StampKind(zone="UTC" if zoned else None, dates=dates)

    def _stamp(self, name: str, cell: str, form: str | None, zoned: bool, row: int) -> Any:
        np = require("numpy")
        try:
            if form is None and not zoned:
                stamp = np.datetime64(cell or None, "us")
                if not np.isnat(stamp):
                    return stamp
                raise ValueError
            time = datetime.fromisoformat(cell) if form is None else datetime.strptime(cell, form)
            if zoned and time.tzinfo is None:
                raise ValueError
            return np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if zoned else time, "us")
        except ValueError:
            wanted = "ISO texts with an offset from UTC, as others have" if zoned else EXAMPLES
            wanted = f"stamps as {form!r}" if form else wanted
            advice = "" if form else "; --time-format says another form"
            got = repr(cell) if cell else "none"
            raise ValueError(f"{name}: expected {wanted}, got {got} at row {row}{advice}") from None

    def ids(self, name: str) -> tuple[tuple[Any, ...], Any]:
        numbers: dict[str, int] = {}
        codes = [numbers.setdefault(cell, len(numbers)) for cell in self._cells[name]]
        blank = [code for cell, code in numbers.items() if not cell.strip()]
        if blank:
            row = self.rows[codes.index(blank[0])]
            raise ValueError(f"{name}: expected an id in each row, got none at row {row}")
        return tuple(numbers), require("numpy").array(codes)

    def numbers(self, name: str) -> Tensor:
        np = require("numpy")
        cells = ["nan" if cell.strip() in MISSING else cell for cell in self._cells[name]]
        try:
            values = np.array(cells).astype(np.float64)
        except ValueError:
            row, cell = next(
                (row, cell)
                for row, cell in zip(self.rows.tolist(), cells, strict=True)
                if not _is_number(cell)
            )
            raise ValueError(f"{name}: expected a number, got {cell!r} at row {row}") from None
        infinite = np.isinf(values)
        if infinite.any():
            row = self.rows[infinite.argmax()]
            raise ValueError(f"{name}: expected finite values, got an infinity at row {row}")
        return from_numpy(values)

    def texts(self, name: str) -> list[str]:
        return self._cells[name]


class FrameTable(Table):
    """A table from a library's frame."""

    def __init__(self, path: str, frame: Any) -> None:
        self.path, self._frame = path, frame
        self.columns = [str(name) for name in frame.columns]
        if len(frame) == 0:
            raise ValueError(f"{path}: expected at least one row, got none")
        self.rows = require("numpy").arange(len(frame))

    def stamps(self, name: str, form: str | None) -> tuple[Any, StampKind]:
        if form is not None:
            raise ValueError("--time-format: only the texts of a CSV file have a form")
        return read_stamps(self._frame[name], name)

    def ids(self, name: str) -> tuple[tuple[Any, ...], Any]:
        return read_ids(self._frame[name], name)

    def numbers(self, name: str) -> Tensor:
        try:
            return read_numbers(self._frame[name], name)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def texts(self, name: str) -> list[str]:
        cells = self._frame[name].to_list()
        return ["" if cell is None or cell != cell else str(cell) for cell in cells]


def read_table(path: str) -> Table:
    """Read a file: Parquet where its name ends so, else CSV, whose cells may stand between commas,
    semicolons or tabs, below lines of words that begin with ``# ``; ``-`` is stdin.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file; a CSV row of another length than the head, with the row.
        ImportError: nothing is installed that reads Parquet.
    """
    if path.endswith((".parquet", ".pq")):
        return FrameTable(path, _read_parquet(path))
    try:
        with _opened(path) as file:
            return TextTable(path, _lines(file))
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}: expected a CSV file in UTF-8, got {error}") from None


def _lines(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    first, line = file.readline(), 1
    while first.startswith("# "):  # words about the file, above its head
        first, line = file.readline(), line + 1
    separator = max(",;\t", key=first.count)
    yield line, next(csv.reader([first], delimiter=separator), [])
    reader = csv.reader(file, delimiter=separator, strict=True)
    begin = line + 1
    for row in reader:
        if row:
            yield begin, row
        begin = line + reader.line_num + 1


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdin
        return
    opened: Any = gzip.open if Path(path).suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        yield file


def _read_parquet(path: str) -> Any:
    Path(path).open("rb").close()  # what is wrong with the file itself is told in one way
    for library, needs in (("polars", "polars"), ("pandas", "pyarrow")):
        try:
            import_module(needs)
            read = import_module(library).read_parquet
        except ModuleNotFoundError:
            continue
        try:
            return read(path)
        except Exception as error:  # each library has its own
            raise ValueError(f"{path}: expected a Parquet file, got {error}") from None
    raise ImportError(
        f"{path}: polars, or pandas with pyarrow, reads Parquet, and neither is installed: run "
        "`pip install 'rnncells[frames]'`, or give a CSV file"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
