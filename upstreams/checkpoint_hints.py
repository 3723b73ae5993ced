"""Checkpoints of s3prl's builders: names of the Hugging Face Hub, and what to do where one fails.

Some builders take a name of the Hub, ``organisation/model``, where others take a file. And some
of their errors have a way out that they do not name.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

# s3prl's builders that hand the checkpoint to transformers.
_TAKES_HUB_NAMES = re.compile(r"hf_\w+")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ENDPOINT = "https://huggingface.co"
_SECONDS = 10


def is_hub_name(spec: UpstreamSpec, *, origin: str) -> bool:
    """Whether a checkpoint that is no file here may be a name that the builder asks the Hub for."""
    checkpoint = spec.checkpoint or ""
    return (
        origin == "s3prl"
        and _TAKES_HUB_NAMES.fullmatch(spec.name) is not None
        and _HUB_NAME.fullmatch(checkpoint) is not None
        and not Path(checkpoint).exists()
    )


def require_hub(spec: UpstreamSpec) -> None:
    """Refuse a name of the Hub at once where the Hub cannot be reached; libraries try for minutes.

    Raises:
        InputError: it is not in the cache, and the Hub cannot be reached.
    """
    name = str(spec.checkpoint)
    if _is_cached(name):
        return
    reason = _unreachable(name)
    if reason is not None:
        raise InputError(
            f"upstream {spec.typed!r}: there is no file or folder {name!r}, and as a name of the "
            f"Hugging Face Hub it cannot be had: {reason}; where there is a network, run "
            f"'hf download {name} --local-dir DIR' and give {spec.name}@DIR."
        )


def explained(spec: UpstreamSpec, error: InputError, *, origin: str) -> InputError:
    """Return ``error`` with the way out, where one is known."""
    checkpoint = spec.checkpoint
    if checkpoint is None or "://" in checkpoint or origin != "s3prl":
        return error
    hint = None
    if is_hub_name(spec, origin=origin):
        hint = f"{checkpoint!r} is no file or folder here, and was taken for a name of the Hub"
    elif Path(checkpoint).is_file():
        hint = _of_file(spec.name, Path(checkpoint))
    elif _TAKES_HUB_NAMES.fullmatch(spec.name) and not _has_extractor(Path(checkpoint)):
        hint = (
            f"{checkpoint} has no preprocessor_config.json, without which s3prl asks the Hub for "
            "that of another model: save the model's feature extractor there as well"
        )
    return error if hint is None else type(error)(f"{str(error).rstrip('.')}; {hint}.")


def _has_extractor(folder: Path) -> bool:
    return (folder / "preprocessor_config.json").is_file()


def _of_file(name: str, file: Path) -> str | None:
    from superbit.upstreams.importing import unpickle

    try:
        content = unpickle.load(file)
    except InputError:
        return None
    if not isinstance(content, dict) or "model" not in content or "model_weight" in content:
        return None
    package = re.sub(r"_(local|url|custom)$", "", name)
    ways = []
    if package == "hubert":
        ways.append(
            f"'superbit import --from fairseq {file} --out DIR' makes it vanilla@DIR if it is a "
            "HuBERT base"
        )
    if importlib.util.find_spec(f"s3prl.upstream.{package}.convert") is not None:
        ways.append(
            f"'python -m s3prl.upstream.{package}.convert {file} --output_dir DIR' makes a file "
            f"for {name}, and needs fairseq"
        )
    if not ways:
        return None
    return f"{file} is a checkpoint of fairseq itself: {'; '.join(ways)}"


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _unreachable(name: str) -> str | None:
    """Why the Hub cannot be asked; None where it answers, whatever it says."""
    import urllib.error
    import urllib.request

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set, and it is not in the cache"
    endpoint = os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")
    try:
        with urllib.request.urlopen(f"{endpoint}/api/models/{name}", timeout=_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return f"{endpoint} cannot be reached ({getattr(error, 'reason', None) or error})"
