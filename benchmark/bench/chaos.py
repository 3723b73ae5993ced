"""What becomes of sweeps that are killed again and again: records, and what is left behind.

    python -m superbit.benchmark.bench.chaos [--kills N] [--only NAME,…] [--corpora DIR] [--seed N]

Each way of carrying a sweep out is killed (SIGKILL, all of its processes) at random moments, and
given again, until it has ended; then its records must be those of a sweep that nobody disturbed,
records that were there before a kill must be the same files, and no run's folder and no half
written file may be left. Appends a JSON line for each to results/bench/chaos.jsonl and prints a
table. The exit status is 1 where one of them failed. A full disk needs root, to mount a small one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.rendering import aligned
from superbit.upstreams.files import PARTIAL
from superbit.upstreams.machine import cpu_model

RESULTS = Path(__file__).parents[2] / "results/bench/chaos.jsonl"
OVERRIDES = """
KS:
  runner: {total_steps: 300, eval_step: 150, save_step: 10, log_step: 10}
  learning_rates: [1.0e-1, 1.0e-2, 1.0e-3]
PR:
  runner: {total_steps: 60, eval_step: 30, save_step: 5, log_step: 5}
  learning_rates: [1.0e-2, 1.0e-3]
"""
# A machine whose file system has no flock, for every process that Python starts with it.
NO_FLOCK = "import superbit.upstreams.leases as l\nl.flock_holds = lambda folder: False\n"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of carrying the same sweep out.

    Attributes:
        options: further ones of the sweep.
        at_once: sweeps over one folder at a time.
        flock: whether locks of the file system hold.
        full: whether the disk is full at first.
    """

    name: str
    options: tuple[str, ...] = ()
    at_once: int = 1
    flock: bool = True
    full: bool = False


SEARCH, SEEDS = ("--lr", "search"), ("--seed", "1,2,3")
WAYS = (
    Way(name="plain"),
    Way(name="processes", options=("--launcher", "processes", "--jobs", "2")),
    Way(name="search", options=SEARCH),
    Way(name="seeds", options=SEEDS),
    Way(name="local queue", options=("--launcher", "local")),
    Way(name="two at once", options=SEEDS, at_once=2),
    Way(name="three at once", options=SEEDS, at_once=3),
    Way(name="two at once without flock", options=SEEDS, at_once=2, flock=False),
    Way(name="full disk", full=True),
)


