"""A Slurm of two nodes on this machine: begun, told what to do, ended.

Debian's slurmd can be several on one host. Needs root, and the packages slurmctld, slurmd,
slurm-client and munge, which `begin` installs where apt-get is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
NODES = ("n1", "n2")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Slurm that runs.

    Attributes:
        folder: of its configuration, state and logs.
        environment: in which its commands find it.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command of Slurm's; return what it prints."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def queue(self) -> dict[str, tuple[str, str]]:
        """Return state and node of each job."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%N").splitlines()
        return {job: (state, node) for job, state, node in (line.split("|") for line in lines)}

    def begin_node(self, name: str) -> None:
        """Start one node's daemon."""
        self.run("slurmd", "-N", name)

    def kill_node(self, name: str) -> None:
        """Kill one node's daemon, and what runs on it stays."""
        pid = int((self.folder / f"run/slurmd.{name}.pid").read_text())
        os.kill(pid, 9)


def is_possible() -> bool:
    """Whether Slurm is installed here, or can be."""
    there = all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged", "sbatch"))
    return os.geteuid() == 0 and (there or shutil.which("apt-get") is not None)


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Run a cluster of two nodes with two cores each until the block ends."""
    if not all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged", "sbatch")):
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
        subprocess.run(install, check=True, capture_output=True)
    for name in ("run", "spool", "state", "log"):
        (folder / name).mkdir(parents=True)
    text = (Path(__file__).parent / "slurm.conf.in").read_text().replace("@DIR@", str(folder))
    (folder / "slurm.conf").write_text(text)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    cluster = Cluster(folder=folder, environment=environment)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    try:
        cluster.run(
            "munged",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/run/munge.sock",
            f"--pid-file={folder}/run/munged.pid",
            f"--log-file={folder}/log/munged.log",
            f"--seed-file={folder}/run/munged.seed",
        )
        cluster.run("slurmctld", "-c")
        for node in NODES:
            cluster.begin_node(node)
        until = time.monotonic() + 60
        while cluster.run("sinfo", "--noheader", "--format=%t", "--partition=main") != "idle\n":
            if time.monotonic() > until:
                raise TimeoutError(f"the nodes are not idle: {cluster.run('sinfo')}")
            time.sleep(0.5)
        yield cluster
    finally:
        cluster.run("scontrol", "shutdown", check=False)
        time.sleep(2)
        for file in (folder / "run").glob("*.pid"):
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), 9)
