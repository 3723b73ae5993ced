"""Somebody else's HuBERT base weights, written as a checkpoint directory of superbit's."""

from pathlib import Path
from typing import Any

from superbit.upstreams import checkpoint
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.importing.convert import Imported, convert
from superbit.upstreams.importing.reading import READERS, Foreign


def import_checkpoint(
    source: str, path: str | Path, out: str | Path, *, counting: Counting = unseen
) -> Imported:
    """Read somebody else's HuBERT base and write it as a checkpoint directory.

    Args:
        source: where the weights are from, one of ``hf``, ``torchaudio`` and ``fairseq``.
        path: a directory of ``save_pretrained`` (hf), or a file of ``torch.save``.
        out: a directory that does not exist or is empty.
        counting: shows which of the steps, reading, converting and writing, are done.

    Raises:
        InputError: an unknown source, something wrong with the weights, or ``out`` is taken.
    """
    if source not in READERS:
        raise InputError(
            f"source {source!r} is unknown; there are {', '.join(READERS)}."
            f"{did_you_mean(source, set(READERS))}"
        )
    path, out = Path(path), Path(out)
    if not path.exists():
        raise InputError(f"there is no {path}; the weights to import are needed.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; name a new directory, or an empty one.")
    with counting(f"importing {path}") as on_progress:
        on_progress(0, 3)
        foreign = READERS[source](path)
        on_progress(1, 3)
        imported = convert(foreign)
        on_progress(2, 3)
        _write(foreign, imported, source, out)
        on_progress(3, 3)
    return imported


def _write(foreign: Foreign, imported: Imported, source: str, out: Path) -> None:
    origin: dict[str, Any] = {
        "source": source,
        "file": foreign.file.name,
        "dropped": list(imported.dropped),
        "drawn": list(imported.drawn),
    }
    if imported.fine_tuned:
        origin["fine_tuned"] = "ctc"
    if imported.normalization_error is not None:
        origin["do_normalize"] = True
    try:
        checkpoint.save(out, imported.model, training={"imported": origin})
    except OSError as error:
        raise InputError(f"{out} cannot be written to: {error.strerror or error}.") from error
