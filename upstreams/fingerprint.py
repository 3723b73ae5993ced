"""Hashes that say whether two upstreams are the same one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


SIGNAL_SAMPLES = 32_000  # of the signal that hidden states are compared on, 2 s at 16 kHz
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


def signal() -> Tensor:
    """Return two seconds of noise that rises and falls as syllables do, (32000,), RMS about 0.07.

    From numpy's legacy generator, whose stream is the same in every version and on every machine.
    """
    import numpy as np
    import torch

    noise = np.random.RandomState(0).standard_normal(SIGNAL_SAMPLES)
    envelope = np.abs(np.sin(np.linspace(0, 8 * np.pi, SIGNAL_SAMPLES)))
    return torch.from_numpy(0.1 * noise * envelope).float()


def hidden_states(expert: nn.Module) -> list[Tensor]:
    """Return the hidden states of :func:`signal` in eval mode, each (1, frames, dim).

    The module's state, its mode and the global generators are left as they were. Raises what the
    forward pass raises, and TypeError where there are no hidden states.
    """
    import torch

    from superbit.upstreams.contract_probe import preserved, seed_everything

    first = next(iter(expert.parameters()), None)
    wave = signal().to("cpu" if first is None else first.device)
    with preserved(expert), torch.no_grad():
        expert.eval()
        seed_everything(0)
        output: Any = expert([wave])
    found = output["hidden_states"]
    states = list(found.values()) if isinstance(found, dict) else found
    states = states if isinstance(states, list | tuple) else [states]
    if not states or not all(isinstance(state, torch.Tensor) for state in states):
        raise TypeError("the output has no hidden states")
    return [state.detach() for state in states]


def same_features(one: nn.Module, other: nn.Module) -> bool | None:
    """Whether two modules give the same hidden states; None where a forward pass fails."""
    import torch

    try:
        pairs = hidden_states(one), hidden_states(other)
    except Exception:  # what is wrong with the model is said where it is asked for features
        return None
    return len(pairs[0]) == len(pairs[1]) and all(map(torch.equal, *pairs))
