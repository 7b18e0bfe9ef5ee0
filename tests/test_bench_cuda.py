"""``bench.cuda``: what it counts, its grid, its tables and aims."""

from __future__ import annotations

from typing import Any

import pytest

from bench import cuda_grid, cuda_table
from bench.cuda_grid import DTYPES, Case, Choice
from bench.cuda_roofline import PEAKS, count, floor
from bench.layers import CELLS, Shape
from tests.fake_cuda import H100, SMALL, row


def test_operations_and_bytes_of_a_lstm_are_as_counted_by_hand() -> None:
    """T 3, B 2, I 4, H 5: 6 rows; 4 gates of 5 units, 20 columns.

    Products: 6 rows, 20 columns, 4 + 5 deep: 1,080 multiply-adds. Elements: x 24, weights 180,
    biases 40, y 30, last h and c 20: 294. Training: dW, 1,080 more, and dh, 600 more; x 24, y 30,
    dy 30, weights 180, their gradients and the biases' 220 more: 484.
    """
    forward = count("lstm", "float32", SMALL, training=False)
    assert forward == (2 * 1080, 4 * 294)
    training = count("lstm", "float32", SMALL, training=True)
    assert training == (2 * (1080 + 1080 + 600), 4 * (294 + 484))
    half = count("lstm", "bfloat16", SMALL, training=True)
    assert half == (training.flops, training.bytes // 2)


def test_operations_and_bytes_of_few_rows_are_those_of_the_rows() -> None:
    """A GRU on 4 rows of the 6: 15 columns, 9 deep; x 16, weights 135, biases 30, y 20, h 10."""
    assert count("gru", "float16", SMALL, False, rows=4) == (2 * 4 * 15 * 9, 2 * 211)
    rnn = count("rnn", "tf32", SMALL, False, rows=4)
    assert rnn == (2 * 4 * 5 * 9, 4 * (16 + 45 + 10 + 20 + 10))


def approximately(seconds: float, bound: str) -> Any:
    return pytest.approx(seconds), bound


def test_the_floor_is_the_longer_of_both() -> None:
    peak = PEAKS["NVIDIA A100-SXM4-80GB"]
    work = count("lstm", "float16", SMALL, True)._replace(flops=312 * 10**9, bytes=2039)
    assert floor(work, "float16", peak) == approximately(1e-3, "arithmetic")
    assert floor(work, "float32", peak) == approximately(16e-3, "arithmetic")
    slow = work._replace(bytes=2039 * 10**7)
    assert floor(slow, "float16", peak) == approximately(10e-3, "memory")


def test_every_peak_has_each_dtype_and_a_source() -> None:
    for peak in PEAKS.values():
        assert set(peak.flops) == set(DTYPES)
        assert peak.flops["float32"] < peak.flops["tf32"] < peak.flops["float16"]
        assert "datasheet" in peak.source
    assert PEAKS["NVIDIA H200"].flops == PEAKS[H100].flops
    assert PEAKS["NVIDIA H200"].bandwidth > PEAKS[H100].bandwidth


def test_the_grid_has_what_the_aims_need_first() -> None:
    cases = cuda_grid.cases(Choice(list(CELLS)))
    assert len(cases) == len(set(cases))
    rows = [
        row(2.0, cell=c.cell, dtype=c.dtype, mode=c.mode, shape=str(c.shape), peer=c.peer)
        | {"layout": "packed" if c.packed else "padded"}
        for c in cases
    ]
    assert all(one["reached"] for one in cuda_table.aims(rows))
    wanted = [any(aim.of(one) for aim in cuda_table.AIMS) for one in rows]
    wide = next(place for place, case in enumerate(cases) if str(case.shape) in cuda_grid.WIDE)
    packed = [case for case in cases[:wide] if case.packed and case.mode == "training"]
    assert len(packed) == len(cuda_grid.RAGGED) * len(CELLS) * len(DTYPES)
    aimed_later = [case for case, aim in zip(cases[wide:], wanted[wide:], strict=True) if aim]
    assert all(case.packed and case.mode == "forward" for case in aimed_later)
    assert all(case.peer == cuda_grid.COMPILED for case in cases[-3:])


def test_the_full_grid_has_every_size() -> None:
    cases = cuda_grid.all_cases(Choice(list(CELLS)))
    assert len(cases) == len(set(cases))
    shapes = {case.shape for case in cases if not case.packed}
    for H in (20, 128, 2048):
        for B in (1, 256):
            assert {Shape(T, B, H, H) for T in (50, 1024)} <= shapes


def test_what_is_named_is_chosen() -> None:
    choice = Choice(["gru"], ["tf32"], ["forward"], ["torch.nn"])
    assert cuda_grid.chosen_cases(choice, [SMALL], packed=True) == [
        Case("gru", "tf32", "forward", SMALL),
        Case("gru", "tf32", "forward", SMALL, packed=True),
    ]
    compiled = cuda_grid.chosen_cases(choice._replace(peers=["torch.compile"]), [SMALL], False)
    assert [str(case) for case in compiled] == ["torch.compile: gru tf32 forward 3,2,4,5"]
    assert {case.peer for case in cuda_grid.cases(choice)} == {"torch.nn"}


def aim_of(rows: list[dict[str, Any]], start: str) -> dict[str, Any]:
    (found,) = (one for one in cuda_table.aims(rows) if one["aim"].startswith(start))
    return found


def test_the_means_of_the_aims() -> None:
    narrow = [row(1.2), row(2.7, shape="1024,256,128,128", dtype="tf32")]
    others = [
        row(9.0, shape="50,32,1,129"),
        row(9.0, shape="50,257,1,20"),
        row(9.0, mode="forward"),
        row(9.0, peer="torch.compile"),
        row(9.0, layout="packed"),
    ]
    lstm = aim_of(narrow + others, "lstm: H <= 128")
    assert lstm["mean"] == pytest.approx(1.8)  # the root of 1.2 * 2.7
    assert (lstm["lowest"], lstm["rows"], lstm["reached"]) == (1.2, 2, True)
    assert (lstm["wanted_mean"], lstm["wanted_each"]) == (1.5, 1.0)
    assert aim_of([*narrow, row(0.99)], "lstm: H <= 128")["reached"] is False
    assert aim_of([row(1.4)], "lstm: H <= 128")["reached"] is False
    assert aim_of(narrow, "gru: H <= 128")["reached"] is None
    assert aim_of(others, "PackedSequence")["mean"] == pytest.approx(9.0)
    assert aim_of([row(1.9, layout="packed")], "PackedSequence")["reached"] is False


def test_the_aims_at_the_persistent_kernel_s_shape() -> None:
    at = {"shape": "1024,16,768,768"}
    rows = [
        row(0.8, dtype="float16", **at),
        row(1.1, dtype="float16", cell="gru", **at),
        row(0.9, dtype="bfloat16", cell="rnn", **at),
        row(0.1, dtype="float32", cell="gru", **at),
    ]
    assert aim_of(rows, "lstm float16")["reached"] is True
    assert aim_of([row(0.76, dtype="float16", **at)], "lstm float16")["reached"] is False
    assert (aim_of(rows, "gru: there")["rows"], aim_of(rows, "gru: there")["reached"]) == (1, True)
    assert aim_of(rows, "bfloat16")["reached"] is False


def test_the_text_has_rows_means_aims_and_what_has_no_time() -> None:
    failed = {k: v for k, v in row(1.0, cell="gru").items() if not k.startswith("ratio")}
    text = cuda_table.as_text(
        [row(2.0), row(8.0), row(3.0, layout="packed"), failed | {"empty": "ours fails: oh"}],
        ["torch.nn: rnn tf32 forward 1,1,1,1"],
    )
    assert "against torch.nn, padded:" in text
    assert "against torch.nn, packed:" in text
    assert "torch.nn padded gru float32 training 50,32,1,20: ours fails: oh" in text
    assert "left, as the time was spent (1):\ntorch.nn: rnn tf32 forward 1,1,1,1" in text
    (mean,) = (line for line in text.splitlines() if line.endswith(" 4.00"))
    key = ["torch.nn", "padded", "lstm", "training", "float32"]
    assert mean.split() == [*key, "2", "2.00", "4.00"]
    (aim,) = (line for line in text.splitlines() if line.startswith("lstm: H <= 128"))
    assert aim.split()[-6:] == ["2", "4.00", "1.50", "2.00", "1.00", "reached"]
    assert "not measured" in text
