"""Training put down and taken up again: the same weights, bit for bit, wherever it was cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rnncells.forecast.networks import RecurrentNet
from rnncells.forecast.training import Training, checkpoint, fit
from tests.forecast.jobs import Waves
from tests.forecast.resumed import TRAINING, train
from tests.forecast.test_training_options import Stretch

pytest.importorskip("lightning_fabric")

ROOT = Path(__file__).parents[2]


class Cut(Exception):
    """Stands for the kill."""


def cut_after(writes: int, patch: pytest.MonkeyPatch) -> None:
    """Let training end right after it has written this many checkpoints."""
    real, done = checkpoint.write_checkpoint, 0

    def write(path: Path, state: dict[str, Any]) -> None:
        nonlocal done
        real(path, state)
        done += 1
        if done == writes:
            raise Cut

    patch.setattr(checkpoint, "write_checkpoint", write)


@pytest.mark.parametrize("writes", range(1, 13))
def test_goes_on_from_every_checkpoint(tmp_path: Path, writes: int) -> None:
    whole, told = train(None)
    path = tmp_path / "run.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        cut_after(writes, patch)
        with pytest.raises(Cut):
            train(path)
    net, history = train(path)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(net.parameters(), whole.parameters(), strict=True)
    )
    assert history.train_loss == told.train_loss
    assert history.validation_loss == told.validation_loss
    assert history.best_epoch == told.best_epoch
    assert [file.name for file in tmp_path.iterdir()] == ["run.ckpt"]


def test_cut_again_and_again(tmp_path: Path) -> None:
    whole, told = train(None)
    path, cuts = tmp_path / "run.ckpt", 0
    while True:
        try:
            with pytest.MonkeyPatch.context() as patch:
                cut_after(1, patch)
                net, history = train(path)
            break
        except Cut:
            cuts += 1
    assert cuts == 16  # three in each epoch, and its end
    assert torch.equal(net.output.get_parameter("weight"), whole.output.get_parameter("weight"))
    assert history.validation_loss == told.validation_loss


def test_a_carried_state_is_carried_over_the_cut(tmp_path: Path) -> None:
    training = Training(epochs=2, batch_size=2, stateful=True, checkpoint_every=1)

    def run(path: Path | None) -> RecurrentNet:
        torch.manual_seed(1)
        net = RecurrentNet("lstm", 2, 8, 1)
        fit(net, Stretch(9, [5, 4]), Stretch(3), training, checkpoint=path)
        return net

    whole = run(None)
    with pytest.MonkeyPatch.context() as patch:
        cut_after(3, patch)
        with pytest.raises(Cut):
            run(tmp_path / "run.ckpt")
    net = run(tmp_path / "run.ckpt")
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(net.parameters(), whole.parameters(), strict=True)
    )


def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    net, history = train(path)
    before = path.read_bytes()
    again, same = train(path)
    assert path.read_bytes() == before
    assert torch.equal(again.output.get_parameter("weight"), net.output.get_parameter("weight"))
    assert same.validation_loss == history.validation_loss


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    checkpoint.write_checkpoint(path, {"number": 1})
    with pytest.MonkeyPatch.context() as patch:

        def fail(*arguments: Any) -> None:
            raise OSError("no space left")

        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.write_checkpoint(path, {"number": 2})
    state = checkpoint.read_checkpoint(path)
    assert state is not None
    assert state["number"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "its learning_rate is 0.01, expected 0.5"),
        ({"seed": 4}, "its seed is 0, expected 4"),
        ({"loss": torch.nn.functional.mse_loss}, "its loss is None, expected mse_loss"),
    ],
)
def test_another_training_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "run.ckpt"
    train(path, replace(TRAINING, epochs=1))
    with pytest.raises(ValueError, match=f"is of another training: {message}"):
        train(path, replace(TRAINING, epochs=1, **change))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"run\.ckpt is no checkpoint of a training"):
        train(path)
    torch.save({"version": 99}, path)
    with pytest.raises(ValueError, match=r"run\.ckpt has version 99, expected 2"):
        train(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="is no checkpoint"):
        train(path)
    with pytest.raises(FileNotFoundError):
        train(tmp_path / "nowhere" / "run.ckpt")


def test_nothing_is_written_where_nobody_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    fit(RecurrentNet("gru", 1, 4, 3), Waves(), Waves(), Training(epochs=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, told = train(None)
    command = [sys.executable, "-m", "tests.forecast.resumed", str(tmp_path)]
    path, end = tmp_path / "run.ckpt", tmp_path / "end.pt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for kill in range(3):
        before = path.read_bytes() if path.exists() else None
        with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
            limit = time.monotonic() + 120
            while not path.exists() or path.read_bytes() == before:
                assert process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.002)
            time.sleep(0.013 * kill)  # in the midst of a step, or of a write
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not end.exists()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    weights, train_loss, validation_loss = torch.load(end)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weights[name], weight)
    assert train_loss == told.train_loss
    assert validation_loss == told.validation_loss
