"""A package to begin with: an upstream's, or that of a kind of encoder; both work as they are made.

The templates are such packages themselves, complete and tested, under names that are replaced.
"""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from superbit.upstreams.errors import InputError
from superbit.upstreams.files import write_text
from superbit.upstreams.spec import TWIN_PREFIX

Template = Literal["upstream", "encoder"]
# A template's own names; each becomes the new one, a class's in capitals.
_PACKAGE, _DISTRIBUTION = "my_package", "my-package"
_NAMES: Mapping[Template, str] = {"upstream": "my_model", "encoder": "depthwise"}


@dataclass(frozen=True, kw_only=True)
class Scaffold:
    """What was written.

    Attributes:
        folder: of the package.
        files: in it, relative, in their order; ``hubconf.py`` is the one to begin with.
        upstreams: that it offers, by the names that they have once it is installed.
    """

    folder: Path
    files: tuple[Path, ...]
    upstreams: tuple[str, ...]

    def __str__(self) -> str:
        """What was written, and what to type next."""
        (file,) = (self.folder / file for file in self.files if file.name == "hubconf.py")
        return "\n".join(
            [
                f"{self.folder}{os.sep}",
                *(f"  {file}" for file in self.files),
                "",
                "It works as it is; put your model into it, and try it:",
                *(f"  superbit check {file}:{name}" for name in self.upstreams),
                f"  python -m pytest {self.folder / 'tests'}",
                f"  pip install -e {self.folder}    # then in every verb: "
                + ", ".join(self.upstreams),
            ]
        )


def write_scaffold(template: Template, name: str, *, folder: Path) -> Scaffold:
    """Write a package that works as it is.

    Args:
        template: which.
        name: of the upstream or the kind of encoder, and of its package.
        folder: is made, and must not be there yet.

    Raises:
        InputError: a name that is none or is taken, or a folder that is there.
    """
    _require_name(template, name)
    if folder.exists():
        raise InputError(f"{folder} is there already; name a new folder by --out.")
    written = []
    for file, text in _texts(template):
        path = Path(*(_renamed(part, template, name) for part in file.parts))
        write_text(folder / path, _renamed(text, template, name))
        written.append(path)
    offered = (name,) if template == "upstream" else (f"{name}_nano", f"{TWIN_PREFIX}{name}_nano")
    return Scaffold(folder=folder, files=tuple(written), upstreams=offered)


def _texts(template: Template) -> list[tuple[Path, str]]:
    """Every file of a template, by its place in it."""
    root = Path(str(resources.files("superbit.benchmark.cli") / "templates" / template))
    return [
        (file.relative_to(root), file.read_text(encoding="utf-8"))
        for file in sorted(root.rglob("*"))
        if file.is_file() and file.suffix in (".py", ".toml", ".md")
    ]


def _renamed(text: str, template: Template, name: str) -> str:
    before = _NAMES[template]
    for old, new in (
        (_PACKAGE, name),
        (_DISTRIBUTION, name.replace("_", "-")),
        (before, name),
        (_class_name(before), _class_name(name)),
    ):
        text = text.replace(old, new)
    return text


def _class_name(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _require_name(template: Template, name: str) -> None:
    from superbit.upstreams import encoder_kinds, foreign, registry

    where = f"superbit new-{template} {name!r}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InputError(
            f"{where}: a name is a word of small letters, digits and '_' that begins with a "
            "letter, and no word of Python's, like 'my_model'."
        )
    if name.startswith(TWIN_PREFIX):
        raise InputError(f"{where}: {TWIN_PREFIX!r} begins the names of 1-bit twins.")
    known = registry.names()  # what is installed is imported, kinds of encoder too
    if template == "upstream":
        taken = name in {*known, *foreign.hub_names()}
    else:
        of_kind = encoder_kinds.registered(name)
        taken = name in encoder_kinds.ENCODERS or of_kind is not None or f"{name}_nano" in known
    if taken:
        raise InputError(f"{where}: that name is taken; choose another.")
    found = find_spec(name)
    if found is not None and found.origin is not None:  # a mere folder has no origin
        raise InputError(f"{where}: Python has a module of that name here; choose another.")
