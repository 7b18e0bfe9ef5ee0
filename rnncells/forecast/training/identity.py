"""What a checkpoint is of: the network, the settings and the data, in a few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from rnncells.forecast.networks.imputation import HiddenValues
from rnncells.forecast.training.batches import gather
from rnncells.forecast.windows import Windows

__all__ = ["digest", "in_words", "of_windows"]

LOOKED_AT = 256  # windows whose batches are digested
ROWS = 2**16  # of a tensor, digested at once
SETTINGS = (
    *("context", "horizon", "stride", "targets", "known", "every_step", "missing", "scaler"),
    *("rate", "run", "seed"),
)


def digest(tensors: Iterable[Tensor | None]) -> str:
    """All bytes of tensors, with their shapes and dtypes, in a few letters: a GB/s or so."""
    found = blake2b(digest_size=8)
    for tensor in tensors:
        found.update(b"none" if tensor is None else f"{tensor.dtype} {tensor.shape}".encode())
        if tensor is not None:
            for part in tensor.detach().cpu().reshape(-1).split(ROWS):
                found.update(part.contiguous().view(torch.uint8).numpy())
    return f"digest {found.hexdigest()}"


def of_windows(windows: Any, which: str) -> dict[str, str]:
    """What windows are made of: their settings, their places, and a digest of their values.

    Windows and tensors are digested whole, and of all that has batches, up to 256 windows that lie
    evenly between the first and the last. A dataset whose batches differ from one look to the next,
    though torch's random state is the same, is known by its length alone.
    """
    if windows is None:
        return {}
    settings = [
        f"{name} {in_words(getattr(windows, name))}" for name in SETTINGS if hasattr(windows, name)
    ]
    found = {f"{which} windows' settings": ", ".join(settings) or "none"}
    if isinstance(windows, Windows):
        found[f"{which} windows' places"] = digest([windows.origins])
        found[f"{which} windows' values"] = digest([windows.series, windows.static])
    elif isinstance(windows, HiddenValues):
        found[f"{which} windows' values"] = digest([windows.origins, *windows.series])
    elif isinstance(windows, TensorDataset):
        found[f"{which} windows' values"] = digest(windows.tensors)
    looks = [_look(windows) for _ in range(2)]
    if looks[0] == looks[1]:
        found[f"{which} windows' batches"] = looks[0]
    return found


def _look(windows: Any) -> str:
    chosen = torch.linspace(0, len(windows) - 1, min(len(windows), LOOKED_AT)).round().long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return digest(gather(windows, chosen))


def in_words(value: Any) -> str:
    """A setting, functions and objects by their names: the same in every process."""
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {in_words(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(in_words, value)) + ")"
    shown: Any = type(value).__repr__
    if shown is object.__repr__:
        return type(value).__name__
    return repr(value)
