"""Audio SNIPS for s3prl's CTC expert: order, buckets, speakers, and what is refused."""

from importlib import resources

import numpy as np
import pytest
import soundfile

import superbit.upstreams
from superbit.upstreams import InputError
from superbit.upstreams.s3prl.ctc_corpus.snips import TRANSCRIPTS, SnipsDataset

pytest.importorskip("s3prl")
assert superbit.upstreams  # imported for its effect: s3prl imports on today's torch

CHARACTERS = str(resources.files("superbit.downstream_configs") / "assets" / "character.txt")
SPEAKERS = {"train_speakers": ["Ivy", "Joey"], "valid_speakers": ["Amy"]}
# Name → words and slots as in the corpus; the split is the third part of the name.
UTTERANCES = {
    "Joey-snips-train-0": "BOS PLAY JAZZ EOS\tO O genre PlayMusic",
    "Ivy-snips-train-0": "BOS PLAY JAZZ EOS\tO O genre PlayMusic",
    "Ivy-snips-train-1": "BOS ADD THE LONG SONG EOS\tO O O track track AddToPlaylist",
    "Emma-snips-train-0": "BOS THIS SPEAKER IS NOT IN THE LIST EOS\tO O O O O O O O None",
    "Amy-snips-valid-0": "BOS HI EOS\tO O None",
}


@pytest.fixture
def tokenizer(tmp_path):
    from s3prl.downstream.ctc.text import load_text_encoder

    (tmp_path / "slots.txt").write_text("O\ngenre\ntrack")
    return load_text_encoder("character-slot", CHARACTERS, str(tmp_path / "slots.txt"))


@pytest.fixture
def corpus(tmp_path):
    """A corpus folder whose utterances have 160 samples."""
    root = tmp_path / "SNIPS"
    for name in UTTERANCES:
        audio = root / name.split("-")[2] / f"{name}.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio, np.zeros(160), 16000)
    write_text(root)
    return root


def write_text(root, **changes):
    texts = {**UTTERANCES, **{name.replace("_", "-"): text for name, text in changes.items()}}
    lines = [f"{name} {text}\n" for name, text in texts.items() if text is not None]
    (root / TRANSCRIPTS).write_text("".join(lines))


def dataset_of(corpus, tokenizer, split="train", bucket_size=1, **kwargs):
    return SnipsDataset([split], tokenizer, bucket_size, path=str(corpus), **SPEAKERS, **kwargs)


def names_of(items):
    return [audio.stem for audio, _ in items]


def test_s3prl_finds_it_and_reads_it_through_its_own_loader(corpus, tokenizer):
    from s3prl.downstream.ctc.data import load_dataset

    config = {"name": "snips", "path": str(corpus), "train": ["train"], "dev": ["valid"],
              "bucketing": True, "batch_size": 2, "num_workers": 0, **SPEAKERS}  # fmt: skip
    [(wavs, labels, names)] = load_dataset("dev", tokenizer, dict(config))
    assert (len(wavs[0]), names) == (160, ("Amy-snips-valid-0",))
    assert tokenizer.decode(labels[0].tolist()) == "HI"
    for wavs, labels, names in load_dataset("train", tokenizer, dict(config)):
        assert len(wavs) == len(labels) == len(names) == 2


def test_words_and_slots_become_the_tokens_that_the_metric_reads(corpus, tokenizer):
    from s3prl.downstream.ctc.metric import slot_type_f1

    texts = {
        audio.stem: tokenizer.decode(tokens) for audio, tokens in dataset_of(corpus, tokenizer)
    }
    assert texts["Ivy-snips-train-0"] == "PLAY B-genre JAZZ E-genre"
    assert texts["Ivy-snips-train-1"] == "ADD THE B-track LONG SONG E-track"
    # One of the two hypotheses names the slot of its reference.
    truth = [texts["Ivy-snips-train-0"], texts["Ivy-snips-train-1"]]
    assert slot_type_f1([truth[0], truth[0]], truth) == 0.5


def test_most_tokens_first_and_equal_lengths_by_name(corpus, tokenizer):
    expected = ["Ivy-snips-train-1", "Ivy-snips-train-0", "Joey-snips-train-0"]
    assert names_of(dataset_of(corpus, tokenizer).items) == expected
    ascending = dataset_of(corpus, tokenizer, ascending=True)
    assert names_of(ascending.items) == [expected[1], expected[2], expected[0]]


def test_only_the_splits_own_speakers(corpus, tokenizer):
    assert names_of(dataset_of(corpus, tokenizer, "valid").items) == ["Amy-snips-valid-0"]
    # Emma is nobody's speaker, so nothing is asked of her utterance.
    write_text(corpus, Emma_snips_train_0=None)
    assert len(dataset_of(corpus, tokenizer)) == 3


def test_a_bucket_is_the_neighbours_and_the_last_ones_are_full(corpus, tokenizer):
    dataset = dataset_of(corpus, tokenizer, bucket_size=2)
    ordered = names_of(dataset.items)
    assert len(dataset) == 3
    assert [names_of(dataset[index]) for index in range(3)] == [
        ordered[:2], ordered[1:], ordered[1:]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"Ivy-snips-train-0\.wav has no transcript: .* a line 'Ivy-snips-train-0 BOS … EOS'",
        ),
        ("BOS PLAY EOS\tO gener None", r"slot 'gener', which is not in .* mean 'genre'\?"),
        ("BOS PLAY JAZZ EOS\tO O None", r"line of Ivy-snips-train-0 should be 'BOS WORDS EOS'"),
        ("BOS PLAY JAZZ EOS", r"should be 'BOS WORDS EOS', a tab"),
        ("PLAY JAZZ\tO genre", r"should be 'BOS WORDS EOS', a tab"),
        ("BOS EOS\tO None", r"should be 'BOS WORDS EOS', a tab"),
    ],
)
def test_an_utterance_without_a_right_transcript_is_named(corpus, tokenizer, text, message):
    write_text(corpus, Ivy_snips_train_0=text)
    with pytest.raises(InputError, match=message):
        dataset_of(corpus, tokenizer)


def test_a_second_transcript_is_named(corpus, tokenizer):
    with (corpus / TRANSCRIPTS).open("a") as file:
        file.write("Amy-snips-valid-0 BOS HO EOS\tO O None\n")
    with pytest.raises(InputError, match=r"line 6, gives Amy-snips-valid-0 a second text"):
        dataset_of(corpus, tokenizer)


def test_missing_pieces_are_named(corpus, tokenizer):
    with pytest.raises(InputError, match=r"SNIPS/test is not there: .*<Speaker>-<utterance>\.wav"):
        SnipsDataset(["test"], tokenizer, 1, path=str(corpus), test_speakers=["Amy"])
    with pytest.raises(InputError, match=r"no test_speakers: it should list the speakers"):
        SnipsDataset(["test"], tokenizer, 1, path=str(corpus), **SPEAKERS)
    with pytest.raises(InputError, match=r"valid holds no \.wav file of the speakers Ivy"):
        SnipsDataset(["valid"], tokenizer, 1, path=str(corpus), valid_speakers=["Ivy"])
    with pytest.raises(InputError, match=r"speakers Ivy, Joey holds 3 utterances; .* at least 4"):
        dataset_of(corpus, tokenizer, bucket_size=4)
    (corpus / TRANSCRIPTS).unlink()
    with pytest.raises(InputError, match=r"all\.iob\.snips\.txt is not there"):
        dataset_of(corpus, tokenizer)
