"""What a result was measured on: the machine, the versions, the commit, and its product rate."""

import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.nn.functional import linear

import rnncells
from rnncells import _C

PRODUCT_SIZE = 768
ROOT = Path(__file__).parent.parent


def cpu_model() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def commit() -> str:
    """Return the commit's short name, ``+`` where the tree differs; ``unknown`` without git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def facts() -> dict[str, Any]:
    """Return all that a result needs to be compared with another."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": _C.get_isa(),
        "rnncells": rnncells.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "compiler": _C.build_info()["compiler"],
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe(known: dict[str, Any]) -> str:
    """Return the facts in one line for a person."""
    return (
        f"{known['cpu']}, {known['cores']} cores, {known['threads']} thread(s), {known['isa']}; "
        f"rnncells {known['rnncells']} ({known['commit']}), torch {known['torch']}, "
        f"Python {known['python']}; {known['date']}"
    )


def product_rates() -> dict[str, float]:
    """Return what float32 products make right now, in GF/s: the best of four runs of each.

    ``torch.mm`` is the sgemm that torch.nn calls; ``best`` is the better of that and oneDNN's,
    which on some processors uses wider vectors: what the machine can do.
    """
    a, b, out = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE) for _ in range(3))

    def rate(call: Callable[[], object]) -> float:
        best_s = float("inf")
        for _ in range(4):
            start = perf_counter()
            call()
            best_s = min(best_s, perf_counter() - start)
        return 2 * PRODUCT_SIZE**3 / best_s / 1e9

    rates = [rate(lambda: torch.mm(a, b, out=out))]
    if torch.backends.mkldnn.is_available():
        blocked_a, blocked_b = a.to_mkldnn(), b.to_mkldnn()
        rates.append(rate(lambda: linear(blocked_a, blocked_b)))
    return {"torch.mm": rates[0], "best": max(rates)}
