"""Which windows come together in which step, in one process or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from rnncells.forecast.batch import Batch

__all__ = ["Part", "consecutive", "gather", "in_order", "pieces_of", "shuffled"]


class Part(NamedTuple):
    """The windows of one step.

    Attributes:
        indices: their numbers.
        carried: whether each follows the window of the same row in the part before.
    """

    indices: Tensor
    carried: bool = False


def gather(windows: Any, indices: Tensor, device: torch.device | None = None) -> Batch:
    """Windows by their numbers, all at once, on a device.

    Args:
        windows: what has ``batch(indices)``, which gives a Batch or (x, y), or one of torch's
            datasets, whose samples are such.
        indices: [batch], int64.
        device: where to; nothing leaves them where they are.
    """
    if hasattr(windows, "batch"):
        found = windows.batch(indices)
    elif isinstance(windows, TensorDataset):
        found = tuple(tensor.index_select(0, indices) for tensor in windows.tensors)
    elif hasattr(windows, "__getitems__"):
        found = windows.__getitems__(indices.tolist())
    else:
        found = [windows[index] for index in indices.tolist()]
    if isinstance(found, list):  # of samples
        columns = zip(*found, strict=True)
        found = [None if parts[0] is None else torch.stack(parts) for parts in columns]
    batch = found if isinstance(found, Batch) else Batch(*found)
    if device is None or device == batch.x.device:
        return batch
    return Batch(*(None if part is None else part.to(device) for part in batch))  # type: ignore[arg-type]


def shuffled(
    count: int, size: int, seed: int, epoch: int, processes: int = 1, rank: int = 0
) -> list[Part]:
    """An epoch's steps in an order of its own, which seed and epoch alone decide.

    Several processes take the same number of steps of the same size; where the windows cannot be
    shared out evenly, some come twice. Taken together, their n-th parts are the windows that one
    process takes in its n-th step with as many times the ``size``.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(count, generator=generator)
    lacking = -count % processes
    if lacking:
        order = torch.cat([order, order.repeat(-(-lacking // count))[:lacking]])
    return [Part(part) for part in order[rank::processes].split(size)]


def in_order(count: int, size: int, processes: int = 1, rank: int = 0) -> list[Part]:
    """Every window exactly once, over all processes; each of these takes the same number of steps,
    of about this size.

    Raises:
        ValueError: fewer windows than processes.
    """
    if count < processes:
        raise ValueError(
            f"windows: expected at least one for each of the {processes} processes, got {count}"
        )
    mine = torch.arange(rank, count, processes)
    if processes == 1:
        return [Part(part) for part in mine.split(size)]
    return [Part(part) for part in mine.tensor_split(max(1, (count // processes) // size))]


def consecutive(pieces: Sequence[int], rows: int, cut: bool) -> list[Part]:
    """Every window exactly once, in steps whose rows go on from those of the step before.

    Args:
        pieces: how many windows, each following the one before it, the first series has, the
            second, and so on, in the order of the windows' numbers.
        rows: windows a step at most. Series that end early leave their rows empty; the longest
            come first, so that the rows that go on are always the first ones.
        cut: where there are fewer series than rows, cut each into stretches, and begin each stretch
            without a state: more rows a step, for training.
    """
    cuts = -(-rows // len(pieces)) if cut else 1
    numbers = torch.arange(sum(pieces)).split(list(pieces))
    stretches = [part for piece in numbers for part in piece.tensor_split(min(cuts, len(piece)))]
    stretches.sort(key=len, reverse=True)
    parts = []
    for first in range(0, len(stretches), rows):
        group = stretches[first : first + rows]
        for step in range(len(group[0])):
            going = [part[step] for part in group if len(part) > step]
            parts.append(Part(torch.stack(going), carried=step > 0))
    return parts


def pieces_of(windows: Any) -> Sequence[int]:
    """How many consecutive windows each series has: ``windows.pieces``, or one series of all.

    Raises:
        ValueError: the windows say that they overlap, or leave steps out between them.
    """
    context, stride = (getattr(windows, name, None) for name in ("context", "stride"))
    if context != stride and stride is not None:
        raise ValueError(
            f"stateful: expected windows that follow each other, a stride of the context's "
            f"{context} steps, got {stride}"
        )
    pieces: Sequence[int] = getattr(windows, "pieces", None) or [len(windows)]
    return pieces
