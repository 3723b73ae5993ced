"""From a verb's name on the command line to the function that carries it out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

Verb = Callable[[argparse.Namespace], int]
Verbs = argparse._SubParsersAction


def carried_out_by(
    target: str,
    given: Callable[[argparse.Namespace], Mapping[str, Any]] | None = None,
    *,
    counted: bool = False,
) -> Verb:
    """Return ``package.module:function`` of superbit, imported when it is called.

    It gets the parsed arguments, or by name what ``given`` makes of them; and where ``counted`` is
    true, for a function that may not know of terminals, as ``counting`` what shows progress.
    """

    def verb(arguments: argparse.Namespace) -> int:
        module, _, name = target.partition(":")
        function = getattr(import_module(f"superbit.{module}"), name)
        more: dict[str, Any] = {}
        if counted:
            from superbit.benchmark.progress import Reporter

            more["counting"] = Reporter().counting
        if given is None:
            return function(arguments, **more)
        return function(**given(arguments), **more)

    return verb


def prints_help(parser: argparse.ArgumentParser) -> Verb:
    """Return what stands in for a verb that was not said: the help that lists them."""

    def verb(_arguments: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    return verb


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Give the parser of every verb that has no verbs below it."""
    groups = [action for action in parser._actions if isinstance(action, Verbs)]
    if not groups:
        yield parser
    for group in groups:
        for below in group.choices.values():
            yield from leaves(below)


def vars_but_verb(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was parsed, by name."""
    return {name: value for name, value in vars(arguments).items() if name != "verb"}
