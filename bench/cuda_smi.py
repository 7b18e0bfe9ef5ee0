"""What the driver's own tool tells of the GPU, where torch is not needed or not there."""

import subprocess

FIELDS = {"device": "name", "driver": "driver_version", "capability": "compute_cap"}


def query() -> dict[str, str | None]:
    """Return name, driver and compute capability of the first GPU; None where they are not told."""
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS.values())}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        told = [field.strip() for field in done.stdout.splitlines()[0].split(",")]
        return dict(zip(FIELDS, told, strict=True))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return dict.fromkeys(FIELDS)
