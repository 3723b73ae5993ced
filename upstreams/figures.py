"""matplotlib is an option: what draws says so before it computes."""

from __future__ import annotations

from superbit.upstreams.errors import InputError
from superbit.upstreams.extras import pip_line


def require_matplotlib(what: str, *, instead: str = "") -> None:
    """Refuse to go on without matplotlib.

    Args:
        what: needs it, e.g. ``"--format png"``.
        instead: what would do without, e.g. ``"choose csv"``.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        other = f", or {instead}" if instead else ""
        raise InputError(
            f"{what} needs matplotlib; install it with: {pip_line('figures')}{other}."
        ) from None
