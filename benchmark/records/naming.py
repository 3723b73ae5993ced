"""What tables call upstreams, and in which order these stand.

An upstream is called as people type it (``bq_x``, not ``x+policy=w1a1``), or by a label that the
user gives it. Rows stand in the order in which they were asked for: that of ``--upstreams`` where
it is given, else that of the sweeps that made the runs.

This module imports neither torch nor s3prl.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from superbit.benchmark.records.schema import RunRecord
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.spec import UpstreamSpec, typed

_LAST = "~"  # after every date


@dataclass(frozen=True, kw_only=True)
class UpstreamNames:
    """What to call upstreams, by their canonical specs."""

    labels: Mapping[str, str] = field(default_factory=dict)

    def of(self, upstream: str) -> str:
        """Return the label of an upstream, else its spec as people type it."""
        return self.labels.get(upstream) or typed(upstream)


def read_labels(given: Sequence[str], known: Iterable[str]) -> UpstreamNames:
    """Return what ``--label NAME=SPEC``, repeated, says.

    Args:
        given: each option's text.
        known: canonical specs of the upstreams that there are.

    Raises:
        InputError: a text that is not NAME=SPEC, an upstream that is not there, one that is named
            twice, or a name that two upstreams would have.
    """
    there = list(dict.fromkeys(known))
    labels: dict[str, str] = {}
    for text in given:
        name, equals, spec = (part.strip() for part in text.partition("="))
        if not equals or not name or not spec:
            raise InputError(f"--label {text!r}: write NAME=SPEC, e.g. mine=path/hubconf.py:model.")
        upstream = find_upstream(spec, there, option="--label")
        if upstream in labels:
            raise InputError(f"--label: {spec!r} has two labels: give it one.")
        labels[upstream] = " ".join(name.split())
    names = UpstreamNames(labels=labels)
    called: dict[str, str] = {}
    for upstream in there:
        name = names.of(upstream)
        if name in called and labels:
            raise InputError(
                f"--label: {called[name]!r} and {upstream!r} would both be called {name!r}: give "
                "each its own."
            )
        called[name] = upstream
    return names


def find_upstream(text: str, known: Sequence[str], *, option: str) -> str:
    """Return the canonical spec among ``known`` that ``text`` means.

    Raises:
        InputError: none of them.
    """
    spec = UpstreamSpec.parse(text)
    for canonical in (str(spec), str(spec.normalized())):
        if found := match_upstream(canonical, known):
            return found
    there = list(map(typed, known))
    hint = did_you_mean(text, there)
    raise InputError(
        f"{option}: {text!r} is none of the upstreams there, which are "
        f"{', '.join(there) or 'none at all'}.{hint}"
    )


def match_upstream(upstream: str, known: Sequence[str], *, by_path_only: bool = True) -> str | None:
    """Return the one of ``known`` that is this upstream, or is but for ``+untrained``.

    That somebody else's upstream is untrained is found only when it is built, while of superbit's
    own names ``x`` and ``x+untrained`` are two upstreams.

    Args:
        by_path_only: take ``x+untrained`` for ``x`` only where ``x`` is a path.
    """
    if upstream in known:
        return upstream
    if by_path_only and ".py:" not in upstream:
        return None
    alike = [each for each in known if _as_trained(each) == _as_trained(upstream)]
    return alike[0] if len(alike) == 1 else None


def _as_trained(upstream: str) -> UpstreamSpec:
    return replace(UpstreamSpec.parse(upstream), untrained=False)


def upstreams_in_order(records: Sequence[RunRecord]) -> list[str]:
    """Return the records' upstreams: the earliest sweep first, each as its command names them."""
    began: dict[tuple[str, ...], str] = {}
    for record in records:
        command = tuple(record.provenance.command or ())
        started = record.provenance.started or _LAST
        began[command] = min(began.get(command, _LAST), started)
    asked_by = {command: _asked(command) for command in began}
    places: dict[str, tuple[str, int, str]] = {}
    for record in records:
        upstream = record.identity.upstream
        command = tuple(record.provenance.command or ())
        asked = asked_by[command]
        named = match_upstream(upstream, asked, by_path_only=False)
        place = len(asked) if named is None else asked.index(named)
        started = record.provenance.started or _LAST
        rank = (began[command], place, started)
        places[upstream] = min(places.get(upstream, rank), rank)
    return sorted(places, key=lambda upstream: (places[upstream], upstream))


def _asked(command: Sequence[str]) -> list[str]:
    """The upstreams that a sweep's command names, by their canonical specs."""
    texts: list[str] = []
    for word, following in pairwise([*command, ""]):
        if word == "--upstreams":
            texts += following.split(",")
        elif word.startswith("--upstreams="):
            texts += word.partition("=")[2].split(",")
    found = []
    for text in texts:
        try:
            found.append(str(UpstreamSpec.parse(text).normalized()))
        except InputError:
            continue
    return found
