"""What was given to a queue, kept in files of the folder of results: which job does which runs.

Any process that sees the folder knows by them what waits, runs and was begun again, whichever
process submitted it, on whichever node, and whether that one still lives.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.running.checkpoints import CHECKPOINT, run_folders
from superbit.benchmark.running.heartbeat import Beat, last_beat
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json, write_text
from superbit.upstreams.leases import this_host

# Heard of less long ago, a run on another node counts as running.
_SILENT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """One task of an array.

    Attributes:
        id: the queue's, e.g. ``1234_7``.
        what: ``features`` or ``run``.
        upstream: as typed.
        task: whose run it is; empty for features.
        label: for people.
        folders: names of the runs that it is about, in ``work/runs``.
        keys: of those runs' records.
    """

    id: str
    what: str
    upstream: str
    task: str
    label: str
    folders: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One command's jobs.

    Attributes:
        file: that it is kept in.
        launcher: ``slurm`` or ``local``.
        submitted: when, ISO 8601.
        cancelled: whether `superbit cancel` ended it.
    """

    file: Path
    launcher: str
    submitted: str
    jobs: tuple[SubmittedJob, ...]
    cancelled: bool = False


def submissions_folder(results: Path) -> Path:
    """Where submissions of a folder of results are kept, with the queue's scripts and logs."""
    return results / "work" / "submissions"


def new_submission(results: Path, launcher: str) -> Submission:
    """Return one without jobs, to be written with them."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%S}-{this_host()}-{os.getpid()}-{time.monotonic_ns() % 10**6:06d}.json"
    return Submission(
        file=submissions_folder(results) / name,
        launcher=launcher,
        submitted=now.isoformat(timespec="seconds"),
        jobs=(),
    )


def write(submission: Submission) -> None:
    """Write it whole, in place of what was known of it."""
    content = {name: part for name, part in asdict(submission).items() if name != "file"}
    submission.file.parent.mkdir(parents=True, exist_ok=True)
    write_text(submission.file, json.dumps(content, indent=1) + "\n")


def read_submissions(results: Path) -> list[Submission]:
    """Read all of a folder of results, the oldest first.

    Raises:
        InputError: one of the files is not what `write` writes.
    """
    return [_read(file) for file in sorted(submissions_folder(results).glob("*.json"))]


def _read(file: Path) -> Submission:
    found: Any = read_json(file, "a submission")
    try:
        jobs = [_job(**job) for job in found.pop("jobs")]
        return Submission(file=file, jobs=tuple(jobs), **found)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} is no submission of superbit's: {error}; delete it.") from error


def _job(*, folders: list[str], keys: list[str], **given: Any) -> SubmittedJob:
    return SubmittedJob(folders=tuple(folders), keys=tuple(keys), **given)


# --- where each job is ----------------------------------------------------------------------------

PENDING, RUNNING, AGAIN, DONE, FAILED, GONE = (
    *("pending", "running", "requeued", "done", "failed", "gone"),
)
STATES = (DONE, FAILED, RUNNING, AGAIN, PENDING, GONE)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a submitted run is.

    Attributes:
        state: one of `STATES`; ``gone``: the queue knows it no more, and it left no record.
        beat: the last that was heard of it.
    """

    job: SubmittedJob
    state: str
    beat: Beat | None = None


def standings(
    submissions: Sequence[Submission],
    *,
    results: Path,
    done: Collection[str],
    failed: Collection[str],
    queued: dict[str, str] | None,
    now: float,
) -> list[Standing]:
    """Return where each submitted run is, by its last submission.

    Args:
        done, failed: keys of records.
        queued: the queue's states by job; None where no queue can be asked.
    """
    last: dict[str, tuple[Submission, SubmittedJob]] = {}
    for submission in submissions:
        for job in submission.jobs:
            if job.what == "run":
                last[job.folders[0]] = submission, job
    found = []
    for submission, job in last.values():
        beat = last_beat(run_folders(results) / job.folders[0])
        state = _state(submission, job, beat, results, done, failed, queued, now)
        found.append(Standing(job=job, state=state, beat=beat))
    return found


def _state(
    submission: Submission,
    job: SubmittedJob,
    beat: Beat | None,
    results: Path,
    done: Collection[str],
    failed: Collection[str],
    queued: dict[str, str] | None,
    now: float,
) -> str:
    if all(key in done for key in job.keys):
        return DONE
    known = None if queued is None else queued.get(job.id)
    alive = beat is not None and not beat.is_over and now - beat.time < _SILENT_SECONDS
    if known == "RUNNING" or (queued is None and alive):
        return RUNNING
    if any(key in failed for key in job.keys) and known is None:
        return FAILED
    begun = (run_folders(results) / job.folders[0] / CHECKPOINT).exists()
    if known is not None or (queued is None and not submission.cancelled):
        return AGAIN if begun else PENDING
    return GONE


def submitted_lines(results: Path, records: Sequence[RunRecord]) -> list[str]:
    """Return what there is to say of what was submitted; nothing where nothing was."""
    from superbit.benchmark.sweeping.queues import squeue

    found = read_submissions(results)
    if not found:
        return []
    jobs = [job.id for submission in found for job in submission.jobs]
    lines, queued, now = [], None, time.time()
    if any(each.launcher == "slurm" for each in found) and shutil.which("squeue") is not None:
        try:
            queued = squeue(jobs)
        except InputError as error:
            lines = [f"by files alone, as {error}"]
    where = standings(
        found,
        results=results,
        done={record.key for record in records if record.status == "done" or record.diverged},
        failed={record.key for record in records if record.status == "failed"},
        queued=queued,
        now=now,
    )
    return [*lines, *standing_lines(where, now=now)]


def standing_lines(found: Sequence[Standing], *, now: float) -> Iterator[str]:
    """A matrix of upstreams and tasks, how many runs are where; a line for each that runs."""
    from superbit.benchmark.rendering import aligned
    from superbit.benchmark.tasks.catalog import TASKS

    cells: dict[str, dict[str, Counter[str]]] = {}
    for each in found:
        row = cells.setdefault(each.job.upstream, {})
        row.setdefault(each.job.task, Counter())[each.state] += 1
    tasks = [name for name in TASKS if any(name in row for row in cells.values())]
    yield aligned(
        [
            {"submitted": upstream, **{name: _cell(row.get(name, Counter())) for name in tasks}}
            for upstream, row in cells.items()
        ]
    )
    total = Counter(each.state for each in found)
    yield f"{len(found):,} submitted runs: {_cell(total)}."
    for each in found:
        if each.beat is not None and each.state in (RUNNING, AGAIN):
            yield f"  {each.state}: {each.job.label}: {_where(each, now)}"


def _where(standing: Standing, now: float) -> str:
    beat = standing.beat
    assert beat is not None
    text = f"step {beat.step:,} of {beat.steps:,}"
    if standing.state == AGAIN:
        return f"{text} when it was stopped; job {standing.job.id} waits to go on"
    text += f", {beat.what}; {beat.node or beat.host}, job {beat.job or standing.job.id}"
    if beat.until is not None:
        text += f", {_length(max(0.0, beat.until - now))} of its time left"
    return text


def _length(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _cell(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
