"""What a model takes: bytes of its file, and memory while it encodes.

By column of `superbit.benchmark.profiling.measuring`. A twin's column of bits is the packed one, of
``superbit pack``.
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.packed import pack
from superbit.upstreams.spec import TWIN_PREFIX, UpstreamSpec


def file_bytes(model: nn.Module) -> int:
    """Return what a model's state takes as torch saves it."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getbuffer().nbytes


@contextmanager
def packed(spec: str, expert: nn.Module) -> Iterator[tuple[str, int] | None]:
    """Pack a twin for the duration; give the spec that loads it and the bytes of the file.

    None for what cannot be packed: a twin that was never calibrated, an upstream of others.
    """
    model = getattr(expert, "model", None)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "twin.safetensors"
        if isinstance(model, Hubert) and model.packed_weights_sha256 is not None:
            yield spec, Path(UpstreamSpec.parse(spec).checkpoint or file).stat().st_size
            return
        try:
            if not isinstance(model, Hubert):
                raise InputError("no encoder of superbit's")
            size = pack(model, file, weights="", untrained=True).file
        except InputError:
            yield None
            return
        yield f"{TWIN_PREFIX}{UpstreamSpec.parse(spec).name}@{file}", size


def peak_memory_mb(spec: str, *, variant: str, samples: int, threads: int) -> float | None:
    """Return the growth of a fresh process's resident memory, at its highest, in 10^6 bytes.

    From before the model is built to its highest while it encodes one utterance, so it holds
    weights and activations but not torch itself. None where the system does not tell (no
    ``/proc``), or the model does not run there.

    Args:
        spec: the upstream.
        variant: a key of `superbit.benchmark.profiling.measuring.VARIANTS`.
        samples: of the utterance, at 16 kHz.
        threads: that torch computes with.
    """
    words = ["-m", "superbit.benchmark.profiling.peak_memory", spec, variant]
    try:
        done = subprocess.run(
            [sys.executable, *words, str(samples), str(threads)],
            check=True,
            capture_output=True,
            text=True,
            timeout=600,
        )
        grown = float(done.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return grown / 1e6 if math.isfinite(grown) else None
