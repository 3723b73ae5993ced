"""``superbit error-flow``: where a 1-bit twin departs from its FP32 model."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("error-flow", help="where a 1-bit twin departs from its FP32 model")
    verb.add_argument("spec", metavar="SPEC")
    verb.add_argument("--audio", type=Path, metavar="DIR", help="wav or flac files")
    verb.add_argument(
        "--teacher", type=Path, metavar="DIR", help="the FP32 model of a twin's checkpoint"
    )
    verb.add_argument("--format", choices=["csv", "md", "png"], default="md")
    verb.add_argument("--out", type=Path, metavar="FILE")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the flow of error, or write a figure and print where it lies; return 0.

    Which weights the two models have is on standard error, and in Markdown the first line too.
    """
    from functools import partial

    from superbit.benchmark.profiling import error_flow
    from superbit.benchmark.profiling.error_flow_rendering import (
        as_csv,
        as_markdown,
        as_png,
        caption,
    )
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.figures import require_matplotlib
    from superbit.upstreams.files import said_of
    from superbit.upstreams.spec import TWIN_POLICY, UpstreamSpec

    if arguments.format == "png":
        require_matplotlib("--format png", instead="choose csv or md")
    reporter = Reporter()
    with reporter.quiet() as out:
        spec = UpstreamSpec.parse(arguments.spec).normalized()
        pair = error_flow.pair_of(spec, teacher=arguments.teacher)
        full_precision = str(spec).partition("+policy=")[0]
        policy = spec.policy or TWIN_POLICY
        title = f"{full_precision} and its {policy} twin, {pair.origin}"
        reporter.line(f"error flow of {title}")
        if arguments.audio:
            audio = error_flow.audio_of_folder(arguments.audio)
        else:
            audio = error_flow.fixed_signal()
        each = partial(reporter.each, "blocks of the encoder")
        rows = error_flow.flow_of_pair(pair, audio, each=each)
    notes = caption(rows, weights=pair.weights, audio=audio.meaning, trained=pair.trained)
    file: Path | None = arguments.out
    if arguments.format == "png":
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{full_precision}-{policy}")
        file = file or Path(f"error-flow-{name}.png")
        content = as_png(rows, title=title, notes=notes)
    else:
        text = as_csv(rows) if arguments.format == "csv" else as_markdown(rows, title, notes)
        content = text.encode()
        if file is None:
            print(text, end="", file=out)
            return 0
    with said_of(file):
        file.write_bytes(content)
    print(file)
    return 0
