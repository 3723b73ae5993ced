"""The sentences under Table 2: units, marks, seeds, searches, what was left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from superbit.benchmark.records.choose import SeedRuns, setting_of
from superbit.benchmark.records.naming import UpstreamNames
from superbit.benchmark.records.rate_search import SearchOutcome
from superbit.benchmark.records.schema import RateSearch, RunRecord
from superbit.benchmark.scoring.chance import MARK, levels
from superbit.benchmark.tables.corpus_sets import CorpusSets
from superbit.benchmark.tables.table2_rendering import CHOSEN_ON_TEST, Row
from superbit.benchmark.tasks.catalog import TASKS


def on_columns(rows: Sequence[Row]) -> list[str]:
    """What the figures are, and whose."""
    by_metric: dict[str, list[str]] = {}
    for task in TASKS.values():
        unit = {"%": "in %", "x100": "times 100"}.get(task.unit, "as a fraction")
        by_metric.setdefault(f"{task.metric_words} {unit}", []).append(task.name)
    metrics = "; ".join(f"{', '.join(names)}: {metric}" for metric, names in by_metric.items())
    notes = [f"{metrics}. ↑: higher is better; ↓: lower is better."]
    if any(row.scale is None for row in rows):
        notes.append(
            "paper: figures printed in the paper; reported: which it takes from its reference "
            "[14]; own setup: which it measured itself. Superbit measured neither."
        )
    return notes


def on_rows(rows: Sequence[Row], sets: CorpusSets) -> Iterable[str]:
    """What intervals and marks of measured rows mean, and on which corpora they are."""
    records = [cell.record for row in rows for cell in row.cells.values() if cell.record]
    levels = sorted({100 * r.interval.level for r in records if r.interval})
    if levels:
        level = " or ".join(f"{each:g} %" for each in levels)
        yield f"[low, high]: {level} confidence interval over the test items."
    embedded = {row.group for row in rows if row.scale == "embedded"}
    if embedded:
        among = "among embedded rows" if len(embedded) == 1 else "among rows on the same corpora"
        yield (
            f"embedded: few training steps on small corpora; comparable {among}, "
            "not with the paper's figures nor with any run of the full benchmark."
        )
    if len({row.group for row in rows}) > 1:
        yield (
            "Rows on different corpora stand apart, and their source says which; figures of one "
            "such group do not compare with another's."
        )
    labels = dict.fromkeys(e.label for e in sets.sets if e.label and not e.must_show)
    if labels:
        yield f"Corpora: {'; '.join(labels)}."
    if any(row.untrained for row in rows):
        yield "untrained: random weights; says that the pipeline runs, not how good the encoder is."
    if any(row.synthesized for row in rows):
        yield "synthesized: the corpora were spoken by a speech synthesizer, not by people."
    if any(r.selection and r.selection.selected_on == "test" for r in records):
        yield f"Marked {CHOSEN_ON_TEST}: chosen on the test set (SUPERB does so for ASV and SD)."


def on_baselines(rows: Sequence[Row]) -> Iterable[str]:
    """Where filter banks are at chance by how they are made, not by what they hold."""
    measured = {
        name: {
            t.name
            for r in rows
            if r.upstream == name
            for t in TASKS.values()
            if t.column in r.cells
        }
        for name in ("fbank", "fbank_no_cmvn")
    }
    averaging = [t.name for t in TASKS.values() if t.audio.head_may_average]
    hit = [name for name in averaging if name in measured["fbank"]]
    if hit:
        yield (
            "fbank: normalized to mean 0 over each utterance (CMVN), so that a mean over time is 0 "
            f"whatever was said: at chance on {', '.join(hit)} by construction; fbank_no_cmvn is "
            "the same without, SUPERB's zero point of these tasks."
        )
    embedded = any(r.upstream == "fbank_no_cmvn" and r.scale == "embedded" for r in rows)
    recurrent = [t.name for t in TASKS.values() if t.recurrent]
    hit = [name for name in recurrent if embedded and name in measured["fbank_no_cmvn"]]
    if hit:
        yield (
            f"fbank_no_cmvn on {', '.join(hit)}: within the embedded scale's few steps, the "
            "recurrent heads of these tasks learn nothing from unnormalized filter banks."
        )


def on_small_scale(rows: Sequence[Row]) -> Iterable[str]:
    """Which columns say nothing about encoders at the small scale, and why."""
    columns = {column for row in rows if row.scale == "embedded" for column in row.cells}
    for task in TASKS.values():
        if task.tells_nothing_apart and task.column in columns:
            yield (
                f"{task.name} does not discriminate at the embedded scale: "
                f"{task.tells_nothing_apart}."
            )


def on_chance(rows: Sequence[Row]) -> Iterable[str]:
    """What the mark of chance means, how high chance is there, and where it is not known."""
    cells = [cell for row in rows for cell in row.cells.values() if cell.record]
    runs: dict[bool | None, list[RunRecord]] = {True: [], False: [], None: []}
    for cell in cells:
        if cell.record:
            runs[cell.at_chance] += cell.seeds.runs if cell.seeds else (cell.record,)
    if runs[True]:
        of_each = ", of a mean that of each of its seeds," if any(c.seeds for c in cells) else ""
        yield (
            f"{MARK}: not better than an answer without listening: the interval{of_each} holds "
            f"what such an answer reaches, or is worse: {levels(runs[True])}."
        )
    unknown = {run.identity.task for run in runs[None]}
    if unknown:
        yield (
            f"{', '.join(name for name in TASKS if name in unknown)}: not known whether better "
            "than chance, which these records do not hold."
        )


def on_parents(rows: Sequence[Row]) -> Iterable[str]:
    """What stands in brackets behind a twin's figure."""
    cells = [cell for row in rows for cell in row.cells.values()]
    if any(cell.paired for cell in cells):
        yield (
            "(difference): from the FP32 parent, on the same test items, speakers and seeds "
            "resampled. ▲: better; ▼: worse; ≈: not told apart (p, corrected by Holm over the "
            "twin's tasks, is not below 0.05). superbit compare has intervals."
        )


