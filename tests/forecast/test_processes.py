"""Several processes: two that share the batches do what one does with batches twice as large."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from rnncells.forecast import Forecaster
from rnncells.forecast.networks import RecurrentNet
from rnncells.forecast.training import Training, fit
from rnncells.forecast.training.run import Run
from tests.ecosystem.processes import run_group
from tests.forecast.jobs import HORIZON, Waves

pytest.importorskip("lightning_fabric")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
    ),
]

TRAINING = Training(epochs=4, batch_size=8, learning_rate=1e-2)


class Watched(Waves):
    """Waves that remember which were asked for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seen: list[int] = []

    def batch(self, indices: Any = None) -> Any:
        self.seen += torch.as_tensor(indices).tolist()
        return super().batch(indices)


def group_fabric(rank: int) -> Any:
    """Fabric in a process that belongs to a group, told so as torchrun tells it."""
    from lightning_fabric import Fabric

    group = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    group |= {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in group.items()}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    return fabric


def train(fabric: Any, training: Training, **options: Any) -> Any:
    torch.manual_seed(4)
    net = RecurrentNet("gru", 1, 8, HORIZON, **options)
    check = Watched(31, seed=1)
    return (
        net,
        check,
        lambda path=None: fit(net, Waves(48), check, training, fabric=fabric, checkpoint=path),
    )


def cut_after(writes: int) -> Callable[[Run], None]:
    """A way of saving that ends the training after so many times."""
    real, done = Run._save, 0

    def save(run: Run) -> None:
        nonlocal done
        real(run)
        done += 1
        if done == writes:
            raise KeyboardInterrupt

    return save


def flat(net: torch.nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


def work(rank: int, folder: str) -> None:
    """What one process does: a training, one that is cut and goes on, and one that diverges."""
    torch.set_num_threads(1)
    fabric = group_fabric(rank)
    net, check, go = train(fabric, TRAINING)
    history = go()
    found: dict[str, Any] = {
        "plain": (flat(net), history.train_loss, history.validation_loss, check.seen)
    }

    whole, _, go = train(fabric, TRAINING, dropout=0.2)
    go()
    path = Path(folder, "run.ckpt")
    _, _, go = train(fabric, TRAINING, dropout=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_save", cut_after(2))
        with pytest.raises(KeyboardInterrupt):
            go(path)
    fabric.barrier()
    again, _, go = train(fabric, TRAINING, dropout=0.2)
    go(path)
    found["resumed"] = torch.equal(flat(again), flat(whole))

    waves = Waves(48)
    waves.x[5] = float("nan")  # in the share of one process alone
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan") as caught:
        fit(RecurrentNet("gru", 1, 8, HORIZON), waves, None, TRAINING, fabric=fabric)
    found["diverged"] = str(caught.value)
    torch.save(found, Path(folder, f"{rank}.pt"))


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process found; they are started once, for all tests."""
    folder = tmp_path_factory.mktemp("processes")
    run_group(work, str(folder), processes=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_do_what_one_does_with_twice_the_batch(ends: list[dict[str, Any]]) -> None:
    from lightning_fabric import Fabric

    training = Training(epochs=4, batch_size=16, learning_rate=1e-2)
    net, _, go = train(Fabric(accelerator="cpu", devices=1), training)
    history = go()
    (weights, train_loss, validation_loss, _), second = ends[0]["plain"], ends[1]["plain"]
    assert torch.equal(weights, second[0])
    assert train_loss == second[1]
    assert validation_loss == second[2]
    # twelve steps of Adam at 0.01 from gradients that differ by their roundings
    assert_close(weights, flat(net), rtol=0, atol=1e-4)
    assert_close(train_loss, history.train_loss, rtol=1e-4, atol=0)
    assert_close(validation_loss, history.validation_loss, rtol=1e-4, atol=0)


def test_validation_covers_every_window_once(ends: list[dict[str, Any]]) -> None:
    shares = [end["plain"][3][1:] for end in ends]  # the first is the look before all begins
    for epoch in range(4):
        parts = [share[epoch * len(share) // 4 : (epoch + 1) * len(share) // 4] for share in shares]
        assert sorted(parts[0] + parts[1]) == list(range(31))


def test_a_group_goes_on_from_its_checkpoint(ends: list[dict[str, Any]]) -> None:
    assert [end["resumed"] for end in ends] == [True, True]


def test_a_group_stops_together_when_it_diverges(ends: list[dict[str, Any]]) -> None:
    assert ends[0]["diverged"] == ends[1]["diverged"]


def test_torchrun_fits_the_example(tmp_path: Path) -> None:
    """examples/two_processes.py under torchrun itself, as its docstring starts it."""
    pytest.importorskip("safetensors")
    example = Path(__file__).parents[2] / "examples" / "two_processes.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", example, tmp_path / "model"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fitted by 2 processes") == 1
    forecast = Forecaster.load(tmp_path / "model").predict(torch.sin(torch.arange(400) / 4))
    assert forecast.shape == (4,)
    assert forecast.isfinite().all()
