"""``bench/gpu_check.sh`` and its record, with fake commands in place of its stages'."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from bench import cuda_smi
from tests.fake_cuda import row

ROOT = Path(__file__).parent.parent


def check(folder: Path, *arguments: str, **commands: str) -> subprocess.CompletedProcess[str]:
    """Run the script with fake commands."""
    fakes = {f"GPU_CHECK_{name.upper()}": command for name, command in commands.items()}
    return subprocess.run(
        ["bash", "bench/gpu_check.sh", "--out", str(folder), "--commit", "abc", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable} | fakes,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", "bench/gpu_check.sh"], cwd=ROOT, check=True)


def test_a_dry_run_prints_what_each_stage_does(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    told = check(folder, "--dry-run", "--", "--cells", "gru").stdout.splitlines()
    stages = {line.split(":")[0]: line for line in told}
    assert list(stages) == [
        *("build", "test", "graph", "memcheck", "racecheck", "synccheck", "bench"),
    ]
    assert "FORCE_CUDA=1" in stages["build"]
    assert "build_ext --inplace" in stages["build"]
    assert "tests/test_cuda*.py" in stages["test"]
    assert "bench.cuda_small --graph" in stages["graph"]
    for tool in ("memcheck", "racecheck", "synccheck"):
        assert f"--tool {tool} " in stages[tool]
    assert stages["bench"].endswith("--cells gru")
    assert sum(int(line.split()[1]) for line in told) <= 510
    assert not folder.exists()
    chosen = check(folder, "--dry-run", "sanitize", "bench").stdout.splitlines()
    assert [line.split(":")[0] for line in chosen] == list(stages)[3:]


def test_a_stage_that_fails_is_recorded_and_the_others_run(tmp_path: Path) -> None:
    measured = {"machine": {"left": ["one more"]}, "rows": [row(2.0)]}
    (tmp_path / "measured").write_text(json.dumps(measured))
    copy = f"cp '{tmp_path}/measured' '{tmp_path}/cuda.json'"
    fakes = {"test": "echo oh no; exit 3", "graph": "exit 77", "bench": copy}
    done = check(tmp_path, "build", "test", "graph", "bench", build="echo built", **fakes)
    assert done.returncode == 1, done.stderr
    record = json.loads((tmp_path / "gpu_check-build-test-graph-bench.json").read_text())
    assert [(one["stage"], one["result"], one["good"]) for one in record["stages"]] == [
        ("build", "good", True),
        ("test", "bad: exit 3", False),
        ("graph", "not run", False),
        ("bench", "good", True),
    ]
    assert record["stages"][1]["tail"] == ["oh no"]
    assert record["rows"] == measured["rows"]
    facts = record["machine"]
    assert (facts["commit"], facts["torch"]) == ("abc", version("torch"))
    assert {"device", "driver", "date"} <= set(facts)
    assert not (tmp_path / "cuda.json").exists()
    text = (tmp_path / "gpu_check-build-test-graph-bench.txt").read_text()
    for part in ("bad: exit 3", "the end of test:\noh no", "one more", "not measured"):
        assert part in text
        assert part in done.stdout
    assert "built" in (tmp_path / "gpu_check-build-test-graph-bench.log").read_text()


def test_all_good_is_0_and_a_stage_has_its_time(tmp_path: Path) -> None:
    assert check(tmp_path, "build", build="true").returncode == 0
    done = check(tmp_path, "--seconds", "1", "build", "test", build="sleep 30", test="true")
    assert done.returncode == 1
    stages = json.loads((tmp_path / "gpu_check-build-test.json").read_text())["stages"]
    assert [one["result"] for one in stages] == ["bad: out of time", "good"]


def test_broken_off_it_leaves_what_was_done_and_no_job(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    script = ["bash", "bench/gpu_check.sh", "--out", str(tmp_path), "build", "test"]
    fakes = {
        "GPU_CHECK_BUILD": "true",
        "GPU_CHECK_TEST": f"echo $$ >'{begun}.part'; mv '{begun}.part' '{begun}'; sleep 60; true",
        "PYTHON": sys.executable,
    }
    with subprocess.Popen(
        script, cwd=ROOT, env=os.environ | fakes, stdout=subprocess.DEVNULL
    ) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 1
    stages = json.loads((tmp_path / "gpu_check-build-test.json").read_text())["stages"]
    assert [one["stage"] for one in stages] == ["build"]
    deadline = time.monotonic() + 30
    while Path(f"/proc/{int(begun.read_text())}").exists():  # until it was interrupted
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tests"], "expected a stage (build, test, graph, sanitize, bench) or an option"),
        (["--seconds", "a"], "--seconds: expected a whole number, got 'a'"),
        (["--out"], "--out needs a value"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = check(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_record_needs_neither_rnncells_nor_torch(tmp_path: Path) -> None:
    """Where the build failed, or the interpreter is a bare one."""
    log = tmp_path / "log"
    log.write_text("no compiler\n")
    (tmp_path / "stages").write_text(f"build\t1\t2\t3\t{log}\n")
    code = (
        "import sys; sys.modules.update(rnncells=None, torch=None); from bench import cuda_record; "
        f"sys.argv[1:] = ['--out', {str(tmp_path)!r}, '--stages', {str(tmp_path / 'stages')!r}]; "
        "cuda_record.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "no compiler" in done.stdout
    (stage,) = json.loads((tmp_path / "gpu_check.json").read_text())["stages"]
    assert (stage["result"], stage["seconds"], stage["limit_s"]) == ("bad: exit 1", 2, 3)


@pytest.mark.parametrize(
    ("printed", "device"),
    [("NVIDIA H200, 580.1, 9.0", "NVIDIA H200"), ("", None), ("Failed to start", None)],
)
def test_nvidia_smi_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: str, device: str | None
) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\necho '{printed}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    told = cuda_smi.query()
    assert told["device"] == device
    assert (told["driver"], told["capability"]) == ((device and "580.1"), (device and "9.0"))
