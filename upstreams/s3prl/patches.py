"""What superbit changes in s3prl 0.4.18's own modules, each right after its import.

:data:`PATCHES` names the module and the functions that mend it; ``s3prl_compat`` calls them. Every
patch says why it is there and when it can go. None changes what a task computes: they are about
order, caches, workers, crashes and messages. Nothing heavy is imported here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from superbit.upstreams.derived import kept_text
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import cores
from superbit.upstreams.visible import below_hidden, is_hidden

# --- how the tasks read audio ---------------------------------------------------------------------

# ``reader(path, transform, read)``: what a task gets in place of ``read()``. The transform is
# ("load",), ("effects", (name, argument, …), …) or ("cut", first sample, last sample or None).
AudioReader = Callable[[str, tuple[Any, ...], Callable[[], Any]], Any]
_readers: list[AudioReader] = []


@contextmanager
def audio_read_by(reader: AudioReader) -> Iterator[None]:
    """Let ``reader`` answer for every audio file that a task asks for within the block."""
    _readers.append(reader)
    try:
        yield
    finally:
        _readers.remove(reader)


def _read_audio(path: object, transform: tuple[Any, ...], read: Callable[[], Any]) -> Any:
    return _readers[-1](str(path), transform, read) if _readers else read()


def ask_before_loading(module: types.ModuleType) -> None:
    """Why: SID, IC, ER, ASR, PR and SF decode a file although its features are known already. Can
    go when s3prl's datasets take a loader. Without a reader nothing changes."""
    torchaudio = module.torchaudio
    stand_in = types.ModuleType("torchaudio")

    def load(path: object, *args: Any, **kwargs: Any) -> Any:
        def read() -> Any:
            return torchaudio.load(path, *args, **kwargs)

        return read() if args or kwargs else _read_audio(path, ("load",), read)

    vars(stand_in).update(vars(torchaudio))
    stand_in.load = load  # type: ignore[attr-defined]
    vars(module)["torchaudio"] = stand_in


def ask_before_applying_effects(module: types.ModuleType) -> None:
    """Why: as :func:`ask_before_loading`, for KS, QbE and ASV."""
    original = module.apply_effects_file

    def apply_effects_file(path: object, effects: Sequence[Sequence[str]]) -> Any:
        transform = ("effects", *(tuple(effect) for effect in effects))
        return _read_audio(path, transform, lambda: original(path, effects))

    vars(module)["apply_effects_file"] = apply_effects_file


def ask_before_cutting(dataset: types.ModuleType) -> None:
    """Why: as :func:`ask_before_loading`, for SD, which reads a recording in chunks; and a file
    whose header does not tell its length cannot be cut by soundfile."""
    original = dataset.KaldiData._load_wav

    @functools.wraps(original)
    def _load_wav(self: Any, path: str, start: int = 0, end: int | None = None) -> Any:
        def read() -> Any:
            if not os.path.isfile(path):
                return original(self, path, start, end)
            from superbit.upstreams.s3prl.sox_effects import read_soundfile

            waveform, rate = read_soundfile(path, start=start, stop=end)
            samples = waveform.numpy().astype("float64")
            return (samples[0] if len(samples) == 1 else samples.T), rate

        return _read_audio(path, ("cut", start, end), read)

    dataset.KaldiData._load_wav = _load_wav


# --- how the tasks read text ----------------------------------------------------------------------


