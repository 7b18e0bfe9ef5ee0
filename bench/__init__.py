"""Benchmarks beside torch.nn: ``python -m bench.cpu``, ``bench.accuracy`` and ``bench.memory``."""
