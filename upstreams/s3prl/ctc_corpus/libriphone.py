"""LibriSpeech as phone sequences, for s3prl's CTC expert (PR).

What the expert relies on: utterances in descending order of their number of phones; with
bucketing, item ``i`` is the ``bucket_size`` neighbours from ``i`` on. A word's first pronunciation
in the lexicon counts, as in SUPERB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from superbit.upstreams.s3prl.ctc_corpus import librispeech
from superbit.upstreams.s3prl.ctc_corpus.buckets import Item, bucket, in_order


class LibriPhoneDataset(Dataset):
    """Pairs of audio file and encoded phones.

    Args:
        split: folders below ``path``, e.g. ``["train-clean-100"]``.
        tokenizer: s3prl's text encoder; ``encode("AH0 B AH1 V")`` gives token ids.
        bucket_size: utterances an item; 1 gives single pairs.
        path: the LibriSpeech folder.
        lexicon: lexicon files, earlier ones first.
        ascending: shortest first instead of longest first.

    Raises:
        InputError: an empty split, fewer utterances than a bucket, an utterance without
            transcript, or a word without lexicon entry.
    """

    def __init__(
        self,
        split: list[str],
        tokenizer: Any,
        bucket_size: int,
        path: str,
        lexicon: list[str],
        ascending: bool = False,
        **_unused: object,
    ) -> None:
        section = librispeech.LibriSpeech(root=Path(path), lexicon=tuple(map(Path, lexicon)))
        phones = librispeech.read_lexicon(section)
        self.bucket_size = bucket_size
        items = [
            (audio, tokenizer.encode(" ".join(librispeech.to_phones(audio, words, phones))))
            for name in split
            for audio, words in librispeech.utterances(section, name)
        ]
        source = f"{path}: {', '.join(split)}"
        self.items = in_order(items, size=bucket_size, source=source, ascending=ascending)

    def __getitem__(self, index: int) -> Item | list[Item]:
        return bucket(self.items, index, size=self.bucket_size)

    def __len__(self) -> int:
        return len(self.items)
