"""Audio SNIPS: slots and intents belong to what is said, and broken copies are told."""

import csv
import shutil
from collections import Counter
from functools import partial
from importlib import resources

import corpus_faults
import numpy as np
import pytest
import torch

import superbit.upstreams
from superbit.benchmark.corpora import audio_snips, catalog
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.audio_snips import words_and_slots
from superbit.benchmark.corpora.embedded import audio_snips as embedded
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.paths import AudioSnipsPaths
from superbit.benchmark.scoring.dtw import score_queries, standardize
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat
from superbit.upstreams.s3prl.ctc_corpus.snips import SnipsDataset

only_problem = partial(corpus_faults.only_problem, audio_snips)

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")

CHARACTERS = resources.files("superbit.downstream_configs") / "assets" / "character.txt"
SPLITS = tuple(audio_snips.EXPECTED)
STANDARD_ERRORS = 5.0
# Shuffled labels: a difference from chance this large comes once in 15,000 tries.
CHANCE = 4.0


@pytest.fixture(scope="session")
def section(tiny_paths):
    return tiny_paths.section("audio_snips")


@pytest.fixture
def copy(section, tmp_path):
    """A copy that a test may break."""
    return AudioSnipsPaths(root=shutil.copytree(section.root, tmp_path / "SNIPS"))


def names_of(section, split):
    return [file.path.stem for file in audio_snips.files(section).audio[split]]


def test_layout_and_counts(section):
    report = catalog.find("audio_snips").check(section, batch_size=32)
    assert report.problems == ()
    assert report.notes == ("8 slots",)
    assert [s.expected_utterances for s in report.splits] == [104_672, 2_800, 2_800]
    for split in report.splits:
        speakers = audio_snips.SPEAKERS[split.name]
        assert split.speakers == len(speakers)
        plan = sizes.AUDIO_SNIPS["tiny"][split.name]
        assert split.utterances == len(speakers) * plan.voices * plan.utterances
        assert 1.2 < split.hours * 3600 / split.utterances < 4
    files = audio_snips.files(section)
    assert [file.key for file in files.text] == ["all.iob.snips.txt", "slots.txt"]


def test_speakers_are_superbs_and_their_voices_are_disjoint(section):
    for split in SPLITS:
        heard = {name.partition("-")[0] for name in names_of(section, split)}
        assert heard == set(audio_snips.SPEAKERS[split])
    with open(section.root / "speakers.csv", newline="") as lines:
        table = list(csv.DictReader(lines))
    assert len({row["speaker"] for row in table}) == len(table) == 16
    assert len({row["variant"] for row in table}) == 16


def test_slots_and_intents_are_true_to_the_sentence(section):
    slots = audio_snips.read_slots(section)
    assert slots == tuple(embedded.SLOT_VALUES)
    assert 6 <= len(slots) <= 8
    value_of = {
        value.upper(): slot for slot, values in embedded.SLOT_VALUES.items() for value in values
    }
    assert len(value_of) == sum(map(len, embedded.SLOT_VALUES.values()))  # none is ambiguous
    intents = {"PLAY": "PlayMusic", "ADD": "AddToPlaylist", "PUT": "AddToPlaylist"}
    intents |= {"BOOK": "BookRestaurant", "FIND": "BookRestaurant", "GIVE": "RateBook"}
    intents |= {"WILL": "GetWeather", "IS": "GetWeather"}
    for text in audio_snips.transcripts(section).values():
        words, tags, intent = words_and_slots(text)
        assert intent == intents[words[0]]
        assert 5 <= len(words) <= 8
        # Every maximal run of a tag is a value of it, and no value goes without its tag.
        found, run = [], []
        for word, tag, following in zip(words, tags, [*tags[1:], "O"], strict=True):
            if tag == "O":
                assert word not in value_of
                continue
            run.append(word)
            if following != tag:
                found.append((" ".join(run), tag))
                run = []
        assert 2 <= len(found) <= 3
        assert all(value_of[value] == tag for value, tag in found)


@pytest.mark.parametrize("split", SPLITS)
def test_every_slot_and_intent_is_in_every_split(section, split):
    spoken = audio_snips.transcripts(section)
    read = [words_and_slots(spoken[name]) for name in names_of(section, split)]
    counts = Counter(tag for _, tags, _ in read for tag in set(tags) - {"O"})
    assert set(counts) == set(audio_snips.read_slots(section))
    assert len({intent for *_, intent in read}) == 5


