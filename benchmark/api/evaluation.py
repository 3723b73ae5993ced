"""``superbit.evaluate``: tasks of SUPERB over upstreams, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.records.schema import RunRecord
    from superbit.benchmark.sweeping.sweep import Swept
    from superbit.collection import Results
    from superbit.modules import Upstream


def evaluate(
    *,
    upstreams: Upstream | Sequence[Upstream],
    tasks: str | Sequence[str],
    scale: Literal["superb", "embedded"] = "embedded",
    paths: str | Path | None = None,
    results: str | Path = "results/local",
    seeds: int | Sequence[int] = (1337,),
    learning_rates: float | Sequence[float] | Literal["search"] | None = None,
    overrides: str | Path | None = None,
    limit: int | None = None,
    device: str | None = None,
    jobs: int = 1,
    cache_dir: str | Path | None = None,
    no_cache: bool = False,
    cache_budget: str | None = None,
    cache_precision: Literal["float16", "float32"] = "float16",
    cache_any_upstream: bool = False,
) -> Results:
    """Run tasks over upstreams, reuse what is done, and return the results of just these runs.

    It is what ``superbit sweep`` does: a run that fails is recorded and does not stop the others,
    Ctrl-C saves a checkpoint, and the same call goes on from there. Progress goes to standard
    error: a bar in a terminal, lines in a notebook.

    Args:
        upstreams: specs (``"vanilla_nano"``, ``"path/to/hubconf.py:function"``, …), models of
            `superbit.load`, or torch modules that take a list of waveforms, (samples,) at 16 kHz,
            and return ``{"hidden_states": [(batch, frames, dim), …]}``, with a method
            ``get_downsample_rates(key)`` that says how many samples a frame is. A module is named
            by its class, and is left as it was.
        tasks: names of ``superbit list tasks``: ``"KS"``, ``"PR"``, ….
        scale: the benchmark's protocol (``"superb"``), or the small one.
        paths: YAML file that says where the corpora lie. Without it, at the small scale, speech is
            synthesized into ``results/corpora``: once, in minutes.
        results: folder where records are written and looked up.
        seeds: of the heads; with several, a run of each.
        learning_rates: in place of each task's own; of several the best on dev counts, and
            ``"search"`` takes each task's list.
        overrides: YAML file of config overrides, laid out like ``embedded.yaml``.
        limit: at most so many steps and evaluation batches; such runs enter no table.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; cuda where there is one.
        jobs: runs at a time, each in a process of its own, which a module cannot reach: a script
            that gives more than 1 needs ``if __name__ == "__main__":``.
        cache_dir: folder of stored features; ``work/features`` in the results where not given.
        no_cache: run the upstream on every batch.
        cache_budget: what the plan may fill of that folder, e.g. ``"200GB"``.
        cache_precision: of stored frames.
        cache_any_upstream: also store features that depend on the batch.

    Raises:
        InputError: something that was given is wrong; the message names it.
        KeyboardInterrupt: it was stopped; the same call goes on.

    >>> import superbit
    >>> results = superbit.evaluate(upstreams="fbank", tasks="KS", limit=2, paths=paths_file,
    ...                             results=folder)
    >>> results.to_pandas()[["upstream", "task", "status", "limited"]].values.tolist()
    [['fbank', 'KS', 'done', True]]
    """
    from superbit.messages import in_python

    with in_python():
        from superbit.benchmark.features.store import cache_settings
        from superbit.benchmark.progress import Reporter
        from superbit.benchmark.sweeping.plan import SweepRequest
        from superbit.benchmark.sweeping.sweep import require_sound, sweep
        from superbit.modules import as_specs
        from superbit.upstreams.errors import require_one_of
        from superbit.upstreams.rng import undrawn

    folder, reporter = Path(results), Reporter()
    with in_python(), undrawn(), as_specs(_several(upstreams, "upstreams")) as specs:
        require_one_of("scale", scale, ["superb", "embedded"])
        require_one_of("cache_precision", cache_precision, ["float16", "float32"])
        request = SweepRequest(
            upstreams=specs,
            tasks=tuple(_several(tasks, "tasks")),
            scale=scale,
            seeds=_seeds(seeds),
            learning_rates=_rates(learning_rates),
            overrides=None if overrides is None else Path(overrides),
            limit=limit,
        )
        require_sound(request, jobs=jobs)
        storing = cache_settings(
            results=folder,
            folder=None if cache_dir is None else Path(cache_dir),
            none=no_cache,
            budget=cache_budget,
            precision=cache_precision,
            any_upstream=cache_any_upstream,
        )
        swept = sweep(
            request,
            paths=_demo_corpora(folder, scale, reporter) if paths is None else Path(paths),
            results=folder,
            storing=storing,
            device=device,
            jobs=jobs,
            reporter=reporter,
        )
    return _results(swept)


def _results(swept: Swept) -> Results:
    from superbit.benchmark.scoring.chance import with_chance
    from superbit.collection import Results

    outcome = swept.outcome
    if outcome is None or outcome.left:
        raise KeyboardInterrupt("stopped; the same call goes on.")
    ended: dict[str, RunRecord] = {
        record.key: record for record in [*outcome.done, *outcome.failed]
    }
    for identity in outcome.reused:
        ended[identity.key] = swept.store.read(identity)
    wanted = [identity.key for planned in swept.plan.runs for identity in planned.identities]
    return Results(
        folder=swept.store.root,
        records=tuple(with_chance([ended[k] for k in wanted if k in ended], swept.store)),
        searches=tuple(swept.plan.searches),
    )


def _demo_corpora(results: Path, scale: str, reporter: Reporter) -> Path:
    """The paths file of synthesized corpora beside the results, which are made if need be."""
    from superbit.benchmark.corpora.embedded.make import make_corpora
    from superbit.upstreams.errors import InputError

    if scale == "superb":
        raise InputError("paths: name the file that says where SUPERB's corpora lie.")
    with reporter.counting("synthesizing speech, size demo") as on_progress:
        return make_corpora(results / "corpora", size="demo", on_progress=on_progress)


def _several(given: Any, name: str) -> list[Any]:
    """One of them, or several, as a list; a text may hold several behind commas, as in a shell."""
    from superbit.benchmark.sweeping.plan import split_list
    from superbit.upstreams.errors import InputError

    if isinstance(given, str):
        return list(split_list(given, option=name))
    several = list(given) if isinstance(given, list | tuple | set | dict) else [given]
    if not several:
        raise InputError(f"{name}: name at least one.")
    return several


def _seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)


def _rates(
    given: float | Sequence[float] | Literal["search"] | None,
) -> tuple[float, ...] | Literal["search"]:
    from superbit.upstreams.errors import InputError

    if given is None:
        return ()
    if isinstance(given, str):
        if given != "search":
            raise InputError(
                f"learning_rates: {given!r} is no number: give one, several, or 'search'."
            )
        return "search"
    return (float(given),) if isinstance(given, int | float) else tuple(map(float, given))
