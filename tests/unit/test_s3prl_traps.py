"""Traps of s3prl in SID, ASV, SD and QbE, closed: caches, workers, order, crashes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import superbit.upstreams
from superbit.upstreams import InputError
from superbit.upstreams.s3prl import patches

pytest.importorskip("s3prl")
RATE = 16000
TRIALS = "trials.txt"


def write_wav(path: Path, samples: int, seed: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).choice([-0.5, 0.5], samples)
    soundfile.write(path, noise, RATE, subtype="PCM_16")
    return str(path)


def make_voxceleb(root: Path, names: list[str]) -> Path:
    """``<part>/wav/<speaker>/<video>/<file>`` for each ``<part>/<speaker>/<video>/<file>``."""
    for seed, name in enumerate(names):
        part, _, file = name.partition("/")
        write_wav(root / part / "wav" / file, 4000 + 100 * seed, seed)
    return root


def package_listing() -> list[str]:
    import s3prl

    root = Path(s3prl.__file__).parent
    return sorted(str(path) for path in root.rglob("*") if "__pycache__" not in path.parts)


# --- SID ------------------------------------------------------------------------------------------


@pytest.fixture
def sid_corpora(tmp_path):
    """Two corpora at two roots whose splits have the same names and other files."""
    made = {}
    for name, speakers in {"first": ("id10003", "id10001"), "second": ("id10002",)}.items():
        files = [f"{part}/{s}/video/0000{n}.wav" for s in speakers
                 for n, part in enumerate(("dev", "dev", "test"), start=1)]  # fmt: skip
        root = make_voxceleb(tmp_path / name, files)
        meta = root / "split.txt"
        meta.write_text("".join(f"{f[-5]} {f.partition('/')[2]}\n" for f in files))
        made[name] = (root, meta)
    return made


def sid_files(split, root, meta):
    from s3prl.downstream.voxceleb1.dataset import SpeakerClassifiDataset

    dataset = SpeakerClassifiDataset(split, root, str(meta))
    return [str(Path(path).relative_to(root)) for path in dataset.dataset], dataset.label


def test_sid_lists_each_corpus_anew_and_leaves_the_package_alone(sid_corpora):
    before = package_listing()
    first = sid_files("train", *sid_corpora["first"])
    second = sid_files("train", *sid_corpora["second"])
    assert first == (
        ["dev/wav/id10003/video/00001.wav", "dev/wav/id10001/video/00001.wav"],
        [2, 0],
    )
    assert second == (["dev/wav/id10002/video/00001.wav"], [1])
    assert sid_files("test", *sid_corpora["second"])[0] == ["test/wav/id10002/video/00003.wav"]
    assert package_listing() == before


def test_sid_follows_a_changed_meta_file(sid_corpora):
    root, meta = sid_corpora["first"]
    assert len(sid_files("dev", root, meta)[0]) == 2
    meta.write_text("2 id10001/video/00002.wav\n")
    assert sid_files("dev", root, meta)[0] == ["dev/wav/id10001/video/00002.wav"]


def test_sid_names_a_missing_file(sid_corpora):
    root, meta = sid_corpora["first"]
    meta.write_text("1 id10001/video/00009.wav\n")
    with pytest.raises(InputError, match=r"split\.txt, line 1, names id10001/video/00009\.wav"):
        sid_files("train", root, meta)


@pytest.mark.parametrize("line", ["id10001/video/00001.wav", "4 id10001/video/00001.wav", "1 a b"])
def test_sid_names_a_line_of_another_form(sid_corpora, line):
    root, meta = sid_corpora["first"]
    meta.write_text(f"1 id10001/video/00001.wav\n{line}\n")
    with pytest.raises(InputError, match=r"line 2, is .* should be a split \(1, 2 or 3\)"):
        sid_files("train", root, meta)


# --- ASV ------------------------------------------------------------------------------------------

SHORTEST = 3000


@pytest.fixture
def asv_corpora(tmp_path):
    """Two corpora at two roots; in each, one utterance of silence and one that is too short."""
    roots = {}
    for name, speakers in {"first": ("id10009", "id10001"), "second": ("id10005",)}.items():
        root = make_voxceleb(
            tmp_path / name, [f"dev/{s}/video/0000{n}.wav" for s in speakers for n in (2, 1)]
        )
        write_wav(root / "dev/wav" / speakers[0] / "video/00003.wav", SHORTEST - 1)
        soundfile.write(root / "dev/wav" / speakers[0] / "video/00004.wav", np.zeros(9000), RATE)
        roots[name] = root / "dev" / "wav"
    return roots


def asv_train(root, keep_in=None, **kwargs):
    from s3prl.downstream.sv_voxceleb1.dataset import SpeakerVerifi_train

    return SpeakerVerifi_train(
        vad_config={"min_sec": SHORTEST},
        key_list=["Voxceleb1"],
        file_path=[root],
        meta_data=keep_in,
        **kwargs,
    )


def asv_files(root, keep_in=None):
    dataset = asv_train(root, keep_in)
    return [str(Path(path).relative_to(root)) for path in dataset.dataset], dataset.all_speakers


def test_asv_measures_each_corpus_anew_and_leaves_the_package_alone(asv_corpora):
    before = package_listing()
    assert asv_files(asv_corpora["first"]) == (
        [f"id{s}/video/0000{n}.wav" for s in ("10001", "10009") for n in (1, 2)],
        ["id10001", "id10009"],
    )
    assert asv_files(asv_corpora["second"]) == (
        ["id10005/video/00001.wav", "id10005/video/00002.wav"],
        ["id10005"],
    )
    assert package_listing() == before


def test_asv_lists_what_s3prls_own_constructor_lists(asv_corpora, tmp_path, monkeypatch):
    from s3prl.downstream.sv_voxceleb1 import dataset

    mine = asv_train(asv_corpora["first"], max_timestep=1000)
    original = dataset.SpeakerVerifi_train.__init__.__wrapped__
    theirs = object.__new__(dataset.SpeakerVerifi_train)
    # Its cache lies beside __file__.
    monkeypatch.setattr(dataset, "__file__", str(tmp_path / "package" / "dataset.py"))
    (tmp_path / "package").mkdir()
    original(theirs, {"min_sec": SHORTEST}, ["Voxceleb1"], [asv_corpora["first"]], None, 1000, 1)
    assert list(tmp_path.glob("package/.wav_lengths/*"))
    assert vars(mine) == vars(theirs)


def test_asv_keeps_lengths_in_a_folder_of_ours_only(asv_corpora, tmp_path, monkeypatch):
    from s3prl.downstream.sv_voxceleb1 import dataset

    kept = tmp_path / "kept"
    kept.mkdir()
    read = []
    apply = dataset.apply_effects_file
    monkeypatch.setattr(
        dataset,
        "apply_effects_file",
        lambda path, chain: (read.append(path), apply(path, chain))[1],
    )
    first = asv_files(asv_corpora["first"], kept)
    assert (len(read), len(list(kept.glob("*.json")))) == (6, 1)
    assert asv_files(asv_corpora["first"], kept) == first
    assert len(read) == 6
    assert asv_files(asv_corpora["second"], kept)[1] == ["id10005"]
    assert (len(read), len(list(kept.glob("*.json")))) == (10, 2)
    # Another file under the old name is measured again.
    write_wav(asv_corpora["first"] / "id10001/video/00001.wav", SHORTEST - 500)
    assert asv_files(asv_corpora["first"], kept)[0] == first[0][1:]
    # s3prl's config names a text file here; it is neither read nor written.
    listing = tmp_path / "speakers.txt"
    listing.write_text("id10001\n")
    asv_files(asv_corpora["first"], listing)
    assert listing.read_text() == "id10001\n"


def test_asv_gives_the_same_lengths_with_any_number_of_workers(asv_corpora):
    from s3prl.downstream.sv_voxceleb1 import dataset

    paths = [str(path) for path in sorted(asv_corpora["first"].rglob("*.wav"))]
    one, four = (patches._trimmed_lengths(dataset, paths, None, n) for n in (1, 4))
    # Loud from the first sample on: nothing is cut off; silence gives nothing.
    assert one == four == [soundfile.info(path).frames for path in paths[:-1]] + [0]


def test_asv_uses_the_cores_that_there_are(asv_corpora, monkeypatch):
    workers = []

    class Threads(patches.ThreadPoolExecutor):
        def __init__(self, max_workers):
            workers.append(max_workers)
            super().__init__(max_workers)

    monkeypatch.setattr(patches, "ThreadPoolExecutor", Threads)
    asv_train(asv_corpora["second"])
    assert workers == [len(os.sched_getaffinity(0))]


def test_asv_without_an_utterance_to_train_on_says_so(tmp_path):
    with pytest.raises(InputError, match=r"holds no audio file of more than 3000 samples"):
        asv_train(tmp_path / "absent")


def test_asv_test_utterances_come_in_one_order_whatever_the_hash_seed(tmp_path):
    names = [f"id1027{n}/video/0000{k}.wav" for n in range(3) for k in range(3)]
    trials = tmp_path / TRIALS
    trials.write_text("".join(f"1 {a} {b}\n" for a in names for b in names[:2]))
    code = f"""
        import superbit.upstreams
        from s3prl.downstream.sv_voxceleb1.dataset import SpeakerVerifi_test
        for path in SpeakerVerifi_test({{}}, "/root", {str(trials)!r}).dataset: print(path)
    """
    listed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert listed.stdout.split() == [f"/root/{name}" for name in names]


def asv_expert(tmp_path):
    from s3prl.downstream.sv_voxceleb1.expert import DownstreamExpert

    root = make_voxceleb(tmp_path / "vox", [f"dev/id1000{s}/v/1.wav" for s in (1, 2, 3)])
    (root / "test" / "wav").mkdir(parents=True)
    (tmp_path / "dev.txt").write_text("1 id10001/v/1.wav id10002/v/1.wav\n"
                                      "0 id10001/v/1.wav id10003/v/1.wav\n")  # fmt: skip
    (tmp_path / "test.txt").write_text("0 a/b/c.wav a/b/d.wav\n")
    return DownstreamExpert(
        upstream_dim=4,
        downstream_expert={
            "datarc": {
                "file_path": str(root), "vad_config": {"min_sec": 0}, "max_timestep": 8000,
                "train_meta_data": None, "dev_meta_data": str(tmp_path / "dev.txt"),
                "test_meta_data": str(tmp_path / "test.txt"),
            },
            "modelrc": {
                "input_dim": 8, "module": "XVector", "agg_module": "SP",
                "module_config": {"XVector": {"agg_dim": 6, "dropout_p": 0.0, "batch_norm": False}},
                "utter_module": "UtteranceExtractor", "ObjectiveLoss": "AMSoftmaxLoss",
                "LossConfig": {"AMSoftmaxLoss": {"s": 30.0, "m": 0.4}},
            },
        },
        expdir=str(tmp_path),
    )  # fmt: skip


class Scalars(dict):
    def add_scalar(self, tag, value, global_step):
        self[tag] = value


def test_asv_scores_the_trials_of_dev_on_dev(tmp_path):
    from collections import defaultdict

    expert = asv_expert(tmp_path)
    records, scalars = defaultdict(list), Scalars()
    first, second, third = expert.dev_dataset.dataset
    # The pair of one speaker is alike, the other is not: no error at any threshold between.
    records[first], records[second] = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.1])
    records[third] = torch.tensor([-1.0, 0.2])
    saved = expert.log_records("dev", records, logger=scalars, global_step=1)
    assert scalars["sv-voxceleb1/dev-EER"] == pytest.approx(0.0, abs=1e-6)
    assert saved == ["dev-best.ckpt"]
    assert len(records["scores"]) == 2
    assert expert.test_dataset.dataset == [
        str(tmp_path / "vox/test/wav/a/b/c.wav"), str(tmp_path / "vox/test/wav/a/b/d.wav")
    ]  # fmt: skip


# --- SD -------------------------------------------------------------------------------------------


def make_kaldi_folder(folder: Path, seconds: float, segments: list[tuple[str, float, float]]):
    folder.mkdir()
    wav = write_wav(folder / "mix.wav", round(seconds * RATE))
    lines = [f"{speaker}_{n} mix {a} {b}\n" for n, (speaker, a, b) in enumerate(segments)]
    (folder / "segments").write_text("".join(lines))
    names = [line.split()[0] for line in lines]
    (folder / "utt2spk").write_text("".join(f"{name} {name[0]}\n" for name in names))
    (folder / "spk2utt").write_text("".join(f"{name[0]} {name}\n" for name in names))
    (folder / "wav.scp").write_text(f"mix {wav}\n")
    (folder / "reco2dur").write_text(f"mix {seconds}\n")
    return folder


@pytest.mark.parametrize("shift", [160, 320, 640 / 3, 266.4])
def test_sd_cuts_chunks_without_drift_at_any_frame_shift(tmp_path, shift):
    from s3prl.downstream.diarization.dataset import DiarizationDataset

    folder = make_kaldi_folder(tmp_path / "k", 6.0, [("a", 0.5, 3.3), ("b", 2.1, 5.0)])
    dataset = DiarizationDataset("train", str(folder), chunk_size=300, frame_shift=shift,
                                 num_speakers=2)  # fmt: skip
    frames = int(6.0 * RATE / shift)
    whole, _ = soundfile.read(folder / "mix.wav")
    chunks = [dataset[index] for index in range(len(dataset))]
    audio = np.concatenate([wav for wav, _ in chunks])
    labels = np.concatenate([label for _, label in chunks])
    # Nothing twice, nothing lost: each chunk starts at the sample where the last one ended.
    np.testing.assert_array_equal(audio, whole[: round(frames * shift)])
    expected = np.zeros((frames, 2), dtype=int)
    for speaker, (first, end) in enumerate([(0.5, 3.3), (2.1, 5.0)]):
        expected[round(first * RATE / shift) : round(end * RATE / shift), speaker] = 1
    np.testing.assert_array_equal(labels, expected)


# --- QbE ------------------------------------------------------------------------------------------


def test_qbe_takes_scores_in_the_order_in_which_they_were_asked_for():
    from concurrent.futures import Future

    from s3prl.downstream.quesst14_dtw import expert

    first, second = Future(), Future()
    second.set_result(2)
    first.set_result(1)
    assert [future.result() for future in expert.as_completed([first, second])] == [1, 2]


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(patches.PATCHES))
def test_every_patch_has_its_module(module):
    """A module that s3prl renames would silently lose its patch."""
    from importlib.util import find_spec

    assert superbit.upstreams
    assert find_spec(module) is not None
