"""From measured seconds to hours at SUPERB's scale: merging of lines, and the formula.

The formula, for one task and upstream, R runs (ER: five folds), E epochs, S steps, splits i
evaluated n_i times over N_i utterances:

    s3prl = R (E start + S step + Σ n_i (start_i + N_i utterance_i))
    ours  = hours of audio × extraction + the same with our seconds

QbE has no steps; there, for L layers, Q queries and D documents,

    s3prl = (L + 1) (start + (Q + D) utterance + Q D pair)
    ours  = hours of audio × extraction + 2 (start + (Q + D) utterance) + (L + 1) Q D pair

Our step has the upstream on random crops in it, as often as they are drawn. Building datasets and
heads, and SD's scoring over thresholds (which s3prl leaves to a script), are on neither side.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Line = dict[str, Any]

S3PRL, LIVE, STORED, FIVE = "s3prl", "live", "stored", "stored, five rates"
# Parts of our step; what is left of it is the head, with backward pass and optimizer.
PARTS = ("loading", "store", "upstream")
_PART_WORDS = {
    "extraction": "computing the features once",
    "loading": "loading data",
    "store": "reading the store",
    "upstream": "the upstream on random crops, drawn anew each time",
    "start": "the start of loaders, once an epoch",
    "head": "the head, its loss and its optimizer, which s3prl has to compute as well",
    "evaluation": "evaluations on stored features",
    "search": "the search by dynamic time warping",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How much of everything a task's number takes.

    Attributes:
        steps: optimizer steps of a run; ``epochs``: how often its loader starts.
        runs: that make one number.
        evaluations: split → (how often, utterances).
        stored_hours: of audio that is extracted.
        layers: of the upstream; QbE searches in each.
        queries: QbE: queries of a split; ``documents`` likewise.
    """

    steps: int
    epochs: float = 0.0
    runs: int = 1
    evaluations: dict[str, tuple[int, int]] = field(default_factory=dict)
    stored_hours: float
    layers: int = 0
    queries: int = 0
    documents: int = 0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Lines of one setting may be merged."""

    upstream: str
    machine: str
    threads: int
    torch: str

    @classmethod
    def of(cls, line: Line) -> Setting:
        """The setting of a line."""
        return cls(**{name: line[name] for name in ("upstream", "machine", "threads", "torch")})


@dataclass(kw_only=True)
class Measured:
    """One task on one upstream, all blocks merged: seconds.

    Attributes:
        steps: variant → an optimizer step; the median over blocks.
        epochs: variant → what the start of an epoch takes.
        spread: variant → (least, most) over blocks.
        blocks: variant → how many blocks of how many steps in all.
        parts: variant → part → its seconds in a step.
        starts: (variant, split) → what an evaluation takes besides its utterances.
        utterances: (variant, split) → an utterance of an evaluation.
        pairs: variant → one query in one document (QbE).
        extraction: for an hour of audio, with all threads at work; with the checksums that a run
            verifies once.
        layers: of the upstream.
        profile: hottest functions of our step.
        validations: lines of real runs, with what the formula predicts.
    """

    steps: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    blocks: dict[str, tuple[int, int]] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    starts: dict[tuple[str, str], float] = field(default_factory=dict)
    utterances: dict[tuple[str, str], float] = field(default_factory=dict)
    pairs: dict[str, float] = field(default_factory=dict)
    extraction: float | None = None
    layers: int = 0
    profile: list[str] = field(default_factory=list)
    validations: list[Line] = field(default_factory=list)


def merge(lines: Iterable[Line]) -> dict[Setting, dict[str, Measured]]:
    """Bring the lines of each setting and task together: medians over blocks."""
    groups: dict[tuple[Setting, str], list[Line]] = defaultdict(list)
    for line in lines:
        groups[Setting.of(line), line["task"]].append(line)
    merged: dict[Setting, dict[str, Measured]] = {}
    for (setting, task), of_task in groups.items():
        merged.setdefault(setting, {})[task] = _merged(of_task)
    return merged


def _merged(lines: Sequence[Line]) -> Measured:
    found = Measured()
    kinds: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        kinds[line["kind"]].append(line)
    for variant, blocks in _grouped(kinds["steps"], lambda line: line["variant"]):
        seconds = [block["seconds_a_step"] for block in blocks]
        found.steps[variant] = statistics.median(seconds)
        # The least: what a process does once, imports among them, is in the first block.
        found.epochs[variant] = min(block["start"] for block in blocks)
        found.spread[variant] = min(seconds), max(seconds)
        found.blocks[variant] = len(blocks), sum(block["steps"] for block in blocks)
        if all("parts" in block for block in blocks):
            found.parts[variant] = {
                part: statistics.median(block["parts"][part] for block in blocks) for part in PARTS
            }
    for where, each in _grouped(kinds["evaluation"], lambda line: (line["variant"], line["split"])):
        found.starts[where] = statistics.median(line["start"] for line in each)
        found.utterances[where] = statistics.median(line["seconds_an_utterance"] for line in each)
    for variant, each in _grouped(kinds["search"], lambda line: line["variant"]):
        found.pairs[variant] = statistics.median(line["seconds_a_pair"] for line in each)
    # Earlier lines verified checksums within their steps.
    rates = [
        line["seconds_an_hour"] + line.get("checking_an_hour", 0.0) for line in kinds["extraction"]
    ]
    if rates:
        found.extraction = statistics.median(rates)
        found.layers = kinds["extraction"][-1]["layers"]
    if kinds["profile"]:
        found.profile = kinds["profile"][-1]["hottest"]
    found.validations = kinds["validation"]
    return found


def _grouped(lines: Sequence[Line], key: Callable[[Line], Any]) -> Iterable[tuple[Any, list[Line]]]:
    groups: dict[Any, list[Line]] = defaultdict(list)
    for line in lines:
        groups[key(line)].append(line)
    return groups.items()


def cost_parts(measured: Measured, protocol: Protocol, variant: str) -> dict[str, float] | None:
    """Return the seconds of each part of a task's number; ``None`` where a figure is missing.

    Their sum is what the formula of this module gives.
    """
    try:
        parts = {"extraction": 0.0}
        if variant in (STORED, FIVE):
            if measured.extraction is None:
                return None
            parts["extraction"] = protocol.stored_hours * measured.extraction
        if protocol.queries:
            return parts | _search_parts(measured, protocol, variant)
        step, within = measured.steps[variant], measured.parts.get(variant, {})
        steps = protocol.runs * protocol.steps
        parts |= {part: steps * seconds for part, seconds in within.items()}
        parts["head"] = steps * (step - sum(within.values()))
        parts["start"] = protocol.runs * protocol.epochs * measured.epochs[variant]
        parts["evaluation"] = protocol.runs * sum(
            times * _evaluation(measured, variant, split, count)
            for split, (times, count) in protocol.evaluations.items()
        )
        return parts
    except KeyError:
        return None


def _evaluation(measured: Measured, variant: str, split: str, utterances: int) -> float:
    where = variant, split
    return measured.starts[where] + utterances * measured.utterances[where]


def _search_parts(measured: Measured, protocol: Protocol, variant: str) -> dict[str, float]:
    audio = _evaluation(measured, variant, "dev", protocol.queries + protocol.documents)
    passes = protocol.layers + 1
    pairs = passes * protocol.queries * protocol.documents
    return {
        # s3prl passes all audio through the upstream for each layer, and once more for the test.
        "evaluation": (passes if variant == S3PRL else 2) * audio,
        "search": pairs * measured.pairs[variant],
    }


def seconds(measured: Measured, protocol: Protocol, variant: str) -> float | None:
    """Return the seconds of a task's number by the formula; ``None`` where a figure is missing."""
    parts = cost_parts(measured, protocol, variant)
    return None if parts is None else sum(parts.values())


def reason(parts: dict[str, float]) -> str:
    """Name what most of the time goes into."""
    largest = max(parts, key=lambda part: parts[part])
    share = 100 * parts[largest] / sum(parts.values())
    return f"{share:.0f} % of our time is {_PART_WORDS[largest]}"
