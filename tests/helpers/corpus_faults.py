"""What tests of all corpora ask: one sentence on a fault, and the same sentence from a run."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from superbit.upstreams.errors import InputError


def only_problem(module: ModuleType, section, **arguments) -> str:
    """Return the one problem that a corpus module's report names."""
    [problem] = module.CORPUS.check(section, **arguments).problems
    assert "\n" not in problem
    return problem


def refused(module: ModuleType, section) -> str:
    """Return the one problem of the report, which is also what stops a run."""
    problem = only_problem(module, section)
    with pytest.raises(InputError) as caught:
        module.files(section)
    assert str(caught.value) == problem
    return problem


def write_noise(path: Path, seconds: float = 0.1) -> None:
    """Write a wav file of 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * 16_000))
    soundfile.write(path, samples, 16_000, subtype="PCM_16")
