"""Fixtures and settings that the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before torch loads OpenMP: threads that spin while they wait take the cores from other workers.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

from rnncells import _C, reference

# The same examples on every run, and no limit on the time of one on a busy machine.
hypothesis.settings.register_profile("rnncells", derandomize=True, deadline=None)
hypothesis.settings.load_profile("rnncells")


@pytest.fixture(params=reference.CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    """Each cell's name in turn."""
    name: str = request.param
    return name


@pytest.fixture(params=_C.supported_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each ISA of this machine in turn, in use for the time of the test."""
    before = _C.get_isa()
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa(before)


@pytest.fixture
def keep_threads() -> Iterator[None]:
    """Lets a test choose the number of threads, and restores it."""
    before = torch.get_num_threads(), _C.thread_threshold()
    _C.set_thread_threshold(0)  # or small problems would stay on one thread
    yield
    torch.set_num_threads(before[0])
    _C.set_thread_threshold(before[1])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table that the accuracy tests have measured."""
    rows = [
        row
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, row in report.user_properties
        if name == "accuracy"
    ]
    if rows:
        terminalreporter.section("float32 against the float64 reference, max|d| / max|reference|")
        for row in rows:
            terminalreporter.write_line(str(row))
