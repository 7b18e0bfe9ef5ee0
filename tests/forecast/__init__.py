"""Tests of rnncells.forecast."""
