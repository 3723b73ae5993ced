"""Runs a verb as the command line does, but lets its errors through."""

from __future__ import annotations

import shlex

from superbit.benchmark.cli import parser


def run_verb(words: str, *more: object, **options: object) -> int:
    """Run ``superbit WORDS MORE --NAME VALUE …`` and return its exit status.

    Args:
        words: as a person types them.
        more: further words, e.g. paths, each one word.
        options: by their names; of a list each is given, True gives the option alone, and None or
            False leaves it out.

    Raises:
        InputError: what the command line would print in one sentence.
        SystemExit: the parser refuses the words.
    """
    typed = [*shlex.split(words), *map(str, more)]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                typed.append(option)
            elif each is not None and each is not False:
                typed.append(f"{option}={each}")
    arguments = parser().parse_args(typed)
    return arguments.verb(arguments)
