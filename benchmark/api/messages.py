"""Messages of the command line, with its options named as Python's arguments are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from superbit.upstreams.errors import InputError
from superbit.upstreams.extras import how_to_install

# Options that are called otherwise in Python; of all others "-" becomes "_".
_ARGUMENTS = {"seed": "seeds", "lr": "learning_rates"}


@contextmanager
def in_python() -> Iterator[None]:
    """Within it an `InputError` says ``cache_budget`` for ``--cache-budget``.

    A library that is not installed is one too, if an extra brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = how_to_install(error)
        if missing is None:
            raise
        raise InputError(f"{missing}.") from error
    except InputError as error:
        error.args = (re.sub(r"(?<!\S)(\(?)--([a-z][a-z0-9-]*)", _argument, str(error)),)
        raise


def _argument(option: re.Match[str]) -> str:
    name = option[2].replace("-", "_")
    return option[1] + _ARGUMENTS.get(name, name)
