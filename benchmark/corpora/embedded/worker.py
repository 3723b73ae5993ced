"""One process that makes one corpus: ``python -m …worker CORPUS OUT SIZE SEED``.

A process of its own, because espeak-ng's output depends on the process's history. Prints a line
after each file, for the parent's progress.
"""

from __future__ import annotations

import hashlib
import sys
from importlib import import_module
from pathlib import Path


def main(corpus: str, out: str, size: str, seed: str) -> None:
    """Make one corpus; each corpus draws from a stream of its own."""
    own_seed = int.from_bytes(hashlib.sha256(f"{corpus} {seed}".encode()).digest()[:4], "big") >> 1
    maker = import_module(f"superbit.benchmark.corpora.embedded.{corpus}")
    maker.make(Path(out), size=size, seed=own_seed, on_item=lambda: print(".", flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
