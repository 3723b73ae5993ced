"""What went wrong in a run, said in the words of the upstream contract where it broke a rule.

A sweep asks only once something failed: the rules pass over waveforms of up to twenty seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any

from superbit.upstreams import stopping
from superbit.upstreams.errors import BrokenUpstream, InputError
from superbit.upstreams.sound import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import nn

# Those that every run needs, in the order in which they are measured.
RULES_OF_A_SWEEP = ("hidden-states", "downsample-rate", "frame-count", "finite")
# Of one who does not know the upstream's spec.
_CHECK = "'superbit check'"


class BrokenContract(BrokenUpstream):
    """An upstream breaks a rule that every run needs; the message names it."""


def breaks(rule: str, seen: str, *, spec: str = "", then: str = "") -> BrokenContract:
    """Return the error that says so.

    Args:
        seen: what was measured, or raised.
        spec: of the upstream, where it is known.
        then: what a run ended in.
    """
    ended = f"; it ended in {then}" if then else ""
    return BrokenContract(
        f"the upstream breaks the contract's rule {rule}: {seen}; needed: {_rule(rule).needed}"
        f"{ended}; {_check(spec)} tells more."
    )


def _check(spec: str) -> str:
    return f"'superbit check {spec}'" if spec else _CHECK


def blamed(error: BaseException, upstream: nn.Module, *, spec: str) -> BaseException:
    """Return what to say of ``error``: the rule that ``upstream`` breaks, or the error itself.

    The error is the cause of what is returned. Whatever the upstream does meanwhile, this does not
    raise.
    """
    if isinstance(error, BrokenContract):
        named = BrokenContract(str(error).replace(_CHECK, _check(spec)))
        named.__cause__ = error.__cause__
        return named
    # A sentence already, or the machine's trouble.
    if isinstance(error, InputError | OSError | MemoryError):
        return error
    try:
        found = broken_rule(upstream)
    except stopping.RAISED as raised:
        stopping.raise_if_users(raised)
        return error
    if found is None:
        return error
    then = " ".join(f"{type(error).__name__}: {_first_line(error)}".split())
    named = breaks(*found, spec=spec, then="" if _first_line(error) in found[1] else then)
    named.__cause__ = error
    return named


def broken_rule(upstream: nn.Module) -> tuple[str, str] | None:
    """Return the first rule that a run needs and ``upstream`` breaks, with what was seen."""
    from superbit.upstreams.contract.probe import ForwardFailed, NoHiddenStates, Probe

    probe = Probe(upstream, ours=False, build=None)
    with _as_it_was(upstream):
        for name in RULES_OF_A_SWEEP:
            try:
                status, seen, *_ = _rule(name).measure(probe)
            except NoHiddenStates:
                continue
            except ForwardFailed as error:
                status, seen = "fail", f"the forward pass raised {error}"
            except stopping.RAISED as error:
                stopping.raise_if_users(error)
                status, seen = "fail", f"raised {type(error).__name__}: {_first_line(error)}"
            if status == "fail":
                return name, " ".join(seen.split())
            probe.found[name] = status
    return None


def require_rate(upstream: nn.Module, *, spec: str) -> None:
    """Refuse an upstream that does not say how many samples a frame has; no forward pass.

    s3prl guesses a rate from one second, which cuts the frames of longer utterances.

    Raises:
        BrokenContract: it has no such method, or the method gives no number above 0.
    """
    method = getattr(upstream, "get_downsample_rates", None)
    if not callable(method):
        raise breaks("downsample-rate", "there is no method get_downsample_rates", spec=spec)
    try:
        rate: Any = method("hidden_states")
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        seen = f"raised {type(error).__name__}: {_first_line(error)}"
        raise breaks("downsample-rate", seen, spec=spec) from error
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < float(rate) < inf:
        raise breaks("downsample-rate", f"{rate!r} ({type(rate).__name__})", spec=spec)


def require_frames(frames: int, *, samples: int, rate: float) -> None:
    """Refuse a number of frames that s3prl's featurizer refuses.

    Args:
        frames: of a batch whose longest waveform has ``samples`` at ``rate`` samples a frame.

    Raises:
        BrokenContract: they are five or more off.
    """
    from superbit.upstreams.contract.rules import FRAME_TOLERANCE

    due = round(samples / rate)
    if abs(frames - due) >= FRAME_TOLERANCE:
        raise breaks(
            "frame-count",
            f"{frames} frames for {samples / SAMPLE_RATE:.3g} s at {rate:g} samples a frame, "
            f"{due} are due",
        )


def not_finite() -> BrokenContract:
    """NaN or infinity came out of an upstream."""
    return breaks("finite", "the upstream gave NaN or infinity")


def _rule(name: str) -> Any:
    from superbit.upstreams.contract.rules import RULES

    return next(rule for rule in RULES if rule.name == name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


@contextmanager
def _as_it_was(upstream: nn.Module) -> Iterator[None]:
    """Leave modes and random states as they were; forward passes in eval mode move no weights."""
    import numpy as np
    import torch

    modes = [(module, module.training) for module in upstream.modules()]
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
