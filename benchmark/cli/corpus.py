"""``superbit corpus``: make embedded corpora, check and prepare real ones."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_group, add_results

if TYPE_CHECKING:
    from rich.console import Console

    from superbit.benchmark.cli.options import Verbs
    from superbit.benchmark.corpora.layout import CorpusReport
    from superbit.benchmark.corpora.manifest import CorpusManifest
    from superbit.benchmark.corpora.paths import CorpusPaths


def add(verbs: Verbs) -> None:
    corpus_verbs = add_group(
        verbs, "corpus", help="make embedded corpora, check and prepare real ones"
    )

    verb = corpus_verbs.add_parser("make", help="synthesize corpora in the real layouts")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument("--size", choices=["tiny", "demo"], default="demo")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(verb=run_make)

    verb = corpus_verbs.add_parser(
        "speech", help="synthesize speech for pre-training, of other voices"
    )
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument("--hours", type=float, default=1.0)
    verb.add_argument("--speakers", type=int, default=120, metavar="N")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--jobs", type=int, default=1, metavar="N")
    verb.set_defaults(verb=run_speech)

    for name, run, text in (
        ("check", run_check, "what is there, against SUPERB's counts"),
        ("prepare", run_prepare, "check, then write what runs derive from the corpora"),
    ):
        verb = corpus_verbs.add_parser(name, help=text)
        verb.add_argument("--paths", type=Path, required=True, metavar="FILE")
        add_results(verb)
        verb.set_defaults(verb=run)


def run_make(arguments: argparse.Namespace) -> int:
    """Synthesize the embedded corpora, with progress, and say where they are."""
    from superbit.benchmark.corpora.embedded.make import make_corpora
    from superbit.benchmark.progress import Reporter

    out, size, seed = arguments.out, arguments.size, arguments.seed
    start = time.monotonic()
    with Reporter().counting(f"synthesizing speech, size {size}") as on_progress:
        paths_file = make_corpora(out, size=size, seed=seed, on_progress=on_progress)
    seconds = time.monotonic() - start
    _console().print(f"Embedded corpora, size {size}, seed {seed}: {out} ({seconds:.0f} s)")
    _console().print(f"Paths file: {paths_file}")
    return 0


def run_speech(arguments: argparse.Namespace) -> int:
    """Synthesize speech for pre-training, with progress, and say where it is."""
    from superbit.benchmark.corpora.embedded.pretraining_speech import make_pretraining_speech
    from superbit.benchmark.progress import Reporter

    with Reporter().counting(f"synthesizing {arguments.hours:g} hours of speech") as on_progress:
        folder = make_pretraining_speech(
            arguments.out,
            hours=arguments.hours,
            speakers=arguments.speakers,
            seed=arguments.seed,
            jobs=arguments.jobs,
            on_progress=on_progress,
        )
    _console().print(f"Speech for pre-training with train.tsv and valid.tsv: {folder}")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Say what each corpus holds, beside SUPERB's counts, what is wrong, and its manifest hash.

    Raises:
        InputError: one of them cannot be used; every corpus has been reported before.
    """
    paths, work_dir = _paths_and_work_dir(arguments)
    faults: list[str] = []
    for name in paths.present:
        faults += _check(name, paths, work_dir)[1]
    _end(arguments.paths, paths, faults)
    return 0


def run_prepare(arguments: argparse.Namespace) -> int:
    """Check each corpus as :func:`run_check` does, then write what runs derive from it.

    Of a corpus with a problem nothing is derived; the others are prepared. What is there already
    is used again.

    Raises:
        InputError: one of them is not ready; every corpus has been reported before.
    """
    paths, work_dir = _paths_and_work_dir(arguments)
    faults: list[str] = []
    for name in paths.present:
        report, found = _check(name, paths, work_dir)
        if not found:
            found = _prepare(report, paths, work_dir)
        if found:
            _console().print(f"{report.title}: not prepared, for the problems above.\n")
        faults += found
    _end(arguments.paths, paths, faults)
    return 0


def _paths_and_work_dir(arguments: argparse.Namespace) -> tuple[CorpusPaths, Path]:
    """The paths file, read, and the folder where runs look for what is derived."""
    # no corpus can be read without it: said before anything is said of the corpora
    import soundfile  # noqa: F401

    from superbit.benchmark.corpora.paths import load_paths
    from superbit.upstreams.files import require_writable

    paths, work_dir = load_paths(arguments.paths), arguments.results / "work"
    require_writable(work_dir, option="--results")
    return paths, work_dir


def _check(name: str, paths: CorpusPaths, work_dir: Path) -> tuple[CorpusReport, list[str]]:
    """Report on a corpus; returns the report and what is wrong."""
    from superbit.benchmark.corpora import catalog
    from superbit.benchmark.corpora.manifest import build_manifest
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.errors import InputError

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


def _prepare(report: CorpusReport, paths: CorpusPaths, work_dir: Path) -> list[str]:
    """Derive a corpus's files and say so in one line; returns what is wrong."""
    from superbit.benchmark.corpora.preparing import derive_files
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.errors import InputError

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


def _end(paths_file: Path, paths: CorpusPaths, faults: list[str]) -> None:
    """Name the corpora that the file does not have, and raise the first fault."""
    from superbit.benchmark.corpora import catalog
    from superbit.upstreams.errors import InputError

    absent = [name for name in catalog.CORPORA if name not in paths.present]
    if absent:
        _console().print(f"Not in {paths_file}: {', '.join(absent)}.")
    if faults:
        count = f" ({len(faults)} problems in all, listed above.)" if len(faults) > 1 else ""
        raise InputError(faults[0] + count)


def _console() -> Console:
    from rich.console import Console

    # Paths must stay whole, so that they can be copied.
    return Console(soft_wrap=True, highlight=False, markup=False)


def _print_report(report: CorpusReport) -> None:
    from rich.table import Table

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
