"""``bench.cuda``: its clock, its rows, and the whole run, without a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import cuda, cuda_device, cuda_small, plot
from bench.cuda_grid import DTYPES, Case
from bench.cuda_roofline import PEAKS, count, floor
from bench.cuda_run import LIMITS, Settings, farthest, make_sides, measure
from bench.cuda_timing import time_pair
from bench.layers import CELLS
from bench.timing import LEAST_ROUNDS
from tests.fake_cuda import H100, SMALL, FakeDevice, row, settings


def test_timing_is_in_turn_by_the_device_s_clock() -> None:
    calls: list[str] = []

    class Clock(FakeDevice):
        """Each call took 1 ms of ours, 3 ms of the peer's, and waiting is seen."""

        def mark(self) -> Any:
            return calls.count("ours") + 3 * calls.count("peer")

        def wait(self) -> None:
            calls.append("wait")

    found = time_pair(lambda: calls.append("ours"), lambda: calls.append("peer"), 0.0, Clock())
    assert found.rounds == LEAST_ROUNDS
    assert found.ours_s == pytest.approx(1e-3)
    assert found.peer_s == pytest.approx(3e-3)
    assert found.ratio == pytest.approx(3)
    # A sample is 5 ms long, behind a wait and a call that does not count.
    one = ["wait"] + ["ours"] * (1 + 5) + ["wait"] + ["peer"] * (1 + 2)
    assert calls[-len(one) * LEAST_ROUNDS :] == one * LEAST_ROUNDS


def test_the_farthest_tensor_is_named() -> None:
    expected = {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([2.0])}
    assert farthest(dict(expected), expected) == (0.0, "")
    found = {"a": torch.tensor([1.0, -3.0]), "b": torch.tensor([2.2])}
    assert farthest(found, expected) == (0.25, "a")
    for bad in (torch.tensor([float("nan")]), torch.ones(2)):
        assert farthest(expected | {"b": bad}, expected) == (float("inf"), "b")
    assert farthest({"a": expected["a"]}, expected) == (float("inf"), "b")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_both_sides_agree_and_a_row_has_all(cell: str, dtype: str, packed: bool) -> None:
    device = FakeDevice()
    case = Case(cell, dtype, "training", SMALL, packed)
    found = measure(case, settings(device, rates={dtype: 1e12}))
    assert "empty" not in found
    assert found["off"] <= LIMITS[dtype]
    assert found["kernel"] == "resident/cluster"
    name = "rnn_tanh" if cell == "rnn" else cell
    layer = (name, DTYPES[dtype], SMALL.T, SMALL.B, SMALL.H)
    assert device.asked == [(*layer, False), (*layer, True)]
    rows = make_sides(case, "cpu")[2].shape[0] if packed else SMALL.T * SMALL.B
    work = count(cell, dtype, SMALL, True, rows)
    assert found["flops"] == work.flops
    assert found["bytes"] == work.bytes
    ours_s = found["ours_ms"] * 1e-3
    assert found["of_mm"] == pytest.approx(work.flops / ours_s / 1e12)
    assert found["of_roofline"] == pytest.approx(floor(work, dtype, PEAKS[H100])[0] / ours_s)
    assert found["us_a_step"] == pytest.approx(ours_s * 1e6 / SMALL.T)


def test_a_forward_pass_has_its_one_kernel_and_an_unknown_device_no_roofline() -> None:
    found = measure(Case("gru", "float32", "forward", SMALL), settings(peak=None))
    assert found["kernel"] == "resident"
    assert "of_roofline" not in found
    assert "of_mm" in found


def test_torch_s_tf32_is_on_for_its_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    class Watching(FakeDevice):
        def kernel(self, *layer: Any) -> str:
            seen.append(torch.backends.cuda.matmul.allow_tf32)
            seen.append(torch.backends.cudnn.allow_tf32)
            return "step"

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for dtype in ("tf32", "float32"):
        measure(Case("rnn", dtype, "forward", SMALL), settings(Watching()))
    assert seen == [True, True, False, False]
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_a_wrong_result_is_our_fault_and_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def twisted(case: Case, device: str) -> Any:
        ours, *others = make_sides(case, device)
        with torch.no_grad():
            next(ours.parameters()).mul_(1.5)
        return ours, *others

    monkeypatch.setattr("bench.cuda_run.make_sides", twisted)
    found = measure(Case("lstm", "float32", "training", SMALL), settings())
    assert "wrong result" in found["empty"]
    assert found["fault"]
    assert "ratio" not in found


def test_a_peer_that_does_not_run_is_no_fault() -> None:
    compiled = Case("gru", "float32", "forward", SMALL, peer="torch.compile")
    found = measure(compiled, settings())
    assert (found["empty"], found["fault"]) == ("compiling takes more than 0 s", False)


@pytest.mark.parametrize("forced", [False, True])
def test_a_kernel_that_does_not_serve_is_a_fault_unless_forced(forced: bool) -> None:
    class Refusing(FakeDevice):
        def kernel(self, *layer: Any) -> str:
            raise RuntimeError("resident cannot serve 2048 units")

    case = Case("gru", "float32", "forward", SMALL)
    found = measure(case, settings(Refusing(), forced=forced))
    assert found["empty"] == "the choice fails: RuntimeError: resident cannot serve 2048 units"
    assert found["fault"] != forced


