"""The CUDA engine as Python sees it: whether it is there, which kernel it chooses, and a way to
force one.

Four kernels serve a layer: ``resident`` (the recurrent weights in one block, blocks split the
batch), ``cluster`` and ``grid`` (the weights split over a cluster's blocks, or over the card), all
three one launch for the whole sequence; and ``step`` (a library's product and a small kernel for
each time step), which serves everything, and alone float64, a projection, and what torch.nn does
not have: dropout on the recurrent product, zoneout, resets, other activations, peepholes, layer
norm, the states of every step, and the minimal gated unit, IndRNN and sLSTM.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch

__all__ = ["KERNELS", "force_kernel", "kernel_name", "why_missing"]

KERNELS = ("resident", "cluster", "grid", "step")
VARIABLE = "RNNCELLS_CUDA_KERNEL"


def _load() -> tuple[ModuleType | None, str]:
    """The compiled module, which registers the operators' CUDA kernels; or why there is none."""
    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is not a CUDA build"
    try:
        from rnncells import _C_cuda
    except ModuleNotFoundError:
        return None, "rnncells was built without its CUDA engine: install it where nvcc is"
    except ImportError as error:
        return None, f"rnncells._C_cuda does not load: {error}"
    return _C_cuda, ""


_engine, _reason = _load()


def why_missing() -> str | None:
    """Why tensors on CUDA cannot be served; None where the engine is there (a GPU or not)."""
    return _reason if _engine is None else None


def _loaded() -> ModuleType:
    if _engine is None:
        raise RuntimeError(f"rnncells.cuda: {_reason}")
    return _engine


def kernel_name(
    cell: str,
    dtype: torch.dtype,
    T: int,
    B: int,
    H: int,
    proj_size: int = 0,
    training: bool = True,
    backward: bool = False,
    device: torch.device | str | int | None = None,
    varied: bool = False,
) -> str:
    """Name the kernel that serves a layer: one of ``KERNELS``.

    Args:
        cell: a name in ``rnncells.reference.CELLS`` or ``rnncells.variants.ENGINE_CELLS``.
        dtype: of the layer: float32, float64, float16 or bfloat16. For float32 torch's own setting
            of TF32 (``torch.backends.cuda.matmul``) counts, as it is now.
        T, B, H: time steps, sequences, hidden units.
        proj_size: the projection's outputs, or 0.
        training: of no account: what is kept for BPTT does not change the choice.
        backward: of BPTT in place of the forward pass.
        device: a CUDA device; the current one where it is None.
        varied: whether the call has masks, zoneout, resets, layer norm or the states of every step.

    Raises:
        RuntimeError: there is no CUDA engine, or no such device; or the kernel that was forced
            cannot serve the layer.
        ValueError: an unknown cell, dtype or size, or a device that is not CUDA's.
    """
    engine = _loaded()
    place = torch.device("cuda" if device is None else device)
    if place.type != "cuda":
        raise ValueError(f"device: expected a CUDA device, got {place}")
    index = torch.cuda.current_device() if place.index is None else place.index  # type: ignore[redundant-expr]
    layer = cell, str(dtype)[6:], T, B, H, proj_size > 0, backward, varied
    return str(engine.kernel_name(index, *layer))


def force_kernel(name: str | None) -> None:
    """Serve every layer on CUDA, forward and backward, by the named kernel; None: by what suits.

    A layer that it cannot serve then raises RuntimeError, which says why. The environment variable
    RNNCELLS_CUDA_KERNEL does the same from the start.

    Raises:
        ValueError: no kernel has this name.
        RuntimeError: there is no CUDA engine.
    """
    if name is not None and name not in KERNELS:
        raise ValueError(f"name: expected None or one of {', '.join(KERNELS)}, got {name!r}")
    _loaded().force_kernel(name or "")


def _force_from_environment() -> None:
    name = os.environ.get(VARIABLE)
    if not name or _engine is None:
        return
    try:
        force_kernel(name)
    except ValueError as error:
        raise ImportError(f"{error} (environment variable {VARIABLE})") from None


_force_from_environment()
