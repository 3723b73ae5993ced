"""``superbit.load_results``: runs as a DataFrame, and the tables made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from superbit.benchmark.records.rate_search import Declared
    from superbit.benchmark.records.schema import RunRecord
    from superbit.benchmark.tables.formats import Format

# The columns of `Results.to_pandas`, and of which dtype each is.
_COLUMNS = {
    **dict.fromkeys(("upstream", "task"), "str"),
    **dict.fromkeys(("value", "low", "high", "chance"), "float64"),
    "seed": "int64",
    "learning_rate": "float64",
    "n": "Int64",
    **dict.fromkeys(("key", "metric", "unit", "scale", "corpus"), "str"),
    "fold": "Int64",
    "status": "str",
    **dict.fromkeys(("untrained", "limited"), "bool"),
    **dict.fromkeys(("reason", "started"), "str"),
}


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A table; it prints as Markdown, and is HTML in a notebook."""

    texts: dict[Format, str] = field(repr=False)

    def to_text(self, format: Format = "md") -> str:
        """Return the table as ``"md"``, ``"csv"``, ``"json"``, ``"latex"`` or ``"html"``.

        Raises:
            InputError: another format.
        """
        from superbit.benchmark.tables.formats import require_one_of

        require_one_of("format", format, list(self.texts))
        return self.texts[format]

    def __repr__(self) -> str:
        return self.texts["md"].rstrip("\n")

    def _repr_html_(self) -> str:
        return self.texts["html"]


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
    searches: tuple[Declared, ...] = field(default=(), repr=False)

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
        import pandas as pd

        rows = [_row(record) for record in self.records]
        columns = {
            name: pd.Series([row[name] for row in rows], dtype=object if dtype == "str" else dtype)
            for name, dtype in _COLUMNS.items()
        }
        return pd.DataFrame(columns)

    def table2(
        self,
        *,
        source: Literal["both", "paper", "runs"] = "both",
        upstreams: Sequence[str] | None = None,
        where: Sequence[str] = (),
        label: Sequence[str] = (),
        show_lr: bool = False,
        mean_over_seeds: bool = False,
    ) -> Printed:
        """Return Table 2, these runs beneath the paper's rows.

        Args:
            source: the paper's rows, those measured (``"runs"``), or both.
            upstreams: only these, in this order.
            where: conditions ``"FIELD=VALUE"`` on runs, as ``superbit table 2 --where`` has them.
            label: what to call upstreams, each ``"NAME=SPEC"``.
            show_lr: print each run's learning rate.
            mean_over_seeds: of runs that differ in the seed, the mean and the standard deviation.

        Raises:
            InputError: a cell that several runs could fill (the message says what tells them
                apart), or something in the arguments that no run has.

        >>> import superbit
        >>> results = superbit.load_results("results/embedded")
        >>> table = results.table2(source="runs", upstreams=["fbank"], mean_over_seeds=True)
        >>> print(table)  # doctest: +ELLIPSIS
        **Table 2. Evaluation on the SUPERB tasks**
        ...
        """
        from superbit.benchmark.records.choose import parse_where
        from superbit.benchmark.tables.naming import find_upstream, in_order, read_labels
        from superbit.benchmark.tables.table2 import render, table2
        from superbit.words import in_python

        with in_python():
            known = in_order(self.records)
            table = table2(
                self.records,
                source=source,
                where=parse_where(_several(where)),
                searches=self.searches,
                show_rates=show_lr,
                over_seeds=mean_over_seeds,
                upstreams=None
                if upstreams is None
                else [find_upstream(t, known, option="--upstreams") for t in _several(upstreams)],
                names=read_labels(_several(label), known),
            )
            return Printed(texts={format: render(table, format) for format in _formats()})

    def compare(
        self, first: str, second: str, *, where: Sequence[str] = (), label: Sequence[str] = ()
    ) -> Printed:
        """Return how two upstreams compare, task by task, beside the spread over seeds.

        Args:
            first: spec of an upstream that has runs here.
            second: likewise.
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
        from superbit.benchmark.tables.compare import compare_records, render_comparison
        from superbit.words import in_python

        with in_python():
            found = compare_records(
                self.records,
                first,
                second,
                where=_several(where),
                label=_several(label),
                searches=self.searches,
            )
            return Printed(
                texts={format: render_comparison(found, format) for format in _formats()}
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
    from superbit.benchmark.records.store import ResultStore
    from superbit.benchmark.scoring.chance import with_chance
    from superbit.upstreams.errors import InputError

    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"results {str(path)!r}: there is no such folder; give the one that a sweep wrote to."
        )
    store = ResultStore(folder)
    return Results(
        folder=folder,
        records=tuple(with_chance(store.read_all(), store)),
        searches=tuple(store.read_searches()),
    )


def _row(record: RunRecord) -> dict[str, Any]:
    from superbit.benchmark.tasks.catalog import TASKS
    from superbit.upstreams.spec import typed

    identity, task = record.identity, TASKS[record.identity.task]
    interval, items, corpus = record.interval, record.items, record.corpus
    return {
        "upstream": typed(identity.upstream),
        "task": identity.task,
        "value": record.value,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "chance": record.chance.value if record.chance else None,
        "seed": identity.seed,
        "learning_rate": identity.learning_rate,
        "n": items.count if items else None,
        "key": record.key,
        "metric": task.metric,
        "unit": task.unit,
        "scale": record.scale,
        "corpus": (corpus.label or corpus.version or corpus.name) if corpus else None,
        "fold": identity.fold,
        "status": record.status,
        "untrained": record.untrained,
        "limited": record.limited,
        "reason": record.reason,
        "started": record.provenance.started,
    }


def _several(given: str | Sequence[str]) -> list[str]:
    """What was given, one text alone as a list of it."""
    return [given] if isinstance(given, str) else list(given)


def _formats() -> tuple[Format, ...]:
    from typing import get_args

    from superbit.benchmark.tables.formats import Format

    return get_args(Format)
