"""Audio SNIPS as characters with slot tokens, for s3prl's CTC expert (SF).

Layout: ``path/<split>/…/<Speaker>-<utterance>.wav`` and one text for all splits,
``path/all.iob.snips.txt``, of lines ``<utterance name> BOS WORDS EOS<tab>O slot … intent``: a slot
a word, ``O`` for none, the intent under ``EOS``. What the expert relies on: utterances of a
split's speakers in descending order of their number of tokens; with bucketing, item ``i`` is the
``bucket_size`` neighbours from ``i`` on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.s3prl.ctc_corpus.buckets import Item, bucket, in_order
from superbit.upstreams.s3prl.ctc_corpus.snips_text import (
    NO_SLOT,
    TRANSCRIPTS,
    read_transcripts,
    words_and_slots,
)
from superbit.upstreams.visible import visible


class SnipsDataset(Dataset):
    """Pairs of audio file and encoded words with slots.

    Args:
        split: folders below ``path``, e.g. ``["train"]``.
        tokenizer: s3prl's text encoder in the mode ``character-slot``: ``encode`` takes the line
            of an utterance without its name, ``slots`` holds ``B-<slot>`` and ``E-<slot>``.
        bucket_size: utterances an item; 1 gives single pairs.
        path: the corpus folder.
        ascending: fewest tokens first instead of most.
        speakers: ``<first folder>_speakers`` is the list of speakers of the split, each the
            beginning of its utterances' names; files of other speakers are not used.

    Raises:
        InputError: a folder or the text is missing, the split has no speaker list or fewer
            utterances than a bucket, an utterance has no transcript, two, or one of another form,
            or one with a slot that the slots file lacks.
    """

    def __init__(
        self,
        split: list[str],
        tokenizer: Any,
        bucket_size: int,
        path: str,
        ascending: bool = False,
        **speakers: Any,
    ) -> None:
        root = Path(path)
        wanted = speakers.get(f"{split[0]}_speakers")
        if not wanted:
            raise InputError(
                f"the config of SF has no {split[0]}_speakers: it should list the speakers of "
                f"{split[0]}, such as [Ivy, Joanna]."
            )
        transcripts = read_transcripts(root / TRANSCRIPTS)
        slots = {slot.removeprefix("B-") for slot in tokenizer.slots if slot.startswith("B-")}
        self.bucket_size = bucket_size
        items = []
        for name in split:
            for audio in _audio(root / name, tuple(wanted)):
                text = _checked(audio, transcripts, slots, source=root / TRANSCRIPTS)
                items.append((audio, tokenizer.encode(text)))
        source = f"{path}: {', '.join(split)} of the speakers {', '.join(wanted)}"
        self.items = in_order(items, size=bucket_size, source=source, ascending=ascending)

    def __getitem__(self, index: int) -> Item | list[Item]:
        return bucket(self.items, index, size=self.bucket_size)

    def __len__(self) -> int:
        return len(self.items)


def _audio(folder: Path, speakers: tuple[str, ...]) -> list[Path]:
    """The folder's audio files of ``speakers``, sorted by their names below it."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not there: it should hold <Speaker>-<utterance>.wav files.")
    # Sorted as text: directory order differs between two copies of one corpus.
    found = sorted(
        (path.relative_to(folder).as_posix(), path) for path in visible(folder, "**/*.wav")
    )
    of_speakers = [path for _, path in found if path.name.startswith(speakers)]
    if not of_speakers:
        raise InputError(
            f"{folder} holds no .wav file of the speakers {', '.join(speakers)}: "
            "their files should be named <Speaker>-<utterance>.wav."
        )
    return of_speakers


def _checked(audio: Path, transcripts: dict[str, str], slots: set[str], *, source: Path) -> str:
    """The text of an utterance, if it is one that the encoder can take."""
    text = transcripts.get(audio.stem)
    if text is None:
        raise InputError(
            f"{audio} has no transcript: {source} should have a line '{audio.stem} BOS … EOS'."
        )
    try:
        _, tags, _ = words_and_slots(text)
    except ValueError:
        raise InputError(
            f"{source}: the line of {audio.stem} should be 'BOS WORDS EOS', a tab, and a slot for "
            "each of them, 'O' where there is none."
        ) from None
    for slot in tags:
        if slot not in (NO_SLOT, *slots):
            raise InputError(
                f"{source}: the line of {audio.stem} has the slot {slot!r}, which is not in the "
                f"slots file.{did_you_mean(slot, slots)}"
            )
    return text
