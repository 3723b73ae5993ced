"""The command line; nothing heavy is imported before a verb runs.

Exit status: 0 all went well; 1 something failed (a run, a rule, or superbit itself); 2 the user's
mistake, said in one sentence; 130 stopped by Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 or SIGHUP, or by a
limit on time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from superbit.benchmark.cli import (
    cache,
    cancel,
    check,
    claims,
    compare,
    corpus,
    curves,
    distil,
    error_flow,
    figure,
    import_,
    list_,
    manifest,
    nano,
    new_encoder,
    new_upstream,
    pack,
    pretrain,
    profile,
    report,
    results,
    status,
    sweep,
    table,
    units,
)
from superbit.benchmark.cli.options import prints_help
from superbit.benchmark.rendering import printable
from superbit.upstreams import stopping
from superbit.upstreams.errors import BrokenUpstream, InputError
from superbit.upstreams.extras import how_to_install
from superbit.upstreams.trusting import trusting

# In the order of the help. Each module has add(), which makes its options, and a run() for each
# verb; what runs is imported there.
VERBS = (
    *(list_, new_upstream, new_encoder, check, import_, corpus, sweep, status, cancel, cache),
    *(manifest, units, pretrain, distil, nano, curves, pack),
    *(profile, table, compare, report, figure, claims, error_flow, results),
)
EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, stopping.STATUS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: its words; None: those of this process, which then watches over what may die.
    """
    # Threads that spin while they wait make torch many times slower beside any other process.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = parser().parse_args(argv)
    # none of the verbs' business, and absent where only help was asked for
    show_traceback = vars(arguments).pop("traceback", False)
    trusts = vars(arguments).pop("trust_checkpoint", False)
    if vars(arguments).pop("watched", False) and argv is None:
        from superbit.benchmark.sweeping.supervise import supervise

        return supervise(sys.argv[1:], main=main, run_timeout=arguments.run_timeout)
    try:
        with stopping.listening(), trusting(trusts):
            return arguments.verb(arguments)
    except InputError as error:
        more = " With --traceback it says where." if _has_a_where(error) else ""
        _say(f"{error}{'' if show_traceback else more}", show_traceback)
        return EXIT_INPUT
    except ModuleNotFoundError as error:
        # the base install is for tables: whatever else a verb needs is one of the extras
        missing = how_to_install(error)
        if missing is None:
            raise
        _say(f"{missing}.", show_traceback)
        return EXIT_INPUT
    except stopping.Stopped:
        print("superbit: stopped; the same command continues.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("superbit: stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    """Return the parser; what it gives has the verb's function as ``verb``."""
    parser = argparse.ArgumentParser(
        prog="superbit",
        description="Measures what an efficient speech encoder costs and what it gives up: "
        "SUPERB over s3prl upstreams.",
    )
    parser.add_argument("--version", action=_Version, help="print superbit's version and stop")
    parser.set_defaults(verb=prints_help(parser))
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for module in VERBS:
        module.add(verbs)
    for leaf in leaves(parser):
        leaf.add_argument(
            "--traceback", action="store_true", help="of an error, also where in Python it arose"
        )
    return parser


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Give the parser of every verb that has no verbs below it."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for below in group.choices.values():
            yield from leaves(below)


class _Version(argparse.Action):
    """Prints the version, which is looked up only where it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **given: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **given)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import superbit

        print(f"superbit {superbit.__version__}")
        parser.exit()


def _has_a_where(error: BaseException) -> bool:
    """Whether an upstream's own code raised what ``error`` says, so that a traceback shows it."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return any(isinstance(e, BrokenUpstream) for e in chain) and not isinstance(
        chain[-1], InputError
    )


def _say(sentence: str, show_traceback: bool) -> None:
    """Print the sentence of the exception at hand, after where it arose if that is asked for."""
    if show_traceback:
        import traceback

        traceback.print_exc()
    shown = "\n".join(map(printable, sentence.split("\n")))
    print(f"superbit: {shown}", file=sys.stderr)