def test_words_of_every_split_are_known_from_train(section):
    spoken = audio_snips.transcripts(section)
    words = {
        split: {w for name in names_of(section, split) for w in words_and_slots(spoken[name])[0]}
        for split in SPLITS
    }
    assert words["valid"] | words["test"] <= words["train"]
    assert len(words["train"]) < 80


def test_commands_differ():
    commands = embedded.SlotCommands(np.random.default_rng(0))
    drawn = Counter(commands.draw().text for _ in range(200))
    assert len(drawn) > 100
    other = embedded.SlotCommands(np.random.default_rng(1))
    assert [other.draw().text for _ in range(20)] != list(drawn)[:20]


@pytest.fixture
def tokenizer(section):
    compat.install()
    text = pytest.importorskip("s3prl.downstream.ctc.text")
    return text.load_text_encoder(
        "character-slot", str(CHARACTERS), str(section.root / "slots.txt")
    )


def test_s3prls_encoder_and_data_set_read_it_and_agree(section, tokenizer):
    # <pad>, <eos>, <unk>, 28 characters, B- and E- of each slot
    assert tokenizer.vocab_size == 3 + 28 + 2 * 8
    spoken = audio_snips.transcripts(section)
    for split in SPLITS:
        data = SnipsDataset(
            [split],
            tokenizer,
            1,
            path=str(section.root),
            **{f"{name}_speakers": list(of) for name, of in audio_snips.SPEAKERS.items()},
        )
        assert len(data) == len(names_of(section, split))
        for audio, tokens in (data[index] for index in range(len(data))):
            assert tokenizer.unk_idx not in tokens  # upper case, no digit, no accent
            plain = [t for t in tokens if t < 3 + 28]
            words = words_and_slots(spoken[audio.stem])[0]
            assert tokenizer.decode(plain) == " ".join(words)
            # A slot a value, opened and closed.
            marks = [tokenizer.idx_to_vocab(t).strip() for t in tokens if t >= 3 + 28]
            assert [m[2:] for m in marks[::2]] == [m[2:] for m in marks[1::2]]
            assert {m[0] for m in marks[::2]} == {"B"}


def test_longer_transcripts_belong_to_longer_utterances(section):
    spoken = audio_snips.transcripts(section)
    samples, letters = [], []
    for of_split in audio_snips.files(section).audio.values():
        for file in of_split:
            samples.append(len(read_audio(file.path)[0]))
            letters.append(len("".join(words_and_slots(spoken[file.path.stem])[0])))
    # Fisher's transform of a correlation has the standard error 1 / sqrt(n − 3).
    error = 1 / np.sqrt(len(samples) - 3)
    assert np.arctanh(np.corrcoef(samples, letters)[0, 1]) / error > STANDARD_ERRORS
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(letters)
        assert abs(np.arctanh(np.corrcoef(samples, shuffled)[0, 1])) / error < CHANCE


@pytest.fixture(scope="module")
def neighbours(section):
    """Test utterance → the training utterance of which the most is like it, by DTW on log-mel."""
    upstream = superbit.upstreams.load("fbank").eval()
    features = {}
    for split in ("train", "test"):
        with torch.inference_mode():
            features[split] = {
                file.path.stem: upstream([torch.tensor(read_audio(file.path)[0])])["hidden_states"][
                    0
                ][0].numpy()[::3]
                for file in audio_snips.files(section).audio[split]
            }
    scores = score_queries(*standardize(features["test"], features["train"]))
    return {name: max(found, key=found.get) for name, found in scores.items()}


def standard_errors_above_chance(neighbours, labels):
    """How often an utterance and its neighbour have the same label, beyond chance."""
    test = [labels[name] for name in neighbours]
    train = [labels[name] for name in neighbours.values()]
    right = np.mean([a == b for a, b in zip(test, train, strict=True)])
    shares = [Counter(test), Counter(train)]
    chance = sum(shares[0][label] * shares[1][label] for label in shares[0]) / len(test) ** 2
    return (right - chance) / np.sqrt(chance * (1 - chance) / len(test))


