"""``superbit figure``: one figure of a report as a file, its numbers as CSV beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.report import add_study, study_of

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs
    from superbit.benchmark.report.charts import Chart

NAMES = ("pareto", "delta", "curves", "layers", "rates", "error-flow")
FORMATS = (".svg", ".pdf", ".png")


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("figure", help="one figure of a report: svg, pdf or png, and its CSV")
    verb.add_argument("name", choices=NAMES, metavar="|".join(NAMES))
    verb.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .svg, .pdf or .png"
    )
    verb.add_argument("--task", help="of pareto (default: KS)")
    verb.add_argument("--cost", default="bytes", help="of pareto: bytes, macs, bop, ms or memory")
    verb.add_argument(
        "--theme",
        choices=["auto", "light", "dark"],
        default="auto",
        help="of an svg (default: auto, as its viewer is)",
    )
    add_study(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the figure and its numbers, and print where they are."""
    from superbit.benchmark.rendering import csv_text
    from superbit.upstreams.errors import InputError
    from superbit.upstreams.figures import require_matplotlib
    from superbit.upstreams.files import said_of, write_bytes, write_text

    out: Path = arguments.out
    if out.suffix not in FORMATS:
        raise InputError(f"--out {out}: end it in {', '.join(FORMATS)}, which says the format.")
    if out.suffix != ".svg":
        require_matplotlib(f"--out {out}", instead="end it in .svg")
    chart = _chart(arguments)
    table = out.with_suffix(".csv")
    with said_of(out):
        if out.suffix == ".svg":
            from superbit.benchmark.report.svg import chart_svg

            write_text(out, chart_svg(chart, theme=arguments.theme))
        else:
            from superbit.benchmark.report.pictures import picture

            write_bytes(out, picture(chart, "pdf" if out.suffix == ".pdf" else "png"))
        write_text(table, csv_text(chart.header, chart.rows))
    print(out, table, sep="\n")
    return 0


def _chart(arguments: argparse.Namespace) -> Chart:
    from superbit.benchmark.report import inside, quality, training, twins
    from superbit.benchmark.tasks.catalog import SHOWN_FIRST, find_task
    from superbit.upstreams.errors import InputError, require_one_of

    task = find_task(arguments.task or SHOWN_FIRST)
    require_one_of("cost", arguments.cost, [each.name for each in quality.COSTS])
    study = study_of(arguments)
    if arguments.name == "pareto":
        if task not in study.tasks:
            raise InputError(f"--task {task.name}: none of the runs is of it.")
        known = {cost.name: cost for cost in quality.costs_known(study)}
        require_one_of("cost of these upstreams", arguments.cost, list(known))
        return quality.pareto(study, task, known[arguments.cost])
    make = {
        "delta": twins.delta,
        "curves": training.curves,
        "layers": inside.layers,
        "rates": training.rates,
        "error-flow": inside.flow,
    }[arguments.name]
    chart = make(study)
    if chart is None or not chart.panels:
        raise InputError(f"{arguments.name}: these results hold nothing that it could show.")
    return chart