def on_settings(runs: Sequence[RunRecord], sets: CorpusSets) -> Iterable[str]:
    """Where figures of one column and one group of rows were not made alike, and how."""
    columns: dict[tuple[int, str], list[RunRecord]] = {}
    for run in runs:
        columns.setdefault((sets.index(run), run.identity.task), []).append(run)
    by_difference: dict[str, list[str]] = {}
    for (_, task), of_column in columns.items():
        settings = [setting_of(run.identity) for run in of_column]
        names = dict.fromkeys(name for each in settings for name in each)
        apart = [n for n in names if len({json.dumps(each.get(n)) for each in settings}) > 1]
        values = [
            f"{name} " + " or ".join(dict.fromkeys(json.dumps(each.get(name)) for each in settings))
            for name in apart
        ]
        if values:
            by_difference.setdefault("; ".join(values), []).append(task)
    for difference, tasks in by_difference.items():
        yield f"{', '.join(dict.fromkeys(tasks))}: rows differ in {difference}: not comparable."


def on_runs(runs: Sequence[RunRecord], *, searched: frozenset[str], picked: bool) -> Iterable[str]:
    """Of each task: test items, learning rates and where they are from, rule of selection.

    Args:
        searched: keys, without the rate, of the runs whose rate a search chose.
        picked: conditions chose among rates.
    """
    for name in TASKS:
        of_task = [r for r in runs if r.identity.task == name]
        if not of_task:
            continue
        counts = sorted({_count(r) for r in of_task if r.items})
        rules = sorted({r.selection.rule for r in of_task if r.selection})
        parts = [f"{' or '.join(counts)} test items"] if counts else []
        parts += [f"{_selected(name)}{' or '.join(rules)}"] if rules else []
        trained = [r for r in of_task if r.identity.learning_rate]
        sought = [r for r in trained if r.identity.key_without_rate in searched]
        given = [r for r in trained if r.identity.key_without_rate not in searched]
        parts += [f"learning rate {_rates(sought)}, searched"] if sought else []
        how = "picked by --where" if picked else "given, not searched"
        parts += [f"learning rate {_rates(given)}, {how}"] if given else []
        if parts:
            yield f"{name}, measured: {'; '.join(parts)}."


def _selected(task: str) -> str:
    """What the rule of selection is about, which is never the learning rate."""
    return "" if TASKS[task].rates is None else "checkpoint: "


def _rates(runs: Sequence[RunRecord]) -> str:
    rates = sorted({r.identity.learning_rate for r in runs if r.identity.learning_rate})
    return " or ".join(f"{rate:g}" for rate in rates)


def on_seeds(
    seeds: Mapping[str, SeedRuns], runs: Sequence[RunRecord], names: UpstreamNames
) -> Iterable[str]:
    """Which seeds a mean is of, and the cells that have others."""
    if not seeds:
        return
    counts = Counter(each.numbers for each in seeds.values())
    usual = max(counts, key=lambda numbers: counts[numbers])
    yield (
        f"±: standard deviation over {len(usual)} seeds of the head "
        f"({', '.join(map(str, usual))}), beside their mean."
    )
    for run in runs:
        numbers = seeds[run.key].numbers if run.key in seeds else (run.identity.seed,)
        if numbers != usual and run.identity.learning_rate is not None:
            yield (
                f"{run.identity.task} of {names.of(run.identity.upstream)}: "
                f"seed {', '.join(map(str, numbers))} only."
            )


def on_searches(found: Sequence[SearchOutcome], runs: Sequence[RunRecord]) -> Iterable[str]:
    """One sentence for all searches of a task that tried the same rates."""
    shown = {run.identity.key_without_rate for run in runs}
    of_task: dict[str, list[RateSearch]] = {}
    for each in found:
        if each.identity.key in shown:
            of_task.setdefault(each.identity.task, []).append(each.search)
    for task, searches in sorted(of_task.items(), key=lambda item: list(TASKS).index(item[0])):
        rates = sorted({tried.learning_rate for each in searches for tried in each.tried})
        yield (
            f"{task}: learning rate chosen among {', '.join(f'{rate:g}' for rate in rates)}: "
            f"{searches[0].rule}."
        )


def _count(record: RunRecord) -> str:
    items = record.items
    if items is None:
        return ""
    whole = items.expected in (None, items.count)
    return f"{items.count}" if whole else f"{items.count} of {items.expected}"


def on_absent(records: Sequence[RunRecord], measured: Sequence[Row]) -> Iterable[str]:
    """What was left out, and whether anything is there."""
    failed = sum(r.status == "failed" for r in records)
    limited = sum(r.status == "done" and r.limited for r in records)
    absent = [f"{failed} failed"] if failed else []
    absent += [f"{limited} limited"] if limited else []
    if absent:
        yield f"Left out: {' and '.join(absent)} (see superbit status)."
    if not measured:
        yield "No measured rows: superbit sweep makes them."