class Chaos:
    """The sweep, its undisturbed records by options, and a source of random moments."""

    def __init__(self, folder: Path, paths: Path, *, seed: int) -> None:
        self._folder, self._paths = folder, paths
        self._random = random.Random(seed)
        self._straight: dict[tuple[str, ...], tuple[dict[str, Any], float]] = {}
        (folder / "overrides.yaml").write_text(OVERRIDES)
        (folder / "no_flock").mkdir()
        (folder / "no_flock/sitecustomize.py").write_text(NO_FLOCK)

    def _begin(self, results: Path, way: Way) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if not way.flock:
            environment["PYTHONPATH"] = str(self._folder / "no_flock")
        command = [
            *(sys.executable, "-m", "superbit", "sweep", "--upstreams", "fbank,vanilla_nano"),
            *("--tasks", "KS,PR", "--scale", "embedded", "--device", "cpu"),
            *("--overrides", str(self._folder / "overrides.yaml"), "--paths", str(self._paths)),
            *("--results", str(results), *way.options),
        ]
        with (self._folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def _undisturbed(self, way: Way) -> tuple[dict[str, Any], float]:
        """Return what records say of a sweep with these options, and its seconds."""
        options = way.options if way.options in (SEARCH, SEEDS) else ()
        if options not in self._straight:
            results, began = self._folder / f"straight-{len(self._straight)}", time.monotonic()
            if self._begin(results, Way(name="straight", options=options)).wait():
                raise RuntimeError(f"the undisturbed sweep failed: {self._folder / 'log.txt'}")
            self._straight[options] = content(results), time.monotonic() - began
        return self._straight[options]

    def kill_and_go_on(self, way: Way, *, kills: int) -> dict[str, Any]:
        """Return what became of sweeps that are killed so many times, one folder after another."""
        rounds: list[dict[str, Any]] = []
        while not rounds or sum(one["kills"] for one in rounds) < kills:
            rounds.append(self._until_it_ends(way, number=len(rounds)))
        counts = ("kills", "runs", "same", "more", "made_again")
        return {
            "way": way.name,
            "sweeps": len(rounds),
            **{name: sum(one[name] for one in rounds) for name in counts},
            "left_over": [path for one in rounds for path in one["left_over"]],
            "status": max(one["status"] for one in rounds),
            "status_on_full_disk": rounds[0]["status_on_full_disk"],
        }

    def _until_it_ends(self, way: Way, *, number: int) -> dict[str, Any]:
        straight, seconds = self._undisturbed(way)
        name = way.name.replace(" ", "-").replace(",", "")
        results = self._folder / f"{name}-{number}"
        killed = made_again = 0
        on_full_disk = None
        before: dict[Path, int] = {}
        ended = False
        with small_disk(results) if way.full else here(results) as fill:
            if way.full:
                fill()
                on_full_disk = self._begin(results, way).wait()
                fill(False)
            while not ended:
                running = [self._begin(results, way) for _ in range(way.at_once)]
                until = time.monotonic() + self._random.uniform(1.0, max(4.0, 0.8 * seconds))
                if way.full:
                    until += 3600
                while time.monotonic() < until and any(p.poll() is None for p in running):
                    time.sleep(0.05)
                alive = [process for process in running if process.poll() is None]
                for process in alive:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                statuses = [process.wait() for process in running]
                killed, ended = killed + bool(alive), not alive
                now = done_files(results)
                made_again += sum(now.get(file) != stamp for file, stamp in before.items())
                before = now
            found, left = content(results), left_over(results)
        return {
            "kills": killed,
            "runs": len(straight),
            "same": sum(found.get(key) == record for key, record in straight.items()),
            "more": len(found.keys() - straight.keys()),
            "made_again": made_again,
            "left_over": left,
            "status": max(statuses),
            "status_on_full_disk": on_full_disk,
        }


def content(results: Path) -> dict[str, Any]:
    """Return what the records of a folder say, by their keys: the numbers and the items."""
    store = ResultStore(results)
    return {
        record.key: (record.status, record.value, record.metrics, store.read_items(record))
        for record in store.read_all()
    }


def done_files(results: Path) -> dict[Path, int]:
    """Return when the records of done runs were written."""
    store = ResultStore(results)
    paths = [store.path(r.identity) for r in store.read_all() if r.status == "done"]
    return {path: path.stat().st_mtime_ns for path in paths}


def left_over(results: Path) -> list[str]:
    """Return what a sweep that has ended should not have left: folders of runs, partial files."""
    runs = (results / "work/runs").glob("*")
    partial = (file for file in results.rglob("*") if PARTIAL in file.name)
    return sorted(str(path.relative_to(results)) for path in [*runs, *partial])


@contextmanager
def here(results: Path) -> Iterator[Any]:
    """The folder as it is."""
    results.mkdir()
    yield None


@contextmanager
def small_disk(results: Path) -> Iterator[Any]:
    """A disk of 160 MB in memory; yields what fills it, and frees it again."""
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160M", "tmpfs", str(results)], check=True)

    def fill(full: bool = True) -> None:
        ballast = results / "ballast"
        if not full:
            ballast.unlink()
            return
        with ballast.open("wb") as file, suppress(OSError):
            for _ in range(154):  # what is left does not hold the features
                file.write(bytes(2**20))

    try:
        yield fill
    finally:
        subprocess.run(["umount", str(results)], check=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="over all ways (default: 50)")
    parser.add_argument("--only", default="", help="names of ways, commas between")
    parser.add_argument("--corpora", type=Path, help="of size tiny; made if need be")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(argv)
    names = [name.strip() for name in asked.only.split(",") if name.strip()]
    ways = [way for way in WAYS if not names or way.name in names]
    killed = [way for way in ways if not way.full]
    rows = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        corpora = asked.corpora or folder / "corpora"
        command = [sys.executable, "-m", "superbit", "corpus", "make", "--size", "tiny"]
        if not (corpora / "paths.yaml").exists():
            subprocess.run([*command, "--out", str(corpora)], check=True, stderr=subprocess.DEVNULL)
        chaos = Chaos(folder, corpora / "paths.yaml", seed=asked.seed)
        for number, way in enumerate(ways):
            if way.full and os.geteuid():
                print(f"{way.name}: left out, as mounting a small disk needs root")
                continue
            kills = -(-(asked.kills - number) // max(1, len(killed))) if not way.full else 0
            began = time.monotonic()
            row = chaos.kill_and_go_on(way, kills=kills)
            rows.append(row)
            print(f"{way.name}: {time.monotonic() - began:.0f} s, {verdict(row)}", flush=True)
            with asked.out.open("a") as file:
                line = {"date": f"{datetime.date.today()}", "cpu": cpu_model(), **row}
                file.write(json.dumps({**line, "python": platform.python_version()}) + "\n")
        if any(verdict(row) != "held" for row in rows):
            print((folder / "log.txt").read_text()[-4000:])
    columns = ("way", "sweeps", "kills", "runs", "same", "made_again")
    print(aligned([{**{c: str(row[c]) for c in columns}, "": verdict(row)} for row in rows]))
    return 0 if all(verdict(row) == "held" for row in rows) else 1


def verdict(row: dict[str, Any]) -> str:
    """Say whether all of it held, or what did not."""
    problems = []
    if row["same"] < row["runs"] or row["more"]:
        problems.append(f"{row['runs'] - row['same']} records differ, {row['more']} are more")
    if row["made_again"]:
        problems.append(f"{row['made_again']} done records were written again")
    if row["left_over"]:
        problems.append(f"left over: {', '.join(row['left_over'][:3])}")
    if row["status"]:
        problems.append(f"the last sweep ended with status {row['status']}")
    if row["status_on_full_disk"] == 0:
        problems.append("on a full disk it ended with status 0")
    return "; ".join(problems) or "held"


if __name__ == "__main__":
    sys.exit(main())
