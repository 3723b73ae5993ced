"""``superbit list``: upstreams, tasks, policies and kernels there are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs
    from superbit.upstreams.quantization.policy import Rule


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("list", help="upstreams, tasks, policies or kernels there are")
    verb.add_argument("what", choices=list(_LISTS))
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    print(_LISTS[arguments.what]())
    return 0


def _upstreams() -> str:
    """Every upstream but s3prl's own, one a line."""
    from superbit.benchmark.rendering import aligned
    from superbit.upstreams import registry

    rows = [
        {"upstream": entry.name, "from": entry.origin, "": entry.summary}
        for entry in registry.entries()
    ]
    return (
        f"{aligned(rows)}\n\nEvery name of s3prl's hub works as well (fbank, hubert, wavlm, …), "
        "and path/to/hubconf.py:function."
    )


def _tasks() -> str:
    """The ten tasks with corpus, protocol, metric, direction and steps, one a line."""
    from superbit.benchmark.rendering import aligned
    from superbit.benchmark.scoring.chance import WORDS
    from superbit.benchmark.tasks.catalog import TASKS
    from superbit.benchmark.tasks.configs import resolve, total_steps

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
    return aligned(rows)


def _policies() -> str:
    """Each binarization policy with its bits and what it is for, then what becomes of what."""
    from superbit.benchmark.rendering import aligned
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
        sets = tuple(
            (rule.role or ", ".join(rule.modules), _treatment(rule)) for rule in policy.rules
        )
        treated.setdefault(sets, []).append(policy.name)
    lines = [aligned(rows)]
    for sets, alike in treated.items():
        parts = [{"role": role, "becomes": how, "": ROLES.get(role, "")} for role, how in sets]
        lines.append(f"{', '.join(alike)}:\n{aligned(parts)}")
    lines.append(
        "± is the set {-1, +1}, + is {0, 1}, or their ranges of more bits; shifted: a learned "
        "shift a channel.\nA path that ends in .yaml works as well, in every spec and in distil "
        "--policy: vanilla_nano+policy=PATH.yaml."
    )
    return "\n\n".join(lines)


def _treatment(rule: Rule) -> str:
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


def _kernels() -> str:
    """Each way to compute twins by bits, whether this machine has it, and which one is taken."""
    from superbit.benchmark.rendering import aligned
    from superbit.upstreams.quantization.kernels import choose

    chosen = choose.chosen()
    rows = []
    for kernel in choose.KERNELS:
        width = kernel.width()
        rows.append(
            {
                "kernel": kernel.name,
                "vectors": "not here" if width is None else f"{8 * width} bits",
                "": kernel.summary,
            }
        )
    if chosen is not None:
        why = f"Twins are computed by {chosen.name}, the first of these that this machine has"
        if (name := choose.asked()) not in (None, choose.AUTO):
            why = f"Twins are computed by {chosen.name}: {choose.VARIABLE} is {name!r}"
    elif not choose.available():
        why = "Twins are simulated in floats: numba is not installed"
    else:
        why = f"Twins are simulated in floats: {choose.VARIABLE} is {choose.OFF!r}"
    return (
        f"{aligned(rows)}\n\n{why}. {choose.VARIABLE} chooses by hand: "
        f"{', '.join((choose.OFF, choose.AUTO, *(kernel.name for kernel in choose.KERNELS)))}. "
        "Hidden states are the same to the bit."
    )


_LISTS = {
    "upstreams": _upstreams,
    "tasks": _tasks,
    "policies": _policies,
    "kernels": _kernels,
}
