"""``superbit check SPEC``: load an upstream and hold it against the contract."""

from __future__ import annotations

from superbit.benchmark.progress import Reporter


def check_command(spec: str) -> int:
    """Print one line a rule as it is decided; return 0 where every rule holds, else 1.

    Raises:
        InputError: the spec cannot be loaded.
    """
    from superbit.upstreams.contract import check_upstream, render_rule, render_summary
    from superbit.upstreams.registry import load, load_upstream

    reporter = Reporter()
    with reporter.quiet() as out:
        loaded = load_upstream(spec)
        random = ", random weights" if loaded.spec.untrained else ""
        print(f"{loaded.spec} ({loaded.entry.origin}{random})", file=out, flush=True)
        report = check_upstream(
            loaded.expert,
            ours=loaded.entry.ours,
            # Other random draws, so that what the state_dict lacks shows.
            build=lambda: load(spec, draw_seed=1),
            on_rule=lambda result: print(render_rule(result), file=out, flush=True),
        )
    print(render_summary(report))
    return 0 if report.ok else 1
