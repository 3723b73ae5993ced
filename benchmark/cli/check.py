"""``superbit check``: whether an upstream keeps s3prl's contract."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_trust

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("check", help="whether an upstream keeps s3prl's contract")
    add_trust(verb)
    verb.add_argument("spec", metavar="SPEC", help="NAME[@CHECKPOINT][+untrained][+policy=POLICY]")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line a rule as it is decided; return 0 where every rule holds, else 1."""
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.contract import (
        RuleResult,
        check_upstream,
        render_rule,
        render_summary,
        rule_names,
    )
    from superbit.upstreams.registry import load, load_upstream

    reporter, names, spec = Reporter(), rule_names(), arguments.spec
    with reporter.quiet() as out, ExitStack() as bar:
        bar.enter_context(reporter.counting(f"loading {spec}"))
        loaded = load_upstream(spec)
        bar.close()
        random = ", random weights" if loaded.spec.untrained else ""
        print(f"{loaded.spec.typed} ({loaded.entry.origin}{random})", file=out, flush=True)

        def measuring(rule: int) -> None:
            what = f"rule {rule + 1} of {len(names)}: {names[rule]}"
            bar.enter_context(reporter.counting(what))

        def measured(result: RuleResult) -> None:
            # no bar while a rule is printed: both go to one terminal
            bar.close()
            print(render_rule(result), file=out, flush=True)
            if result.name != names[-1]:
                measuring(names.index(result.name) + 1)

        measuring(0)
        report = check_upstream(
            loaded.expert,
            ours=loaded.entry.ours,
            # Other random draws, so that what the state_dict lacks shows.
            build=lambda: load(spec, draw_seed=1),
            on_rule=measured,
        )
    print(render_summary(report))
    return 0 if report.ok else 1
