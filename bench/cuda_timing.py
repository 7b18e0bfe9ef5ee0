"""Times functions against each other on a device that runs behind the host: by its events.

``bench.timing`` reads the host's clock, which says nothing of work that is only queued. Rounds,
ratios and medians are as there.
"""

import gc
import statistics
from time import perf_counter
from typing import Any, Protocol

from bench.timing import LEAST_ROUNDS, Call, Timing

LEAST_SAMPLE_S = 5e-3  # events tell a microsecond


class Clock(Protocol):
    """Marks in the device's queue, and the time between them."""

    def mark(self) -> Any:
        """Put a mark after all that is queued."""

    def seconds(self, first: Any, last: Any) -> float:
        """Wait for both marks, and return the time between them."""

    def wait(self) -> None:
        """Wait until nothing is queued."""


def sample(call: Call, repeats: int, clock: Clock) -> float:
    """Return the seconds a call takes in a run of them, as in a training loop.

    Each sample starts with an empty queue: behind the other side's long queue the host's share of
    a call would be hidden. The first call is not counted: it meets the caches as the other
    left them.
    """
    clock.wait()
    call()
    first = clock.mark()
    for _ in range(repeats):
        call()
    return clock.seconds(first, clock.mark()) / repeats


def best_seconds(call: Call, clock: Clock) -> float:
    """Return the shortest of three samples of ten calls."""
    return min(sample(call, 10, clock) for _ in range(3))


def _repeats(call: Call, clock: Clock) -> int:
    sample(call, 2, clock)
    return max(1, round(LEAST_SAMPLE_S / max(sample(call, 1, clock), 1e-9)))


def time_pair(ours: Call, peer: Call, budget_s: float, clock: Clock) -> Timing:
    """Time both in turn, ours, peer, ours, peer, ..., for about ``budget_s`` seconds of the host's.

    A ratio is taken within each round, where both met the same clock rate and temperature.
    """
    repeats = [_repeats(call, clock) for call in (ours, peer)]
    rounds: list[tuple[float, float]] = []
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        end = perf_counter() + budget_s
        while len(rounds) < LEAST_ROUNDS or perf_counter() < end:
            rounds.append((sample(ours, repeats[0], clock), sample(peer, repeats[1], clock)))
    finally:
        if gc_was_on:
            gc.enable()
    low, ratio, high = statistics.quantiles((b / a for a, b in rounds), n=4, method="inclusive")
    ours_s, peer_s = (statistics.median(side) for side in zip(*rounds, strict=True))
    return Timing(ours_s, peer_s, ratio, low, high, len(rounds))
