"""Checkpoints that a kill at any moment leaves whole."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnncells.forecast.networks.recurrent import map_state
from rnncells.forecast.training.identity import in_words, of_windows
from rnncells.forecast.training.objective import head_of
from rnncells.forecast.training.settings import History

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from rnncells.forecast.training.run import Run

__all__ = ["identify", "read_checkpoint", "resume", "save", "write_checkpoint"]

VERSION = 2


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values under ``path``: whole, or not at all.

    They are written beside it first and then moved there, which the system does in one step: at any
    moment the file is the last checkpoint or the one before.

    Raises:
        OSError: the folder does not exist, or cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        torch.save({"version": VERSION, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What was written, on the CPU; None where there is no such file. No code is run from it.

    Raises:
        ValueError: not a checkpoint, or one of another version.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        version = state["version"]
    except Exception as error:  # torch raises another kind for each way of being none
        raise ValueError(f"checkpoint: {path} is no checkpoint of a training") from error
    if version != VERSION:
        raise ValueError(f"checkpoint: {path} has version {version}, expected {VERSION}")
    found: dict[str, Any] = state
    return found


def save(run: Run, path: Path) -> None:
    """Write all that a run would need to go on from here; of several processes, the first does."""
    fabric = run.fabric
    random = {"cpu": _everyones(fabric, torch.get_rng_state())}
    if fabric.device.type == "cuda":
        random["cuda"] = _everyones(fabric, torch.cuda.get_rng_state(fabric.device))
    if not fabric.is_global_zero:
        return
    seconds = run.history.seconds + time.perf_counter() - run.began
    state = {
        "name": run.identity,
        "model": run.model.state_dict(),
        "optimizer": run.inner.state_dict(),
        "schedule": None if run.schedule is None else run.schedule.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),
        "stopping": run.stopping.state_dict(),
        "history": {**asdict(run.history), "seconds": seconds},
        "place": [run.epoch, run.step, run.finished, float(run.total)],
        "carried": run.carried,
        "random": random,
    }
    write_checkpoint(path, state)


def resume(run: Run, path: Path) -> None:
    """Take a run to where the checkpoint was written; without one, leave it at its beginning.

    Several processes all read the file: they must see one file system.

    Raises:
        ValueError: not a checkpoint, or one of another training.
    """
    state = read_checkpoint(path)
    if state is None:
        return
    theirs = state["name"]
    for name, expected in run.identity.items():
        if theirs.get(name) != expected:
            raise ValueError(
                f"checkpoint: {path} is of another training: its {name} is {theirs.get(name)}, "
                f"expected {expected}"
            )
    fabric = run.fabric
    run.model.load_state_dict(state["model"])
    run.inner.load_state_dict(state["optimizer"])
    if run.schedule is not None:
        run.schedule.load_state_dict(state["schedule"])
    fabric.strategy.precision.load_state_dict(state["precision"])
    run.stopping.load_state_dict(state["stopping"])
    run.history = History(**state["history"])
    run.epoch, run.step, run.finished, run.total = state["place"]
    if state["carried"] is not None:
        run.carried = map_state(partial(Tensor.to, device=fabric.device), state["carried"])
    # clones, because torch takes a row of a larger tensor for its beginning
    ours = {kind: every[fabric.global_rank].clone() for kind, every in state["random"].items()}
    torch.set_rng_state(ours["cpu"])
    if "cuda" in ours:
        torch.cuda.set_rng_state(ours["cuda"], fabric.device)


def identify(run: Run, more: Mapping[str, str]) -> dict[str, Any]:
    """What must be the same for a checkpoint to belong to a training: found once in a run.

    Args:
        run: before its first step.
        more: what the caller knows of the data beyond the windows.
    """
    weights = sum(weight.numel() for weight in run.model.parameters())
    head = head_of(run.model)
    return {
        **run.training.as_text(),
        **more,
        "network": type(run.model).__name__,
        "network's head": type(head).__name__ + in_words(getattr(head, "__dict__", {})),
        "number of weights": weights,
        "number of training windows": len(run.train),
        "number of validation windows": 0 if run.validation is None else len(run.validation),
        "number of processes": run.fabric.world_size,
        **of_windows(run.train, "training"),
        **of_windows(run.validation, "validation"),
    }


def _everyones(fabric: Fabric, state: Tensor) -> Tensor:
    """The random states of all processes, [processes, bytes]."""
    if fabric.world_size == 1:
        return state.unsqueeze(0)
    every: Any = fabric.all_gather(state)
    return every.cpu()
