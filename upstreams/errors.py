"""The one error class for mistakes in what the user gave us."""

from collections.abc import Sequence

_LONGEST = 200  # characters of what a message repeats


class InputError(Exception):
    """Something the user gave is wrong.

    The message is one sentence that names the file or key, what was wrong and what would be
    right. The command line prints it without a traceback and exits with status 2; every other
    exception is ours and exits with status 1.
    """


class BrokenUpstream(InputError):
    """What is wrong is in one upstream's own code or files; what it raised is the cause.

    A sweep fails that upstream's runs and goes on with the others. One sentence cannot tell where
    it is: the command line shows it with ``--traceback``.
    """


def one_line(error: BaseException) -> str:
    """Return what an error says in one line, as a record gives its reason."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def shortened(text: str) -> str:
    """Return a text that a message can hold: of a long one its beginning and end."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 40]}…{text[-20:]}"


def did_you_mean(wrong: str, known: "list[str] | set[str] | tuple[str, ...]") -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest of ``known``, or an empty string."""
    import difflib

    near = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def require_one_of(what: str, given: str, known: Sequence[str]) -> None:
    """Refuse what is none of ``known``.

    Raises:
        InputError: it names ``what`` it is, and the nearest of those there are.
    """
    if given not in known:
        hint = did_you_mean(given, list(known))
        raise InputError(f"unknown {what} {given!r}: write one of {', '.join(known)}.{hint}")
