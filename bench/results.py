"""Where results go: one JSON file a benchmark, with what it was measured on."""

import json
from pathlib import Path
from typing import Any

DEFAULT_FOLDER = Path(__file__).parent / "results"


def write(folder: Path, name: str, machine: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    """Write ``folder/name.json`` with the machine's facts and the rows; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return path
