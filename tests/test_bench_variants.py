"""``bench.variants``: its peer computes what our layers do, and what misses an aim is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench import timing, variants
from bench.layers import Shape

DRAWN = ("dropout", "zoneout")
CASES = variants.cases(list(variants.KINDS))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_the_operators_compute_what_we_do(case: variants.Case) -> None:
    """Where nothing is drawn; where masks are, the sizes."""
    options = variants.OPTIONS[case.variant]
    layer: Any = variants.KINDS[case.cell](3, 5, **options)
    x = torch.randn(4, 2, 3)
    resets = torch.rand(4, 2) < 0.5 if case.variant == "resets" else None
    found, expected = variants.by_operators(layer, x, resets), layer(x, resets=resets)[0]
    if any(word in case.variant for word in DRAWN):
        assert found.shape == expected.shape
    else:
        torch.testing.assert_close(found, expected)


def test_every_variant_of_a_cell_is_timed() -> None:
    assert {case.variant for case in variants.cases(["lstm"])} == variants.OPTIONS.keys() - {
        "reset_after=False"
    }


def test_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 0.0)
    row = variants.measure(variants.Case("gru", "zoneout"), Shape(3, 2, 4, 5), 0.0)
    assert row["ms"] > 0
    assert row["cost"] > 0
    assert row["by_operators"] > 0


def test_what_misses_is_named() -> None:
    def row(variant: str, cost: float, by_operators: float) -> dict[str, Any]:
        figures = {"ms": 1.0, "cost": cost, "by_operators": by_operators}
        return {"cell": "gru", "variant": variant, **figures}

    rows = [row("zoneout", 1.6, 6.0), row("layer_norm=gates", 1.7, 6.0), row("resets", 1.0, 4.9)]
    assert variants.as_table(rows).endswith("by operators 5.0): gru zoneout, gru resets")
    assert variants.as_table(rows[1:2]).endswith("): none")
