"""What JAX, and all that builds on it, must be told first."""

import os


def limit_threads(threads: int) -> None:
    """Tell XLA its threads; it reads this when it first computes, and not again."""
    os.environ["NPROC"] = str(threads)
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false"
