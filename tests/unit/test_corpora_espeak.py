"""The binding of espeak-ng, in processes of its own: one synthesizer a process is the rule."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")

SCRIPT = """
import hashlib, json, sys
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.voices import ACCENTS, VARIANTS
espeak = Espeak(int(sys.argv[1]))
digest, seconds = hashlib.sha256(), []
for i in range(40):
    voice = f"{ACCENTS[i % 8]}+{VARIANTS[i % 60]}"
    wave = espeak.synthesize("the old farmer found a basket", voice=voice,
                             rate=120 + 80 * (i % 2), pitch=50, pitch_range=50)
    digest.update(wave.tobytes()); seconds.append(len(wave) / 22050)
found = {"hash": digest.hexdigest(), "slow": sum(seconds[::2]), "fast": sum(seconds[1::2]),
         "peak": float(abs(wave).max()), "dtype": str(wave.dtype),
         "phonemes": espeak.phonemes("church basket", voice="en-us"), "errors": []}
plain = {"rate": 150, "pitch": 50, "pitch_range": 50}
for action in (lambda: Espeak(0),
               lambda: espeak.synthesize("a", voice="en+nobody", **plain),
               lambda: espeak.synthesize("a", voice="xx-no", **plain)):
    try:
        action()
    except Exception as error:
        found["errors"].append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def runs():
    started = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, seed], stdout=subprocess.PIPE, text=True)
        for seed in ("5", "5", "6")
    ]
    return [json.loads(process.communicate(timeout=60)[0]) for process in started]


def test_same_seed_is_the_same_to_the_bit_in_another_process(runs):
    assert runs[0]["hash"] == runs[1]["hash"]


def test_the_seed_counts(runs):
    assert runs[0]["hash"] != runs[2]["hash"]


def test_rate_is_words_a_minute(runs):
    assert 1.4 < runs[0]["slow"] / runs[0]["fast"] < 1.9  # 200 against 120: 1.67


def test_samples_are_exact_floats_of_full_scale_one(runs):
    assert runs[0]["dtype"] == "float64"
    assert 0.05 < runs[0]["peak"] <= 1


def test_phonemes_are_words_of_mnemonics_without_stress(runs):
    assert runs[0]["phonemes"] == [["tS", "3:", "tS"], ["b", "aa", "s", "k", "I2", "t"]]


def test_what_espeak_would_accept_without_a_word_is_refused(runs):
    second, variant, accent = runs[0]["errors"]
    assert second.startswith("RuntimeError: ")
    assert "once a process" in second
    assert variant == "ValueError: espeak-ng has no voice variant 'nobody'."
    assert accent.startswith("RuntimeError: espeak-ng's espeak_SetVoiceByName failed")
