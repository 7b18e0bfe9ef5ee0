"""The order of windows: shuffled, shared out between processes, and one after another."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from rnncells.forecast.batch import Batch
from rnncells.forecast.training.batches import (
    Part,
    consecutive,
    gather,
    in_order,
    pieces_of,
    shuffled,
)
from tests.forecast.jobs import Waves


def numbers(parts: list[Part]) -> list[int]:
    return torch.cat([part.indices for part in parts]).tolist()


@settings(max_examples=60)
@given(
    count=st.integers(1, 50),
    size=st.integers(1, 9),
    processes=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_processes_share_each_step_of_one(
    count: int, size: int, processes: int, epoch: int
) -> None:
    shares = [shuffled(count, size, 5, epoch, processes, rank) for rank in range(processes)]
    sizes = [[len(part.indices) for part in share] for share in shares]
    assert all(one == sizes[0] for one in sizes)  # or one would wait for another for ever
    assert set(numbers(list(chain(*shares)))) == set(range(count))
    if count % processes == 0:
        alone = shuffled(count, size * processes, 5, epoch)
        for step, part in enumerate(alone):
            together = torch.cat([share[step].indices for share in shares])
            assert sorted(together.tolist()) == sorted(part.indices.tolist())


@settings(max_examples=60)
@given(count=st.integers(1, 50), size=st.integers(1, 9), processes=st.integers(1, 4))
def test_validation_sees_every_window_once(count: int, size: int, processes: int) -> None:
    if count < processes:
        with pytest.raises(ValueError, match="at least one for each of the"):
            in_order(count, size, processes)
        return
    shares = [in_order(count, size, processes, rank) for rank in range(processes)]
    assert sorted(numbers(list(chain(*shares)))) == list(range(count))
    assert len({len(share) for share in shares}) == 1
    assert all(len(part.indices) for share in shares for part in share)


def test_order_is_of_the_seed_and_the_epoch() -> None:
    first = numbers(shuffled(40, 8, 1, 0))
    torch.manual_seed(9)
    assert numbers(shuffled(40, 8, 1, 0)) == first
    assert numbers(shuffled(40, 8, 1, 1)) != first
    assert numbers(shuffled(40, 8, 2, 0)) != first


@settings(max_examples=80)
@given(
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    rows=st.integers(1, 8),
    cut=st.booleans(),
)
def test_rows_go_on_and_every_window_comes_once(pieces: list[int], rows: int, cut: bool) -> None:
    parts = consecutive(pieces, rows, cut)
    assert sorted(numbers(parts)) == list(range(sum(pieces)))
    ends = set(torch.tensor(pieces).cumsum(0).tolist())
    for before, part in zip([None, *parts], parts, strict=False):
        assert len(part.indices) <= rows
        if part.carried:
            assert before is not None
            followed = before.indices[: len(part.indices)] + 1
            assert torch.equal(part.indices, followed)
            assert not ends & set(part.indices.tolist())  # no state goes from series to series
    assert not parts[0].carried


def test_a_single_series_is_cut_into_rows_in_training_only() -> None:
    parts = consecutive([10], 3, cut=True)
    assert [part.indices.tolist() for part in parts] == [[0, 4, 7], [1, 5, 8], [2, 6, 9], [3]]
    assert [part.carried for part in parts] == [False, True, True, True]
    alone = consecutive([10], 3, cut=False)
    assert numbers(alone) == list(range(10))
    assert all(len(part.indices) == 1 for part in alone)


def test_pieces_are_the_windows_or_one_series() -> None:
    windows = Waves(6)
    assert pieces_of(windows) == [6]
    windows.pieces = [2, 4]  # type: ignore[attr-defined]
    assert pieces_of(windows) == [2, 4]
    windows.context, windows.stride = 12, 12  # type: ignore[attr-defined]
    assert pieces_of(windows) == [2, 4]
    windows.stride = 1  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="stateful: expected windows that follow each other, a st"):
        pieces_of(windows)


def test_every_way_of_giving_windows() -> None:
    windows, indices = Waves(6, known=1), torch.tensor([4, 1])
    whole = gather(windows, indices)
    assert torch.equal(whole.x, windows.x[[4, 1]])
    assert whole.future is not None
    pair = gather(TensorDataset(windows.x, windows.y), indices)
    assert isinstance(pair, Batch)
    assert torch.equal(pair.y, whole.y)
    assert pair.future is None

    class Listed:
        def __getitems__(self, numbers: list[int]) -> Batch:
            assert numbers == [4, 1]
            return windows.batch(numbers)

    class Single(Dataset[Batch]):
        def __getitem__(self, number: int) -> Batch:
            one = windows.batch([number])
            return Batch(*(None if part is None else part[0] for part in one))  # type: ignore[arg-type]

    subset = Subset(TensorDataset(windows.x, windows.y), [3, 1, 4])
    for ways, chosen in ((Listed(), indices), (Single(), indices), (subset, torch.tensor([2, 1]))):
        found = gather(ways, chosen)
        assert torch.equal(found.x, whole.x)
        assert torch.equal(found.y, whole.y)
    ahead = gather(Single(), indices).future
    assert ahead is not None
    assert torch.equal(ahead, whole.future)


def test_devices() -> None:
    batch = gather(Waves(6), torch.tensor([0]), torch.device("meta"))
    assert batch.x.is_meta
    assert batch.y.is_meta
    assert batch.future is None
