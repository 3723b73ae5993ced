"""Progress of long work: what, how far, how long; bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

T = TypeVar("T")
# Seconds between two lines where there is no terminal to draw a bar on.
_LINE_INTERVAL = 10.0
# So many steps tell a pace, or a tenth of all where those are few.
_TELLING_STEPS, _TELLING_SHARE = 10, 0.1


@functools.cache
def _nowhere() -> TextIO:
    # Never closed: a log handler that a library makes within the block outlives it.
    return open(os.devnull, "w")


class Reporter:
    """Writes progress to ``stream``; s3prl's own output never mixes with it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._bar_now: Any = None

    @property
    def is_terminal(self) -> bool:
        """Whether bars can be drawn."""
        return self.stream.isatty()

    def line(self, text: str) -> None:
        """Write one line, above a bar that is there."""
        if self._bar_now is not None:
            self._bar_now.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[TextIO]:
        """Keep what libraries print away from the terminal; gives the real standard output."""
        out, nowhere = sys.stdout, _nowhere()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield out

    @contextlib.contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Give a callback ``(done, total)`` that shows progress of ``what``."""
        if not self.is_terminal:
            began = time.monotonic()
            last = [began]

            def on_line(done: int, total: int) -> None:
                now = time.monotonic()
                if now - last[0] >= _LINE_INTERVAL:
                    last[0] = now
                    left = f", {_clock((now - began) * (total - done) / done)} left" if done else ""
                    self.line(f"{what}: {done:,} of {total:,}{left}")

            yield on_line
            return
        with self._bar(time_left=True) as bar:
            task = bar.add_task(what, total=None, note="")
            self._bar_now = bar
            try:
                yield lambda done, total: bar.update(task, completed=done, total=total)
            finally:
                self._bar_now = None

    def each(self, what: str, items: Sequence[T]) -> Iterator[T]:
        """Give the items one by one and show how many are done."""
        with self.counting(what) as on_progress:
            for done, item in enumerate(items):
                on_progress(done, len(items))
                yield item
            on_progress(len(items), len(items))

    @contextlib.contextmanager
    def runs(self, *, labels: Sequence[str], steps: Sequence[int]) -> Iterator[RunsProgress]:
        """Progress over runs; ``steps`` are their optimizer steps."""
        if self.is_terminal and labels:
            with self._bar(time_left=False) as bar:
                yield RunsProgress(self, labels=labels, steps=steps, bar=bar)
        else:
            yield RunsProgress(self, labels=labels, steps=steps, bar=None)

    def _bar(self, *, time_left: bool):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            *([TimeRemainingColumn()] if time_left else []),
            TextColumn("{task.fields[note]}"),
            console=Console(file=self.stream),
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )


class RunsProgress:
    """Run i of n, its step, and the time left for all of them at the pace so far."""

    def __init__(self, reporter, *, labels, steps, bar) -> None:
        self._reporter: Reporter = reporter
        self._labels, self._steps, self._bar = list(labels), list(steps), bar
        self._last_line = time.monotonic()
        # Of the first step: what a first run does before it says nothing of the steps.
        self._began: float | None = None
        self._beside = 0.0
        self._run_began: dict[int, float] = {}
        self._counted_from: dict[int, int] = {}
        self._at: dict[int, int] = {}
        self._rows: dict[int, object] = {}
        self._put_off: set[int] = set()

    def line(self, text: str) -> None:
        """Write one line, above the bars where there are any."""
        if self._bar is None:
            self._reporter.line(text)
        else:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block no run is at work: its time says nothing of theirs."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._began is not None:
                self._beside += time.monotonic() - began

    def start(self, index: int) -> None:
        """Run number ``index`` begins."""
        self._run_began[index] = time.monotonic()
        title = f"run {index + 1} of {len(self._labels)}: {self._labels[index]}"
        if self._bar is None:
            if index not in self._put_off:
                self._reporter.line(title)
        else:
            self._rows[index] = self._bar.add_task(title, total=self._steps[index], note="")

    def put_off(self, index: int) -> None:
        """Run ``index`` does not begin after all: another sweep is at it."""
        self._run_began.pop(index)
        if self._bar is not None:
            self._bar.remove_task(self._rows.pop(index))
        if index not in self._put_off:
            self._put_off.add(index)
            self.line(f"  {self._labels[index]}: another sweep is at it; others come first")

    def step(self, index: int, step: int, what: str) -> None:
        """``step`` optimizer steps of run ``index`` are done; ``what`` is being done now."""
        if index not in self._run_began:
            return
        if self._began is None:
            self._began = time.monotonic()
        self._counted_from.setdefault(index, step)
        self._at[index] = step
        note = f"{what}, {self._time_left()}"
        if self._bar is not None:
            self._bar.update(self._rows[index], completed=step, note=note)
        elif time.monotonic() - self._last_line >= _LINE_INTERVAL:
            self._last_line = time.monotonic()
            self._reporter.line(
                f"  run {index + 1}, step {step:,} of {self._steps[index]:,}: {note}"
            )

    def finish(self, index: int, result: str) -> None:
        """Run ``index`` came to ``result``."""
        seconds = time.monotonic() - self._run_began.pop(index)
        self._at[index] = self._steps[index]
        text = f"  {self._labels[index]}: {result} ({seconds:.0f} s)"
        if self._bar is not None:
            self._bar.remove_task(self._rows.pop(index))
        self.line(text)

    def _time_left(self) -> str:
        done = sum(step - self._counted_from.get(index, 0) for index, step in self._at.items())
        telling = min(_TELLING_STEPS, _TELLING_SHARE * sum(self._steps))
        if self._began is None or done <= 0 or done < telling:
            return "time left unknown"
        elapsed = time.monotonic() - self._began - self._beside
        left = sum(self._steps) - sum(self._at.values())
        return f"about {_clock(left * elapsed / done)} left for runs"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