def run_main(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> FakeDevice:
    device = FakeDevice()
    monkeypatch.setattr(cuda, "Device", lambda: device)
    monkeypatch.setattr(
        sys, "argv", ["bench", "--out", str(folder), "--row-seconds", "0", *options]
    )
    threads = torch.get_num_threads()
    try:
        cuda.main()
    finally:
        torch.set_num_threads(threads)
    return device


def test_the_run_writes_json_table_and_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--shapes", "3,2,4,5", "--packed", "--peers", "torch.nn", "--dtypes", "float32"]
    device = run_main(monkeypatch, tmp_path, *options, "--kernel", "step", "--commit", "abc")
    assert device.forced == ["step"]
    written = json.loads((tmp_path / "cuda.json").read_text())
    facts = written["machine"]
    assert (facts["device"], facts["driver"], facts["commit"]) == (H100, "1.2", "abc")
    assert (facts["forced_kernel"], facts["left"]) == ("step", [])
    assert facts["rates"] == {"float32": 1e12, "copy": 1e12}
    cases = {(r["cell"], r["mode"], r["layout"]) for r in written["rows"]}
    assert cases == {
        (c, m, p) for c in CELLS for m in ("training", "forward") for p in ("padded", "packed")
    }
    told = capsys.readouterr().out
    assert H100 in told
    assert PEAKS[H100].source in told
    assert told.count("3,2,4,5") == len(cases)
    assert "geometric mean" in told
    assert not list(tmp_path.glob("*.part.json"))
    if plot.ADVICE not in told:
        assert (tmp_path / "cuda.png").read_bytes().startswith(b"\x89PNG")


def test_every_row_is_written_before_the_next_and_the_rest_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The clock stands at 0, 1, 2 ... s, a second a row: two rows fit into 1.5 s."""
    clock = iter(range(100))
    seen: list[list[str]] = []

    def timed_row(case: Case, _: Settings) -> dict[str, Any]:
        path = tmp_path / "cuda.json"
        before = json.loads(path.read_text()) if path.exists() else {"rows": []}
        seen.append([one["cell"] for one in before["rows"]])
        return row(2.0, cell=case.cell)

    monkeypatch.setattr(cuda, "measure", timed_row)
    monkeypatch.setattr(cuda, "monotonic", lambda: float(next(clock)))
    cases = [Case(cell, "float32", "forward", SMALL) for cell in ("rnn", "lstm", "gru", "rnn")]
    rows, left = cuda.measure_all(cases, settings(), {"device": H100}, tmp_path, 2.5)
    assert seen == [[], ["rnn"]]
    assert [one["cell"] for one in rows] == ["rnn", "lstm"]
    assert left == [str(case) for case in cases[2:]]
    written = json.loads((tmp_path / "cuda.json").read_text())
    assert [one["cell"] for one in written["rows"]] == ["rnn", "lstm"]
    assert written["machine"]["left"] == left


def test_a_device_that_answers_no_more_ends_the_run(tmp_path: Path) -> None:
    class Dying(FakeDevice):
        def kernel(self, *layer: Any) -> str:
            self.alive = False
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    cases = [Case(cell, "float32", "forward", SMALL) for cell in CELLS]
    rows, left = cuda.measure_all(cases, settings(Dying()), {}, tmp_path, 100)
    assert len(rows) == 1
    assert rows[0]["lost"]
    assert left == [str(case) for case in cases[1:]]


def test_our_failure_makes_the_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda, "measure", lambda *_: row(1.0) | {"fault": True})
    with pytest.raises(SystemExit, match="1"):
        run_main(monkeypatch, tmp_path, "--shapes", "3,2,4,5", "--cells", "gru")


@pytest.mark.parametrize("module", [cuda, cuda_small])
def test_without_a_device_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert exit_.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "no CUDA device is here: torch.cuda.is_available() is false\n"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ragged", [False, True])
def test_the_small_set_sees_a_wrong_value(cell: str, ragged: bool) -> None:
    for dtype, kind in DTYPES.items():
        problem, expected = cuda_small.make_problem(cell, kind, ragged, "cpu")
        assert cuda_small.check(problem, expected, dtype) is None
    with torch.no_grad():
        problem.dy.mul_(1.5)
    assert "is off by" in (cuda_small.check(problem, expected, dtype) or "")


def test_the_small_set_runs_every_kernel_and_reports_each_failure() -> None:
    device = FakeDevice()

    def examine(problem: Any, expected: Any, dtype: str) -> str | None:
        if device.forced[-1] == "grid":
            raise RuntimeError("no barrier")
        return None

    found = dict(cuda_small.run(device, examine))
    assert len(found) == len(cuda_device.KERNELS) * len(CELLS) * len(DTYPES) * 2
    for name, wrong in found.items():
        assert wrong == ("RuntimeError: no barrier" if name.startswith("grid") else None)
    assert device.forced[-1] is None


@pytest.mark.parametrize("name", cuda_small.VARIANTS)
@pytest.mark.parametrize("ragged", [False, True])
def test_the_small_set_sees_a_wrong_variant(name: str, ragged: bool) -> None:
    problem, expected = cuda_small.make_varied(name, ragged, "cpu")
    assert cuda_small.check(problem, expected, "float32") is None
    with torch.no_grad():
        problem.dy.mul_(1.5)
    assert "is off by" in (cuda_small.check(problem, expected, "float32") or "")


def test_the_small_set_runs_every_variant_and_reports_each_failure() -> None:
    def examine(problem: Any, expected: Any, dtype: str) -> str | None:
        if problem.lengths is None:
            raise RuntimeError("no barrier")
        return None

    found = dict(cuda_small.run_variants(FakeDevice(), examine))
    assert len(found) == 2 * len(cuda_small.VARIANTS)
    for name, wrong in found.items():
        assert wrong == (None if name.endswith("lengths") else "RuntimeError: no barrier")
