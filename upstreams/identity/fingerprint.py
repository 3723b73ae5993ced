"""Hashes that say whether two upstreams are the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


SIGNAL_SAMPLES = 32_000  # of the signal that hidden states are compared on, 2 s at 16 kHz
_NOT_SOURCE = {"site-packages", "node_modules", "__pycache__"}


def weights_sha256(module: nn.Module) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of a module's whole state."""
    digest = hashlib.sha256()
    hash_state(digest, module.state_dict())
    return digest.hexdigest()


def hash_state(digest: hashlib._Hash, state: Mapping[str, Any]) -> None:
    """Put names, dtypes, shapes and bytes of a state into a digest, in the order of names."""
    import torch

    for name, tensor in sorted(state.items()):
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor!r}\n".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())


def source_files(file: Path) -> list[Path]:
    """The Python files in the folder of ``file`` and below it, sorted.

    Hidden folders and installed packages are left out.
    """
    return [
        source
        for source in sorted(file.parent.rglob("*.py"))
        if not any(
            part.startswith(".") or part in _NOT_SOURCE
            for part in source.relative_to(file.parent).parts
        )
    ]


def source_sha256(file: Path) -> str:
    """Return the sha256 over the :func:`source_files` of ``file``."""
    digest = hashlib.sha256()
    for source in source_files(file):
        digest.update(f"{source.relative_to(file.parent).as_posix()}\n".encode())
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

    from superbit.upstreams.contract.probe import preserved, seed_everything

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


def states_of_ours(model: nn.Module) -> list[Tensor]:
    """Return the hidden states of one of superbit's own encoders, in double precision.

    So that the order of sums, which differs between machines, moves no 1-bit threshold. On a copy.
    """
    import copy

    import torch

    double = copy.deepcopy(model).cpu().double().eval()
    with torch.no_grad():
        return list(double([signal().double()]))


def describe(states: Sequence[Tensor]) -> list[list[float]]:
    """Return of each hidden state its shape and three figures that rounding hardly moves.

    The mean magnitude, the RMS, and a projection on a fixed pattern of signs over frames and
    dimensions, relative to the RMS: of the order of 1, and moved by about as much as the states
    are, relative to theirs.
    """
    import numpy as np

    described = []
    for state in states:
        values = state.double().cpu().numpy()
        flat = values.reshape(-1, values.shape[-1])
        rms = float(np.sqrt(np.mean(flat**2)))
        signs = np.random.RandomState(0)
        rows, columns = (signs.randint(0, 2, size) * 2.0 - 1.0 for size in flat.shape)
        projection = float(rows @ flat @ columns / ((rms or 1.0) * np.sqrt(flat.size)))
        described.append([*map(float, values.shape), float(np.mean(np.abs(flat))), rms, projection])
    return described


def fingerprint(described: Sequence[Sequence[float]]) -> str:
    """Return the sha256 over what :func:`describe` gave, rounded.

    Magnitudes to three digits, projections to two decimals. In single precision another number of
    threads, or other kernels, moves magnitudes by less than 3e-8 of themselves and projections by
    less than 1e-6 (HuBERT of two and four layers): of a model with 13 hidden states, one machine in
    500 would find another fingerprint. superbit's own are measured in double precision.
    """
    lines = []
    for *shape, magnitude, rms, projection in described:
        sizes = [f"{size:.0f}" for size in shape]
        rounded = [f"{magnitude:.2e}", f"{rms:.2e}", f"{projection:.2f}".replace("-0.00", "0.00")]
        lines.append(" ".join([*sizes, *rounded]))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def alike(described: Sequence[Sequence[float]], known: Sequence[Sequence[float]]) -> bool:
    """Whether two descriptions are of the same hidden states, whatever machine measured them."""
    import numpy as np

    return len(described) == len(known) and all(
        len(one) == len(other) and np.allclose(one, other, rtol=1e-4, atol=1e-4)
        for one, other in zip(described, known, strict=True)
    )
