"""Several learning rates in one experiment: one pass over data and upstream, a candidate each.

What a head draws (dropout, SpecAug) depends on shapes and never on weights, so every candidate gets
the generators as a run of its own would find them, and its course is that run's course.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from superbit.benchmark.running.candidate import Candidate, InterruptedRun
from superbit.upstreams.rng import Draws

Result = TypeVar("Result")


def going_on(
    candidates: Sequence[Candidate], among: Sequence[Candidate] | None = None
) -> list[Candidate]:
    """Return those that go on, or of ``among`` only."""
    return [each for each in among or candidates if each.goes_on]


def each(
    candidates: Sequence[Candidate],
    act: Callable[[Candidate], Result],
    *,
    among: Sequence[Candidate] | None = None,
) -> dict[str, Result]:
    """Let every candidate act from the same state of the generators; results by name.

    One of several that fails is given up, and the others go on; the last one's error is raised.

    Args:
        among: only these.
    """
    acting = going_on(candidates, among)
    if len(acting) == 1:
        (only,) = acting
        return {only.name: act(only)}
    before, after, drawn = Draws(), None, True
    results: dict[str, Result] = {}
    for candidate in acting:
        # Nothing to go back from where the first one drew nothing.
        if results and drawn:
            before.restore()
        try:
            results[candidate.name] = act(candidate)
        except InterruptedRun:
            raise
        except Exception as error:
            _give_up(candidate, error, candidates)
            before.restore()
            continue
        if after is None:
            after = Draws()
            drawn = after.differ(before)
    if after is not None and not acting[-1].goes_on:
        after.restore()
    return results


def _give_up(candidate: Candidate, error: Exception, candidates: Sequence[Candidate]) -> None:
    candidate.error = error
    if sum(each.goes_on for each in candidates) == 1:
        raise error
    candidate.course.failure = " ".join(str(error).split()) or type(error).__name__


def variants(
    config: dict[str, Any], learning_rates: Sequence[float], expdir: Path
) -> list[tuple[str, dict[str, Any], Path]]:
    """Return name, config and folder of each candidate."""
    if "optimizer" not in config:
        return [("none", config, expdir)]
    found = []
    for rate in learning_rates or [config["optimizer"]["lr"]]:
        changed = copy.copy(config) | {"optimizer": config["optimizer"] | {"lr": rate}}
        folder = expdir / f"lr-{rate!r}" if len(learning_rates) > 1 else expdir
        found.append((repr(rate), changed, folder))
    return found
