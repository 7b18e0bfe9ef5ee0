"""The table of scores."""

from __future__ import annotations

from rnncells.forecast import Score, format_table


def test_table_by_hand() -> None:
    scores = [
        Score("naive", "", 2.0, 3.25, 1.0),
        Score("LSTM", "rnncells", 1.5, 2.5, 0.75, seconds=12.345, epochs=7),
    ]
    assert format_table(scores, "°C").splitlines() == [
        "model  layers    MAE °C  RMSE °C   MASE  train s  epochs",
        "--------------------------------------------------------",
        "naive             2.000    3.250  1.000",
        "LSTM   rnncells   1.500    2.500  0.750    12.35       7",
    ]
