"""``superbit list`` and ``superbit status``: what there is, what is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running.checkpoints import CHECKPOINT, LABEL, run_folders
from superbit.benchmark.scoring.chance import (
    MARK,
    WORDS,
    all_at_chance,
    at_chance,
    levels,
    with_chance,
)
from superbit.benchmark.tables.corpus_sets import CorpusSets, corpus_sets
from superbit.benchmark.tables.naming import in_order
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve, total_steps
from superbit.upstreams import registry
from superbit.upstreams.spec import typed

# Records of which each has a line; of more, a matrix says what there is.
LONG_LIST = 40
_MOST_FAILURES = 20

if TYPE_CHECKING:
    from superbit.upstreams.quantization.policy import Rule


def list_command(what: str) -> int:
    """Print the ``"upstreams"``, the ``"tasks"`` or the ``"policies"`` there are; return 0."""
    print({"upstreams": upstreams, "tasks": tasks, "policies": policies}[what]())
    return 0


def status_command(results: Path, all: bool = False) -> int:
    """Print :func:`status`; return 0.

    Raises:
        InputError: a folder that is not there, or a file that is not a record.
    """
    print(status(results, every=all))
    return 0


def upstreams() -> str:
    """Every upstream but s3prl's own, one a line."""
    rows = [
        {"upstream": entry.name, "from": entry.origin, "": entry.summary}
        for entry in registry.entries()
    ]
    return (
        f"{_aligned(rows)}\n\nEvery name of s3prl's hub works as well (fbank, hubert, wavlm, …), "
        "and path/to/hubconf.py:function."
    )


def tasks() -> str:
    """The ten tasks with corpus, protocol, metric, direction and steps, one a line."""
    rows = []
    for task in TASKS.values():
        config = resolve(task.name, scale="superb")
        trains = "optimizer" in config
        rows.append(
            {
                "task": task.name,
                "": task.title,
                "corpus": task.corpus,
                "metric": f"{task.metric} {task.arrow} ({task.unit})",
                "protocol": task.protocol,
                "chance": WORDS[task.chance],
                "steps": f"{total_steps(config):,}" if trains else "no training",
                "lr": f"{config['optimizer']['lr']:g}" if trains else "",
            }
        )
    return _aligned(rows)


def policies() -> str:
    """Each binarization policy with its bits and what it is for, then what becomes of what."""
    from superbit.upstreams.encoder_kinds import ROLES
    from superbit.upstreams.quantization.policy import load_policy, policy_names

    rows = []
    treated: dict[tuple[tuple[str, str], ...], list[str]] = {}  # policies that differ in bits alone
    for policy in map(load_policy, policy_names()):
        weights = {rule.weight.bits for rule in policy.rules if rule.weight}
        others = {
            how.bits for rule in policy.rules for how in (rule.input, rule.left, rule.right) if how
        }
        rows.append(
            {
                "policy": policy.name,
                "weights": ", ".join(f"{bits} bit" for bits in sorted(weights)),
                "activations": ", ".join(f"{bits} bit" for bits in sorted(others)),
                "": policy.summary,
            }
        )
        sets = tuple((rule.role or ", ".join(rule.modules), _sets(rule)) for rule in policy.rules)
        treated.setdefault(sets, []).append(policy.name)
    lines = [_aligned(rows)]
    for sets, alike in treated.items():
        parts = [{"role": role, "becomes": how, "": ROLES.get(role, "")} for role, how in sets]
        lines.append(f"{', '.join(alike)}:\n{_aligned(parts)}")
    lines.append(
        "± is the set {-1, +1}, + is {0, 1}, or their ranges of more bits; shifted: a learned "
        "shift a channel.\nA path that ends in .yaml works as well, in every spec and in distil "
        "--policy: vanilla_nano+policy=PATH.yaml."
    )
    return "\n\n".join(lines)


def _sets(rule: Rule) -> str:
    """What becomes of a role's tensors, without the bits."""
    if rule.replace is not None:
        return rule.replace
    said = []
    for key in ("weight", "input", "left", "right"):
        how = getattr(rule, key)
        if how is not None:
            sign = "±" if how.set == "signed" else "+"
            marks = (" shifted" if how.shift else "") + (" per channel" if how.per_channel else "")
            said.append(f"{key} {sign}{marks}")
    return ", ".join(said)


def status(results: Path, *, every: bool = False) -> str:
    """What a results folder holds: done and failed records, runs with a checkpoint only.

    Of more than `LONG_LIST` records it is a matrix of upstreams and tasks with counts, and what
    failed and why; with ``every`` a line for each record, however many.
    """
    store = ResultStore(results)
    store.require_folder()
    records = with_chance(store.read_all(counting=Reporter().counting), store)
    # what a file's name cannot tell: which of several corpora
    sets = corpus_sets(records)
    if not records:
        lines = [f"{results} holds no results: superbit sweep makes them."]
    elif every or len(records) <= LONG_LIST:
        lines = [*_list(records, sets), *_chance_note(records)]
    else:
        lines = [*_matrix(records, sets), *_chance_note(records), *_failures(records)]
    recorded = {record.key[:16] for record in records}
    unfinished = [
        (path.parent / LABEL).read_text(encoding="utf-8").strip()
        for path in sorted(run_folders(results).glob(f"*/{CHECKPOINT}"))
        if path.parent.name not in recorded and (path.parent / LABEL).exists()
    ]
    if unfinished:
        lines.append(f"With a checkpoint to continue from: {', '.join(unfinished)}")
    return "\n".join(lines)


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
    return [_aligned(rows)]


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
    order = in_order(records)
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
        _aligned(rows),
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


def _aligned(rows: list[dict[str, str]]) -> str:
    """Rows as text columns under their keys."""
    keys = list(rows[0])
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in keys}
    table = [dict(zip(keys, keys, strict=True)), *rows]
    return "\n".join(
        "  ".join(row[key].ljust(widths[key]) for key in keys).rstrip() for row in table
    )
