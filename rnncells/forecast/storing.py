"""A fitted forecaster as two files: numbers in safetensors, all else in JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnncells.forecast.checks import check_choice
from rnncells.forecast.extras import require
from rnncells.forecast.fitted import Fitted
from rnncells.forecast.heads import Head
from rnncells.forecast.options import HEADS, Columns, Options
from rnncells.forecast.scaler import Scaler, scaler_from_dict

__all__ = ["load", "save"]

FORMAT, VERSION = "rnncells forecaster", 1
CONFIG, TENSORS = "forecaster.json", "forecaster.safetensors"


def save(fitted: Fitted, folder: Path) -> None:
    """Write what was learned into a folder; each file whole or not at all.

    Raises:
        TypeError: a parameter that JSON cannot hold.
    """
    tensors = {f"net.{name}": value for name, value in fitted.net.state_dict().items()}
    scalers: dict[str, Scaler | None] = {"scaler": fitted.scaler, "static": fitted.static}
    for name, scaler in scalers.items():
        if scaler is not None:
            tensors |= {f"{name}.{key}": value for key, value in scaler.tensors().items()}
    blob = require("safetensors.torch").save({key: one.cpu() for key, one in tensors.items()})
    config = {
        "format": FORMAT,
        "version": VERSION,
        "parameters": {
            key: _plain(key, value) for key, value in fitted.options.get_params().items()
        },
        "columns": asdict(fitted.columns),
        "ids": list(fitted.ids),
        "reading": dict(fitted.reading),
        "frequency": fitted.frequency,
        "scalers": {key: one.to_dict() for key, one in scalers.items() if one is not None},
    }
    config["digest"] = _digest(config, blob)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TENSORS, blob)
    _write(folder / CONFIG, json.dumps(config, indent=1).encode())


def load(folder: Path) -> Fitted:
    """Read what :func:`save` wrote.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: files that are no forecaster, were changed, are of a newer version, or hold
            numbers that are not finite.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: expected JSON, got {error}") from None
    except RecursionError:
        raise ValueError(f"{folder / CONFIG}: expected JSON, got one nested too deeply") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG}: expected a {FORMAT!r}, got another file")
    version = config.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        advice = "; it is newer than this rnncells, which needs an update" if newer else ""
        raise ValueError(
            f"{folder / CONFIG}: expected version {VERSION} of the format, got {version!r}{advice}"
        )
    blob = (folder / TENSORS).read_bytes()
    digest = config.pop("digest", None)
    try:
        same = digest == _digest(config, blob)
    except RecursionError:  # writing goes less deep than reading
        same = False
    if not same:
        raise ValueError(
            f"{folder}: {CONFIG} or {TENSORS} was changed after it was saved, or the two are not "
            "of one save: their digest is another one than they say"
        )
    library = require("safetensors.torch")
    try:
        return _build(config, library.load(blob))
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{folder}: its parts do not fit together: {error}") from error


def _build(config: dict[str, Any], tensors: dict[str, Tensor]) -> Fitted:
    parameters = config["parameters"]
    if isinstance(parameters["head"], dict):
        head = dict(parameters["head"])
        kind = head.pop("kind")
        check_choice("head", kind, HEADS)
        parameters["head"] = HEADS[kind](**head)
    for name in ("hidden_size", "calendar"):
        if isinstance(parameters[name], list):
            parameters[name] = tuple(parameters[name])
    options = Options(**parameters)
    options.check()
    columns = Columns(**{role: tuple(names) for role, names in config["columns"].items()})
    with torch.random.fork_rng(devices=[]):
        net = options.make_network(columns)
    weights = _part(tensors, "net.")
    net.load_state_dict(weights)
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"weights: expected finite numbers, got a NaN or infinity in {name!r}")
    scalers = {
        name: scaler_from_dict(one, _part(tensors, f"{name}."))
        for name, one in config["scalers"].items()
    }
    return Fitted(
        options,
        columns,
        tuple(config["ids"]),
        config["reading"],
        config["frequency"],
        scalers["scaler"],
        scalers.get("static"),
        net.eval(),
    )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}


def _plain(name: str, value: Any) -> Any:
    """A parameter as JSON has it.

    Raises:
        TypeError: it cannot be written.
    """
    if isinstance(value, Head):
        kinds = [kind for kind, known in HEADS.items() if type(value) is known]
        if not kinds:
            raise TypeError(f"head: expected one of {', '.join(HEADS)} to save, got {value!r}")
        return {"kind": kinds[0], **asdict(value)}  # type: ignore[call-overload]
    try:
        json.dumps(value)
    except TypeError:
        raise TypeError(f"{name}: expected plain values, to be saved, got {value!r}") from None
    return value


def _digest(config: dict[str, Any], blob: bytes) -> str:
    """Of all that was saved: against damage and edits, not against a forger."""
    return sha256(json.dumps(config, sort_keys=True).encode() + b"\n" + blob).hexdigest()


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    os.replace(beside, path)
