"""QUESST 2014, for QbE: spoken queries, and which spoken documents hold them.

``scoring/language_key_{utterances,dev,eval}.lst`` list the files of documents and queries with
their languages, a line ``<folder>/Audio/x.wav nnenglish``; what follows the first slash is the
place below the root, and a task takes the English ones. The ground truth of a split lies in
``scoring/groundtruth_quesst14_<split>/``: ``*.rttm`` has a line ``LEXEME <document> 1 <start>
<duration> <query> …`` for each document that holds a query (``NO_KEYWORD`` for one that holds
none), ``*.tlist.xml`` the queries and ``*.ecf.xml`` the documents of the evaluation, of every
language. Splits and counts: SUPERB (Yang et al., Interspeech 2021), task QbE; the corpus: Anguera
et al., MediaEval 2014.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import soundfile

from superbit.benchmark.corpora.audio import SAMPLE_RATE, read_header
from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    Problems,
)
from superbit.benchmark.corpora.paths import Quesst14Paths
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import existing_folder, read_text
from superbit.upstreams.visible import visible

SPLITS = ("dev", "eval")
DOCUMENTS = "utterances"
LANGUAGE = "nnenglish"
# English files in SUPERB's copy.
EXPECTED = {DOCUMENTS: 2_438, "dev": 138, "eval": 138}
PUBLISHED = (("root", "https://speech.fit.vutbr.cz/files/quesst14Database.tgz"),)
# As published, and as synthesized. s3prl resamples to 16 kHz.
SAMPLE_RATES = (8_000, SAMPLE_RATE)
_NO_QUERY = "NO_KEYWORD"
_LEXEME_FORM = "LEXEME <document> 1 <start> <duration> <query> …"
_LINE_FORM = f"<folder>/Audio/<name>.wav {LANGUAGE}"


def documents(section: Quesst14Paths) -> dict[str, Path]:
    """The English documents by name, in the list's order.

    Raises:
        InputError: the list is missing, or a line is not of its form.
    """
    return _listed(section, DOCUMENTS)


def queries(section: Quesst14Paths, split: str) -> dict[str, Path]:
    """The English queries of ``"dev"`` or ``"eval"`` by name, in the list's order.

    Raises:
        InputError: there is no such split; the list is missing, or a line is not of its form.
    """
    return _listed(section, _known(split))


def occurrences(section: Quesst14Paths, split: str) -> dict[str, set[str]]:
    """Every query of the evaluation, with the documents that hold it.

    Of every language, as the evaluation's own tool counts them: a query that is not searched for
    is missed. A query that no document holds has an empty set.

    Raises:
        InputError: a file of the ground truth is missing, is not of its form, or the RTTM names a
            query or a document that the others lack.
    """
    terms, known = _xml_names(section, split, "tlist"), _xml_names(section, split, "ecf")
    found: dict[str, set[str]] = {name: set() for name in sorted(terms)}
    source = _truth_file(section, split, "rttm")
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0] != "LEXEME":
            continue
        if len(fields) < 6:
            raise InputError(f"{source}, line {number}: {line!r} should be '{_LEXEME_FORM}'.")
        document, query = fields[1], fields[5]
        if query == _NO_QUERY:
            continue
        if query not in found:
            raise InputError(
                f"{source}, line {number}, names the query {query!r}, which "
                f"{_truth_file(section, split, 'tlist').name} beside it does not list."
            )
        if document not in known:
            raise InputError(
                f"{source}, line {number}, names the document {document!r}, which "
                f"{_truth_file(section, split, 'ecf').name} beside it does not list."
            )
        found[query].add(document)
    return found


def evaluated_documents(section: Quesst14Paths, split: str) -> set[str]:
    """Every document of the evaluation, of every language.

    Raises:
        InputError: the list is missing or is not such an XML file.
    """
    return _xml_names(section, split, "ecf")


def files(section: Quesst14Paths) -> CorpusFiles:
    """Audio by list, the lists and the ground truth.

    Raises:
        InputError: a list or a file of the ground truth is missing, a list has no English file or
            a line of another form.
    """
    audio = {}
    for name in EXPECTED:
        audio[name] = tuple(
            CorpusFile(key=path.relative_to(section.root).as_posix(), path=path)
            for path in sorted(_listed(section, name).values())
        )
        if not audio[name]:
            raise InputError(f"{_list_file(section, name)} lists no file of {LANGUAGE}.")
    text = [_list_file(section, name) for name in EXPECTED]
    for split in SPLITS:
        text += [_truth_file(section, split, kind) for kind in ("rttm", "tlist", "ecf")]
    return CorpusFiles(
        audio=audio,
        text=tuple(
            CorpusFile(key=path.relative_to(section.root).as_posix(), path=path)
            for path in sorted(text)
        ),
        sample_rate=_sample_rate(audio[DOCUMENTS][0].path),
    )


def _look(section: Quesst14Paths, found: Inspection) -> Iterable[str]:
    problems = found.problems
    listed: dict[str, dict[str, Path]] = {}

    def read(name: str) -> dict[str, Path]:
        existing_folder(section.root, "quesst14Database, which holds Audio and scoring")
        return _listed(section, name)

    for name, of_list in found.each_split(read):
        listed[name] = of_list
        source = _list_file(section, name)
        seconds = sum(_seconds(source, path, problems) for path in of_list.values())
        if not of_list:
            problems.add(f"split {name}", f"{source} lists no file of {LANGUAGE}.")
        found.add_split(name, utterances=len(of_list), speakers=None, seconds=seconds)
    notes = []
    for split in SPLITS:
        try:
            held = occurrences(section, split)
            every = evaluated_documents(section, split)
        except InputError as error:
            problems.add(f"ground truth {split}", str(error))
            continue
        _check_coverage(section, split, listed.get(split, {}), held, problems)
        _check_coverage(section, split, listed.get(DOCUMENTS, {}), every, problems)
        notes.append(
            f"{split}: {sum(map(bool, held.values())):,} of {len(held):,} queries of all "
            f"languages occur in {len(every):,} documents"
        )
    return notes


def _known(split: str) -> str:
    if split not in SPLITS:
        raise InputError(f"QUESST 2014 has no split {split!r}: it has {', '.join(SPLITS)}.")
    return split


def _list_file(section: Quesst14Paths, name: str) -> Path:
    return section.root / "scoring" / f"language_key_{name}.lst"


def _listed(section: Quesst14Paths, name: str) -> dict[str, Path]:
    source = _list_file(section, name)
    found = {}
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        fields = line.split()
        if len(fields) != 2 or "/" not in fields[0]:
            raise InputError(f"{source}, line {number}: {line!r} should be '{_LINE_FORM}'.")
        path = section.root / fields[0].partition("/")[2]
        if fields[1] == LANGUAGE:
            found[path.stem] = path
    return found


def _truth_file(section: Quesst14Paths, split: str, kind: str) -> Path:
    """The one file of a kind in the ground truth of a split."""
    folder = section.root / "scoring" / f"groundtruth_quesst14_{_known(split)}"
    existing_folder(folder, f"the ground truth of {split}: an rttm, a tlist.xml and an ecf.xml")
    ending = "*.rttm" if kind == "rttm" else f"*.{kind}.xml"
    found = visible(folder, ending)
    if len(found) != 1:
        raise InputError(
            f"{folder} has {len(found)} files {ending}: it should have one, the ground truth of "
            f"{split}."
        )
    return found[0]


def _xml_names(section: Quesst14Paths, split: str, kind: str) -> set[str]:
    """Queries of a tlist (NIST STD 2006), or documents of an ecf."""
    source = _truth_file(section, split, kind)
    element, attribute = {"tlist": ("term", "termid"), "ecf": ("excerpt", "audio_filename")}[kind]
    try:
        names = [e.get(attribute) for e in ElementTree.fromstring(read_text(source)).iter(element)]
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{source} is not XML: {error}.") from None
    if not names or None in names:
        raise InputError(f'{source} should have elements <{element} {attribute}="…">.')
    return {Path(name).stem if kind == "ecf" else name for name in names if name}


def _sample_rate(path: Path) -> int:
    """The rate of a corpus, told by one of its files; 16 kHz if that cannot be read."""
    try:
        rate = int(soundfile.info(path).samplerate)
    except (OSError, soundfile.LibsndfileError):
        return SAMPLE_RATE
    return rate if rate in SAMPLE_RATES else SAMPLE_RATE


def _seconds(source: Path, path: Path, problems: Problems) -> float:
    if not path.is_file():
        problems.add("absent file", f"{source} lists {path}, which is not there.")
        return 0.0
    rate = _sample_rate(path)
    try:
        return read_header(path, rate).samples / rate
    except InputError as error:
        problems.add("audio", str(error))
        return 0.0


def _check_coverage(
    section: Quesst14Paths,
    split: str,
    listed: Mapping[str, Path],
    truth: Mapping[str, set[str]] | set[str],
    problems: Problems,
) -> None:
    for name, path in listed.items():
        if name not in truth:
            problems.add(
                f"outside the ground truth of {split}",
                f"{path} is not in the ground truth of {split}, "
                f"{section.root / 'scoring' / f'groundtruth_quesst14_{split}'}; it should be.",
            )


CORPUS = CorpusLayout(
    name="quesst14",
    title="QUESST 2014 (QbE)",
    expected=EXPECTED,
    files=files,
    look=_look,
    published=PUBLISHED,
)