def pass_over_byte_order_marks(module: types.ModuleType) -> None:
    """Why: a list that was saved on Windows may begin with a byte order mark, which then is part of
    its first name: an utterance without transcript, a trial without label. Can go when s3prl opens
    its lists as ``utf-8-sig``."""

    def open_text(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode in ("r", "rt") and not args:
            kwargs.setdefault("encoding", "utf-8-sig")
        return open(file, mode, *args, **kwargs)

    vars(module)["open"] = open_text


# --- all tasks, KS, PR and SF ---------------------------------------------------------------------


def leave_isinstance_alone(helper: types.ModuleType) -> None:
    """Why: replaces ``builtins.isinstance`` for everybody, and the replacement raises TypeError for
    a defaultdict and a tuple of classes. Needed by torch before 1.8 only; can go with the call."""
    vars(helper)["hack_isinstance"] = lambda: None


def keep_worker_count(expert: types.ModuleType) -> None:
    """Why: ``load_dataset`` pops ``num_workers`` from the shared config, so every loader after the
    first starts 12 workers whatever the config says. Can go when it copies the config."""
    original = expert.load_dataset

    def load_dataset(split: str, tokenizer: object, corpus: dict[str, object]) -> object:
        return original(split, tokenizer, dict(corpus))

    vars(expert)["load_dataset"] = load_dataset


def take_single_frames_as_means(model: types.ModuleType) -> None:
    """Why: the mean-pool heads slice and average utterance by utterance, which takes most of a step
    where features are stored as means already. Can go when s3prl pools a batch at once.

    The mean of one frame is that frame, bit by bit.
    """
    original = model.MeanPooling.forward

    @functools.wraps(original)
    def forward(self: Any, feature_BxTxH: Any, features_len: Any, **kwargs: Any) -> Any:
        if feature_BxTxH.shape[1] != 1 or not bool((features_len == 1).all()):
            return original(self, feature_BxTxH, features_len, **kwargs)
        return feature_BxTxH[:, 0], features_len.new_ones(len(feature_BxTxH)).long()

    model.MeanPooling.forward = forward


class SortedPath(type(pathlib.Path())):  # type: ignore[misc]
    """A path whose ``iterdir`` and ``glob`` give names in sorted order, and no hidden ones."""

    def iterdir(self):
        return iter(sorted(path for path in super().iterdir() if not is_hidden(path.name)))

    def glob(self, pattern, **kwargs):
        found = super().glob(pattern, **kwargs)
        return iter(sorted(path for path in found if not below_hidden(path, self)))


def list_in_sorted_order(module: types.ModuleType) -> None:
    """Why: KS lists its files in directory order, which differs between two copies of one corpus,
    so equal seeds draw different batches, and takes what macOS hides for audio. Can go when s3prl
    sorts its lists."""
    vars(module)["Path"] = SortedPath


# --- SID ------------------------------------------------------------------------------------------


def list_speakers_anew(dataset: types.ModuleType) -> None:
    """Why: SID keeps its file lists in the package folder under the split's name alone, so a second
    corpus silently gets the first one's files; it searches the disk once an utterance, and a file
    that is missing ends in an IndexError. Can go when s3prl keys the lists by root and looks names
    up directly.

    Each list is made anew, in the order of the meta file, and nothing is written to the package.
    """
    cls = dataset.SpeakerClassifiDataset
    original = cls.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        # The original looks into CACHE_PATH first and writes there last: a new folder each time.
        with tempfile.TemporaryDirectory(prefix="superbit-") as folder:
            vars(dataset)["CACHE_PATH"] = folder
            original(self, *args, **kwargs)

    cls.__init__ = __init__
    for index, split in enumerate(("train", "dev", "test"), start=1):
        setattr(cls, split, functools.partialmethod(_listed_in_meta_file, index))


def _listed_in_meta_file(dataset: Any, index: int) -> list[str]:
    """The files of split ``index`` (1, 2 or 3) under ``<root>/<any folder>/wav``."""
    folders = [path for path in SortedPath(dataset.root).glob("*/wav") if path.is_dir()]
    found = []
    for number, line in enumerate(dataset.usage_list, start=1):
        fields, where = line.split(), f"{dataset.meta_data}, line {number},"
        if fields and (len(fields) != 2 or fields[0] not in ("1", "2", "3")):
            raise InputError(
                f"{where} is {line.strip()!r}: it should be a split (1, 2 or 3) and a file, such "
                "as '1 id10001/1zcIwhmdeo4/00001.wav'."
            )
        if fields and int(fields[0]) == index:
            found.append(_in_one_of(folders, fields[1], where=where))
    return found


def _in_one_of(folders: Sequence[pathlib.Path], name: str, *, where: str) -> str:
    for folder in folders:
        candidate = os.path.join(folder, name)
        if os.path.isfile(candidate):
            return candidate
    searched = " nor ".join(map(str, folders)) or "any folder <part>/wav"
    raise InputError(f"{where} names {name}, which is not in {searched}: it should be there.")


# --- ASV ------------------------------------------------------------------------------------------


def measure_speech_here(dataset: types.ModuleType) -> None:
    """Why: ASV keeps the lengths of its trimmed utterances in the package folder under a fixed
    name, so a second corpus silently gets the first one's files, and measures them in 12 processes
    whatever the machine has; the test utterances come in the order of a set of strings, which
    changes from process to process. Can go when s3prl keys the lengths by root and sorts.

    The lengths are measured by as many threads as there are cores. Where ``train_meta_data``
    (which s3prl does not read) names an existing folder, they are kept there, keyed by the names,
    sizes and times of the files; nothing is written anywhere else.
    """
    train, test = dataset.SpeakerVerifi_train, dataset.SpeakerVerifi_test

    @functools.wraps(train.__init__)
    def __init__(
        self: Any,
        vad_config: Mapping[str, Any],
        key_list: Sequence[str],
        file_path: Sequence[str | os.PathLike[str]],
        meta_data: str | os.PathLike[str] | None,
        max_timestep: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.roots, self.root_key, self.vad_c = file_path, key_list, vad_config
        self.max_timestep = max_timestep
        self.dataset, self.all_speakers = [], []
        for root in map(pathlib.Path, file_path):
            found = dataset.find_files(root) if root.is_dir() else []
            paths = [path for path in found if not below_hidden(path, root)]
            lengths = _trimmed_lengths(dataset, paths, meta_data, n_jobs or cores())
            self.dataset += [p for p, length in zip(paths, lengths, strict=True)
                             if length > vad_config["min_sec"]]  # fmt: skip
            folders = SortedPath(root).iterdir() if paths else ()
            self.all_speakers += [f.stem for f in folders if f.is_dir()]
        self.all_speakers.sort()
        self.speaker_num = len(self.all_speakers)
        if not self.dataset:
            raise InputError(
                f"{', '.join(map(str, file_path))} holds no audio file of more than "
                f"{vad_config['min_sec']} samples of speech: there is nothing to train on."
            )

    processing = test.processing

    @functools.wraps(processing)
    def sorted_processing(self: Any) -> dict[str, Any]:
        found: dict[str, Any] = processing(self)
        found["spk_paths"].sort()
        return found

    train.__init__, test.processing = __init__, sorted_processing


def _trimmed_lengths(
    dataset: types.ModuleType,
    paths: Sequence[str],
    keep_in: str | os.PathLike[str] | None,
    workers: int,
) -> list[int]:
    """Samples of each file after the task's sox chain, in the order of ``paths``."""
    kept = None
    if keep_in is not None and pathlib.Path(keep_in).is_dir():
        kept = pathlib.Path(keep_in) / f"trimmed-lengths-{_state_of(paths, dataset)}.json"

    def length(path: str) -> int:
        return int(dataset.apply_effects_file(path, dataset.EFFECTS)[0].shape[-1])

    def measure() -> str:
        with ThreadPoolExecutor(max_workers=workers) as threads:
            measured = threads.map(length, paths)
            return json.dumps(
                list(dataset.tqdm.tqdm(measured, total=len(paths), desc="Trimmed lengths"))
            )

    return list(json.loads(measure() if kept is None else kept_text(kept, measure)))


def _state_of(paths: Sequence[str], dataset: types.ModuleType) -> str:
    """Names one state of the audio and of the chain: changes when a file comes, goes or changes."""
    digest = hashlib.sha256(repr(dataset.EFFECTS).encode())
    for path in paths:
        status = os.stat(path)
        name = os.path.abspath(path)
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def score_the_splits_own_trials(expert: types.ModuleType) -> None:
    """Why: ASV scores the test trials whatever the split, so an evaluation on dev crashes on the
    first pair. Can go when ``log_records`` takes the trials of its split."""
    original = expert.DownstreamExpert.log_records

    @functools.wraps(original)
    def log_records(self: Any, mode: str, *args: Any, **kwargs: Any) -> Any:
        test_dataset = self.test_dataset
        try:
            if mode == "dev":
                self.test_dataset = self.dev_dataset
            return original(self, mode, *args, **kwargs)
        finally:
            self.test_dataset = test_dataset

    expert.DownstreamExpert.log_records = log_records


# --- SD and QbE -----------------------------------------------------------------------------------


def cut_audio_at_whole_samples(dataset: types.ModuleType) -> None:
    """Why: SD takes the upstream's downsample rate as its label frame shift; one that is no integer
    gives frame times that soundfile refuses as sample numbers. Can go when s3prl rounds them.

    Rounding each cut, and not the frame shift, keeps labels and features together: 213 for 213.33
    would drift by three frames over a chunk of 2000. Integer rates are not touched by it.
    """
    original = dataset.KaldiData.load_wav

    @functools.wraps(original)
    def load_wav(self: Any, recid: str, start: float = 0, end: float | None = None) -> Any:
        return original(self, recid, round(start), None if end is None else round(end))

    dataset.KaldiData.load_wav = load_wav


def take_scores_in_order(expert: types.ModuleType) -> None:
    """Why: QbE collects its scores in the order in which processes finish, so the sums behind its
    normalized scores round differently each time. Can go when s3prl keeps the order."""
    vars(expert)["as_completed"] = list


PATCHES: dict[str, tuple[Callable[[types.ModuleType], None], ...]] = {
    "s3prl.utility.helper": (leave_isinstance_alone,),
    "s3prl.downstream.model": (take_single_frames_as_means,),
    "s3prl.downstream.ctc.expert": (keep_worker_count,),
    "s3prl.downstream.ctc.data": (ask_before_loading,),
    "s3prl.downstream.ctc.text": (pass_over_byte_order_marks,),
    "s3prl.downstream.asr.dataset": (ask_before_loading, pass_over_byte_order_marks),
    "s3prl.downstream.emotion.dataset": (ask_before_loading,),
    "s3prl.downstream.fluent_commands.dataset": (ask_before_loading,),
    "s3prl.downstream.speech_commands.expert": (list_in_sorted_order,),
    "s3prl.downstream.speech_commands.dataset": (
        list_in_sorted_order,
        ask_before_applying_effects,
    ),
    "s3prl.downstream.voxceleb1.dataset": (
        list_speakers_anew,
        ask_before_loading,
        pass_over_byte_order_marks,
    ),
    "s3prl.downstream.sv_voxceleb1.dataset": (
        measure_speech_here,
        ask_before_applying_effects,
        pass_over_byte_order_marks,
    ),
    "s3prl.downstream.sv_voxceleb1.expert": (score_the_splits_own_trials,),
    "s3prl.downstream.diarization.dataset": (
        cut_audio_at_whole_samples,
        ask_before_cutting,
        pass_over_byte_order_marks,
    ),
    "s3prl.downstream.quesst14_dtw.dataset": (
        ask_before_applying_effects,
        pass_over_byte_order_marks,
    ),
    "s3prl.downstream.quesst14_dtw.expert": (take_scores_in_order,),
}
