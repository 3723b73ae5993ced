"""``superbit.load_results``: runs as a DataFrame, and the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

    from superbit.benchmark.records.rate_search import DeclaredSearch
    from superbit.benchmark.records.schema import RunRecord
    from superbit.benchmark.rendering import Format
    from superbit.benchmark.tables.runs import Runs


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A table; it prints as Markdown, and is HTML in a notebook."""

    render: Callable[[Format], str] = field(repr=False)

    def to_text(self, format: Format = "md") -> str:
        """Return the table as ``"md"``, ``"csv"``, ``"json"``, ``"latex"`` or ``"html"``.

        Raises:
            InputError: another format.
        """
        return self.render(format)

    def __repr__(self) -> str:
        return self.render("md").rstrip("\n")

    def _repr_html_(self) -> str:
        return self.render("html")


@dataclass(frozen=True, kw_only=True)
class Results:
    """Runs, done and failed, of one folder of results.

    Attributes:
        folder: where their records are.
        records: the runs, as ``results/README.md`` explains them key by key, each with its chance
            level where that is known.
        searches: over learning rates, of which tables take the chosen run.
    """

    folder: Path
    records: tuple[RunRecord, ...] = field(repr=False)
    searches: tuple[DeclaredSearch, ...] = field(default=(), repr=False)

    @property
    def failed(self) -> tuple[RunRecord, ...]:
        """The runs that have no value; ``reason`` says why."""
        return tuple(record for record in self.records if record.status == "failed")

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        return f"<superbit.Results {self.folder}: {len(self):,} runs{failed}>"

    def _repr_html_(self) -> str:
        return self.to_pandas()._repr_html_()  # type: ignore[operator]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row a run; of a search each learning rate, of ER each fold is a run.

        ``value``, ``low``, ``high`` (of its confidence interval) and ``chance`` (what an answer
        without listening reaches) are in ``unit``: ``"%"``, a ``"fraction"``, or ``"x100"``. ``n``
        is the number of test items. What a run does not have is NaN, ``<NA>`` or None.

        >>> import superbit
        >>> runs = superbit.load_results("results/embedded").to_pandas()
        >>> list(runs.columns[:10])  # doctest: +NORMALIZE_WHITESPACE
        ['upstream', 'task', 'value', 'low', 'high', 'chance', 'seed', 'learning_rate', 'n', 'key']
        """
        from superbit.benchmark.records.frame import to_frame

        return to_frame(self.records)

    def table2(
        self,
        *,
        source: Literal["both", "paper", "runs"] = "both",
        upstreams: Sequence[str] | None = None,
        where: Sequence[str] = (),
        label: Sequence[str] = (),
        show_lr: bool = False,
        mean_over_seeds: bool = True,
        paired: bool = False,
    ) -> Printed:
        """Return Table 2, these runs beneath the paper's rows.

        Args:
            source: the paper's rows, those measured (``"runs"``), or both.
            upstreams: only these, in this order.
            where: conditions ``"FIELD=VALUE"`` on runs, as ``superbit table 2 --where`` has them.
            label: what to call upstreams, each ``"NAME=SPEC"``.
            show_lr: print each run's learning rate.
            mean_over_seeds: of runs that differ in the seed, the mean and the standard deviation.
            paired: of each twin what it differs by from its FP32 parent, on the same test items,
                and a row of what chance gives.

        Raises:
            InputError: a cell that several runs could fill (the message says what tells them
                apart), or something in the arguments that no run has.

        >>> import superbit
        >>> results = superbit.load_results("results/embedded")
        >>> table = results.table2(source="runs", upstreams=["fbank"])
        >>> print(table)  # doctest: +ELLIPSIS
        **Table 2. Evaluation on the SUPERB tasks**
        ...
        """
        from superbit.benchmark.tables.table2 import table2_of_runs
        from superbit.benchmark.tables.table2_rendering import render_table2
        from superbit.messages import in_python

        with in_python():
            table = table2_of_runs(
                self._runs(),
                source=source,
                where=_several(where),
                upstreams=None if upstreams is None else _several(upstreams),
                label=_several(label),
                show_lr=show_lr,
                mean_over_seeds=mean_over_seeds,
                paired=paired,
            )
        return Printed(render=partial(render_table2, table))

    def compare(
        self,
        first: str,
        second: str,
        *,
        against: str | Sequence[str] = (),
        where: Sequence[str] = (),
        label: Sequence[str] = (),
    ) -> Printed:
        """Return what two upstreams differ by, task by task, and whether that is more than luck.

        Over the test items that both were scored on, resampled by speaker where the corpus tells
        speakers, and over the seeds of either; p is corrected over the tasks.

        Args:
            first: spec of an upstream that has runs here.
            second: likewise.
            against: further ones to compare ``first`` with.
            where: conditions ``"FIELD=VALUE"`` on runs.
            label: what to call upstreams, each ``"NAME=SPEC"``.

        Raises:
            InputError: an upstream without runs, or no runs that were made alike.

        >>> import superbit
        >>> results = superbit.load_results("results/embedded")
        >>> results.compare("vanilla_nano", "bq_vanilla_nano")  # doctest: +ELLIPSIS
        **vanilla_nano and bq_vanilla_nano**
        ...
        """
        from superbit.benchmark.tables.compare import compare_runs
        from superbit.benchmark.tables.compare_rendering import render_comparisons
        from superbit.messages import in_python

        with in_python():
            comparisons = compare_runs(
                self._runs(),
                first,
                second,
                *_several(against),
                where=_several(where),
                label=_several(label),
            )
        return Printed(render=partial(render_comparisons, comparisons))

    def _runs(self) -> Runs:
        from superbit.benchmark.records.store import ResultStore
        from superbit.benchmark.tables.runs import Runs

        return Runs(
            records=self.records,
            searches=self.searches,
            read_items=ResultStore(self.folder).read_items,
        )


def load_results(path: str | Path) -> Results:
    """Return every run in a folder of results, by task in the paper's order.

    Args:
        path: the folder; a sweep writes to ``"results/local"`` unless it is told otherwise.

    Raises:
        InputError: there is no such folder, or a file in it is no record; the message names it.

    >>> import superbit
    >>> results = superbit.load_results("results/embedded")
    >>> sorted(set(results.to_pandas()["task"]))
    ['ASR', 'ASV', 'ER', 'IC', 'KS', 'PR', 'QbE', 'SD', 'SF', 'SID']
    """
    from superbit.benchmark.tables.runs import read_runs
    from superbit.upstreams.errors import InputError

    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"results {str(path)!r}: there is no such folder; give the one that a sweep wrote to."
        )
    runs = read_runs(folder)
    return Results(folder=folder, records=runs.records, searches=runs.searches)


def _several(given: str | Sequence[str]) -> list[str]:
    """What was given, one text alone as a list of it."""
    return [given] if isinstance(given, str) else list(given)
