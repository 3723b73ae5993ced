"""``superbit report``: one page of everything that was measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import RESULTS, add_label

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs
    from superbit.benchmark.report.study import Study


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("report", help="one page of everything that was measured")
    verb.add_argument("--out", type=Path, metavar="FILE", default=Path("report.html"))
    verb.add_argument("--title", default="", metavar="TEXT")
    add_study(verb)
    verb.set_defaults(verb=run)


def add_study(verb: argparse.ArgumentParser) -> None:
    """Add what a report and its figures are made from."""
    verb.add_argument(
        "--results",
        default=str(RESULTS),
        metavar="DIR[,DIR…]",
        help=f"folders of results (default: {RESULTS})",
    )
    verb.add_argument("--upstreams", metavar="SPEC,…", help="only these, in this order")
    verb.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only runs whose identity says so, e.g. corpus=NAME; may be repeated",
    )
    verb.add_argument(
        "--costs",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what further upstreams cost: of superbit profile --format json; may be repeated",
    )
    add_label(verb)


def study_of(arguments: argparse.Namespace) -> Study:
    """Read what the options of `add_study` name.

    Raises:
        InputError: a folder or a file that cannot be read, or options that no run fulfils.
    """
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.report.study import read_study

    def words(text: str) -> list[str]:
        return [each.strip() for each in text.split(",") if each.strip()]

    return read_study(
        [Path(each) for each in words(arguments.results)],
        where=arguments.where,
        label=arguments.label,
        costs=arguments.costs,
        upstreams=None if arguments.upstreams is None else words(arguments.upstreams),
        counting=Reporter().counting,
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    import jinja2  # noqa: F401  said before anything is computed

    from superbit.benchmark.report.page import page
    from superbit.upstreams.files import said_of, write_text

    study = study_of(arguments)
    text = page(study, out=arguments.out, title=arguments.title)
    with said_of(arguments.out):
        write_text(arguments.out, text)
    print(arguments.out)
    return 0
