"""``bench.profile``: the parts are of what they say, and samples go where they belong."""

import json
import sys
from pathlib import Path

import pytest
import torch

from bench import profile, sampling, timing
from bench.layers import CELLS, Shape, make_pair
from bench.profile import Case, fit_line, neighbours
from bench.sampling import CELL, ENGINE, MOVES, OTHERS, PRODUCTS, SYSTEM

SO = "_C.cpython-311-x86_64-linux-gnu.so"
LANES = "rnncells::avx512::LaneForward<rnncells::Lstm, float>"


def test_a_line_is_found_again() -> None:
    line = fit_line([(T, 3e-6 + 2e-6 * T) for T in (1, 10, 1000)])
    assert line == pytest.approx((3e-6, 2e-6))
    assert fit_line([(1, 1e-6), (2, 2e-6)]) is None


def test_neighbours_are_treated_alike() -> None:
    long = Case("lstm", "training", Shape(100, 64, 128, 128))
    assert [one.shape.T for one in neighbours(long)] == [25, 50, 100, 200]
    assert {one.regime for one in neighbours(long)} == {long.regime}
    streamed = Case("gru", "forward", Shape(1, 2, 64, 64))
    assert [one.shape.T for one in neighbours(streamed)] == [1, 2, 4]  # times 2 rows: to 8


@pytest.mark.parametrize("cell", CELLS)
def test_the_operators_alone_give_the_layer_s_results(cell: str) -> None:
    """With what the same seed drew: the gradients that the training step leaves."""
    case = Case(cell, "training", Shape(6, 5, 4, 3))
    layer, _ = make_pair(cell, case.shape)
    runs = []
    for make in (profile.whole_call, profile.operators_alone):
        torch.manual_seed(1)
        runs.append(make(case, layer))
    runs[0]()
    found = runs[1]()
    assert isinstance(found, list)
    for gradient, weight in zip(found, layer.parameters(), strict=True):
        assert weight.grad is not None
        assert torch.equal(gradient, weight.grad)


def test_only_a_few_rows_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(profile, "layer_forward", lambda *call: asked.append(call[-1]))
    for T, streams in ((2, True), (3, False)):
        case = Case("gru", "forward", Shape(T, 4, 4, 3))
        assert case.streams == streams
        with torch.inference_mode():
            found = profile.operators_alone(case, make_pair("gru", case.shape)[0])()
        assert (found is not None) == streams
    assert asked == [False]  # once, and nothing kept for a backward


@pytest.mark.parametrize(
    ("library", "symbol", "group"),
    [
        (SO, "rnncells::avx512::multiply_tile<float, 8, 2, 2, 0>", PRODUCTS),
        (
            SO,
            f"{LANES}::run_step<2>({LANES}::Block<2> const&) const::{{lambda(long)#1}}",
            CELL,
        ),
        (SO, f"void {LANES}::run_step<2>(long) const::{{lambda(long)#1}}::operator()<int>", CELL),
        (SO, "rnncells::avx512::rows_to_lanes<float>", MOVES),
        (SO, "void rnncells::avx512::pack_columns<float>", MOVES),
        (SO, "rnncells::avx512::in_parallel<void multiply_tile<float> >", ENGINE),
        ("libc.so.6", "__memmove_avx512_unaligned_erms", MOVES),
        ("libc.so.6", "_int_malloc", OTHERS),
        ("[kernel.kallsyms]", "clear_page_erms", SYSTEM),
        ("libtorch_cpu.so", "multiply_tile", OTHERS),
    ],
)
def test_samples_are_grouped_by_function(library: str, symbol: str, group: str) -> None:
    assert sampling.group_of(library, symbol) == group


def test_perf_s_report_is_read() -> None:
    report = f"""
    30.00%|{SO}  |[.] rnncells::avx512::multiply_tile<float, 6, 4>
    10.00%|[kernel.kallsyms]|[k] clear_page_erms

    """
    shares = sampling.grouped(sampling.read_report(report))
    assert shares == dict.fromkeys(sampling.GROUPS, 0.0) | {PRODUCTS: 0.75, SYSTEM: 0.25}
    with pytest.raises(sampling.NoSamples, match="no samples"):
        sampling.grouped(sampling.read_report("nothing\n"))


@pytest.mark.parametrize("shape", ["20,4,4,3", "1,1,4,3"])
@pytest.mark.parametrize("mode", ["training", "forward"])
def test_profile_writes_its_parts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    shape: str,
    mode: str,
) -> None:
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 0.0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    threads = torch.get_num_threads()
    options = ["--shape", shape, "--cell", "gru", "--mode", mode, "--seconds", "0.01"]
    monkeypatch.setattr(sys, "argv", ["bench", *options, "--out", str(tmp_path)])
    profile.main()
    torch.set_num_threads(threads)
    (row,) = json.loads((tmp_path / "profile.json").read_text())["rows"]
    assert (row["cell"], row["mode"], row["shape"]) == ("gru", mode, shape)
    assert row["streams"] == ((shape, mode) == ("1,1,4,3", "forward"))
    assert row["call_s"] > 0
    assert row["operators_s"] == row["operators_at_T_s"][shape.split(",")[0]]
    told = capsys.readouterr().out
    assert f"{row['call_s'] * 1e6:.1f}" in told
    assert "no samples: perf is not installed" in told


def test_perf_samples_this_process() -> None:
    a = torch.randn(64, 64)
    try:
        shares = sampling.sample(lambda: torch.mm(a, a), 1000, 0.5)
    except sampling.NoSamples as reason:
        pytest.skip(str(reason))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[OTHERS] > shares[PRODUCTS]  # torch's product is none of ours
