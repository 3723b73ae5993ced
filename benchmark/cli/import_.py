"""``superbit import``: weights of others as a checkpoint of superbit's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs
    from superbit.upstreams.importing.convert import Imported


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("import", help="make HuBERT base weights of others an upstream")
    verb.add_argument(
        "--from",
        dest="source",
        choices=["hf", "torchaudio", "fairseq"],
        required=True,
        help="who wrote them",
    )
    verb.add_argument("path", type=Path, metavar="PATH", help="a folder (hf) or a file")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the checkpoint, and say what is in it and what was left out."""
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.importing.checkpoint import import_checkpoint

    source, path, out = arguments.source, arguments.path, arguments.out
    imported = import_checkpoint(source, path, out, counting=Reporter().counting)
    print(_summary(imported, out))
    return 0


def _summary(imported: Imported, out: Path) -> str:
    from superbit.upstreams.checkpoint import WEIGHTS_FILE

    config = imported.model.config
    parameters = sum(parameter.numel() for parameter in imported.model.parameters())
    megabytes = (out / WEIGHTS_FILE).stat().st_size / 1e6
    line = (
        f"{out}: vanilla, {config.layers} layers × {config.dim}, {config.heads} heads, "
        f"feed-forward {config.ffn_dim}; {parameters:,} parameters, {megabytes:.1f} MB; "
        f"dropped: {', '.join(imported.dropped) or 'nothing'}"
    )
    if imported.drawn:
        line += (
            f"; drawn at random, as the source has none and only pre-training uses them: "
            f"{', '.join(imported.drawn)}"
        )
    if imported.fine_tuned:
        line += (
            "; the head that transcribes (CTC) is left out: these are the hidden states of an "
            "encoder fine-tuned for speech recognition, not of a pre-trained one"
        )
    if imported.normalization_error is not None:
        line += (
            "; preprocessor_config.json says do_normalize, and superbit gives waveforms as s3prl "
            "does, not normalized: on noise at the level of speech, hidden states are "
            f"{100 * imported.normalization_error:.2g} % from those of normalized waveforms"
        )
    return line
