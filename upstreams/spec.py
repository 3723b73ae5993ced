"""The one grammar by which every verb and every record names an upstream.

``NAME[@CHECKPOINT][+untrained][+policy=POLICY]``, for example ``vanilla_nano+untrained``,
``bq_sparseformer_dn_s@runs/dn/best`` or ``path/to/hubconf.py:my_model@weights.pt``.

A policy is one of superbit's by its name, or a file by its path, which ends in ``.yaml`` or
``.yml`` and may hold anything but ``+policy=`` and ``+untrained``: ``vanilla+policy=mine/w3.yaml``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache

from superbit.upstreams.errors import InputError, shortened

TWIN_PREFIX = "bq_"
TWIN_POLICY = "w1a1"
_POLICY_FILE = re.compile(r"(?:(?!\+policy=|\+untrained).)+\.ya?ml")
_SUFFIX = re.compile(
    r"\+(?P<untrained>untrained)$"
    rf"|\+policy=(?P<policy>[A-Za-z0-9_.-]*|{_POLICY_FILE.pattern})$"
)
_GRAMMAR = "NAME[@CHECKPOINT][+untrained][+policy=POLICY]"


# More than a path can have, on any system.
_LONGEST = 4_096


@dataclass(frozen=True, kw_only=True)
class UpstreamSpec:
    """A parsed upstream spec.

    Attributes:
        name: a registered name, a name of s3prl's hub, or ``path/to/hubconf.py:function``. The
            prefix ``bq_`` is already resolved into ``policy``.
        checkpoint: path of weights, or ``None`` for the packaged ones or none at all.
        untrained: weights drawn from a fixed seed.
        policy: binarization policy, e.g. ``"w1a1"`` or ``"mine/w3.yaml"``; ``None`` for full
            precision.
    """

    name: str
    checkpoint: str | None = None
    untrained: bool = False
    policy: str | None = None

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str) -> UpstreamSpec:
        """Parse ``text``.

        Raises:
            InputError: not of the grammar, or two parts that exclude each other.
        """
        if len(text) > _LONGEST or not text.strip().isprintable():
            raise InputError(
                f"upstream {shortened(repr(text))}: no spec has more than {_LONGEST:,} characters, "
                "line breaks or control characters."
            )
        rest, untrained, policy = text.strip(), False, None
        while match := _SUFFIX.search(rest):
            if match["untrained"]:
                _once(text, "+untrained", seen=untrained)
                untrained = True
            else:
                _once(text, "+policy", seen=policy is not None)
                policy = match["policy"]
            rest = rest[: match.start()]
        # What stands before a path's ".py:" may hold any character.
        folder, path, rest = rest.rpartition(".py:")
        name, at, checkpoint = rest.partition("@")
        name = f"{folder}{path}{name}"
        if "+policy=" in rest:
            raise InputError(
                f"upstream {text!r}: behind '+policy=' stands the name of a policy, or the path "
                f"of a file that ends in .yaml; the grammar is {_GRAMMAR}."
            )
        if "+" in name and ":" not in name:
            wrong = name[name.index("+") :]
            raise InputError(
                f"upstream {text!r}: {wrong!r} is not part of a spec; the grammar is {_GRAMMAR}."
            )
        if not name or (at and not checkpoint) or policy == "":
            raise InputError(f"upstream {text!r}: a part is empty; the grammar is {_GRAMMAR}.")
        if checkpoint and untrained:
            raise InputError(
                f"upstream {text!r}: a checkpoint and '+untrained' exclude each other."
            )
        return cls(
            name=name, checkpoint=checkpoint or None, untrained=untrained, policy=policy
        )._resolve_twin(text)

    def _resolve_twin(self, text: str) -> UpstreamSpec:
        if ".py:" in self.name or not self.name.startswith(TWIN_PREFIX):
            return self
        if self.policy not in (None, TWIN_POLICY):
            plain = self.name.removeprefix(TWIN_PREFIX)
            raise InputError(
                f"upstream {text!r}: the prefix {TWIN_PREFIX!r} already means "
                f"+policy={TWIN_POLICY}; write {plain}+policy={self.policy}."
            )
        plain = self.name.removeprefix(TWIN_PREFIX)
        if plain.startswith(TWIN_PREFIX):
            raise InputError(
                f"upstream {shortened(repr(text))}: the prefix {TWIN_PREFIX!r} is there twice, and "
                "a twin has no twin; write it once."
            )
        return replace(self, name=plain, policy=TWIN_POLICY)

    def normalized(self) -> UpstreamSpec:
        """One spelling for one file: relative to the working directory where it lies below it.

        What records store is already so, and must parse to itself from any directory: hence not
        part of :meth:`parse`.
        """
        name = self.name
        if ".py:" in name:
            file, _, function = name.rpartition(":")
            name = f"{_shortest(file)}:{function}"
        checkpoint = self.checkpoint
        if checkpoint is not None and "://" not in checkpoint:
            checkpoint = _shortest(checkpoint)
        policy = self.policy
        if policy is not None and is_policy_file(policy):
            policy = _shortest(policy)
        return replace(self, name=name, checkpoint=checkpoint, policy=policy)

    @property
    def policy_label(self) -> str:
        """The policy as tables print it: ``W1A1``, and of a file its name without the folder."""
        policy = self.policy or ""
        if is_policy_file(policy):
            policy = os.path.splitext(os.path.basename(policy))[0]
        return policy.upper()

    @property
    def typed(self) -> str:
        """The spelling that people type: ``X+policy=w1a1`` is ``bq_X``; it parses to the same."""
        if self.policy != TWIN_POLICY or ".py:" in self.name:
            return str(self)
        return str(replace(self, name=f"{TWIN_PREFIX}{self.name}", policy=None))

    def __str__(self) -> str:
        """The canonical spelling, which records store: ``bq_X`` is ``X+policy=w1a1``."""
        parts = [self.name]
        if self.checkpoint:
            parts.append(f"@{self.checkpoint}")
        if self.untrained:
            parts.append("+untrained")
        if self.policy:
            parts.append(f"+policy={self.policy}")
        return "".join(parts)


def spelled(given: object) -> str:
    """Return the words of a spec that is given as words, as a path or as an `UpstreamSpec`.

    Raises:
        InputError: it is something else.
    """
    if isinstance(given, UpstreamSpec):
        return given.typed
    if isinstance(given, str | os.PathLike):
        return os.fsdecode(given)
    raise InputError(
        f"the upstream is {given!r}; a spec is needed, {_GRAMMAR}, such as 'vanilla_nano', or a "
        "path, 'path/to/hubconf.py:function'."
    )


def is_policy_file(policy: str) -> bool:
    """Return whether what stands behind ``+policy=`` is a file's path, not a policy's name."""
    return _POLICY_FILE.fullmatch(policy) is not None


def typed(upstream: str) -> str:
    """Return a spec as people type it, see :attr:`UpstreamSpec.typed`."""
    return UpstreamSpec.parse(upstream).typed


def _shortest(path: str) -> str:
    """``path`` relative to the working directory if it is below it, else absolute."""
    absolute, here = os.path.abspath(path), os.getcwd()
    return os.path.relpath(absolute) if absolute.startswith(here + os.sep) else absolute


def _once(text: str, part: str, *, seen: bool) -> None:
    if seen:
        raise InputError(f"upstream {shortened(repr(text))}: {part!r} is given twice.")