@pytest.mark.parametrize("what", ["intent", "bag of slots"])
def test_labels_belong_to_their_utterances(section, neighbours, what):
    read = {name: words_and_slots(text) for name, text in audio_snips.transcripts(section).items()}
    labels = {
        name: intent if what == "intent" else tuple(sorted(set(tags)))
        for name, (_, tags, intent) in read.items()
    }
    assert standard_errors_above_chance(neighbours, labels) > STANDARD_ERRORS
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(labels))
        values = list(labels.values())
        shuffled = dict(zip(labels, (values[i] for i in order), strict=True))
        assert abs(standard_errors_above_chance(neighbours, shuffled)) < CHANCE


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def line_of(section, name):
    [line] = [
        line
        for line in (section.root / "all.iob.snips.txt").read_text().splitlines(keepends=True)
        if line.startswith(name + " ")
    ]
    return line


def test_utterance_without_transcript(copy):
    edit(copy.root / "all.iob.snips.txt", line_of(copy, "Amy-snips-valid-1"), "")
    message = only_problem(copy)
    assert "valid/Amy-snips-valid-1.wav has no transcript:" in message
    assert "should have a line 'Amy-snips-valid-1 BOS … EOS'" in message


def test_transcript_without_audio(copy):
    (copy.root / "test/Emma-snips-test-2.wav").unlink()
    assert "has a transcript of Emma-snips-test-2 and no folder has its wav" in only_problem(copy)


def test_other_speakers_are_passed_over(copy):
    (copy.root / "test/Nobody-snips-test-0.wav").touch()
    with open(copy.root / "all.iob.snips.txt", "a") as lines:
        lines.write("Someone-snips-test-0 BOS HI EOS\tO O None\n")
    assert audio_snips.CORPUS.check(copy).problems == ()


def test_unknown_slot(copy):
    edit(copy.root / "slots.txt", "genre", "genres")
    message = only_problem(copy)
    assert "has the slot 'genre', which" in message
    assert "slots.txt lacks. Did you mean 'genres'?" in message
    assert "more like it.)" in message


@pytest.mark.parametrize(
    "text",
    ["BOS HI EOS\tO O", "BOS HI EOS", "HI THERE\tO O", "BOS EOS\tO None", "BOS  HI EOS\tO O None"],
)
def test_transcript_of_another_form(copy, text):
    name = "Joey-snips-train-3"
    edit(copy.root / "all.iob.snips.txt", line_of(copy, name), f"{name} {text}\n")
    assert f"the line of {name} should be '<Speaker>-<utterance> BOS WORDS EOS<tab>" in (
        only_problem(copy)
    )


def test_second_transcript(copy):
    with open(copy.root / "all.iob.snips.txt", "a") as lines:
        lines.write("Joey-snips-train-3 BOS HI EOS\tO O None\n")
    message = audio_snips.CORPUS.check(copy).problems[0]
    assert "line 145, gives Joey-snips-train-3 a second text: it should have one" in message


@pytest.mark.parametrize("name", ["slots.txt", "all.iob.snips.txt"])
def test_missing_text(copy, name):
    (copy.root / name).unlink()
    assert f"{name} is not there" in audio_snips.CORPUS.check(copy).problems[0]
    with pytest.raises(InputError, match=f"{name} is not there"):
        audio_snips.files(copy)


def test_no_slots(copy):
    (copy.root / "slots.txt").write_text("O\n")
    assert "should have the line 'O', then a line a slot" in only_problem(copy)


def test_missing_and_empty_split(copy):
    shutil.rmtree(copy.root / "valid")
    assert "valid is not there: it should be the split valid of Audio SNIPS" in only_problem(copy)
    (copy.root / "valid").mkdir()
    (copy.root / "valid/Ivy-snips-train-0.wav").touch()
    assert "is an empty split: it should hold <Speaker>-<utterance>.wav of the speakers Aditi" in (
        only_problem(copy)
    )
    with pytest.raises(InputError, match="empty split"):
        audio_snips.files(copy)


def test_bad_audio(copy):
    (copy.root / "train/Ivy-snips-train-0.wav").write_bytes(b"")
    assert "Ivy-snips-train-0.wav is empty" in only_problem(copy)


def test_smaller_than_a_batch(section):
    assert "96 utterances, fewer than a batch of 97" in only_problem(section, batch_size=97)
