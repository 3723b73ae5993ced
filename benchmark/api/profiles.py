"""``superbit.profile``: what models cost, as Table 1 says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from superbit.models import Model

if TYPE_CHECKING:
    import pandas as pd

    from superbit.benchmark.rendering import Format

Accounting = Literal["paper", "honest", "both"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Rows of Table 1; it prints as Markdown, and is HTML in a notebook.

    Attributes:
        rows: one a model, by the names of the CSV's columns.
        accounting: ``"paper"``, ``"honest"`` or ``"both"``.
        seconds: of audio at 16 kHz.
    """

    rows: tuple[dict[str, Any], ...] = field(repr=False)
    accounting: Accounting
    seconds: float

    def to_pandas(self) -> pd.DataFrame:
        """Return one row a model, one column a figure; the columns' names say the units."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def to_text(self, format: Format = "md") -> str:
        """Return the table as ``"md"``, ``"csv"``, ``"json"``, ``"latex"`` or ``"html"``.

        Raises:
            InputError: another format.
        """
        from superbit.benchmark.profiling.rendering import render_table1

        rows = [dict(row) for row in self.rows]
        return render_table1(rows, accounting=self.accounting, seconds=self.seconds, format=format)

    def __repr__(self) -> str:
        return self.to_text("md").rstrip("\n")

    def _repr_html_(self) -> str:
        return self.to_text("html")


def profile(
    models: str | Model | Sequence[str | Model] = (),
    *,
    seconds: float = 10.0,
    accounting: Accounting = "both",
    measure: bool = False,
    challenge: bool = False,
    threads: int | None = None,
    label: Sequence[str] = (),
) -> Profile:
    """Return what models cost: storage, FLOP, BOP and, if asked for, time on this machine.

    Args:
        models: a spec or a model of `superbit.load`, or several; without any, the paper's ten rows.
        seconds: of audio at 16 kHz.
        accounting: the paper's arithmetic, the honest one, or both.
        measure: time a forward pass of each on this machine.
        challenge: count the SUPERB challenge's 32 utterances as well.
        threads: of what is timed; the cores of this process where not given.
        label: what to call models, each ``"NAME=SPEC"``.

    Raises:
        InputError: an unknown spec or accounting, no thread, or audio too short for a frame.

    >>> import superbit
    >>> table = superbit.profile(["vanilla_nano", "bq_vanilla_nano"], seconds=1).to_pandas()
    >>> list(table["precision"])
    ['FP32', 'FP32-W1A1']
    """
    from superbit.messages import in_python

    with in_python():
        from superbit.benchmark.profiling.table1 import table1_rows
        from superbit.benchmark.progress import Reporter

    several = [models] if isinstance(models, str | Model) else list(models)
    reporter = Reporter()
    with in_python(), reporter.quiet():
        rows = table1_rows(
            [each.spec if isinstance(each, Model) else each for each in several],
            seconds=seconds,
            accounting=accounting,
            measure_time=measure,
            challenge=challenge,
            threads=threads,
            label=[label] if isinstance(label, str) else list(label),
            reporter=reporter,
        )
    return Profile(rows=tuple(rows), accounting=accounting, seconds=seconds)
