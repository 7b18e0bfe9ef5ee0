"""Small files and short runs for the tests of the command line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.forecast.command import main
from tests.forecast.forecasters import CONTEXT, HORIZON, SMALL

SHORT = ["--horizon", str(HORIZON), "--context", str(CONTEXT)]
SHORT += ["--hidden-size", "4", "--epochs", "1", "--batch-size", "32"]
Run = Callable[..., str]


def hours(first: int, count: int) -> list[str]:
    """Stamps as texts, from 2024 on."""
    return [f"2024-01-{1 + h // 24:02d} {h % 24:02d}:00:00" for h in range(first, first + count)]


def rows_of(series: Tensor, first: int = 0) -> list[list[Any]]:
    """[series, time, 1] as rows of id, stamp and value, float64 in full."""
    return [
        ["abcdef"[number], stamp, value]
        for number, one in enumerate(series.double())
        for stamp, value in zip(hours(first, len(one)), one[:, 0].tolist(), strict=True)
    ]


def write(
    path: Path, rows: list[list[Any]], head: tuple[str, ...] = ("unique_id", "ds", "y")
) -> str:
    """A CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path)


def read(text: str) -> list[dict[str, str]]:
    """What CSV holds."""
    return list(csv.DictReader(io.StringIO(text)))


def numbers(rows: list[dict[str, Any]], name: str) -> Tensor:
    """One of its columns."""
    return torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """Run a command that must do, in silence; its results."""
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def run_json(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    """The same with ``--json``; NaN is no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found: dict[str, Any] = json.loads(run(capsys, *words, "--json"), parse_constant=refuse)
    return found


def refused(capsys: pytest.CaptureFixture[str], status: int, *words: Any) -> str:
    """Run a command that must not do, with this exit status; what it says, the last line."""
    try:
        found = main([str(word) for word in words])
    except SystemExit as left:
        found = int(str(left))
    out, err = capsys.readouterr()
    assert found == status
    assert out == ""
    assert "Traceback" not in err
    return str(err.strip().splitlines()[-1])


def direct(**more: Any) -> dict[str, Any]:
    """The parameters of :data:`SHORT` for a forecaster."""
    return SMALL | more
