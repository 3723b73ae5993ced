"""How far long work is, for whoever shows it: nothing here prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Called with (done, total).
OnProgress = Callable[[int, int], None]
# Of what is counted, a context in which its progress is shown; it gives the callback.
Counting = Callable[[str], AbstractContextManager[OnProgress]]


@contextmanager
def unseen(_what: str) -> Iterator[OnProgress]:
    """Show nothing."""
    yield lambda _done, _total: None
