"""The one JSON text of a value, by which identities, items and features are hashed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

# made once: tables of 2,000 records hash 4,000 identities
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
# what JSON holds in one way only, whatever the value
_SIMPLE = frozenset((str, int, bool, type(None)))


def canonical_json(value: Any) -> str:
    """Return ``value`` as the one JSON text that it is hashed by.

    Keys are sorted, floats are written by ``repr``, no white space, ASCII only.

    Raises:
        ValueError: ``value`` holds something that JSON has no single text for: NaN, infinity, a
            key that is not a string, an object of another type.
    """
    if not _is_plain(value):
        _require_json(value, "value")
    return _CANONICAL.encode(value)


def _is_plain(value: Any) -> bool:
    """Whether ``value`` is what `json.loads` returns: then there is nothing to object to."""
    # no generators, as this is most of the time that a table of 2,000 records takes
    kind = type(value)
    if kind is dict:
        for key, inner in value.items():
            if type(key) is not str or (type(inner) not in _SIMPLE and not _is_plain(inner)):
                return False
        return True
    if kind is list:
        return all(map(_is_plain, value))
    return kind in _SIMPLE or (kind is float and math.isfinite(value))


def copied(value: Any) -> Any:
    """Return what ``json.loads(canonical_json(value))`` does, faster where nothing is to change.

    Raises:
        ValueError: as `canonical_json`.
    """
    return _copy_of_plain(value) if _is_plain(value) else json.loads(canonical_json(value))


def _copy_of_plain(value: Any) -> Any:
    """What ``json.loads(canonical_json(value))`` returns of what is plain already."""
    kind = type(value)
    if kind is dict:
        items = sorted(value.items())
        return {k: v if type(v) in _SIMPLE else _copy_of_plain(v) for k, v in items}
    return [_copy_of_plain(each) for each in value] if kind is list else value


def _require_json(value: Any, where: str) -> None:
    # json.dumps alone would turn the key 1 into "1" and a str subclass into its parent
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}, which is not a string")
            _require_json(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            _require_json(inner, f"{where}[{position}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON cannot hold")
    elif value is not None and not isinstance(value, str | bool | int):
        raise ValueError(f"{where} is a {type(value).__name__}, which JSON cannot hold")
