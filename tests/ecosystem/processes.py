"""A few processes that form a gloo group, with an end to every wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

HOST = "127.0.0.1"


def run_group(
    worker: Callable[..., None], *arguments: Any, processes: int = 2, timeout: float = 120.0
) -> None:
    """Run ``worker(rank, *arguments)`` in a gloo group of ``processes``, and wait for all.

    Args:
        worker: a function of an importable module.
        arguments: what else it is given; picklable.
        processes: how many form the group.
        timeout: seconds, for all of it.

    Raises:
        torch.multiprocessing.ProcessRaisedException: a process failed, with its traceback.
        TimeoutError: they did not end in time. Whatever happens, none is left running.
    """
    end = time.monotonic() + timeout
    # The store's port is the system's choice: no other process can take it in between.
    store = dist.TCPStore(  # type: ignore[attr-defined]  # torch's stubs leave it out
        HOST, 0, is_master=True, wait_for_workers=False
    )
    # A server that has imported torch once forks the workers: fresh, and quicker than spawning.
    get_context("forkserver").set_forkserver_preload(["torch", "rnncells"])
    context = start_processes(
        _join_group,
        (worker, processes, store.port, timeout, arguments),
        nprocs=processes,
        join=False,
        daemon=True,
        start_method="forkserver",
    )
    try:
        while not context.join(timeout=max(0.0, end - time.monotonic()), grace_period=1.0):
            if time.monotonic() >= end:
                raise TimeoutError(f"{worker.__name__}: not done after {timeout:g} s")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join()


def _join_group(
    rank: int,
    worker: Callable[..., None],
    processes: int,
    port: int,
    timeout: float,
    arguments: tuple[Any, ...],
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # never through the machine's own name
    wait = timedelta(seconds=timeout)
    store = dist.TCPStore(  # type: ignore[attr-defined]  # as above
        HOST, port, is_master=False, timeout=wait
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes, timeout=wait)
    worker(rank, *arguments)
    dist.destroy_process_group()
