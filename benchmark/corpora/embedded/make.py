"""Makes the embedded corpora: synthesized speech in the layouts of the real ones."""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from superbit.benchmark.corpora.embedded import recipe
from superbit.benchmark.corpora.embedded.espeak import MISSING
from superbit.benchmark.corpora.embedded.sizes import SIZES, audio_files
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.files import locked, write_text

PATHS_FILE = "paths.yaml"

# Everything that we put into a folder; nothing else in it is ever touched.
_OURS = (
    *("LibriSpeech", "librispeech-lexicon.txt", "speech_commands"),
    *("VoxCeleb1", "fluent_speech_commands", "IEMOCAP"),
    "libri2mix",
    "quesst14Database",
    "audio_snips",
    *(PATHS_FILE, recipe.FILE_NAME),
)
_LOCK = ".superbit-corpora.lock"
# The longest first, so that none is left to one worker alone.
_CORPORA = (
    *("voxceleb1", "librispeech", "fluent_speech_commands", "iemocap"),
    *("speech_commands", "audio_snips", "libri2mix", "quesst14"),
)
_WORKERS = 2  # at a time
_PATHS = """\
# Written by: superbit corpus make
librispeech:
  root: LibriSpeech
  lexicon: [librispeech-lexicon.txt]
speech_commands:
  root: speech_commands/train
  test_root: speech_commands/test
voxceleb1:
  root: VoxCeleb1
  identification_split: VoxCeleb1/iden_split.txt
  trials: VoxCeleb1/voxceleb1_test_v2.txt
fluent_speech_commands:
  root: fluent_speech_commands
iemocap:
  root: IEMOCAP
libri2mix:
  train_dir: libri2mix/train
  dev_dir: libri2mix/dev
  test_dir: libri2mix/test
quesst14:
  root: quesst14Database
audio_snips:
  root: audio_snips
"""


def make_corpora(
    out: str | Path,
    *,
    size: str,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Synthesize every embedded corpus into ``out``, or find them there already.

    The same size and seed give the same bytes on every processor (see `exact`). A complete folder
    of the same recipe is used again; one that was left incomplete is made again; anything else in
    ``out`` is an error.

    Args:
        out: a folder; made if it is not there.
        size: ``"tiny"`` (seconds, for tests) or ``"demo"``.
        on_progress: called with (audio files made, audio files in all).

    Returns:
        The paths file, ready for ``--paths``.

    Raises:
        InputError: an unknown size; a folder that holds something else; espeak-ng is not installed.
    """
    if size not in SIZES:
        raise InputError(
            f"There is no size {size!r}: known are {', '.join(SIZES)}." + did_you_mean(size, SIZES)
        )
    out = Path(out).absolute()
    _refuse_foreign(out)
    # Before anything is written: complete corpora may lie in a folder that we can only read.
    if not _is_complete(out, size, seed):
        with _alone(out):
            # Another process may have made them while this one waited.
            if not _is_complete(out, size, seed):
                _remove_ours(out)
                _make(out, size, seed, on_progress or (lambda done, total: None))
    return out / PATHS_FILE


def _refuse_foreign(out: Path) -> None:
    """Raise InputError unless ``out`` is absent, empty or made by :func:`make_corpora`."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; the embedded corpora need a folder.")
    # The lock is made first and stays, so it also marks what a killed process left.
    if any(out.iterdir()) and not (out / _LOCK).is_file():
        raise InputError(
            f"{out} holds something that superbit did not make; give an empty or a new folder."
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Wait until no other process makes corpora in ``out``; a killed one's lock is released."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(out / _LOCK))
        except OSError as error:
            raise InputError(f"{out} cannot be written to: {error.strerror}.") from None
        try:
            yield
        finally:
            held.close()
            (out / _LOCK).touch()  # where releasing it deletes the file, as on Windows


def _is_complete(out: Path, size: str, seed: int) -> bool:
    """Whether the corpora are there, of this recipe, with every file.

    Raises:
        InputError: ``out`` holds complete corpora of another size or seed.
    """
    found = recipe.read(out)
    if found is None or found.version != recipe.VERSION:
        return False
    if (found.size, found.seed) != (size, seed):
        raise InputError(
            f"{out} holds embedded corpora of size {found.size} and seed {found.seed}, not "
            f"{size} and {seed}; give another folder, or delete that one."
        )
    return (found.files, found.bytes) == _contents(out)


def _remove_ours(out: Path) -> None:
    # The recipe first: what is left after a kill in between is then known to be incomplete.
    (out / recipe.FILE_NAME).unlink(missing_ok=True)
    for name in _OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _make(out: Path, size: str, seed: int, on_progress: Callable[[int, int], None]) -> None:
    if find_spec("espeakng_loader") is None:
        # Known at once, not after the workers have started.
        raise InputError(MISSING)
    _run_workers(out, size, seed, on_progress)
    write_text(out / PATHS_FILE, _PATHS)
    files, size_bytes = _contents(out)
    made = recipe.CorpusRecipe(size=size, seed=seed, files=files, bytes=size_bytes)
    write_text(out / recipe.FILE_NAME, made.to_json())


def _contents(out: Path) -> tuple[int, int]:
    """(files, bytes) of what we made, without the recipe itself."""
    sizes = [
        path.stat().st_size
        for name in _OURS
        if name != recipe.FILE_NAME
        for path in ([out / name] if (out / name).is_file() else (out / name).rglob("*"))
        if path.is_file()
    ]
    return len(sizes), sum(sizes)


def _run_workers(out: Path, size: str, seed: int, on_progress: Callable[[int, int], None]) -> None:
    """One process a corpus, two at a time; the first that fails stops the others."""
    progress = _Progress(audio_files(size), on_progress)
    waiting = list(reversed(_CORPORA))
    readers: dict[subprocess.Popen[str], threading.Thread] = {}
    ended: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
    with tempfile.TemporaryFile("w+") as errors:

        def follow(worker: subprocess.Popen[str]) -> None:
            try:
                progress.follow(worker.stdout or ())
            finally:
                ended.put(worker)

        def start(corpus: str) -> None:
            command = [
                *(sys.executable, "-m", "superbit.benchmark.corpora.embedded.worker"),
                *(corpus, str(out), size, str(seed)),
            ]
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            readers[worker] = threading.Thread(target=follow, args=(worker,))
            readers[worker].start()

        try:
            for _ in range(min(_WORKERS, len(waiting))):
                start(waiting.pop())
            for _ in _CORPORA:
                if ended.get().wait() != 0:
                    break
                if waiting:
                    start(waiting.pop())
        finally:
            # Also after Ctrl-C: no worker outlives the call.
            for worker, reader in readers.items():
                if worker.poll() is None:
                    worker.kill()
                worker.wait()
                reader.join()
        if any(worker.returncode for worker in readers):
            errors.seek(0)
            lines = errors.read().strip().splitlines() or ["no message"]
            _raise(lines[-1])


def _raise(last_line: str) -> None:
    """Raise what a worker died of, told by the last line of its traceback."""
    name, _, message = last_line.partition(": ")
    if name.endswith("InputError"):
        raise InputError(message)
    raise RuntimeError(f"Making the embedded corpora failed: {last_line}")


class _Progress:
    """Counts what several workers say they have made."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._total = total
        self._on_progress = on_progress
        self._done = 0
        self._lock = threading.Lock()

    def follow(self, lines: Iterable[str]) -> None:
        """Count a worker's lines, one a file, until it closes its output."""
        for _ in lines:
            with self._lock:
                self._done += 1
                self._on_progress(self._done, self._total)
