"""The sentences under Table 2: units, marks, seeds, searches, what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from superbit.benchmark.rate_search import Found, without_rate
from superbit.benchmark.records import RunRecord, Search
from superbit.benchmark.seeds import Seeds
from superbit.benchmark.table_formats import CHOSEN_ON_TEST, Row
from superbit.benchmark.tasks import TASKS

_METRIC_WORDS = {"acc": "accuracy", "slot_type_f1": "slot-type F1"}


def on_columns(rows: Sequence[Row]) -> list[str]:
    """What the figures are, and whose."""
    by_metric: dict[str, list[str]] = {}
    for task in TASKS.values():
        unit = {"%": "in %", "x100": "times 100"}.get(task.unit, "as a fraction")
        metric = _METRIC_WORDS.get(task.metric, task.metric.upper())
        by_metric.setdefault(f"{metric} {unit}", []).append(task.name)
    metrics = "; ".join(f"{', '.join(names)}: {metric}" for metric, names in by_metric.items())
    notes = [f"{metrics}. ↑: higher is better; ↓: lower is better."]
    if any(row.scale is None for row in rows):
        notes.append(
            "reported: figures the paper takes from its reference [14]; our setup: figures the "
            "paper measured. Superbit measured neither."
        )
    return notes


def on_rows(rows: Sequence[Row]) -> Iterable[str]:
    """What intervals and marks of measured rows mean."""
    records = [cell.record for row in rows for cell in row.cells.values() if cell.record]
    levels = sorted({100 * r.interval.level for r in records if r.interval})
    if levels:
        level = " or ".join(f"{each:g} %" for each in levels)
        yield f"[low, high]: {level} confidence interval over the test items."
    if any(row.scale == "embedded" for row in rows):
        yield (
            "embedded: few training steps on small corpora; comparable among embedded rows, "
            "not with the paper's figures nor with any run of the full benchmark."
        )
    if any(row.untrained for row in rows):
        yield "untrained: random weights; says that the pipeline runs, not how good the encoder is."
    if any(row.synthesized for row in rows):
        yield "synthesized: the corpora were spoken by a speech synthesizer, not by people."
    if any(r.selection and r.selection.selected_on == "test" for r in records):
        yield f"Marked {CHOSEN_ON_TEST}: chosen on the test set (SUPERB does so for ASV and SD)."


def on_runs(runs: Sequence[RunRecord]) -> Iterable[str]:
    """Of each task: test items, learning rates, rule of selection."""
    for name in TASKS:
        of_task = [r for r in runs if r.identity.task == name]
        if not of_task:
            continue
        counts = sorted({_count(r) for r in of_task if r.items})
        rates = sorted({r.identity.learning_rate for r in of_task if r.identity.learning_rate})
        rules = sorted({r.selection.rule for r in of_task if r.selection})
        parts = [f"{' or '.join(counts)} test items"] if counts else []
        parts += [f"learning rate {' or '.join(f'{rate:g}' for rate in rates)}"] if rates else []
        parts += [" or ".join(rules)] if rules else []
        if parts:
            yield f"{name}, measured: {'; '.join(parts)}."


def on_seeds(seeds: Mapping[str, Seeds], runs: Sequence[RunRecord]) -> Iterable[str]:
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
                f"{run.identity.task} of {run.identity.upstream}: "
                f"seed {', '.join(map(str, numbers))} only."
            )


def on_searches(found: Sequence[Found], runs: Sequence[RunRecord]) -> Iterable[str]:
    """One sentence for all searches of a task that tried the same rates."""
    shown = {without_rate(run.identity).key for run in runs}
    of_task: dict[str, list[Search]] = {}
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
