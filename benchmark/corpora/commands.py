"""``superbit corpus make``, ``check`` and ``prepare``."""

from __future__ import annotations

import os
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from superbit.benchmark.corpora import catalog
from superbit.benchmark.corpora.embedded.make import make_corpora
from superbit.benchmark.corpora.embedded.pretraining_speech import make_pretraining_speech
from superbit.benchmark.corpora.layout import CorpusReport
from superbit.benchmark.corpora.manifest import CorpusManifest, build_manifest
from superbit.benchmark.corpora.paths import CorpusPaths, load_paths
from superbit.benchmark.progress import Reporter
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import require_writable


def make_command(out: str | os.PathLike[str], size: str, seed: int) -> int:
    """Synthesize the embedded corpora into ``out``, with progress; say where they are; return 0.

    Raises:
        InputError: as :func:`make_corpora`.
    """
    start = time.monotonic()
    with Reporter().counting(f"synthesizing speech, size {size}") as on_progress:
        paths_file = make_corpora(Path(out), size=size, seed=seed, on_progress=on_progress)
    seconds = time.monotonic() - start
    _console().print(f"Embedded corpora, size {size}, seed {seed}: {Path(out)} ({seconds:.0f} s)")
    _console().print(f"Paths file: {paths_file}")
    return 0


def speech_command(
    out: str | os.PathLike[str],
    apart_from: str | os.PathLike[str],
    hours: float,
    speakers: int,
    seed: int,
    jobs: int,
) -> int:
    """Synthesize speech for pre-training into ``out``, with progress, and return 0.

    Raises:
        InputError: as :func:`make_pretraining_speech`.
    """
    with Reporter().counting(f"synthesizing {hours:g} hours of speech") as on_progress:
        folder = make_pretraining_speech(
            Path(out),
            apart_from=Path(apart_from),
            hours=hours,
            speakers=speakers,
            seed=seed,
            jobs=jobs,
            on_progress=on_progress,
        )
    _console().print(f"Speech for pre-training with train.tsv and valid.tsv: {folder}")
    return 0


def check_command(paths_file: str | os.PathLike[str], work_dir: str | os.PathLike[str]) -> int:
    """Say what each corpus holds, beside SUPERB's counts, what is wrong, and its manifest hash.

    Returns:
        0: every corpus of the paths file can be used.

    Raises:
        InputError: one of them cannot; every corpus has been reported before.
    """
    paths = load_paths(paths_file)
    require_writable(Path(work_dir), option="--results")
    faults: list[str] = []
    for name in paths.present:
        faults += _check(name, paths, work_dir)[1]
    _end(paths_file, paths, faults)
    return 0


def prepare_command(paths_file: str | os.PathLike[str], work_dir: str | os.PathLike[str]) -> int:
    """Check each corpus as :func:`check_command` does, then write what runs derive from it.

    Of a corpus with a problem nothing is derived; the others are prepared. What is there already
    is used again.

    Args:
        work_dir: where runs look: ``work`` below their folder of results.

    Returns:
        0: every corpus of the paths file is ready.

    Raises:
        InputError: one of them is not; every corpus has been reported before.
    """
    paths = load_paths(paths_file)
    require_writable(Path(work_dir), option="--results")
    faults: list[str] = []
    for name in paths.present:
        report, found = _check(name, paths, work_dir)
        if not found:
            found = _prepare(report, paths, work_dir)
        if found:
            _console().print(f"{report.title}: not prepared, for the problems above.\n")
        faults += found
    _end(paths_file, paths, faults)
    return 0


def _check(
    name: str, paths: CorpusPaths, work_dir: str | os.PathLike[str]
) -> tuple[CorpusReport, list[str]]:
    """Report on a corpus; returns the report and what is wrong."""
    with Reporter().counting(f"checking {name}"):
        report = catalog.find(name).check(paths.section(name))
    _print_report(report)
    found = list(report.problems)
    if not found:
        try:
            with Reporter().counting(f"reading {report.title}") as on_progress:
                manifest = build_manifest(name, paths, work_dir=work_dir, on_progress=on_progress)
        except InputError as error:
            found.append(str(error))
        else:
            _print_manifest(manifest)
    if found:
        _print_faults(report, found)
    return report, found


def _prepare(
    report: CorpusReport, paths: CorpusPaths, work_dir: str | os.PathLike[str]
) -> list[str]:
    """Derive a corpus's files and say so in one line; returns what is wrong."""
    from superbit.benchmark.corpora.preparing import derive_files

    start = time.monotonic()
    reporter = Reporter()
    try:
        with (
            reporter.counting(f"deriving files of {report.title}") as on_progress,
            reporter.quiet(),
        ):
            derived = derive_files(report.corpus, paths, work_dir=work_dir, on_progress=on_progress)
    except InputError as error:
        _print_faults(report, [str(error)])
        return [str(error)]
    said = "; ".join(
        f"{files.what}, {files.items:,} {files.unit}, "
        f"{'written to' if files.is_new else 'reused from'} {files.path}"
        for files in derived
    )
    seconds = time.monotonic() - start
    _console().print(f"{report.title}: {said or 'needs no derived files'} ({seconds:.1f} s)\n")
    return []


def _end(paths_file: str | os.PathLike[str], paths: CorpusPaths, faults: list[str]) -> None:
    absent = [name for name in catalog.CORPORA if name not in paths.present]
    if absent:
        _console().print(f"Not in {paths_file}: {', '.join(absent)}.")
    if faults:
        count = f" ({len(faults)} problems in all, listed above.)" if len(faults) > 1 else ""
        raise InputError(faults[0] + count)


def _console() -> Console:
    # Paths must stay whole, so that they can be copied.
    return Console(soft_wrap=True, highlight=False, markup=False)


def _print_report(report: CorpusReport) -> None:
    table = Table(title=f"{report.title}: {report.root}", title_justify="left")
    table.add_column("split")
    for column in ("utterances", "SUPERB's", "speakers", "hours"):
        table.add_column(column, justify="right")
    for split in report.splits:
        table.add_row(
            split.name,
            f"{split.utterances:,}",
            f"{split.expected_utterances:,}",
            "" if split.speakers is None else f"{split.speakers:,}",
            f"{split.hours:.2f}",
        )
    console = _console()
    console.print(table)
    for note in report.notes:
        console.print(note)


def _print_manifest(manifest: CorpusManifest) -> None:
    made = f" ({manifest.recipe})" if manifest.recipe else ""
    console = _console()
    console.print(
        f"{manifest.kind}{made}: {manifest.files:,} files, {manifest.bytes / 1e6:,.1f} MB, "
        f"{manifest.seconds / 3600:.2f} hours, all of them decoded"
    )
    console.print(f"manifest sha256 {manifest.sha256}\n")


def _print_faults(report: CorpusReport, faults: list[str]) -> None:
    console = _console()
    for fault in faults:
        console.print(f"problem: {fault}")
    for what, where in report.published:
        console.print(f"published: {what}: {where}")
    console.print()
