"""Which runs were made on the same corpora, and what to call these.

A run names one corpus by its hash; a row of a table has up to nine of them. A set holds at most one
hash of each corpus, so that what stands in one column of a set was measured on the same files. Runs
stand in the same set where their corpora have the same name: that of the paths file, or a
synthesized corpus' recipe. Corpora without a name, or with one name and other contents, are told
apart by their hashes.

This module imports neither torch nor s3prl.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from superbit.benchmark.records.schema import Corpus, RunRecord

_LAST = "~"  # after every date
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class CorpusSet:
    """Corpora of which each has one content.

    Attributes:
        scale: of the runs on them.
        kind: ``real`` or ``synthesized``.
        hashes: of their manifests.
        label: what to call them; empty where nothing tells them from others and none is needed.
        must_show: a user named them, or there are others of that scale and kind.
    """

    scale: str
    kind: str
    hashes: frozenset[str]
    label: str
    must_show: bool


@dataclass(frozen=True, kw_only=True)
class CorpusSets:
    """All sets, in the order of their first runs within each scale and kind."""

    sets: tuple[CorpusSet, ...]

    def index(self, record: RunRecord) -> int:
        """Return the place of a record's set; -1 where its corpus is not known."""
        corpus = record.corpus
        for place, each in enumerate(self.sets):
            if (
                corpus
                and corpus.sha256 in each.hashes
                and _place(record) == (each.scale, each.kind)
            ):
                return place
        return -1

    def of(self, record: RunRecord) -> CorpusSet | None:
        """Return a record's set."""
        place = self.index(record)
        return None if place < 0 else self.sets[place]


@dataclass(frozen=True, kw_only=True)
class _KnownCorpus:
    # a corpus as its records know it
    corpus: Corpus
    first: str
    label: str | None

    @property
    def name(self) -> str:
        return self.label or self.corpus.version or ""


def corpus_sets(records: Iterable[RunRecord]) -> CorpusSets:
    """Return the sets that these records' corpora make; the records' order does not matter."""
    places: dict[tuple[str, str], dict[str, list[RunRecord]]] = {}
    for record in records:
        if record.corpus is not None:
            of_place = places.setdefault(_place(record), {})
            of_place.setdefault(record.corpus.sha256, []).append(record)
    sets: list[CorpusSet] = []
    for (scale, kind), by_hash in sorted(places.items(), key=lambda item: _rank(*item[0])):
        known = sorted(map(_known, by_hash.values()), key=lambda k: (k.first, k.corpus.sha256))
        sets += _sets(scale, kind, known)
    return CorpusSets(sets=tuple(sets))


def _rank(scale: str, kind: str) -> tuple[int, int]:
    return ("superb", "embedded").index(scale), ("real", "synthesized").index(kind)


def _place(record: RunRecord) -> tuple[str, str]:
    return record.scale, record.corpus.kind if record.corpus else ""


def _known(records: Sequence[RunRecord]) -> _KnownCorpus:
    # a corpus may be named later than it was first used: the last name counts for all its runs
    by_date = sorted(records, key=lambda r: (r.provenance.started or _LAST, r.key))
    labels = [r.corpus.label for r in by_date if r.corpus and r.corpus.label]
    first = by_date[0]
    assert first.corpus is not None
    return _KnownCorpus(
        corpus=first.corpus,
        first=first.provenance.started or _LAST,
        label=labels[-1] if labels else None,
    )


def _sets(scale: str, kind: str, known: Sequence[_KnownCorpus]) -> list[CorpusSet]:
    # corpora of one name, then again those of that name with other contents, and so on
    blocks: dict[tuple[str, int], list[_KnownCorpus]] = {}
    for each in known:
        version = 0
        while _has(blocks.get((each.name, version), ()), each):
            version += 1
        blocks.setdefault((each.name, version), []).append(each)
    # what shares no corpus may share a row
    joined: list[list[list[_KnownCorpus]]] = []
    for block in blocks.values():
        for several in joined:
            if not any(_has(other, each) for other in several for each in block):
                several.append(block)
                break
        else:
            joined.append([block])
    names = [name for name, _ in blocks]
    return [
        CorpusSet(
            scale=scale,
            kind=kind,
            hashes=frozenset(each.corpus.sha256 for block in several for each in block),
            label=_label(several, joined, names),
            must_show=len(joined) > 1 or any(each.label for block in several for each in block),
        )
        for several in joined
    ]


def _has(block: Iterable[_KnownCorpus], wanted: _KnownCorpus) -> bool:
    return any(each.corpus.name == wanted.corpus.name for each in block)


def _label(
    several: Sequence[Sequence[_KnownCorpus]],
    joined: Sequence[Sequence[Sequence[_KnownCorpus]]],
    names: Sequence[str],
) -> str:
    elsewhere = [each for other in joined if other is not several for b in other for each in b]
    parts = []
    for block in several:
        name = block[0].name
        apart = ", ".join(
            f"{each.corpus.name} {each.corpus.sha256[:_DIGITS]}"
            for each in block
            if _has(elsewhere, each)
        )
        if name and names.count(name) > 1 and apart:
            parts.append(f"{name} ({apart})")
        elif name and len(several) > 1:
            parts.append(f"{name} ({', '.join(each.corpus.name for each in block)})")
        elif name or apart:
            parts.append(name or apart)
    return ", ".join(parts)
