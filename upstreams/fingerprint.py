"""Hashes that say whether two upstreams are the same one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


_NOT_SOURCE = {"site-packages", "node_modules", "__pycache__"}


def weights_sha256(module: nn.Module) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of a module's whole state."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor!r}\n".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def source_sha256(file: Path) -> str:
    """Return the sha256 over the Python files in the folder of ``file`` and below it.

    Hidden folders and installed packages are left out.
    """
    digest = hashlib.sha256()
    for source in sorted(file.parent.rglob("*.py")):
        name = source.relative_to(file.parent)
        if any(part.startswith(".") or part in _NOT_SOURCE for part in name.parts):
            continue
        digest.update(f"{name.as_posix()}\n".encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()
