"""The peers of ``bench.cpu`` besides torch.nn: torch.compile, JAX, Flax and ONNX Runtime.

Each takes part where it is installed. It gets torch.nn's weights, must give our output and, in
training, our gradients of the weights, and is then timed in turn with ours. Where there is no time
there is a reason: a peer that fails, takes too long to compile, or computes something else.
"""

import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from time import perf_counter, process_time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.layers import Shape, forward, gradients_of, make_data, make_pair, training_step
from bench.peers import LayerRun
from bench.peers.xla import limit_threads
from bench.table import align
from bench.timing import time_pair

# Largest difference to the largest value of a tensor: sums of many terms in another order, which
# T steps carry on, differ by some 1e-6; a wrong gate by some tenths.
SAME_RESULT = 1e-4
TRAINING = "training"
Maker = Callable[[str, nn.Module, Tensor, Tensor, bool], LayerRun]


class Further(NamedTuple):
    """A peer: the packages that it needs, the modes it has, and how its layer is made."""

    packages: tuple[str, ...]
    modes: tuple[str, ...]
    make: Maker


def _make_compiled(limit_s: float) -> Maker:
    """Return a maker that breaks off after so many seconds, and does not try again with more T."""
    too_long: dict[tuple[str, bool], int] = {}

    def make(cell: str, layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> LayerRun:
        from bench.peers.compiled_layer import CompileTimeout
        from bench.peers.compiled_layer import make as compile_layer

        T = x.shape[0]
        at = too_long.get((cell, training))
        if at is not None and at <= T:
            raise NoTime(f"compiling takes more than {limit_s:g} s already at T={at}")
        try:
            return compile_layer(layer, x, dy, training, limit_s)
        except CompileTimeout as timeout:
            too_long[cell, training] = T
            raise NoTime(str(timeout)) from None

    return make


def _make_jax(*arguments: Any) -> LayerRun:
    from bench.peers.jax_layer import make_scan

    return make_scan(*arguments)


def _make_flax(*arguments: Any) -> LayerRun:
    from bench.peers.jax_layer import make_flax

    return make_flax(*arguments)


def _make_onnx(*arguments: Any) -> LayerRun:
    from bench.peers.onnx_layer import make

    return make(*arguments)


def all_peers(compile_limit_s: float) -> dict[str, Further]:
    """Return the peers by name, in the order in which they are timed."""
    both = ("forward", TRAINING)
    return {
        "ONNX Runtime": Further(("onnx", "onnxruntime"), ("forward",), _make_onnx),
        "JAX": Further(("jax",), both, _make_jax),
        "Flax": Further(("jax", "flax"), both, _make_flax),
        "torch.compile": Further(("torch",), both, _make_compiled(compile_limit_s)),
    }


def missing(peer: Further) -> list[str]:
    """Return the packages that a peer needs and that are not installed."""
    return [package for package in peer.packages if find_spec(package) is None]


def choose(names: Sequence[str] | None, compile_limit_s: float) -> dict[str, Further]:
    """Return the peers named, or all that can be had where ``names`` is None.

    Raises:
        ValueError: a name that is not a peer's, or a peer whose packages are not installed.
    """
    known = all_peers(compile_limit_s)
    if names is None:
        return {name: peer for name, peer in known.items() if not missing(peer)}
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
        if absent := missing(known[name]):
            raise ValueError(
                f"{name} needs {', '.join(absent)}, not installed here "
                "(pip install 'rnncells[bench]' brings it)"
            )
    return {name: peer for name, peer in known.items() if name in names}


def prepare(peers: dict[str, Further], threads: int) -> dict[str, str]:
    """Limit JAX to so many threads before it computes; return the versions of all packages."""
    packages = dict.fromkeys(package for peer in peers.values() for package in peer.packages)
    limit_threads(threads)
    return {package: version(package) for package in packages if package != "torch"}


class NoTime(Exception):
    """Why a peer has no time in one place of the table."""


def check(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Hold a peer's results against ours.

    Raises:
        NoTime: one is absent, has another shape, or differs by more than ``SAME_RESULT``.
    """
    for name, value in expected.items():
        if name not in found or found[name].shape != value.shape:
            raise NoTime(f"wrong result: {name} is missing, or has another shape")
        off = float((found[name] - value).abs().max())
        limit = SAME_RESULT * float(value.abs().max())
        if not off <= limit:  # a NaN too
            raise NoTime(f"wrong result: {name} is off by {off:.1e}, of {value.abs().max():.1e}")


def our_run(layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> LayerRun:
    """Return a layer of PyTorch's as a run."""

    def call() -> None:
        if training:
            training_step(layer, x, dy)
        else:
            forward(layer, x)

    def results() -> dict[str, Tensor]:
        with torch.inference_mode():
            found = {"y": layer(x)[0].clone()}
        if training:
            call()
            found |= gradients_of(layer)
        return found

    return LayerRun(call, results)


def cores_of(call: Callable[[], object]) -> float:
    """Return the CPU's seconds over the clock's, for some calls in a row."""
    wall, cpu = perf_counter(), process_time()
    while perf_counter() - wall < 30e-3:
        call()
    return (process_time() - cpu) / (perf_counter() - wall)


def measure(peer: Further, cell: str, mode: str, shape: Shape, budget_s: float) -> dict[str, Any]:
    """Time a peer's layer against ours; return its ratio and more, or ``empty``: why there is none.

    ``ready_s`` is what it took to make the layer and to compare its results, compilation and all;
    ``cores`` the CPU's time over the clock's: whether it kept to the threads it was given.
    """
    if mode not in peer.modes:
        return {"empty": f"no {mode}"}
    torch.manual_seed(0)
    ours, theirs = make_pair(cell, shape)
    x, dy = make_data(shape)
    mine = our_run(ours, x, dy, mode == TRAINING)
    start = perf_counter()
    try:
        run = peer.make(cell, theirs, x, dy, mode == TRAINING)
        check(run.results(), mine.results())
    except NoTime as reason:
        return {"empty": str(reason)}
    except Exception as error:  # whatever a peer raises is its result
        first_line = next(iter(str(error).strip().splitlines()), "")
        return {"empty": f"fails: {type(error).__name__}: {first_line[:120]}"}
    ready_s = perf_counter() - start
    timing = time_pair(mine.call, run.call, budget_s)
    return {
        "ours_ms": timing.ours_s * 1e3,
        "peer_ms": timing.peer_s * 1e3,
        "ratio": timing.ratio,
        "ratio_low": timing.ratio_low,
        "ratio_high": timing.ratio_high,
        "rounds": timing.rounds,
        "cores": cores_of(run.call),
        "ready_s": ready_s,
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the ratios of each further peer, their geometric means, and why some are missing.

    Args:
        rows: of ``bench.cpu``, each with ``peers``: what ``measure`` returned for each by name.
    """
    names = list(rows[0]["peers"])
    reasons: dict[str, str] = {}

    def cell_of(found: dict[str, Any]) -> str:
        if "empty" not in found:
            return f"{found['ratio']:.2f}"
        return reasons.setdefault(found["empty"], f"({len(reasons) + 1})")

    lines = [
        (row["cell"], row["mode"], row["shape"], *(cell_of(row["peers"][name]) for name in names))
        for row in rows
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["cell"], row["mode"]), []).append(row["peers"])
    means = []
    for key, some in groups.items():
        ratios = [[one[name]["ratio"] for one in some if "ratio" in one[name]] for name in names]
        of = [f"{statistics.geometric_mean(r):.2f} of {len(r)}" if r else "" for r in ratios]
        means.append((*key, *of))
    notes = "".join(f"\n{mark} {reason}" for reason, mark in reasons.items())
    return (
        f"how many times as long as ours:\n{align(('cell', 'mode', 'T,B,I,H', *names), lines)}"
        f"{notes}\n\ngeometric means, and of how many shapes:\n"
        f"{align(('cell', 'mode', *names), means)}"
    )
