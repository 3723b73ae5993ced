"""``superbit check SPEC``: load an upstream and hold it against the contract."""

from __future__ import annotations

from superbit.benchmark.progress import Reporter


def check_command(spec: str) -> int:
    """Print one line a rule; return 0 where every rule holds, else 1.

    Raises:
        InputError: the spec cannot be loaded.
    """
    from superbit.upstreams.contract import check_upstream, render
    from superbit.upstreams.registry import load_upstream

    reporter = Reporter()
    with reporter.quiet():
        loaded = load_upstream(spec)
        report = check_upstream(loaded.expert, ours=loaded.entry.ours)
    print(f"{loaded.spec} ({loaded.entry.origin})")
    print(render(report))
    return 0 if report.ok else 1
