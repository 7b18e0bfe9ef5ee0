"""A training in a process of its own, for the tests that kill it: ``python -m
tests.forecast.resumed FOLDER``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from rnncells.forecast.batch import Batch
from rnncells.forecast.networks import RecurrentNet
from rnncells.forecast.training import History, Training, fit
from tests.forecast.jobs import HORIZON, Waves

TRAINING = Training(
    epochs=4,
    batch_size=8,
    learning_rate=1e-2,
    schedule="one_cycle",
    warmup=3,
    checkpoint_every=2,
    patience=2,
)


class Slow(Waves):
    """Waves that take their time, so that a kill finds them at work."""

    def batch(self, indices: Any = None) -> Batch:
        time.sleep(0.01)
        return super().batch(indices)


def train(
    checkpoint: Path | None, training: Training = TRAINING, waves: type[Waves] = Waves
) -> tuple[RecurrentNet, History]:
    """The same training each time: dropout, a schedule, and seven steps an epoch."""
    torch.manual_seed(3)
    net = RecurrentNet("lstm", 1, 8, HORIZON, dropout=0.2)
    torch.manual_seed(time.time_ns())  # it must not depend on what was drawn before
    history = fit(net, waves(50), waves(20, seed=1), training, checkpoint=checkpoint)
    return net, history


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    net, history = train(folder / "run.ckpt", waves=Slow)
    torch.save([net.state_dict(), history.train_loss, history.validation_loss], folder / "end.pt")
