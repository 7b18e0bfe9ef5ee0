"""torch.nn's layer under torch.compile, which unrolls it over the time steps.

Dynamo traces torch.nn's recurrent layers only where ``allow_rnn`` is set. Every T is another graph,
whose compilation takes a time that grows with T, and is broken off at a limit.
"""

import copy
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
import torch._inductor.config
from torch import Tensor, nn

from bench.layers import forward, gradients_of, training_step
from bench.peers import LayerRun


class CompileTimeout(BaseException):
    """The limit was reached. No Exception, so that the compiler does not take it for its own."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise CompileTimeout in the main thread after so many seconds."""

    def stop(*_: Any) -> None:
        raise CompileTimeout(f"compiling takes more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@cache
def start_compiler() -> None:
    """Compile something small, once: the first compilation sets the compiler itself up."""
    torch.compile(lambda x: x.tanh() + 1)(torch.ones(8))


def make(layer: nn.Module, x: Tensor, dy: Tensor, training: bool, limit_s: float) -> LayerRun:
    """Compile a copy of torch.nn's layer, and run it once.

    Raises:
        CompileTimeout: it took longer than ``limit_s``.
        Exception: what torch.compile raises where it fails.
    """
    torch._dynamo.reset()
    torch._dynamo.config.allow_rnn = True
    # In this process: its workers would go on with what was broken off, and keep the next waiting.
    torch._inductor.config.compile_threads = 1
    start_compiler()
    mine = copy.deepcopy(layer)
    compiled = cast(nn.Module, torch.compile(mine, fullgraph=True))

    def call() -> None:
        if training:
            training_step(compiled, x, dy)
        else:
            forward(compiled, x)

    def results() -> dict[str, Tensor]:
        if not training:
            with torch.inference_mode():
                return {"y": compiled(x)[0].clone()}
        call()
        return {"y": compiled(x)[0].detach()} | gradients_of(mine)

    with time_limit(limit_s):
        call()
    return LayerRun(call, results)
