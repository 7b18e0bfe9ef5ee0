"""The published forecasting tables again, with rnncells.forecast: ``python -m bench.forecast``."""
