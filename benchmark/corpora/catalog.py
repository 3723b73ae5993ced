"""The corpora that superbit knows, by the name of their section in a paths file."""

from __future__ import annotations

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
from superbit.benchmark.corpora.layout import CorpusLayout
from superbit.upstreams.errors import InputError, did_you_mean

CORPORA: dict[str, CorpusLayout] = {
    module.CORPUS.name: module.CORPUS
    for module in (
        librispeech,
        speech_commands,
        voxceleb1,
        fluent_speech_commands,
        iemocap,
        libri2mix,
        quesst14,
        audio_snips,
    )
}


def find(name: str) -> CorpusLayout:
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
