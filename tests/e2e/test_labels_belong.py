"""Labels of the embedded corpora belong to their audio.

Heads on the upstream ``fbank_no_cmvn``, simple enough to have no knowledge of their own: on the
right labels they beat chance on the test speakers by five standard errors, on shuffled labels they
do not.
"""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import superbit.upstreams
from superbit.benchmark.corpora import librispeech, speech_commands
from superbit.benchmark.corpora.audio import read_audio

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")

STANDARD_ERRORS = 5.0
# Shuffled labels: a difference from chance this large comes once in 15,000 tries.
CHANCE = 4.0


@cache
def upstream():
    return superbit.upstreams.load("fbank_no_cmvn").eval()


def filterbank(samples):
    """Log-mel energies with deltas, no mean normalization, every 10 ms: (frames, 240)."""
    with torch.inference_mode():
        hidden_states = upstream()([torch.tensor(samples)])["hidden_states"]
    return hidden_states[0][0].numpy()


class Commands:
    """Speech Commands: mean and standard deviation over time of every item, and its class."""

    def __init__(self, tiny_paths):
        files = speech_commands.files(tiny_paths.speech_commands)
        random = np.random.default_rng(0)
        train = [self.item(file, speech_commands.class_of) for file in files.audio["train"]]
        for file in files.audio["noise"]:
            noise = read_audio(file.path)[0]
            for start in random.integers(0, len(noise) - 16_000, size=2):
                train.append((self.features(noise[start : start + 16_000]), "_silence_"))
        self.train = [np.array(part) for part in zip(*train, strict=True)]
        test = [self.item(file, str) for file in files.audio["test"]]
        self.test = [np.array(part) for part in zip(*test, strict=True)]

    def item(self, file, class_of):
        return self.features(read_audio(file.path)[0]), class_of(file.key.split("/")[1])

    @staticmethod
    def features(samples):
        frames = filterbank(samples)
        return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])

    def standard_errors_above_chance(self, labels):
        head = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=300)
        )
        correct = head.fit(self.train[0], labels).predict(self.test[0]) == self.test[1]
        chance = 1 / 12  # the test's classes are of equal size
        return (correct.mean() - chance) / np.sqrt(chance * (1 - chance) / len(correct))


@pytest.fixture(scope="module")
def commands(tiny_paths):
    return Commands(tiny_paths)


def test_keywords_belong_to_their_clips(commands):
    counts = np.unique(commands.test[1], return_counts=True)[1]
    assert len(counts) == 12
    assert len(set(counts)) == 1
    assert commands.standard_errors_above_chance(commands.train[1]) > STANDARD_ERRORS


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_keywords_are_at_chance(commands, seed):
    shuffled = np.random.default_rng(seed).permutation(commands.train[1])
    assert abs(commands.standard_errors_above_chance(shuffled)) < CHANCE


class Speech:
    """LibriSpeech: what an utterance sounds like without its order, its words and phones."""

    def __init__(self, tiny_paths):
        section = tiny_paths.librispeech
        lexicon = librispeech.read_lexicon(section)
        self.splits = {}
        spoken = {
            split: list(librispeech.utterances(section, split)) for split in librispeech.SPLITS
        }
        frames = {
            split: [filterbank(read_audio(audio)[0]) for audio, _ in items]
            for split, items in spoken.items()
        }
        units = MiniBatchKMeans(100, random_state=0, n_init=1)
        units.fit(np.concatenate([self.context(f) for f in frames[librispeech.TRAIN]])[::3])
        words = sorted(lexicon.phones)
        names = sorted({phone for phones in lexicon.phones.values() for phone in phones})
        for split, items in spoken.items():
            phones = [librispeech.to_phones(audio, text, lexicon) for audio, text in items]
            self.splits[split] = {
                "features": np.array([self.features(f, units) for f in frames[split]]),
                "frames": np.array([len(f) for f in frames[split]]),
                "phones": np.array([[p.count(name) for name in names] for p in phones], float),
                "words": np.array([[w in text.split() for w in words] for _, text in items], float),
            }

    @staticmethod
    def context(frames):
        """Three frames, 30 ms apart, without the recording's mean: (frames − 6, 720)."""
        frames = frames - frames.mean(axis=0)
        return np.concatenate([frames[:-6], frames[3:-3], frames[6:]], axis=1)

    def features(self, frames, units):
        """A histogram of units of sound; independent of the utterance's length."""
        histogram = np.bincount(units.predict(self.context(frames)), minlength=100)
        return np.sqrt(histogram / histogram.sum())

    def standard_errors_above_chance(self, target, *, seed=None):
        """How well a linear map finds ``target``, a function of a split, on the test speakers.

        The statistic is the correlation with the truth, meaned over the target's columns; its
        chance distribution comes from giving the test's utterances each other's transcripts.
        """
        train, test = self.splits[librispeech.TRAIN], self.splits["test-clean"]
        wanted, truth = target(train), target(test)
        if seed is not None:
            wanted = np.random.default_rng(seed).permutation(wanted)
        scaler = StandardScaler().fit(train["features"])
        head = Ridge(alpha=100).fit(scaler.transform(train["features"]), wanted)
        guess = head.predict(scaler.transform(test["features"]))
        occurs = truth.std(axis=0) > 0
        guess, truth = guess[:, occurs], truth[:, occurs]
        guess = (guess - guess.mean(axis=0)) / guess.std(axis=0)
        truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
        random = np.random.default_rng(0)
        chance = [(guess * random.permutation(truth)).mean() for _ in range(300)]
        return ((guess * truth).mean() - np.mean(chance)) / np.std(chance)


@pytest.fixture(scope="module")
def speech(tiny_paths):
    return Speech(tiny_paths)


def share_of_each_phone(split):
    return split["phones"] / split["phones"].sum(axis=1, keepdims=True)


def presence_of_each_word(split):
    return split["words"]


def test_longer_transcripts_belong_to_longer_utterances(speech):
    frames = np.concatenate([split["frames"] for split in speech.splits.values()])
    phones = np.concatenate([split["phones"].sum(axis=1) for split in speech.splits.values()])
    # Fisher's transform of a correlation has the standard error 1 / sqrt(n − 3).
    error = 1 / np.sqrt(len(frames) - 3)
    assert np.arctanh(np.corrcoef(frames, phones)[0, 1]) / error > STANDARD_ERRORS
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(phones)
        assert abs(np.arctanh(np.corrcoef(frames, shuffled)[0, 1])) / error < CHANCE


@pytest.mark.parametrize("target", [share_of_each_phone, presence_of_each_word])
def test_transcripts_belong_to_their_utterances(speech, target):
    assert speech.standard_errors_above_chance(target) > STANDARD_ERRORS
    for seed in range(3):
        assert abs(speech.standard_errors_above_chance(target, seed=seed)) < CHANCE
