"""The peers of ``bench.cpu``: what they compute is ours, and what is not has no time."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn

from bench import cpu, further, timing
from bench.layers import CELLS, Shape, make_data, make_pair
from bench.peers import LayerRun
from bench.peers.compiled_layer import CompileTimeout, time_limit

SMALL = Shape(T=3, B=2, I=4, H=5)
PEERS = further.all_peers(60)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short samples, and torch's settings as they were."""
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 0.0)
    threads, allowed = torch.get_num_threads(), torch._dynamo.config.allow_rnn
    workers = torch._inductor.config.compile_threads
    yield
    torch.set_num_threads(threads)
    torch._dynamo.config.allow_rnn = allowed
    torch._inductor.config.compile_threads = workers


def both_runs(make: further.Maker, cell: str, training: bool) -> tuple[LayerRun, LayerRun]:
    torch.manual_seed(0)
    ours, theirs = make_pair(cell, SMALL)
    x, dy = make_data(SMALL)
    return make(cell, theirs, x, dy, training), further.our_run(ours, x, dy, training)


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", ["ONNX Runtime", "JAX", "Flax"])
def test_a_peer_computes_what_we_do(name: str, cell: str, training: bool) -> None:
    """The output, and each weight's gradient under its name: the weights are where they belong."""
    for package in PEERS[name].packages:
        pytest.importorskip(package)
    if training and "training" not in PEERS[name].modes:
        assert further.measure(PEERS[name], cell, "training", SMALL, 0.0) == {
            "empty": "no training"
        }
        return
    run, ours = both_runs(PEERS[name].make, cell, training)
    run.call()
    results, expected = run.results(), ours.results()
    assert results.keys() == expected.keys()
    assert len(results) == (5 if training else 1)
    for key, value in expected.items():
        torch.testing.assert_close(results[key], value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "mode"), [("rnn", "training"), ("gru", "training"), ("gru", "forward")]
)
def test_torch_compile_computes_what_we_do(cell: str, mode: str) -> None:
    found = further.measure(PEERS["torch.compile"], cell, mode, Shape(2, 2, 4, 5), 0.0)
    assert "empty" not in found, found
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]


def fake(results: Any) -> further.Further:
    """A peer whose results are made from torch.nn's."""

    def make(cell: str, layer: nn.Module, x: Tensor, dy: Tensor, training: bool) -> LayerRun:
        run = further.our_run(layer, x, dy, training)
        return LayerRun(run.call, lambda: results(run.results()))

    return further.Further((), ("forward", "training"), make)


def test_a_right_peer_is_timed() -> None:
    found = further.measure(fake(lambda same: same), "gru", "training", SMALL, 0.0)
    assert found["rounds"] == timing.LEAST_ROUNDS
    assert found["ours_ms"] > 0
    assert found["peer_ms"] > 0
    assert found["cores"] > 0


@pytest.mark.parametrize(
    ("results", "told"),
    [
        (lambda all_: all_ | {"y": 1.001 * all_["y"]}, "wrong result: y is off by"),
        (lambda all_: all_ | {"y": all_["y"] * torch.nan}, "wrong result: y is off by"),
        (lambda all_: all_ | {"y": all_["y"][:1]}, "wrong result: y is missing, or has"),
        (lambda all_: {"y": all_["y"]}, "wrong result: weight_ih_l0 is missing"),
        (
            lambda all_: all_ | {"bias_hh_l0": all_["bias_hh_l0"].flip(0)},
            "wrong result: bias_hh_l0 is off",
        ),
        (lambda all_: 1 / 0, "fails: ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_peer_gets_a_reason_and_no_time(results: Any, told: str) -> None:
    found = further.measure(fake(results), "lstm", "training", SMALL, 0.0)
    assert list(found) == ["empty"]
    assert found["empty"].startswith(told)


def test_compiling_is_broken_off_at_the_limit() -> None:
    with pytest.raises(CompileTimeout, match=r"more than 0\.01 s"), time_limit(0.01):
        time.sleep(10)
    with time_limit(10):
        pass
    time.sleep(0.02)  # and the alarm is off


def test_what_took_too_long_is_not_tried_with_more_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def compile_layer(layer: nn.Module, x: Tensor, *_: Any) -> LayerRun:
        tried.append(x.shape[0])
        if x.shape[0] >= 4:
            raise CompileTimeout("compiling takes more than 1 s")
        return further.our_run(layer, x, x, False)

    monkeypatch.setattr("bench.peers.compiled_layer.make", compile_layer)
    peer = further.all_peers(1)["torch.compile"]
    found = [further.measure(peer, "gru", "forward", Shape(T, 2, 3, 3), 0) for T in (2, 4, 5, 3)]
    assert tried == [2, 4, 3]
    assert [one.get("empty") for one in found] == [
        None,
        "compiling takes more than 1 s",
        "compiling takes more than 1 s already at T=4",
        None,
    ]
    assert "empty" in further.measure(peer, "lstm", "forward", Shape(5, 2, 3, 3), 0)
    assert tried[-1] == 5  # another cell is tried


def test_peers_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flax", None)
    assert "Flax" not in further.choose(None, 1)
    assert list(further.choose(["torch.compile"], 1)) == ["torch.compile"]
    assert further.choose([], 1) == {}
    with pytest.raises(ValueError, match=r"Flax needs .*flax, not installed .*rnncells\[bench\]"):
        further.choose(["Flax"], 1)
    with pytest.raises(ValueError, match="'jax' is none of ONNX Runtime, JAX, Flax"):
        further.choose(["jax"], 1)


def test_the_table_says_why_a_place_is_empty() -> None:
    def row(shape: str, **peers: dict[str, Any]) -> dict[str, Any]:
        return {"cell": "gru", "mode": "forward", "shape": shape, "peers": peers}

    none = {"empty": "no forward"}
    told = further.as_table(
        [row("1,1,1,1", A={"ratio": 2.0}, B=none), row("2,1,1,1", A={"ratio": 8.0}, B=none)]
    ).splitlines()
    assert told[3].split() == ["gru", "forward", "1,1,1,1", "2.00", "(1)"]
    assert told[4].split() == ["gru", "forward", "2,1,1,1", "8.00", "(1)"]
    assert told[5] == "(1) no forward"
    assert told[-1].split() == ["gru", "forward", "4.00", "of", "2"]


def test_cpu_writes_what_the_peers_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    peers = {"Same": fake(lambda same: same), "Wrong": fake(lambda same: {})}
    monkeypatch.setattr(further, "all_peers", lambda limit_s: peers)
    options = ["--shapes", "3,2,4,5", "--seconds", "0.001", "--cells", "gru"]
    monkeypatch.setattr(sys, "argv", ["bench", *options, "--out", str(tmp_path)])
    cpu.main()
    told = capsys.readouterr().out
    rows = json.loads((tmp_path / "cpu-1-thread.json").read_text())["rows"]
    assert [row["mode"] for row in rows] == list(cpu.MODES)
    for row in rows:
        assert row["peers"]["Wrong"] == {
            "empty": "wrong result: y is missing, or has another shape"
        }
        assert f"{row['peers']['Same']['ratio']:.2f}" in told
    assert "(1) wrong result: y is missing" in told


def test_an_unknown_peer_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--peers", "torch.nn, nobody"])
    with pytest.raises(SystemExit):
        cpu.main()
    assert "--peers: 'nobody' is none of" in capsys.readouterr().err
