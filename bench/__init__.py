"""Benchmarks beside torch.nn and others: ``python -m bench.cpu``, and the modules beside it."""
