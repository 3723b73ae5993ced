"""How comparisons are printed.

- ``md``, ``latex``, ``html``: a table a pair of upstreams, one row a task, with what the columns
  mean below it. Of SF there is a second row for the slots' character error rate.
- ``csv``: one header, one row a task and pair, numbers alone.
- ``json``: an object a pair (of several pairs a list): what is printed, and of each measure of a
  task, under ``paired``, everything that was found, not rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, get_args

from superbit.benchmark.rendering import Format, TextTable, csv_text, json_text, render_text
from superbit.benchmark.scoring.chance import MARK
from superbit.benchmark.tables.compare import Comparison, TaskComparison
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import require_one_of

if TYPE_CHECKING:
    from superbit.benchmark.pairing.pair import Paired


def render_comparisons(comparisons: Sequence[Comparison], format: Format = "md") -> str:
    """Return comparisons as text that ends with a newline.

    Raises:
        InputError: an unknown format.
    """
    require_one_of("format", format, get_args(Format))
    if format == "json":
        found = [_as_json(comparison) for comparison in comparisons]
        return json_text(found[0] if len(found) == 1 else found)
    if format == "csv":
        lines = [_csv_line(each, line) for each in comparisons for line in _lines(each)]
        return csv_text(_CSV, lines)
    return "\n".join(render_text(_as_text(each), format) for each in comparisons)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row: a measure of a task.

    Attributes:
        of: the task's comparison.
        paired: on single items; None where that is not known.
    """

    of: TaskComparison
    paired: Paired | None

    @property
    def name(self) -> str:
        """``"SF"``, or ``"SF CER"``."""
        return " ".join(filter(None, [self.of.task, self.paired.measure if self.paired else ""]))

    @property
    def own(self) -> bool:
        """Whether it is the number of Table 2."""
        return self.paired is None or not self.paired.measure

    @property
    def higher_is_better(self) -> bool:
        return self.paired.higher_is_better if self.paired else _task(self).higher_is_better

    @property
    def decimals(self) -> int:
        return self.paired.decimals if self.paired else _task(self).decimals

    @property
    def values(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of both upstreams, by rising seed."""
        if self.paired and not self.own:
            return self.paired.first, self.paired.second
        return self.of.first, self.of.second

    @property
    def gain(self) -> float:
        """Above 0 where the first is better."""
        first, second = map(fmean, self.values)
        return first - second if self.higher_is_better else second - first

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the gain."""
        found = self.paired.found if self.paired else None
        if found is None:
            return None
        return (found.low, found.high) if self.higher_is_better else (-found.high, -found.low)


def _task(line: Line) -> Any:
    return TASKS[line.of.task]


def _lines(comparison: Comparison) -> list[Line]:
    return [
        Line(of=each, paired=paired)
        for each in comparison.tasks
        for paired in each.paired or [None]
    ]


def _as_text(comparison: Comparison) -> TextTable:
    called, rows = comparison.called, _lines(comparison)
    mcnemar = any(row.paired and row.paired.mcnemar for row in rows)
    header = [
        "task",
        *called,
        "gain, 95 % interval",
        "p",
        "Holm",
        *(["McNemar"] if mcnemar else []),
    ]
    header += ["could show", f"{called[0]} is", "on"]
    lines = []
    for row in rows:
        line = [
            f"{row.name}{'↑' if row.higher_is_better else '↓'}",
            _figure(row, 0),
            _figure(row, 1),
            _gain(row),
        ]
        found = row.paired.found if row.paired else None
        line.append(_p(found.p if found else None))
        line.append(_p(row.paired.adjusted if row.paired else None))
        if mcnemar:
            line.append(_p(row.paired.mcnemar_p if row.paired else None))
        line.append(f"{found.smallest:.{row.decimals}f}" if found else "")
        line.append((row.paired.verdict if row.paired else None) or "not known")
        line.append(row.paired.sample if row.paired else "")
        lines.append(line)
    has_settings = any(row.of.setting for row in rows)
    if has_settings:
        header.insert(1, "of")
        for line, row in zip(lines, rows, strict=True):
            line.insert(1, row.of.setting)
    return TextTable(
        title=f"{called[0]} and {called[1]}",
        header=header,
        groups=[lines],
        notes=[*_notes(comparison, rows, mcnemar=mcnemar), *comparison.left_out],
        text_columns=2 if has_settings else 1,
        name_columns=(0,),
    )


def _notes(comparison: Comparison, rows: Sequence[Line], *, mcnemar: bool) -> list[str]:
    called, told = comparison.called, [row for row in rows if row.paired]
    notes = [
        f"Mean ± standard deviation over seeds of the head. gain: above 0 where {called[0]} is "
        "better."
    ]
    if told:
        notes += [
            "Over the test items that both were scored on, resampled by what stands last: by "
            "speaker where the items tell speakers, of ER by fold. With several seeds the interval "
            "speaks for other seeds too, with one for these heads alone.",
            f"p: of no difference; Holm: corrected over these {len(told)}. better, worse: Holm "
            "below 0.05. could show: the gain that such a test finds four times of five.",
        ]
    if mcnemar:
        notes.append(
            "McNemar: exact, of items that one alone has right, as if they were independent; of "
            "several seeds twice the median, for these seeds alone."
        )
    compared = dict.fromkeys(row.of.task for row in told)
    for task in (TASKS[name] for name in compared):
        if task.resampling and task.resampling.note:
            notes.append(f"{task.name}: {task.resampling.note}.")
    verdicts = [row.paired.verdict for row in told if row.paired]
    if told:
        notes.append(
            f"{called[0]} is better on {verdicts.count('better')} of {len(told)}, worse on "
            f"{verdicts.count('worse')}, not told apart on {verdicts.count('not told apart')}."
        )
    if any(row.of.first_at_chance or row.of.second_at_chance for row in rows):
        notes.append(f"{MARK}: no seed is better than an answer without listening.")
    notes += [f"Not known: {e.unpaired}" for e in comparison.tasks if e.unpaired]
    if not told and not any(each.unpaired for each in comparison.tasks):
        notes.append("Not known: there are no per-item counts.")
    return notes


def _figure(line: Line, side: int) -> str:
    values = line.values[side]
    spread = f" ±{stdev(values):.{line.decimals}f}" if len(values) > 1 else ""
    at_chance = (line.of.first_at_chance, line.of.second_at_chance)[side] and line.own
    return f"{fmean(values):.{line.decimals}f}{spread}{f' {MARK}' if at_chance else ''}"


def _gain(line: Line) -> str:
    text = f"{line.gain:+.{line.decimals}f}"
    if line.interval is None:
        return text
    return f"{text} [{', '.join(f'{bound:+.{line.decimals}f}' for bound in line.interval)}]"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


_OF_A_SIDE = ("", "_sd", "_n", "_at_chance")
_CSV = [
    *("first", "second", "task", "setting"),
    *(f"{side}_value{end}" for side in ("first", "second") for end in _OF_A_SIDE),
    *("gain", "low", "high", "p", "p_holm", "p_mcnemar", "could_show", "verdict", "items", "on"),
    "beyond_the_seeds",
]


def _csv_line(comparison: Comparison, line: Line) -> list[object]:
    digits = line.decimals + 1
    cells: list[object] = [*comparison.called, line.name, line.of.setting]
    at_chance = (line.of.first_at_chance, line.of.second_at_chance)
    for values, marked in zip(line.values, at_chance, strict=True):
        cells.append(f"{fmean(values):.{digits}f}")
        cells.append(f"{stdev(values):.{digits}f}" if len(values) > 1 else "")
        known = marked if line.own else None
        cells += [len(values), {None: "", True: "yes", False: "no"}[known]]
    cells.append(f"{line.gain:.{digits}f}")
    cells += [f"{bound:.{digits}f}" for bound in line.interval] if line.interval else ["", ""]
    paired = line.paired
    found = paired.found if paired else None
    ps = (found and found.p, paired and paired.adjusted, paired and paired.mcnemar_p)
    cells += ["" if p is None else f"{p:.4g}" for p in ps]
    cells.append(f"{found.smallest:.{digits}f}" if found else "")
    cells += [(paired.verdict or "") if paired else "", paired.items if paired else ""]
    cells.append(paired.sample if paired else "")
    better = {"first": comparison.called[0], "second": comparison.called[1], None: "no"}
    several = min(map(len, line.values)) > 1
    return [*cells, (better[line.of.better] if several else "one seed") if line.own else ""]


def _as_json(comparison: Comparison) -> dict[str, Any]:
    tasks = []
    for each in comparison.tasks:
        held = asdict(each) | {"gain": each.gain}
        held["paired"] = [
            asdict(paired)
            | {"verdict": paired.verdict, "mcnemar_p": paired.mcnemar_p, "on": paired.sample}
            for paired in each.paired
        ]
        tasks.append(held)
    return {
        "first": comparison.called[0],
        "second": comparison.called[1],
        "upstreams": [comparison.first, comparison.second],
        "tasks": tasks,
        "not_compared": list(comparison.left_out),
    }
