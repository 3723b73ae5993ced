"""How an embedded corpus was made: a small JSON file beside it, written last."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json

# Raised whenever the same size and seed would give other audio or other text.
VERSION = 4
FILE_NAME = "recipe.json"
_MAKER = "superbit embedded corpora"


@dataclass(frozen=True, kw_only=True)
class CorpusRecipe:
    """What decides an embedded corpus, and how much came out of it.

    Attributes:
        size: ``"tiny"`` or ``"demo"``.
        seed: every random choice follows from it.
        version: of the recipe.
        files: number of files made.
        bytes: their size.
    """

    size: str
    seed: int
    version: int = VERSION
    files: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"embedded v{self.version}, {self.size}, seed {self.seed}"

    def to_json(self) -> str:
        """The file's contents."""
        return json.dumps({"made_by": _MAKER, **asdict(self)}, indent=2) + "\n"


def read(folder: Path) -> CorpusRecipe | None:
    """The recipe in ``folder``, or None where there is none of ours."""
    try:
        content = read_json(folder / FILE_NAME, "the recipe of embedded corpora")
        if content.pop("made_by") != _MAKER:
            return None
        return CorpusRecipe(**content)
    except (InputError, KeyError, TypeError, AttributeError):
        return None


def of_corpus(root: Path) -> CorpusRecipe | None:
    """The recipe of the embedded corpus whose root is ``root``, or None for any other corpus."""
    # make_corpora puts roots one or two folders below the recipe.
    for folder in list(root.resolve().parents)[:2]:
        found = read(folder)
        if found is not None:
            return found
    return None
