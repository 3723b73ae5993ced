"""The options of ``superbit sweep`` that say where its runs are carried out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.upstreams.errors import InputError

if TYPE_CHECKING:
    from superbit.benchmark.sweeping.queues import SlurmOptions
    from superbit.benchmark.sweeping.submit import Given

LAUNCHERS = ("here", "processes", "slurm", "local", "debug")
QUEUES = LAUNCHERS[2:]
_OF_QUEUES = (
    *("slurm_partition", "slurm_account", "slurm_qos", "slurm_constraint"),
    *("slurm_array_parallelism", "slurm_setup", "slurm_option", "slurm_feature_tasks", "detach"),
)


def add_launcher(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        help="here: in this process; processes: --jobs of them, by default one a core or GPU; "
        "slurm: array jobs; local, debug: the tasks of those arrays on this machine, without Slurm",
    )
    queue = verb.add_argument_group("with --launcher slurm")
    for name in ("partition", "account", "qos", "constraint"):
        queue.add_argument(f"--slurm-{name}", metavar="NAME")
    queue.add_argument(
        "--slurm-array-parallelism", type=int, metavar="N", help="tasks of one array at a time"
    )
    queue.add_argument(
        "--slurm-setup",
        action="append",
        default=[],
        metavar="LINE",
        help="a shell line before each task, e.g. 'module load cuda'; may be repeated",
    )
    queue.add_argument(
        "--slurm-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a further option of sbatch, without its dashes; may be repeated",
    )
    queue.add_argument(
        "--slurm-feature-tasks",
        type=int,
        metavar="N",
        help="tasks for each upstream's features (default: so many that one takes four hours)",
    )
    queue.add_argument(
        "--detach", action="store_true", help="do not wait: superbit status shows how it goes"
    )


def check_launcher(arguments: argparse.Namespace) -> None:
    """Refuse options that have no effect with the others.

    Raises:
        InputError: the message names the option.
    """
    launcher = arguments.launcher
    if launcher not in QUEUES:
        for name in _OF_QUEUES:
            if getattr(arguments, name) not in (None, [], False):
                raise InputError(f"--{_dashed(name)} has no effect without --launcher slurm.")
    for name in ("slurm_array_parallelism", "slurm_feature_tasks"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{_dashed(name)}: {value} must be at least 1.")
    if launcher in ("local", "debug") and arguments.detach:
        raise InputError(f"--detach: --launcher {launcher} begins its tasks itself; leave it out.")
    if launcher not in (None, "processes") and arguments.jobs not in (None, 1):
        raise InputError(f"--jobs has no effect with --launcher {launcher}: leave one of them out.")
    if launcher in QUEUES:
        for name in ("only", "features_only", "max_hours"):
            if getattr(arguments, name) is not None:
                raise InputError(
                    f"--{_dashed(name)} has no effect with --launcher {launcher}: leave one out."
                )
    slurm_options(arguments)


def jobs_of(arguments: argparse.Namespace) -> int:
    """Return how many runs are carried out at a time on this machine."""
    if arguments.jobs is not None:
        return arguments.jobs
    if arguments.launcher != "processes":
        return 1
    from superbit.benchmark.sweeping.processes import slots

    return slots(arguments.device)


def slurm_options(arguments: argparse.Namespace) -> SlurmOptions:
    """Return what the user says to Slurm.

    Raises:
        InputError: an option of sbatch is not written as KEY=VALUE.
    """
    from superbit.benchmark.sweeping.queues import SlurmOptions

    options = {}
    for text in arguments.slurm_option:
        name, equals, value = text.partition("=")
        if not name.strip("-") or not equals:
            raise InputError(f"--slurm-option: {text!r} must be KEY=VALUE, e.g. nice=100.")
        options[name.strip("-")] = value
    return SlurmOptions(
        partition=arguments.slurm_partition,
        account=arguments.slurm_account,
        qos=arguments.slurm_qos,
        constraint=arguments.slurm_constraint,
        parallelism=arguments.slurm_array_parallelism,
        setup=tuple(arguments.slurm_setup),
        options=options,
    )


def given_to_tasks(arguments: argparse.Namespace) -> Given:
    """Return what each task of an array is told: this command's options, with whole paths."""
    from superbit.benchmark.sweeping.submit import Given
    from superbit.upstreams.trusting import OPTION, is_trusted

    options = ["--scale", arguments.scale]
    for name in ("paths", "results", "overrides", "cache_dir"):
        if (path := getattr(arguments, name)) is not None:
            options += [f"--{_dashed(name)}", str(path.expanduser().absolute())]
    for name in ("lr", "limit", "device", "checkpoint_minutes", "cache_budget", "cache_precision"):
        if (value := getattr(arguments, name)) is not None:
            options += [f"--{_dashed(name)}", str(value)]
    if arguments.run_timeout is not None:
        options += ["--run-timeout", f"{arguments.run_timeout:g}s"]
    for name in ("no_cache", "cache_any_upstream"):
        if getattr(arguments, name):
            options.append(f"--{_dashed(name)}")
    if is_trusted():
        options.append(OPTION)
    return Given(
        options=tuple(options),
        on_gpu=arguments.device is None or arguments.device.startswith("cuda"),
        shares=arguments.slurm_feature_tasks,
    )


def _dashed(name: str) -> str:
    return name.replace("_", "-")
