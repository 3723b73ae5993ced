"""``superbit pack``: a twin in one file, its signs as bits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("pack", help="write a twin to one file, its signs as bits")
    verb.add_argument("spec", metavar="SPEC", help="of a twin, e.g. bq_vanilla_nano or bq_NAME@DIR")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    verb.add_argument(
        "--rest",
        choices=["fp32", "fp16"],
        default="fp32",
        help="precision of everything but the signs (default: fp32)",
    )
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file, and say what it takes beside what Table 1 says of the twin."""
    from superbit.benchmark.profiling.table1 import table1_rows
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams import registry
    from superbit.upstreams.errors import InputError
    from superbit.upstreams.hubert import Hubert
    from superbit.upstreams.packed import pack

    out, rest = arguments.out, arguments.rest
    if out.suffix != ".safetensors":
        raise InputError(f"--out is {out}; the name of a file that ends in .safetensors is needed.")
    if out.is_dir():
        raise InputError(f"--out is {out}, which is a folder; name a file.")
    reporter = Reporter()
    with reporter.counting(f"packing {arguments.spec}") as on_progress:
        on_progress(0, 3)
        loaded = registry.load_upstream(arguments.spec)
        model = getattr(loaded.expert, "model", None)
        if not isinstance(model, Hubert):
            raise InputError(
                f"{arguments.spec!r} is no encoder of superbit's, which alone have twins."
            )
        on_progress(1, 3)
        size = pack(
            model,
            out,
            weights=loaded.weights_sha256,
            rest=rest,
            untrained=bool(getattr(loaded.expert, "untrained", False)),
        )
        on_progress(2, 3)
        name = arguments.spec.partition("@")[0]
        (row,) = table1_rows([name], accounting="both", seconds=10.0)
        on_progress(3, 3)
    print(
        f"{out}: {arguments.spec}, {size.file / 1e6:.2f} MB: signs {size.signs / 1e6:.2f}, the "
        f"rest in {rest} {size.rest / 1e6:.2f}, of which {size.unused / 1e6:.2f} serve "
        "pre-training only (final_proj, mask_emb)"
    )
    if row["storage_mb"] is not None:
        paper = row.get("storage_mb_paper")
        published = "" if paper is None else f"; the paper prints {paper:.2f}"
        print(
            f"Table 1's rules give {row['storage_mb']:.2f} MB{published}; the honest accounting "
            f"{row['honest_storage_mb']:.2f} MB, in FP32"
        )
    if not size.exact:
        print("fp16 rounds the rest: it is another model than the twin, with a hash of its own")
    return 0
