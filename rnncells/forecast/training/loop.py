"""The training loop, on Lightning Fabric: ours to read, and at home on any device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rnncells.forecast.agreement import check_agreement
from rnncells.forecast.checks import check_positive
from rnncells.forecast.extras import require
from rnncells.forecast.training.batches import consecutive, gather, in_order, pieces_of
from rnncells.forecast.training.objective import arguments, cut_state, head_of
from rnncells.forecast.training.run import Run
from rnncells.forecast.training.settings import History, Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["fit", "predict"]


def fit(
    model: nn.Module,
    train: Any,
    validation: Any = None,
    training: Training | None = None,
    *,
    fabric: Fabric | None = None,
    label: str = "training",
    checkpoint: str | Path | None = None,
    identity: Mapping[str, str] | None = None,
) -> History:
    """Train ``model`` in place and leave it, in eval mode, with its best weights.

    The best weights are those with the lowest loss on the validation windows; without these, the
    last. torch's global random state is as before afterwards.

    With ``checkpoint`` the state of all things is written there after each epoch, and where the
    file exists, training goes on from it: after a kill at any moment, the same call ends with the
    same weights, bit for bit, as if nothing had happened. Nothing is written elsewhere.

    Args:
        model: called as ``model(x, every_step)``, with ``future=``, ``static=`` or ``level=`` where
            the windows have them; see :class:`rnncells.forecast.networks.Network`. Its ``head``
            gives the loss; without one, the forecasts are points.
        train: windows to learn from; with targets at every step, from the forecasts of all steps.
            Anything with ``batch(indices)`` that gives a :class:`rnncells.forecast.batch.Batch` or
            (x, y), or one of torch's datasets of such samples.
        validation: windows that decide when to stop.
        training: how to train.
        fabric: devices, precision and processes, by default one process on the CPU. For several,
            start the program with torchrun and give ``Fabric(devices=..., strategy="ddp")``,
            launched.
        label: what the progress bar says; it is shown in a terminal only.
        checkpoint: where to keep the state of the training.
        identity: what else that training must have in common with one that goes on from its
            checkpoint, by name, in words; settings and windows are looked at in any case.

    Raises:
        Diverged: a FloatingPointError: a loss, a gradient or a weight is NaN or infinite; the model
            then holds its best weights so far, and the error the history of the good epochs.
        TypeError: windows that are none, or not in the model's dtype.
        ValueError: windows of another horizon or other targets than the model, forecasts of
            another shape than the targets, or a checkpoint of another training or other data.
        ImportError: lightning-fabric is not installed.
    """
    training = training or Training()
    if fabric is None:
        fabric = require("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        check_agreement(model, train, "train")
        if validation is not None:
            check_agreement(model, validation, "validation")
        torch.manual_seed(training.seed + fabric.global_rank)
        run = Run(model, train, validation, training, fabric, checkpoint, identity)
        return run.go(label)


@torch.no_grad()
def predict(
    model: nn.Module, windows: Any, batch_size: int = 256, *, stateful: bool = False
) -> Tensor:
    """Forecast every window, without gradients and in eval mode.

    Args:
        model: a network.
        windows: as in :func:`fit`.
        batch_size: windows at once.
        stateful: carry the state from each window to the one that follows it.

    Returns:
        The head's output after the last step of each window: for points [windows, horizon,
        targets]; ``model.head`` reads the others.

    Raises:
        TypeError: windows that are none, or not in the model's dtype.
        ValueError: windows of another horizon or other targets than the model.
    """
    [batch_size] = check_positive(batch_size=batch_size)
    check_agreement(model, windows, "windows")
    if stateful:
        parts = consecutive(pieces_of(windows), batch_size, cut=False)
    else:
        parts = in_order(len(windows), batch_size)
    head, device = head_of(model), next((p.device for p in model.parameters()), None)
    was_training = model.training
    model.eval()
    outputs, state = [], None
    for part in parts:
        batch = gather(windows, part.indices, device)
        more: dict[str, Any] = arguments(batch, head, last=True)
        if stateful:
            state = cut_state(state, len(batch.x)) if part.carried else None
            output, state = model(batch.x, state=state, return_state=True, **more)
        else:
            output = model(batch.x, **more)
        outputs.append(output)
    model.train(was_training)
    return torch.cat(outputs)[torch.cat([part.indices for part in parts]).argsort()]
