"""The progress bar: for a terminal only."""

from __future__ import annotations

import io
import sys
import warnings

import pytest

from rnncells.forecast import RecurrentNet, Training, Windows, fit
from rnncells.forecast.progress import Progress


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_bar_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, net: RecurrentNet, train: Windows, validation: Windows
) -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("lightning_fabric")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fit(net, train, validation, Training(epochs=2), label="a GRU")
    shown = terminal.getvalue()
    assert "a GRU" in shown
    assert "2/2" in shown
    assert "validation loss" in shown


def test_no_bar_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)  # not even asked for
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress("label", 2) as progress:
            progress.step("note")
        if stream is not None:
            assert stream.getvalue() == ""


def test_training_is_silent_in_a_pipe(
    capfd: pytest.CaptureFixture[str], net: RecurrentNet, train: Windows, validation: Windows
) -> None:
    pytest.importorskip("lightning_fabric")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(net, train, validation, Training(epochs=2))
    assert capfd.readouterr() == ("", "")


def test_bar_goes_on_where_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("label", 5, 3) as progress:
        progress.step("note")
    assert "4/5" in terminal.getvalue()
    shown = len(terminal.getvalue())
    with Progress("label", 5, show=False) as progress:  # as in all processes but the first
        progress.step("note")
    assert len(terminal.getvalue()) == shown
