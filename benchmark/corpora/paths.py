"""The paths file: the only place where the roots of datasets are written down.

YAML, one section a corpus; relative paths are relative to the file's own folder. A key ``name`` in
a section, or at the top for all of them, is what records and tables call the corpus: it is no part
of what a run is known by.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.files import read_yaml

# A path that is a file, not a folder.
_File = Annotated[Path, "file"]
# What a corpus is called, in a section or at the top of the file.
_NAME = "name"
_NAME_LETTERS = 60


class _CorpusSection(BaseModel):
    """A section of the file: ``Path`` is a folder, ``_File`` a file, a tuple a list of files.

    A field's description says what should be at the path; it goes into error messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class LibriSpeechPaths(_CorpusSection):
    """LibriSpeech, for PR and ASR."""

    root: Path = Field(description="the folder that holds train-clean-100, dev-clean, test-clean")
    lexicon: tuple[Path, ...] = Field(
        min_length=1, description="a list of text files of lines 'WORD PH ON EMES'"
    )


class SpeechCommandsPaths(_CorpusSection):
    """Speech Commands v0.01, for KS."""

    root: Path = Field(description="the folder that holds a folder a word and _background_noise_")
    test_root: Path = Field(description="the folder that holds the 12 class folders of the test")


class VoxCeleb1Paths(_CorpusSection):
    """VoxCeleb1, for SID and ASV."""

    root: Path = Field(description="the folder that holds dev/wav and test/wav")
    identification_split: _File = Field(
        description="the text file of lines '1|2|3 idNNNNN/<video>/NNNNN.wav'"
    )
    trials: _File = Field(
        description="the text file of lines '0|1 a.wav b.wav', relative to test/wav"
    )


class FluentSpeechCommandsPaths(_CorpusSection):
    """Fluent Speech Commands, for IC."""

    root: Path = Field(description="the folder that holds data/*_data.csv and wavs/speakers")


class IemocapPaths(_CorpusSection):
    """IEMOCAP, for ER."""

    root: Path = Field(description="the folder that holds Session1 to Session5")


class Libri2MixPaths(_CorpusSection):
    """Libri2Mix, for SD: a Kaldi data folder a split."""

    train_dir: Path = Field(description="the Kaldi data folder of train: wav.scp, segments, rttm …")
    dev_dir: Path = Field(description="the Kaldi data folder of dev: wav.scp, segments, rttm …")
    test_dir: Path = Field(description="the Kaldi data folder of test: wav.scp, segments, rttm …")

    @property
    def root(self) -> Path:
        """The folder that stands for the corpus in reports."""
        return self.train_dir


class Quesst14Paths(_CorpusSection):
    """QUESST 2014, for QbE."""

    root: Path = Field(description="quesst14Database, the folder that holds Audio and scoring")


class AudioSnipsPaths(_CorpusSection):
    """Audio SNIPS, for SF."""

    root: Path = Field(description="the folder that holds train, valid, test, all.iob.snips.txt")


class CorpusPaths(BaseModel):
    """Where each corpus is; a corpus that the file does not name is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    librispeech: LibriSpeechPaths | None = None
    speech_commands: SpeechCommandsPaths | None = None
    voxceleb1: VoxCeleb1Paths | None = None
    fluent_speech_commands: FluentSpeechCommandsPaths | None = None
    iemocap: IemocapPaths | None = None
    libri2mix: Libri2MixPaths | None = None
    quesst14: Quesst14Paths | None = None
    audio_snips: AudioSnipsPaths | None = None
    _file: Path | None = PrivateAttr(default=None)
    _labels: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the corpora that the file has a section for, in the schema's order."""
        return tuple(n for n in type(self).model_fields if getattr(self, n) is not None)

    def label(self, corpus: str) -> str | None:
        """What the file calls ``corpus``; None if it gives no name."""
        return self._labels.get(corpus)

    def section(self, corpus: str) -> Any:
        """The section of ``corpus``.

        Raises:
            InputError: for an unknown corpus, or one that the file does not name.
        """
        known = tuple(type(self).model_fields)
        if corpus not in known:
            raise InputError(
                f"There is no corpus {corpus!r}: known are {', '.join(known)}."
                + did_you_mean(corpus, known)
            )
        section = getattr(self, corpus)
        if section is None:
            where = self._file or "The paths file"
            raise InputError(f"{where} has no section {corpus!r}, which this task needs.")
        return section


