"""A Lightning Trainer trains the layers as a loop by hand does, and its checkpoints come back."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset

from tests.ecosystem.models import CELLS, Regressor, sines

# Two names of the same package; the first is there only with the `lightning` bundle.
pl = pytest.importorskip(
    "lightning.pytorch" if importlib.util.find_spec("lightning") else "pytorch_lightning"
)

BATCH, EPOCHS, RATE, CLIP = 8, 2, 0.01, 0.05


class Forecaster(pl.LightningModule):  # type: ignore[name-defined]  # pl is known at run time only
    """What a user writes around a model."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = Regressor(**options)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("validation", mse_loss(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=RATE)


def loader() -> DataLoader[tuple[Tensor, ...]]:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(*sines(4 * BATCH)), BATCH)


def trainer(folder: Path, epochs: int = EPOCHS) -> Any:
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        gradient_clip_val=CLIP,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        fast_dev_run=False,
        callbacks=[pl.callbacks.ModelCheckpoint(dirpath=folder, filename="{epoch}", save_top_k=-1)],
    )


def options(cell: str) -> dict[str, Any]:
    return {"cell": cell, "num_layers": 2, "bidirectional": True, "dropout": 0.3}


def by_hand(model: Forecaster, batches: DataLoader[tuple[Tensor, ...]]) -> None:
    """The training that the Trainer is asked for."""
    optimizer = model.configure_optimizers()
    for _ in range(EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            model.training_step(batch).backward()
            clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()


# Lightning's advice to a user, and its own use of torch, say nothing of the layers.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*have no `val_dataloader`.*",
    "ignore:.*does not have many workers.*",
    "ignore:.*The dirpath has changed.*",
    "ignore:.*LeafSpec.*:FutureWarning",
)


@pytest.mark.parametrize("cell", CELLS)
def test_trainer(cell: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, expected = Forecaster(**options(cell)), Forecaster(**options(cell))
    expected.load_state_dict(model.state_dict())
    before = {name: value.clone() for name, value in model.state_dict().items()}

    batches = loader()
    torch.manual_seed(2)  # of the dropout
    run = trainer(tmp_path)
    run.fit(model, batches)
    assert run.global_step == EPOCHS * len(batches)
    torch.manual_seed(2)
    by_hand(expected, batches)
    for name, value in model.state_dict().items():
        assert not torch.equal(value, before[name]), name
        assert torch.equal(value, expected.state_dict()[name]), name

    # The checkpoint gives the same model: the same options, the same bits.
    x, _ = next(iter(batches))
    saved = tmp_path / f"epoch={EPOCHS - 1}.ckpt"
    again = Forecaster.load_from_checkpoint(saved).eval()
    assert torch.equal(again(x), model.eval()(x))
    # So does one with torch.nn's layer: the names in the file are the same.
    theirs = Forecaster.load_from_checkpoint(saved, library="torch").eval()
    # Twelve steps of two layers in float32: about 200 terms of order one in a sum.
    torch.testing.assert_close(theirs(x), again(x), rtol=1e-5, atol=1e-6)

    # And the Trainer's own validation.
    (found,) = run.validate(model, loader(), verbose=False)
    losses = [mse_loss(again(x), target).item() for x, target in loader()]
    assert found["validation"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Two epochs at once, or one, and from its checkpoint the second: the same bits."""
    torch.manual_seed(0)
    whole = Forecaster(cell="lstm")
    first, second = Forecaster(cell="lstm"), Forecaster(cell="lstm")
    first.load_state_dict(whole.state_dict())
    trainer(tmp_path / "whole").fit(whole, loader())
    trainer(tmp_path / "first", epochs=1).fit(first, loader())
    trainer(tmp_path / "second").fit(
        second, loader(), ckpt_path=tmp_path / "first" / "epoch=0.ckpt"
    )
    for name, value in second.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
        assert not torch.equal(value, first.state_dict()[name]), name
