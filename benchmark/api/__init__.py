"""superbit: measures what an efficient speech encoder really costs and really gives up.

>>> import superbit
>>> model = superbit.load("vanilla_nano")
>>> runs = superbit.load_results("results/embedded").to_pandas()

`load` an upstream, `evaluate` upstreams on SUPERB's tasks, `load_results` of earlier runs,
`profile` what a model costs. The command line is a thin layer over the same functions:
``superbit --help``.
Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superbit.collection import Printed, Results, load_results
    from superbit.evaluation import evaluate
    from superbit.models import Model, load
    from superbit.profiles import Profile, profile
    from superbit.upstreams.errors import InputError

    __version__: str

__all__ = [
    "InputError",
    "Model",
    "Printed",
    "Profile",
    "Results",
    "__version__",
    "evaluate",
    "load",
    "load_results",
    "profile",
]

_HOMES = {
    "InputError": "superbit.upstreams.errors",
    "Model": "superbit.models",
    "Printed": "superbit.collection",
    "Profile": "superbit.profiles",
    "Results": "superbit.collection",
    "evaluate": "superbit.evaluation",
    "load": "superbit.models",
    "load_results": "superbit.collection",
    "profile": "superbit.profiles",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("superbit")
    if name not in _HOMES:
        raise AttributeError(f"module 'superbit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
