"""The record of ``bench/gpu_check.sh``: one JSON and one table of its stages and measurements.

Needs neither rnncells nor torch: a build that failed is recorded too.
"""

import argparse
import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import cuda_smi
from bench.cuda_table import as_text
from bench.table import align

TAIL_LINES = 40
SHOWN_LINES = 15
SHOWN_FACTS = ("device", "driver", "torch", "cuda", "cudnn", "commit", "date")
# As the stages' commands exit: of `timeout`, and by the custom of test drivers "not run".
OUT_OF_TIME = (124, 137)
NOT_RUN = 77


def verdict(code: int) -> str:
    """Say what a stage's exit code means."""
    if code == 0:
        return "good"
    if code in OUT_OF_TIME:
        return "bad: out of time"
    return "not run" if code == NOT_RUN else f"bad: exit {code}"


def read_stages(path: Path) -> list[dict[str, Any]]:
    """Read the stages: a line each of name, exit code, seconds, limit and log, between tabs."""
    stages = []
    for line in path.read_text().splitlines():
        name, code, seconds, limit, log = line.split("\t")
        tail = Path(log).read_text(errors="replace").splitlines()[-TAIL_LINES:]
        stages.append(
            {
                "stage": name,
                "result": verdict(int(code)),
                "good": int(code) == 0,
                "seconds": int(seconds),
                "limit_s": int(limit),
                "tail": tail,
            }
        )
    return stages


def machine_facts(commit: str) -> dict[str, Any]:
    """Return device, driver, torch's version, commit and date, as far as they can be told."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return cuda_smi.query() | {"torch": torch, "commit": commit, "date": date}


def as_table(machine: dict[str, Any], stages: list[dict[str, Any]]) -> str:
    """Return the facts, the stages, and the log's end of each stage that was not good."""
    facts = "\n".join(f"{name}: {value}" for name, value in machine.items() if name in SHOWN_FACTS)
    lines = [
        (stage["stage"], stage["result"], str(stage["seconds"]), str(stage["limit_s"]))
        for stage in stages
    ]
    parts = [facts, align(("stage", "result", "seconds", "of"), lines)]
    parts += [
        f"the end of {stage['stage']}:\n" + "\n".join(stage["tail"][-SHOWN_LINES:])
        for stage in stages
        if not stage["good"]
    ]
    return "\n\n".join(parts)


def write(folder: Path, name: str, stages: list[dict[str, Any]], commit: str) -> str:
    """Write ``name.json`` and ``name.txt``; return the text. Takes ``cuda.json`` in, and away."""
    measured = folder / "cuda.json"
    found: dict[str, Any] = {"machine": {}, "rows": []}
    if measured.exists():
        found = json.loads(measured.read_text())
    found["machine"] = machine_facts(commit) | found["machine"]
    text = as_table(found["machine"], stages)
    if found["rows"]:
        text += "\n\n" + as_text(found["rows"], found["machine"]["left"])
    record = {"machine": found["machine"], "stages": stages, "rows": found["rows"]}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.txt").write_text(text + "\n")
    measured.unlink(missing_ok=True)
    return text


def main() -> None:
    """Read the command line, write both files, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_record", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for both files")
    parser.add_argument("--name", default="gpu_check", help="of both files (gpu_check)")
    parser.add_argument("--stages", type=Path, required=True, help="file with a line for each")
    parser.add_argument("--commit", default="unknown")
    options = parser.parse_args()
    print(write(options.out, options.name, read_stages(options.stages), options.commit))


if __name__ == "__main__":
    main()
