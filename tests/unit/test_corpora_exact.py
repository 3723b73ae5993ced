"""Audio of the embedded corpora is the same to the bit, whatever instructions a processor has.

Other processors are imitated: numpy and OpenBLAS are told to do without this one's instructions.
That this is felt at all is tested too, on the functions that the corpora do without.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a process of its own, and prints hashes by name. "plain": of what may differ.
SOUNDS = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
from superbit.benchmark.corpora.embedded import acoustics, exact, iemocap, libri2mix, voxceleb1

def hashed(samples):
    return hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()[:16]

found = {}
random = np.random.default_rng(7)
# Tones of two pitches, as a voice has, in steps of 16 bits; espeak-ng's own output is integers.
voices = [
    np.rint(8000 * (exact.sine(hz, 40_000) * exact.sine(2.5, 40_000))) / 32768 for hz in (140, 410)
]
for factor in (0.89, 0.95, 1.0, 1.08, 1.13):
    found[f"resampled by {factor}"] = hashed(acoustics.to_16_khz(voices[0], vocal_tract=factor))
for kind in acoustics.NOISE_KINDS:
    found[f"noise, {kind}"] = hashed(acoustics.noise(kind, 20_001, random))
spoken = [acoustics.to_16_khz(voice, vocal_tract=0.97) for voice in voices]
found["room"] = hashed(acoustics.room(spoken[0], random))
conditions = acoustics.Conditions(
    margin_seconds=(0.1, 0.3), snr_db=(3, 30), tilt=(-0.4, 0.6), level_db=(-32, -16)
)
out = Path(sys.argv[1])
for index in range(6):
    recording = acoustics.record_with_margins(spoken[index % 2], conditions, random)
    found[f"recording {index}"] = hashed(recording)
    for ending in ("flac", "wav"):
        exact.write(out / f"{index}.{ending}", recording)
        content = (out / f"{index}.{ending}").read_bytes()
        found[f"{ending} {index}"] = hashlib.sha256(content).hexdigest()[:16]
mixture = libri2mix.mix([spoken[0], spoken[1], spoken[0]], random)
found["mixture"] = hashed(mixture.recording)
video = voxceleb1._draw_video(random)
found["video"] = hashed(voxceleb1._recording(spoken[1], video, random))
found["normal"] = hashed([exact.draw_normal(random) for _ in range(20)])

random = np.random.default_rng(3)
floats = random.standard_normal(100_001)
found["plain sum"] = hashed(np.float32(floats).sum())
found["plain matrix"] = hashed(floats[:90_000].reshape(300, 300) @ floats[:300])
found["plain sine"] = hashed(np.sin(np.float32(floats)))
print(json.dumps(found))
"""
OTHER_PROCESSORS = {
    "no vectors": {
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL "
        "AVX512_ICL AVX2 FMA3 AVX F16C",
        "OPENBLAS_CORETYPE": "Prescott",
    },
    "AVX without FMA": {
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX2 FMA3",
        "OPENBLAS_CORETYPE": "Sandybridge",
    },
}


def sounds(folder, **settings):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SOUNDS, str(folder)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return sounds(tmp_path_factory.mktemp("here"))


@pytest.mark.parametrize("processor", OTHER_PROCESSORS)
def test_audio_is_the_same_on_other_processors(here, processor, tmp_path):
    there = sounds(tmp_path, **OTHER_PROCESSORS[processor])
    differ = {name for name in here if here[name] != there[name]}
    plain = {name for name in here if name.startswith("plain")}
    assert differ <= plain
    if _has_avx2():
        assert differ  # or nothing was imitated


def _has_avx2():
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and " avx2 " in cpuinfo.read_text()
