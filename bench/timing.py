"""Times functions against each other."""

import gc
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

Call = Callable[[], object]
LEAST_ROUNDS = 5
LEAST_SAMPLE_S = 10e-3  # so that what the other side left in the caches and the heap counts little


class Timing(NamedTuple):
    """Medians over the rounds: seconds a call of each, and peer / ours with its quartiles."""

    ours_s: float
    peer_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int


def _sample(call: Call, repeats: int) -> float:
    """Return the seconds a call takes in a run of them, as in a training loop.

    The first call is not counted: it meets the caches and the heap as the other side left them.
    """
    call()
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) / repeats


def _repeats(call: Call) -> int:
    """Warm up, and return how many calls make a sample that is long enough for the clock."""
    _sample(call, 3)
    return max(1, round(LEAST_SAMPLE_S / max(_sample(call, 1), 1e-9)))


def time_in_turn(calls: Sequence[Call], budget_s: float) -> list[tuple[float, ...]]:
    """Time all in turn, again and again, for about ``budget_s`` seconds.

    Returns:
        For each round the seconds a call takes of each.
    """
    repeats = [_repeats(call) for call in calls]
    rounds: list[tuple[float, ...]] = []
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        end = perf_counter() + budget_s
        while len(rounds) < LEAST_ROUNDS or perf_counter() < end:
            rounds.append(
                tuple(_sample(call, count) for call, count in zip(calls, repeats, strict=True))
            )
    finally:
        if gc_was_on:
            gc.enable()
    return rounds


def time_pair(ours: Call, peer: Call, budget_s: float) -> Timing:
    """Time both in turn, ours, peer, ours, peer, ..., for about ``budget_s`` seconds.

    A ratio is taken within each round, where both met the same machine: whatever else slows it
    slows both, and the median leaves the rounds out where it slowed but one.
    """
    rounds = time_in_turn([ours, peer], budget_s)
    low, ratio, high = statistics.quantiles((b / a for a, b in rounds), n=4, method="inclusive")
    ours_s, peer_s = (statistics.median(side) for side in zip(*rounds, strict=True))
    return Timing(ours_s, peer_s, ratio, low, high, len(rounds))