def load_paths(file: str | os.PathLike[str]) -> CorpusPaths:
    """Read and check a paths file; every path in the result is absolute and exists.

    Raises:
        InputError: the file is missing or is not such a YAML file; a key is unknown or missing;
            a path is not there or not of the right kind.
    """
    path = Path(file).absolute()
    content = _read_sections(path)
    labels = _take_labels(path, content)
    try:
        paths = CorpusPaths.model_validate(content)
    except ValidationError as error:
        raise InputError(_explain(error, path)) from None
    sections: dict[str, Any] = {
        name: _resolve(path, name, section)
        for name in CorpusPaths.model_fields
        if (section := getattr(paths, name)) is not None
    }
    if not sections:
        raise InputError(f"{path} names no corpus: it should have {_one_of(CorpusPaths)}.")
    resolved = CorpusPaths(**sections)
    resolved._file = path
    resolved._labels = {name: label for name, label in labels.items() if name in sections}
    return resolved


def _take_labels(file: Path, content: dict[str, Any]) -> dict[str, str]:
    """Take the names out of ``content``; each corpus' own, else the one at the top."""
    given = [(_NAME, tuple(CorpusPaths.model_fields), content)]
    given += [
        (f"{corpus}.{_NAME}", (corpus,), section)
        for corpus, section in content.items()
        if corpus in CorpusPaths.model_fields and isinstance(section, dict)
    ]
    labels: dict[str, str] = {}
    for key, corpora, mapping in given:
        if _NAME not in mapping:
            continue
        label = mapping.pop(_NAME)
        is_text = isinstance(label, str) and label.isprintable() and bool(label.strip())
        if not is_text or len(label.strip()) > _NAME_LETTERS:
            raise InputError(
                f"{file}: {key!r} is {label!r}; it should be what the corpus is called, one line "
                f"of at most {_NAME_LETTERS} letters."
            )
        labels |= dict.fromkeys(corpora, label.strip())
    return labels


def _read_sections(path: Path) -> dict[str, Any]:
    content = read_yaml(path, f"a YAML file for --paths with {_one_of(CorpusPaths)}")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} should be a YAML mapping with {_one_of(CorpusPaths)}.")
    # A section with nothing under it reads as None; name it instead of ignoring it.
    return {
        key: {} if section is None and key != _NAME else section for key, section in content.items()
    }


def _one_of(model: type[BaseModel]) -> str:
    return "the keys " + ", ".join(model.model_fields)


def _explain(error: ValidationError, path: Path) -> str:
    """One fault of ``error`` as a sentence that names the file and the key."""
    faults = error.errors(include_url=False)
    # A misspelt key is also a missing one; the first tells more.
    fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    location = [str(part) for part in fault["loc"]]
    key = ".".join(part for part in location if not part.isdigit())
    model: type[BaseModel] = CorpusPaths
    if len(location) > 1:
        model = _SECTIONS[location[0]]
    field = model.model_fields.get(location[1] if len(location) > 1 else location[0])
    should_be = field.description if field is not None else None
    if fault["type"] == "extra_forbidden":
        known = (*model.model_fields, _NAME)
        return f"{path}: unknown key {key!r}; known are {', '.join(known)}." + did_you_mean(
            location[-1], known
        )
    if fault["type"] == "missing":
        return f"{path}: the key {key!r} is missing; it should be {should_be}."
    if should_be is None:
        section = _SECTIONS.get(location[0], CorpusPaths)
        return f"{path}: {key!r} should be a mapping with {_one_of(section)}."
    return f"{path}: {key!r} is {fault['input']!r}; it should be {should_be}."


def _resolve(file: Path, name: str, section: _CorpusSection) -> _CorpusSection:
    """``section`` with absolute paths, each checked to be there."""
    resolved: dict[str, Any] = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        is_list = isinstance(value, tuple)
        is_file = is_list or "file" in field.metadata
        found = []
        for given in value if is_list else (value,):
            path = Path(os.path.normpath(file.parent / os.path.expanduser(given)))
            if not _is_there(path, is_file=is_file):
                kind = "file" if is_file else "folder"
                raise InputError(
                    f"{file}: '{name}.{key}' names {path}, where there is no {kind}; "
                    f"it should be {field.description}."
                )
            found.append(path)
        resolved[key] = tuple(found) if is_list else found[0]
    return type(section)(**resolved)


def _is_there(path: Path, *, is_file: bool) -> bool:
    try:
        return path.is_file() if is_file else path.is_dir()
    except (OSError, ValueError):  # a name that none can have
        return False


_SECTIONS: dict[str, type[BaseModel]] = {
    "librispeech": LibriSpeechPaths,
    "speech_commands": SpeechCommandsPaths,
    "voxceleb1": VoxCeleb1Paths,
    "fluent_speech_commands": FluentSpeechCommandsPaths,
    "iemocap": IemocapPaths,
    "libri2mix": Libri2MixPaths,
    "quesst14": Quesst14Paths,
    "audio_snips": AudioSnipsPaths,
}
