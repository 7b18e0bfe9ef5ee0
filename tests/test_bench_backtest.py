"""``bench.backtest``: both sides forecast the same."""

from __future__ import annotations

import pytest

from bench import backtest, timing

pytest.importorskip("lightning_fabric")


def test_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 0.0)
    row = backtest.measure(backtest.Case("gru", 24), 0.0)
    assert row["cut_offs"] == len(range(1500, 3000 - 24 + 1, 24))
    assert min(row[name] for name in ("ms", "of_predict", "of_network")) > 0
    assert "gru" in backtest.as_table([row])
