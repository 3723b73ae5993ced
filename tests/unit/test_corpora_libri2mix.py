"""Libri2Mix: the embedded recordings sound where the tables say so, and broken folders are told."""

import csv
import shutil
from dataclasses import replace
from functools import partial

import corpus_faults
import numpy as np
import pytest

from superbit.benchmark.corpora import catalog, libri2mix
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.embedded import libri2mix as embedded
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.paths import Libri2MixPaths
from superbit.benchmark.corpora.rttm import read_rttm
from superbit.benchmark.scoring.diarization import diarization_errors
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat

only_problem = partial(corpus_faults.only_problem, libri2mix)

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")

SPLITS = tuple(libri2mix.EXPECTED)


def section_of(root):
    return Libri2MixPaths(train_dir=root / "train", dev_dir=root / "dev", test_dir=root / "test")


@pytest.fixture(scope="session")
def section(tiny_paths):
    return tiny_paths.section("libri2mix")


@pytest.fixture
def copy(section, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(section.root.parent, tmp_path / "copy")


def rttm_of(section, split):
    return read_rttm(libri2mix.folder_of(section, split) / "rttm")


def speech_bursts(*, seconds, seed):
    """Noise in place of sentences: loud from the first sample to the last."""
    random = np.random.default_rng(seed)
    return [random.standard_normal(int(s * 16_000)).astype(np.float32) for s in seconds]


@pytest.mark.parametrize("seed", range(5))
def test_turns_begin_and_end_with_the_energy_of_their_track(seed):
    mixture = embedded.mix(
        speech_bursts(seconds=(2.0, 2.5, 1.5), seed=seed), np.random.default_rng(seed)
    )
    for speaker, track in enumerate(mixture.tracks):
        # 10 ms frames of one clean voice, loud or silent: found without looking at the turns
        energy = (track[: len(track) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1)
        changes = np.flatnonzero(np.diff(energy > 0, prepend=False, append=False)) * 0.01
        turns = sorted((t.start, t.end) for t in mixture.turns if t.speaker == speaker)
        merged = [list(turns[0])]
        for start, end in turns[1:]:
            if start == merged[-1][1]:
                merged[-1][1] = end
            else:
                merged.append([start, end])
        assert np.abs(changes - np.ravel(merged) / 16_000).max() < 0.02
    noise = mixture.recording - mixture.tracks.sum(axis=0)
    assert noise.std() < 0.15 * mixture.tracks.sum(axis=0).std()


def test_a_turn_that_is_silent_at_an_end_is_refused():
    [burst] = speech_bursts(seconds=(1.0,), seed=0)
    tracks = np.zeros((2, 32_000), np.float32)
    tracks[0, :16_000] = burst
    right = embedded.PlacedTurn(speaker=0, start=0, end=16_000)
    embedded._check_boundaries(tracks, [right])
    for wrong, message in (
        (replace(right, end=16_800), "silent for its first"),
        (replace(right, end=15_200), "heard outside"),
        (replace(right, start=800), "heard outside"),
    ):
        with pytest.raises(RuntimeError, match=message):
            embedded._check_boundaries(tracks, [wrong])


def test_layout_and_counts(section):
    report = catalog.find("libri2mix").check(section, batch_size=8)
    assert report.problems == ()
    assert [split.expected_utterances for split in report.splits] == [13_900, 3_000, 3_000]
    for split in report.splits:
        plan = sizes.LIBRI2MIX["tiny"][split.name]
        assert (split.utterances, split.speakers) == (plan.recordings, plan.speakers)
        tables = libri2mix.read_folder(libri2mix.folder_of(section, split.name))
        assert 6 <= min(tables.seconds.values()) <= max(tables.seconds.values()) <= 10
    files = libri2mix.files(section)
    assert [len(files.audio[split]) for split in SPLITS] == [24, 8, 12]
    assert {file.key for file in files.text} == {
        f"{split}.{name}" for split in SPLITS for name in libri2mix.FILES if name != "wav.scp"
    }


def test_segments_are_the_turns_of_the_reference(section):
    for split in SPLITS:
        tables = libri2mix.read_folder(libri2mix.folder_of(section, split))
        from_segments = sorted(
            (s.recording, s.start, s.end, tables.speakers[name])
            for name, s in tables.segments.items()
        )
        from_rttm = sorted(
            (name, turn.start, turn.end, turn.speaker)
            for name, turns in rttm_of(section, split).items()
            for turn in turns
        )
        assert [(a[0], a[3]) for a in from_segments] == [(b[0], b[3]) for b in from_rttm]
        times = [
            [np.array(side[i][1:3]) for i in range(len(side))]
            for side in (from_segments, from_rttm)
        ]
        np.testing.assert_allclose(times[0], times[1], atol=2e-4)


def test_speakers_are_disjoint_and_there_are_two_in_a_recording(section):
    speakers = {}
    for split in SPLITS:
        reference = rttm_of(section, split)
        assert all(len({turn.speaker for turn in turns}) == 2 for turns in reference.values())
        speakers[split] = {turn.speaker for turns in reference.values() for turn in turns}
    assert len(set.union(*speakers.values())) == sum(map(len, speakers.values()))
    with open(section.root.parent / "speakers.csv", newline="") as lines:
        table = list(csv.DictReader(lines))
    assert {s: {r["speaker"] for r in table if r["split"] == s} for s in SPLITS} == speakers
    variants = {s: {r["variant"] for r in table if r["split"] == s} for s in SPLITS}
    assert len(set.union(*variants.values())) == sum(map(len, variants.values()))


def test_speech_is_where_the_reference_says(section):
    """In the files: frames inside turns are louder than pauses, in every recording."""
    overlapped = spoken = pauses = 0
    for split in SPLITS:
        reference = rttm_of(section, split)
        for file in libri2mix.files(section).audio[split]:
            samples = read_audio(file.path)[0]
            # frames of 20 ms
            power = (samples[: len(samples) // 320 * 320].reshape(-1, 320) ** 2).mean(axis=1)
            active = np.zeros((2, len(power)), bool)
            turns = reference[file.path.stem]
            names = sorted({turn.speaker for turn in turns})
            for turn in turns:
                first, last = int(turn.start / 0.02), int(turn.end / 0.02)
                active[names.index(turn.speaker), first : last + 1] = True
            talkers = active.sum(axis=0)
            level = 10 * np.log10(power + 1e-12)
            assert np.median(level[talkers > 0]) > np.median(level[talkers == 0]) + 10
            # nothing as loud as speech in a pause
            assert level[talkers == 0].max() < np.percentile(level[talkers > 0], 75)
            overlapped += (talkers == 2).sum()
            spoken += (talkers > 0).sum()
            pauses += (talkers == 0).sum()
    assert 0.08 < overlapped / spoken < 0.35
    assert pauses / (pauses + spoken) > 0.1


def test_references_belong_to_their_recordings(section):
    """DER of a reference against itself is 0, and against another recording's far above."""
    reference = rttm_of(section, "test")
    names = list(reference)
    mistaken = []
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        own = diarization_errors(reference[name], reference[name])
        assert own.errors == pytest.approx(0, abs=1e-9)
        swapped = diarization_errors(reference[name], reference[other])
        mistaken.append(swapped.errors / swapped.reference)
    assert min(mistaken) > 0.1
    assert np.mean(mistaken) > 0.3


def test_energy_agrees_with_its_own_reference_more_than_with_another(section):
    """Without any labels: where the audio is loud, somebody talks by its own RTTM."""
    reference = rttm_of(section, "test")
    files = libri2mix.files(section).audio["test"]
    agreement = {}
    for file in files:
        samples = read_audio(file.path)[0]
        power = (samples[: len(samples) // 320 * 320].reshape(-1, 320) ** 2).mean(axis=1)
        loud = np.convolve(power, np.ones(15) / 15, "same") > 0.05 * np.percentile(power, 90)
        for name, turns in reference.items():
            talks = np.zeros(len(loud), bool)
            for turn in turns:
                talks[int(turn.start / 0.02) : int(turn.end / 0.02)] = True
            agreement[file.path.stem, name] = (talks == loud).mean()
    best = [
        max(reference, key=lambda name, own=file.path.stem: agreement[own, name]) == file.path.stem
        for file in files
    ]
    # chance: 1 of 12 right; 9 of 12 is beyond five standard errors
    assert sum(best) >= 9


def test_s3prls_data_set_reads_it_and_agrees(section, tmp_path):
    compat.install()
    dataset_module = pytest.importorskip("s3prl.downstream.diarization.dataset")
    bound = libri2mix.bound_dirs(section, tmp_path)
    for split in SPLITS:
        dataset = dataset_module.DiarizationDataset(
            "train" if split == "train" else split,
            str(bound[split]),
            chunk_size=2000,
            frame_shift=160,
            num_speakers=2,
        )
        assert len(dataset) == sizes.LIBRI2MIX["tiny"][split].recordings
    reference = rttm_of(section, "test")
    for index in range(len(dataset)):
        audio, labels, name = dataset[index]
        talks = np.concatenate(labels).sum(axis=0) * 0.01
        wanted = {}
        for turn in reference[name]:
            wanted[turn.speaker] = wanted.get(turn.speaker, 0) + turn.end - turn.start
        np.testing.assert_allclose(talks, [wanted[s] for s in sorted(wanted)], atol=0.03)
        assert len(np.concatenate(audio)) > 5.9 * 16_000


def test_bound_folders_name_files_that_exist_wherever_the_corpus_lies(copy, tmp_path, monkeypatch):
    section = section_of(copy)
    before = sorted(copy.rglob("*"))
    first = libri2mix.bound_dirs(section, tmp_path / "work")
    monkeypatch.chdir("/")
    for folder in first.values():
        assert tmp_path / "work" in folder.parents
        for line in (folder / "wav.scp").read_text().splitlines():
            path = line.split(None, 1)[1]
            assert path.startswith(str(copy))
            assert read_audio(path)[1] == 16_000
        assert (folder / "rttm").is_file()
    assert sorted(copy.rglob("*")) == before
    # A moved corpus is another one; folders with absolute paths are used as they are.
    moved = section_of(shutil.move(copy, tmp_path / "moved"))
    second = libri2mix.bound_dirs(moved, tmp_path / "work")
    assert not set(first.values()) & set(second.values())
    absolute = Libri2MixPaths(**{f"{split}_dir": folder for split, folder in second.items()})
    assert libri2mix.bound_dirs(absolute, tmp_path / "work") == second


@pytest.mark.parametrize("name", libri2mix.FILES)
def test_missing_file_of_a_folder(copy, name):
    (copy / "dev" / name).unlink()
    assert f"dev/{name} is not there" in only_problem(section_of(copy))
    with pytest.raises(InputError, match=f"dev/{name} is not there: a Kaldi data folder"):
        libri2mix.files(section_of(copy))


def test_missing_folder(copy):
    shutil.rmtree(copy / "test")
    assert "test is not there: it should be the Kaldi data folder of test" in only_problem(
        section_of(copy)
    )


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_rttm_or_segment_without_its_wav(copy):
    edit(copy / "test/wav.scp", "test-0003 wav/test-0003.wav\n", "")
    problems = libri2mix.CORPUS.check(section_of(copy)).problems
    assert len(problems) == 2
    assert "segments: 7" in problems[0]
    assert "is in the recording test-0003, which" in problems[0]
    assert "has turns of the recording test-0003, which" in problems[1]


def test_absent_wav(copy):
    (copy / "train/wav/train-0007.wav").unlink()
    assert "train/wav/train-0007.wav is not there" in only_problem(section_of(copy))


def test_recording_without_turns(copy):
    lines = (copy / "test/rttm").read_text().splitlines(keepends=True)
    (copy / "test/rttm").write_text("".join(line for line in lines if "test-0002" not in line))
    assert "has no turn of the recording test-0002" in only_problem(section_of(copy))


def test_times_beyond_the_recording(copy):
    line = (copy / "dev/segments").read_text().splitlines()[0]
    edit(copy / "dev/segments", line, line.rpartition(" ")[0] + " 99.5")
    assert "ends at 99.50 s, beyond the end of its recording at" in only_problem(section_of(copy))


def test_rttm_beyond_the_recording(copy):
    line = (copy / "dev/rttm").read_text().splitlines()[0]
    edit(copy / "dev/rttm", line, line.replace(line.split()[4], "50.0"))
    assert "dev/rttm: a turn in dev-0000 ends at 5" in only_problem(section_of(copy))


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("segments", "one two three", "'one two three' should be 'UTTERANCE RECORDING START END'"),
        ("segments", "u dev-0000 3.0 2.0", "'u dev-0000 3.0 2.0' should be 'UTTERANCE"),
        ("segments", "u dev-0000 nan 2.0", "times in seconds"),
        ("reco2dur", "dev-0000 long", "'dev-0000 long' should be 'RECORDING SECONDS'"),
        ("wav.scp", "dev-9999", "'dev-9999' should be 'RECORDING FILE'"),
        ("wav.scp", "dev-9999 sox a.wav -t wav - |", "names the command"),
        ("utt2spk", "", "should be 'UTTERANCE SPEAKER'"),
        ("rttm", "SPEAKER dev-0000 1 x", "is not 'SPEAKER"),
    ],
)
def test_malformed_line(copy, file, line, message):
    with open(copy / "dev" / file, "a") as lines:
        lines.write(line + "\n")
    assert message in only_problem(section_of(copy))


def test_wrong_length(copy):
    edit(copy / "dev/reco2dur", (copy / "dev/reco2dur").read_text().split()[1], "3.25")
    assert "gives dev-0000 3.25 s; " in only_problem(section_of(copy))


def test_third_speaker_in_a_recording(copy):
    line = (copy / "dev/utt2spk").read_text().splitlines()[0]
    edit(copy / "dev/utt2spk", line, line.rpartition(" ")[0] + " stranger")
    assert "has 3 speakers in the recording dev-000" in only_problem(section_of(copy))


def test_smaller_than_a_batch(section):
    assert "24 recordings, fewer than a batch of 25" in only_problem(section, batch_size=25)


def test_unknown_split(section):
    with pytest.raises(InputError, match="has no split 'eval': it has train, dev, test"):
        libri2mix.folder_of(section, "eval")
