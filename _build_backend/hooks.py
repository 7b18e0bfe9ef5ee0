"""The build backend (PEP 517 and 660): setuptools, asking for torch only where none is installed.

A torch in ``[build-system] requires`` would be downloaded into every isolated build, and the
extension would be built against that one and run against another.
"""

from collections.abc import Mapping
from typing import Any

from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from _build_backend import toolchain, torch_choice

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Mapping[str, Any] | None


def _requirements() -> list[str]:
    toolchain.choose_compiler()  # before a torch is downloaded in vain
    return torch_choice.build_requirements()


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Return what building a wheel needs besides ``[build-system] requires``."""
    return _requirements()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Return what an editable install needs besides ``[build-system] requires``."""
    return _requirements()


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """Return nothing: a source archive is packed without torch."""
    return []
