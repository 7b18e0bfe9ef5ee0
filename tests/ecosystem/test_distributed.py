"""DistributedDataParallel: two gloo processes, half of the batch each, give the gradients of one
process with all of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tests.ecosystem.models import CELLS, Regressor, StepByStep, sines
from tests.ecosystem.processes import run_group

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)

PROCESSES, BATCH, STEPS = 2, 6, 3
DTYPE = torch.float64


class Checkpointed(Regressor):
    """Computes the layer's forward pass a second time in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        # The reentrant kind wants an input that requires a gradient.
        return checkpoint(super().forward, x.requires_grad_(), use_reentrant=True)


def stack(cell: str) -> Callable[[], nn.Module]:
    return lambda: Regressor(cell, num_layers=2, bidirectional=True, dtype=DTYPE)


# What is trained, and DistributedDataParallel's options for it.
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {}
for name in CELLS:
    CASES[name] = stack(name), {}
    CASES[f"{name}, static graph"] = stack(name), {"static_graph": True}
CASES |= {
    "cell": (lambda: StepByStep(dtype=DTYPE), {}),
    # A bucket for each parameter: the first are sent while the backward pass goes on.
    "small buckets": (stack("lstm"), {"bucket_cap_mb": 1e-6}),
    "views of buckets": (stack("lstm"), {"gradient_as_bucket_view": True}),
    "checkpointed, static graph": (
        lambda: Checkpointed("gru", dtype=DTYPE),
        {"static_graph": True},
    ),
}


def train(wrap: Callable[[nn.Module], nn.Module], case: str, rows: slice) -> list[Tensor]:
    """Take a few steps on the rows of each batch; give all gradients, and the last parameters."""
    torch.manual_seed(0)
    model = CASES[case][0]()
    wrapped = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trace = []
    for _ in range(STEPS):
        x, target = (part[rows] for part in sines(BATCH, DTYPE))
        optimizer.zero_grad()
        mse_loss(wrapped(x), target).backward()
        trace += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
    return trace + [p.detach() for p in model.parameters()]


def accumulate(wrap: Callable[[nn.Module], nn.Module], rows: slice) -> list[Tensor]:
    """Gradients of the sum over two batches, exchanged only after the second."""
    torch.manual_seed(0)
    model = stack("lstm")()
    wrapped = wrap(model)
    for last in (False, True):
        x, target = (part[rows] for part in sines(BATCH, DTYPE))
        if isinstance(wrapped, DistributedDataParallel) and not last:
            with wrapped.no_sync():
                mse_loss(wrapped(x), target).backward()
        else:
            mse_loss(wrapped(x), target).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def work(rank: int, folder: str) -> None:
    """What one process does: its share of every case."""
    torch.set_num_threads(1)
    share = BATCH // PROCESSES
    rows = slice(rank * share, (rank + 1) * share)

    def wrap(model: nn.Module, **options: Any) -> nn.Module:
        return DistributedDataParallel(model, find_unused_parameters=False, **options)

    traces = {
        case: train(partial(wrap, **options), case, rows) for case, (_, options) in CASES.items()
    }
    traces["accumulation"] = accumulate(wrap, rows)
    torch.save(traces, Path(folder, f"{rank}.pt"))


Traces = dict[str, list[Tensor]]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[Traces]:
    """What each process found; they are started once, for all cases."""
    folder = tmp_path_factory.mktemp("distributed")
    run_group(work, str(folder), processes=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("case", [*CASES, "accumulation"])
def test_gradients_are_those_of_the_joined_batch(case: str, traces: list[Traces]) -> None:
    everything = slice(None)
    if case == "accumulation":
        expected = accumulate(lambda model: model, everything)
    else:
        expected = train(lambda model: model, case, everything)
    first, second = (trace[case] for trace in traces)
    assert len(first) == len(expected) > 0
    assert all(gradient.any() for gradient in expected)
    for ours, twin, whole in zip(first, second, expected, strict=True):
        assert torch.equal(ours, twin)
        # Two half sums in place of one, and what three steps make of it: sums of at most a few
        # hundred terms of order one in float64.
        torch.testing.assert_close(ours, whole, rtol=1e-10, atol=1e-13)


def fail(rank: int) -> None:
    """Leaves the other process alone in its backward pass."""
    model = DistributedDataParallel(Regressor())
    x, target = sines(BATCH)
    loss = mse_loss(model(x), target)
    if rank == 1:
        raise ValueError("this process fails on purpose")
    try:
        loss.backward()
    except RuntimeError:  # the connection broke; the failure of the other is the one to be told
        time.sleep(3600)


def hang(rank: int) -> None:
    time.sleep(3600 * rank)


def test_a_failing_process_ends_the_others() -> None:
    begin = time.monotonic()
    with pytest.raises(ProcessRaisedException, match="fails on purpose"):
        run_group(fail, timeout=100.0)
    assert time.monotonic() - begin < 100.0


def test_a_hanging_process_is_ended() -> None:
    with pytest.raises(TimeoutError, match="hang: not done after"):
        run_group(hang, timeout=1.0)
