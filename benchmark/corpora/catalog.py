"""The corpora that superbit knows, by the name of their section in a paths file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from superbit.benchmark.corpora import (
    audio_snips,
    fluent_speech_commands,
    iemocap,
    libri2mix,
    librispeech,
    quesst14,
    speech_commands,
    voxceleb1,
)
from superbit.benchmark.corpora.layout import CorpusFiles, CorpusReport
from superbit.upstreams.errors import InputError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What the rest of superbit asks of a corpus.

    Attributes:
        files: ``files(section)``: every file that its tasks read.
        check: ``check(section, batch_size=None)``: what is there and what is wrong.
    """

    name: str
    files: Callable[[Any], CorpusFiles]
    check: Callable[..., CorpusReport]


CORPORA = {
    "librispeech": Corpus(name="librispeech", files=librispeech.files, check=librispeech.check),
    "speech_commands": Corpus(
        name="speech_commands", files=speech_commands.files, check=speech_commands.check
    ),
    "voxceleb1": Corpus(name="voxceleb1", files=voxceleb1.files, check=voxceleb1.check),
    "fluent_speech_commands": Corpus(
        name="fluent_speech_commands",
        files=fluent_speech_commands.files,
        check=fluent_speech_commands.check,
    ),
    "iemocap": Corpus(name="iemocap", files=iemocap.files, check=iemocap.check),
    "libri2mix": Corpus(name="libri2mix", files=libri2mix.files, check=libri2mix.check),
    "quesst14": Corpus(name="quesst14", files=quesst14.files, check=quesst14.check),
    "audio_snips": Corpus(name="audio_snips", files=audio_snips.files, check=audio_snips.check),
}


def find(name: str) -> Corpus:
    """The corpus called ``name``.

    Raises:
        InputError: there is none of that name.
    """
    if name not in CORPORA:
        raise InputError(
            f"There is no corpus {name!r}: known are {', '.join(CORPORA)}."
            + did_you_mean(name, tuple(CORPORA))
        )
    return CORPORA[name]
