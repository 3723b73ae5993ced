"""What a folder of results holds: a line a run, or of many a matrix of upstreams and tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from superbit.benchmark.records.naming import upstreams_in_order
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.rendering import aligned
from superbit.benchmark.scoring.chance import MARK, all_at_chance, at_chance, levels
from superbit.benchmark.tables.corpus_sets import CorpusSets, corpus_sets
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.spec import typed

# Records of which each has a line; of more, a matrix says what there is.
LONG_LIST = 40
_MOST_FAILURES = 20


def status_lines(records: Sequence[RunRecord], *, every: bool = False) -> list[str]:
    """Return lines that say which runs are done and which failed.

    Of more than `LONG_LIST` records it is a matrix of upstreams and tasks with counts, and what
    failed and why; with ``every`` a line for each record, however many.
    """
    # what a file's name cannot tell: which of several corpora
    sets = corpus_sets(records)
    if every or len(records) <= LONG_LIST:
        return [*_list(records, sets), *_chance_note(records)]
    return [*_matrix(records, sets), *_chance_note(records), *_failures(records)]


def _list(records: Sequence[RunRecord], sets: CorpusSets) -> list[str]:
    rows = [
        {
            "task": _with_fold(record),
            "upstream": typed(record.identity.upstream),
            "scale": _scale(record),
            "corpora": _corpora(record, sets),
            "lr": f"{record.identity.learning_rate:g}" if record.identity.learning_rate else "",
            "seed": str(record.identity.seed),
            "status": record.status,
            "": record.reason or _value(record),
            "key": record.key[:12],
        }
        for record in records
    ]
    if not any(row["corpora"] for row in rows):
        rows = [{k: v for k, v in row.items() if k != "corpora"} for row in rows]
    return [aligned(rows)]


def _value(record: RunRecord) -> str:
    value = f"{record.value:.{TASKS[record.identity.task].decimals}f}"
    return f"{value} {MARK}" if at_chance(record) else value


def _scale(record: RunRecord) -> str:
    return record.scale + (" (limited)" if record.limited else "")


def _corpora(record: RunRecord, sets: CorpusSets) -> str:
    found = sets.of(record)
    return found.label if found and found.must_show else ""


def _matrix(records: Sequence[RunRecord], sets: CorpusSets) -> list[str]:
    """Rows: upstreams, at each scale and on each set of corpora; columns: tasks."""
    cells: dict[tuple[str, str, str], dict[str, list[RunRecord]]] = {}
    order = upstreams_in_order(records)
    for record in sorted(records, key=lambda r: order.index(r.identity.upstream)):
        row = (typed(record.identity.upstream), _scale(record), _corpora(record, sets))
        cells.setdefault(row, {}).setdefault(record.identity.task, []).append(record)
    tasks = [name for name in TASKS if any(name in of_row for of_row in cells.values())]
    rows = [
        {
            "upstream": upstream,
            "scale": scale,
            "corpora": corpora,
            **{name: _cell(of_row.get(name, ())) for name in tasks},
        }
        for (upstream, scale, corpora), of_row in cells.items()
    ]
    if not any(row["corpora"] for row in rows):
        rows = [{k: v for k, v in row.items() if k != "corpora"} for row in rows]
    done = sum(record.status == "done" for record in records)
    total = f"{done:,} done" + (f", {len(records) - done:,} failed" if done < len(records) else "")
    return [
        aligned(rows),
        f"{len(records):,} records: {total}. A cell: done, and failed behind a plus sign; a fold, "
        "a seed and a learning rate is a record each. superbit status --all lists them.",
    ]


def _cell(records: Sequence[RunRecord]) -> str:
    if not records:
        return ""
    done = [record for record in records if record.status == "done"]
    failed = len(records) - len(done)
    mark = f" {MARK}" if all_at_chance(done) else ""
    return f"{len(done)}" + (f"+{failed} failed" if failed else "") + mark


def _chance_note(records: Sequence[RunRecord]) -> Iterator[str]:
    marked = [record for record in records if at_chance(record)]
    if marked:
        yield f"{MARK}: not better than an answer without listening reaches: {levels(marked)}."


def _failures(records: Sequence[RunRecord]) -> Iterator[str]:
    """What failed, runs that failed alike in one line."""
    alike: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        if record.status == "failed":
            identity = record.identity
            place = (identity.task, typed(identity.upstream), record.reason or "")
            alike.setdefault(place, []).append(record)
    for number, ((task, upstream, reason), failed) in enumerate(alike.items()):
        if number == _MOST_FAILURES:
            yield f"… and {len(alike) - number} more such lines: superbit status --all."
            return
        count = f" ({len(failed)} runs)" if len(failed) > 1 else f" ({failed[0].key[:12]})"
        yield f"failed: {task} × {upstream}{count}: {reason}"


def _with_fold(record: RunRecord) -> str:
    task, fold = record.identity.task, record.identity.fold
    return task if fold is None else f"{task} fold {fold}"
