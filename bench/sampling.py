"""Where a function's time goes, by Linux ``perf``: samples of the process, grouped by function.

The groups follow the names in ``csrc/cpu``. A cell's function holds what the compiler inlined into
it: the pointwise mathematics, with the loads and stores of its operands, and the turning of sums in
the depth regime. The products are functions of their own.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

FREQUENCY_HZ = 4000
EVENT = "cpu-clock"  # time, which every machine counts, virtual ones too
PRODUCTS, CELL, MOVES = "matrix products", "cell and its loads", "turning, packing, copying"
ENGINE, SYSTEM, OTHERS = "rest of the engine", "the system", "torch, Python, memory"
GROUPS = (PRODUCTS, CELL, MOVES, ENGINE, SYSTEM, OTHERS)
OURS = (
    (PRODUCTS, re.compile(r"multiply|add_products|add_joined")),
    (CELL, re.compile(r"run_(step|phase|panel|cell)")),
    (MOVES, re.compile(r"turn|lanes|join|start|pack|copy|scatter|clear|operand|share|keep|gather")),
)
MEMORY = re.compile(r"mem(move|cpy|set)")


class NoSamples(Exception):
    """Why there are no samples."""


def plain_name(symbol: str) -> str:
    """Return a C++ function's own name, lower case: no arguments, templates, classes or lambdas.

    Of ``void a::B<C, float>::run<2>(long) const::{lambda(int)#1}::operator()`` it is ``run``.
    """
    outside, depth = [], 0
    for letter in symbol:
        depth += letter in "<({"
        if depth == 0:
            outside.append(letter)
        depth -= letter in ">)}"
    parts = "".join(outside).split(" const")[0].split("::")
    return next((part.lower() for part in reversed(parts) if part and "operator" not in part), "")


def group_of(library: str, symbol: str) -> str:
    """Return the group of a function of a library (``[kernel...]`` for the system's)."""
    if library.startswith("["):
        return SYSTEM
    if not library.startswith("_C."):
        return MOVES if MEMORY.search(symbol) else OTHERS
    name = plain_name(symbol)
    return next((group for group, known in OURS if known.search(name)), ENGINE)


def read_report(text: str) -> list[tuple[float, str, str]]:
    """Read ``perf report``'s lines: share in percent, library, function, between bars."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", 2)]
        if len(fields) == 3 and fields[0].endswith("%"):
            symbol = re.sub(r"^\[.\] ", "", fields[2])
            found.append((float(fields[0].rstrip("%")), fields[1], symbol))
    return found


def grouped(lines: list[tuple[float, str, str]]) -> dict[str, float]:
    """Return each group's share of the samples, from 0 to 1."""
    shares = dict.fromkeys(GROUPS, 0.0)
    for percent, library, symbol in lines:
        shares[group_of(library, symbol)] += percent
    total = sum(shares.values())
    if total == 0:
        raise NoSamples("perf saw no samples")
    return {group: share / total for group, share in shares.items()}


def sample(call: Callable[[], object], repeats: int, seconds: float) -> dict[str, float]:
    """Call again and again for so many seconds, ``repeats`` times between looks at the clock.

    Returns:
        Each group's share of the samples, from 0 to 1.

    Raises:
        NoSamples: perf is not installed, or may not sample here.
    """
    if shutil.which("perf") is None:
        raise NoSamples("perf is not installed")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        record = ["perf", "record", "-q", "-e", EVENT, "-F", str(FREQUENCY_HZ), "-o", str(data)]
        record += ["-p", str(os.getpid()), "--", "sleep", str(seconds)]
        running = subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while running.poll() is None:
            for _ in range(repeats):
                call()
        _, told = running.communicate()
        if running.returncode != 0:
            said = told.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise NoSamples(f"perf record fails: {said[0]}")
        report = ["perf", "report", "-i", str(data), "--stdio", "--no-children", "-q", "-t", "|"]
        report += ["-F", "overhead,dso,symbol"]
        ended = subprocess.run(report, capture_output=True, text=True, check=False)
    return grouped(read_report(ended.stdout))
