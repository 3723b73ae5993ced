"""Reads files of `torch.save` without running what they contain.

A pickle is a program: whoever wrote it chooses which functions are called when it is read. Torch's
restricted unpickler (``weights_only=True``) calls nothing but its own list of harmless ones, and so
refuses checkpoints of fairseq, which carry a configuration and a dictionary as well as tensors.
Here objects of such well-known packages become `Placeholder`s, which keep their attributes and do
nothing; the packages themselves are never imported. Any other name is refused.
"""

import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from superbit.upstreams.errors import InputError

# Packages whose objects checkpoints of fairseq carry beside their tensors.
_REPLACED_PACKAGES = ("argparse", "enum", "fairseq", "numpy", "omegaconf", "pathlib", "typing")
_REPLACED_BUILTINS = ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "str", "tuple")
# Pickles of protocol 2, which torch writes, use names of Python 2.
_RENAMED_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_RENAMED = {"builtins.long": "builtins.int", "builtins.unicode": "builtins.str"}
# What tensors are made of, and how protocol 2 writes bytes and sets. Torch has a list of its own,
# which is asked as well; this one is for naming what is refused.
_OF_TENSORS = re.compile(
    r"torch\.(\w*Storage|storage\.\w+Storage|Size|device|Tensor|nn\.parameter\.Parameter"
    r"|b?float\d+|u?int\d+|bool|_utils\._rebuild_(tensor|tensor_v2|parameter))"
    r"|collections\.OrderedDict|_codecs\.encode|builtins\.set"
)
# An old file is a row of pickles and then raw numbers: three of header, the object, its storages.
_PICKLES_BEFORE_NUMBERS = 5
_OF_BAD_DATA = (ValueError, LookupError, TypeError, AttributeError, AssertionError)


class Placeholder:
    """Stands in for an object of any class: it keeps the attributes that were stored."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in state.items()})


def _empty_dict(*_args: Any) -> dict[Any, Any]:
    """Stand in for ``collections.defaultdict``, whose items are then stored one by one."""
    return {}


def load(file: Path) -> Any:
    """Return what ``torch.save`` wrote to ``file``, tensors on the CPU.

    Args:
        file: in either of torch's formats, the archive or the older one.

    Raises:
        InputError: there is no such file, it is not of ``torch.save``, or it refers to a class or
            function that is neither of tensors nor of the packages that become placeholders.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}; one that torch.save wrote is needed.")
    try:
        names = _globals(file)
    except (OSError, EOFError, zipfile.BadZipFile, *_OF_BAD_DATA) as error:
        raise InputError(
            f"{file} is not a file of torch.save, or is truncated: {_first_line(error)}."
        ) from error
    stand_ins: list[Any] = []
    for name in sorted(names):
        if name == "collections.defaultdict":
            stand_ins.append((_empty_dict, name))
        elif _is_replaced(name):
            stand_ins.append((Placeholder, name))
        elif not _OF_TENSORS.fullmatch(name):
            raise InputError(
                f"{file} refers to {name}, which no checkpoint of weights needs; nothing of the "
                "file was run."
            )
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(file, map_location="cpu", weights_only=True)
    # whatever a damaged or forged file makes torch stumble over
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, *_OF_BAD_DATA) as error:
        raise InputError(
            f"{file} cannot be read: it is truncated or corrupt, or holds more than weights."
        ) from error


def _is_replaced(name: str) -> bool:
    package, _, rest = name.partition(".")
    if package == "builtins":
        return rest in _REPLACED_BUILTINS
    return package in _REPLACED_PACKAGES


def _globals(file: Path) -> set[str]:
    """Return every class and function that the pickles of ``file`` name, without running them."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            return {name for _ in range(_PICKLES_BEFORE_NUMBERS) for name in _named_in(stream)}
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("the archive holds no data.pkl")
        with archive.open(pickles[0]) as stream:
            return set(_named_in(stream))


def _named_in(stream: IO[bytes]) -> Iterator[str]:
    """Yield the globals of the one pickle that ``stream`` is at, and leave it behind that."""
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            name = f"{_RENAMED_MODULES.get(module, module)}.{name}"
            yield _RENAMED.get(name, name)
        elif opcode.name == "STACK_GLOBAL":
            raise ValueError("it is pickled in a protocol that torch.save does not use")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
