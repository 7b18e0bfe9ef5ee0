"""Where results go: CSV, JSON or a table for people on stdout, words on stderr."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from rnncells.forecast.command.series import Source

__all__ = ["aligned", "check_outputs", "say", "stamp_texts", "warn", "write_json", "write_rows"]

EPOCH = datetime(1970, 1, 1)


def say(text: str) -> None:
    """A word on stderr for who sits there; nothing in a pipe."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(text, file=sys.stderr)


def warn(text: str) -> None:
    """A word on stderr, in a pipe too."""
    print(f"warning: {text}", file=sys.stderr)


def check_outputs(*files: str | None, folder: str | None = None) -> None:
    """Check before anything takes time that results can be written.

    Raises:
        OSError: they cannot.
    """
    for path in files:
        if path is None:
            continue
        if os.path.isdir(path):
            raise IsADirectoryError(21, "expected a file to write, got a folder", path)
        parent = Path(path).absolute().parent
        if not parent.is_dir():
            raise FileNotFoundError(2, "cannot be written, its folder is not there", path)
        if not os.access(path if os.path.exists(path) else parent, os.W_OK):
            raise PermissionError(13, "cannot be written", path)
    if folder is not None:
        above = Path(folder).absolute()
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise NotADirectoryError(20, "expected a folder to write into, got a file", str(above))
        if not os.access(above, os.W_OK):
            raise PermissionError(13, "cannot be written", folder)


def stamp_texts(source: Source, stamps: Any) -> list[str]:
    """Stamps (``datetime64[us]`` or integers) as the file writes its own, or as ISO does."""
    if stamps.dtype.kind != "M":
        return [str(stamp) for stamp in stamps.tolist()]
    origin = source.panel.origin
    zone = UTC if origin.zone is not None else None
    times = [
        (EPOCH + timedelta(microseconds=tick)).replace(tzinfo=zone)
        for tick in stamps.astype("int64").tolist()
    ]
    if source.form is not None:
        return [time.strftime(source.form) for time in times]
    if origin.dates and all(time.time() == EPOCH.time() for time in times):
        return [f"{time:%Y-%m-%d}" for time in times]
    return [time.isoformat(" ") for time in times]


def write_rows(head: Sequence[str], rows: Sequence[Sequence[Any]], path: str | None) -> None:
    """CSV into a file, or on stdout; numbers in full, NaN as an empty cell."""
    with _opened(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([_cell(value) for value in row] for row in rows)


def write_json(record: dict[str, Any]) -> None:
    """JSON on stdout; NaN as null."""
    json.dump(_plain(record), sys.stdout, indent=1, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def aligned(head: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A table for people: four digits that count, the first columns on the left."""
    lines = [list(head), *([_short(value) for value in row] for row in rows)]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(size) if place < left else cell.rjust(size)
            for place, (cell, size) in enumerate(zip(line, width, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


@contextmanager
def _opened(path: str | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with open(path, "w", encoding="utf-8", newline="") as file:
        yield file


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _short(value: Any) -> str:
    value = _cell(value)
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else (f"{value:.0f}" if isinstance(value, float) else str(value))
    )


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **asdict(value)}
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
