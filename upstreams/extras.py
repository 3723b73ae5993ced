"""What the base install leaves out, and the line that brings it."""

from __future__ import annotations

import importlib.util

# The modules that superbit imports from the packages of each extra in setup.cfg.
MODULES = {
    "run": (
        "torch", "torchaudio", "s3prl", "jiwer", "safetensors", "soundfile", "scipy",
        "numba", "editdistance", "joblib", "pyannote", "sklearn", "h5py", "dtw", "lxml", "librosa",
        "tensorboardX", "huggingface_hub",
    ),
    "report": ("jinja2",),
    "slurm": ("submitit",),
    "figures": ("matplotlib",),
    "embedded": ("espeakng_loader",),
}  # fmt: skip


def pip_line(extra: str) -> str:
    """Return what a person types for an extra; double quotes mean the same in every shell."""
    return f'pip install "superbit[{extra}]"'


def how_to_install(error: BaseException) -> str | None:
    """Return a clause that names the absent module and its extra, None for any other error.

    A module that is no extra's, or that is installed but broken, is not spoken of.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    module = error.name.partition(".")[0]
    extra = next((extra for extra, modules in MODULES.items() if module in modules), None)
    if extra is None or importlib.util.find_spec(module) is not None:
        return None
    return f"{module} is not installed; it comes with the extra {extra!r}: {pip_line(extra)}"
