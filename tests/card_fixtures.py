"""Fixtures of the tests on the emulated card, for their ``pytest_plugins``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests import emulated


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operators, loaded as ``torch.ops.rnncells_emulated``."""
    path = emulated.built(tmp_path_factory) / "operators.so"
    torch.ops.load_library(path)
    return path


@pytest.fixture
def force(library: Path) -> Iterator[Callable[[str], None]]:
    """Forces a kernel, "" for none; none after the test."""
    loaded = ctypes.CDLL(str(library)).rnncells_emulated_force
    loaded.restype = ctypes.c_bool

    def choose(name: str) -> None:
        assert loaded(name.encode())

    choose("")
    yield choose
    choose("")
