"""``superbit list`` and ``superbit status``: what there is, what is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.checkpoints import CHECKPOINT, LABEL, run_folders
from superbit.benchmark.configs import resolve, total_steps
from superbit.benchmark.results import ResultStore
from superbit.benchmark.tasks import TASKS
from superbit.upstreams import registry

if TYPE_CHECKING:
    from superbit.upstreams.quantization.policy import Rule


def list_command(what: str) -> int:
    """Print the ``"upstreams"``, the ``"tasks"`` or the ``"policies"`` there are; return 0."""
    print({"upstreams": upstreams, "tasks": tasks, "policies": policies}[what]())
    return 0


def status_command(results: Path) -> int:
    """Print :func:`status`; return 0."""
    print(status(results))
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


def status(results: Path) -> str:
    """What a results folder holds: done and failed records, runs with a checkpoint only."""
    store = ResultStore(results)
    records = store.read_all()
    rows = [
        {
            "task": _with_fold(record.identity.task, record.identity.fold),
            "upstream": record.identity.upstream,
            "scale": record.scale + (" (limited)" if record.limited else ""),
            "lr": f"{record.identity.learning_rate:g}" if record.identity.learning_rate else "",
            "seed": str(record.identity.seed),
            "status": record.status,
            "": record.reason or f"{record.value:.{TASKS[record.identity.task].decimals}f}",
            "key": record.key[:12],
        }
        for record in records
    ]
    recorded = {record.key[:16] for record in records}
    unfinished = [
        (path.parent / LABEL).read_text(encoding="utf-8").strip()
        for path in sorted(run_folders(results).glob(f"*/{CHECKPOINT}"))
        if path.parent.name not in recorded and (path.parent / LABEL).exists()
    ]
    lines = [_aligned(rows)] if rows else [f"{results} holds no results."]
    if unfinished:
        lines.append(f"With a checkpoint to continue from: {', '.join(unfinished)}")
    return "\n".join(lines)


def _with_fold(task: str, fold: int | None) -> str:
    return task if fold is None else f"{task} fold {fold}"


def _aligned(rows: list[dict[str, str]]) -> str:
    """Rows as text columns under their keys."""
    keys = list(rows[0])
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in keys}
    table = [dict(zip(keys, keys, strict=True)), *rows]
    return "\n".join(
        "  ".join(row[key].ljust(widths[key]) for key in keys).rstrip() for row in table
    )
