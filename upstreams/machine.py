"""The machine that this process runs on, and the code that it runs."""

import multiprocessing
import os
import platform
import re
import subprocess
import threading
from pathlib import Path

_FLAGS = re.compile(r"(flags|Features)\s*:")  # of x86 and of ARM
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str | None:
    """Return the processor's model, or its architecture; None where neither is known."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or None


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; False where that is not known.

    Without them torch's bfloat16 on a CPU is several times slower than float32.
    """
    listing = Path("/proc/cpuinfo")
    if not listing.exists():
        return False
    text = listing.read_text(errors="replace")
    flags = [line.partition(":")[2].split() for line in text.splitlines() if _FLAGS.match(line)]
    return bool(flags) and all(_BFLOAT16 & set(each) for each in flags)


def end_with_parent() -> None:
    """Let this worker process end as soon as the process that started it has ended.

    A pool's workers learn of a killed parent only when they ask it for more work, hours later.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def git_state(file: Path) -> tuple[str | None, bool | None]:
    """Return commit and dirty flag of the checkout that tracks ``file``, or (None, None).

    A package installed into an environment inside somebody's checkout is not tracked there, so
    that checkout's commit is not taken for ours.
    """
    # variables that git sets for hooks would point at another repository
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(file.parent), *words],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
