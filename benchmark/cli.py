"""The command line; nothing heavy is imported before a verb runs.

Exit status: 0 all went well; 1 something failed (a run, a rule, or superbit itself); 2 the user's
mistake, said in one sentence; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from superbit.benchmark.verbs import parser
from superbit.upstreams.errors import BrokenUpstream, InputError
from superbit.upstreams.extras import how_to_install

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # Threads that spin while they wait make torch many times slower beside any other process.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = parser().parse_args(argv)
    # none of the verbs' business, and absent where only help was asked for
    show_traceback = vars(arguments).pop("traceback", False)
    try:
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
    except KeyboardInterrupt:
        print("superbit: stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED


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
    print(f"superbit: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
