"""YAML and JSON of others, read within bounds: what is absurd is one sentence, at once.

Files that are nested without end, that repeat themselves by aliases into billions of values, or
that say one key twice would otherwise end in a traceback, in no memory, or in a silent choice.
"""

from __future__ import annotations

import json
from typing import Any

from superbit.upstreams.errors import InputError

# Far beyond what any config, manifest or record holds.
_DEEPEST = 100
_MOST_VALUES = 1_000_000


def parse_yaml(text: str, *, where: str) -> Any:
    """Return what YAML text says, None for no text; ``where`` names its file in messages.

    Raises:
        InputError: it is no YAML, has a key twice, is nested more than a hundred levels deep, or
            would be a million values; the message names the line where there is one.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader within bounds."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > _DEEPEST:
                line = self.peek_event().start_mark.line + 1
                raise _no_yaml(where, line, f"it is nested more than {_DEEPEST} levels deep")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: dict[str, int] = {}
            for key, _ in getattr(node, "value", ()):
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                if key.value in seen:
                    raise InputError(
                        f"{where} has the key {key.value!r} twice, at line {seen[key.value]} and "
                        f"at line {line}: leave one of them out."
                    )
                seen[key.value] = line
            return super().construct_mapping(node, deep=deep)

    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values(node, {}) > _MOST_VALUES:
                raise _no_yaml(where, None, "its aliases repeat each other into too many values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _no_yaml(where, line, f"it holds the character U+{error.character:04X}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "syntax error"
        raise _no_yaml(where, mark and mark.line + 1, problem) from None
    except RecursionError:
        raise _no_yaml(where, None, "it is nested too deeply, or refers to itself") from None
    except ValueError as error:  # what looks like a date and is none, a number of 5,000 digits
        raise _no_yaml(where, None, str(error)) from None


def _values(node: Any, known: dict[int, int]) -> int:
    """How many values a node stands for, with every alias written out; too many if it loops."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MOST_VALUES + 1  # while it is counted: who comes here again refers to it
    count = 1
    if isinstance(node.value, list):
        for each in node.value:
            for child in each if isinstance(each, tuple) else (each,):
                count += _values(child, known)
    known[id(node)] = count
    return count


def _no_yaml(where: str, line: int | None, problem: str) -> InputError:
    at = "" if line is None else f" at line {line}"
    return InputError(f"{where} is not valid YAML{at}: {problem}.")


def parse_json(text: str | bytes, *, where: str) -> Any:
    """Return what JSON text says; ``where`` names its file in messages.

    Raises:
        InputError: it is no JSON, has a key twice or is nested too deeply.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(_said_twice(text, twice, where))
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise InputError(f"{where} is not readable JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise InputError(f"{where} is not readable JSON: {error}.") from None


def _said_twice(text: str | bytes, key: str, where: str) -> str:
    """The sentence on a key that is there twice: YAML's reader knows the lines of most JSON."""
    import yaml

    try:
        parse_yaml(text if isinstance(text, str) else text.decode(), where=where)
    except InputError as error:
        if " twice, at line " in str(error):
            return str(error)
    except (yaml.YAMLError, UnicodeDecodeError):
        pass
    return f"{where} has the key {key!r} twice: leave one of them out."
