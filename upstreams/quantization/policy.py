"""Policies: which modules of an encoder are binarized, into which set, with how many bits.

A policy is a YAML file with a ``name`` and a list of ``rules``; those that superbit brings lie in
``policies/`` and ``w1a1.yaml`` explains the keys. Reading one needs no torch.

A rule is for a role, such as ``linear``, or for modules that it names. What has a role the class of
an encoder kind says (its attribute ``roles``), so that one policy fits every kind, and a new kind
brings its own roles. A model, and its checkpoint, carry the policy with the modules named.

Reference: BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016, section 3 (the two sets).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams import encoder_kinds
from superbit.upstreams.encoder_kinds import ROLES, Roles, check_roles
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.files import parse_yaml, read_yaml
from superbit.upstreams.spec import is_policy_file

if TYPE_CHECKING:
    from torch import nn

TENSORS = ("weight", "input", "left", "right")  # what a rule quantizes
SETS = ("signed", "unsigned")  # {-1, +1} and {0, 1}, or their multi-bit ranges
REPLACEMENTS = ("relu",)
FULL_BITS = 32
# A policy that differs from another in bits alone names it, and both numbers of bits.
_LIKE = ("like", "weight_bits", "activation_bits")
_WHERE = ("role", "modules", "encoders")  # the keys of a rule that say what it is for
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Binarization:
    """How one tensor is quantized.

    Attributes:
        bits: of each element, 1 to 8.
        set: ``signed`` {-1, +1} or ``unsigned`` {0, 1}.
        shift: a learned shift for each channel is added first; activations only.
        per_channel: one scale for each output channel in place of one for the tensor; 1-bit
            weights only.
    """

    bits: int
    set: str
    shift: bool = False
    per_channel: bool = False


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to the modules of a role, or to those that any of the globs matches.

    Attributes:
        modules: globs over dotted names; ``*`` stays within one part between dots. Empty where
            there is a role.
        role: one of `ROLES`; None where there are globs. It holds for the kinds that have it.
        encoders: the kinds of encoder the rule holds for; None for all.
        weight: of the module's weight.
        input: of the module's one input.
        left: of a product's left operand.
        right: of a product's right operand.
        replace: the activation that takes the module's place.
    """

    modules: tuple[str, ...] = ()
    role: str | None = None
    encoders: tuple[str, ...] | None = None
    weight: Binarization | None = None
    input: Binarization | None = None
    left: Binarization | None = None
    right: Binarization | None = None
    replace: str | None = None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A named list of rules; ``summary`` says in a line what it is for, and changes nothing."""

    name: str
    rules: tuple[Rule, ...]
    summary: str = field(default="", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data that `policy_from_dict` reads, without what is absent."""
        return {"name": self.name, "rules": [_present(asdict(rule)) for rule in self.rules]}

    def resolved(self, model: nn.Module, *, encoder: str) -> Policy:
        """Return the same policy with modules in place of roles, as ``model``'s encoder has them.

        Rules that name modules stay as they are, and rules of roles that the kind does not have
        are gone: what other kinds are given does not show.

        Args:
            model: a model whose encoder is its child ``encoder``.
            encoder: its kind, for messages.

        Raises:
            InputError: the encoder's roles do not exist, or none of them has a rule.
        """
        if all(rule.role is None for rule in self.rules):
            return self
        roles: Roles = getattr(getattr(model, "encoder", None), "roles", {})
        check_roles(roles, where=f"encoder kind {encoder!r}")
        rules = []
        for rule in self.rules:
            if rule.role is None:
                rules.append(rule)
            elif rule.role in roles:
                globs = tuple(f"encoder.layers.*.{glob}" for glob in roles[rule.role])
                rules.append(replace(rule, role=None, modules=globs))
        if not rules:
            has = f"has the roles {', '.join(roles)}" if roles else "states no roles"
            asked = ", ".join(rule.role or "" for rule in self.rules)
            raise InputError(
                f"policy {self.name!r} has rules for {asked}, "
                f"and a model of kind {encoder!r} {has}: nothing would be binarized. The attribute "
                "'roles' of the encoder's class says which of its modules are what."
            )
        return replace(self, rules=tuple(rules))

    def effect(self, model: nn.Module, *, encoder: str) -> dict[str, Rule]:
        """Return what becomes of each module that the policy changes, however its rules say so.

        Two policies with one effect make the same twin. Arguments and errors as for `match`.
        """
        return {
            name: replace(rule, modules=(), role=None, encoders=None)
            for name, rule in self.match(model, encoder=encoder).items()
        }

    def match(self, model: nn.Module, *, encoder: str) -> dict[str, Rule]:
        """Return the rule of each module of ``model`` that the policy changes, by dotted name.

        Args:
            model: a model whose encoder is its child ``encoder``; the meta device will do.
            encoder: its kind, which decides the rules that hold.

        Raises:
            InputError: as `resolved`; a glob of a rule that holds matches nothing, two rules match
                one module, or a rule gives a weight to a module that has none.
        """
        modules = {name: module for name, module in model.named_modules() if name}
        found: dict[str, Rule] = {}
        for rule in self.resolved(model, encoder=encoder).rules:
            if rule.encoders is not None and encoder not in rule.encoders:
                continue
            for pattern in rule.modules:
                names = [name for name in modules if _matches(name, pattern)]
                if not names:
                    raise InputError(
                        f"policy {self.name!r}: {pattern!r} matches no module of a model of kind "
                        f"{encoder!r}."
                    )
                for name in names:
                    if name in found:
                        raise InputError(f"policy {self.name!r}: two rules match {name!r}.")
                    if rule.weight and getattr(modules[name], "weight", None) is None:
                        raise InputError(
                            f"policy {self.name!r}: {pattern!r} matches {name!r}, which has no "
                            "weight to binarize."
                        )
                    found[name] = rule
        return found


def policy_names() -> list[str]:
    """Return the names of the policies that superbit brings."""
    folder = resources.files("superbit.upstreams") / "quantization" / "policies"
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def load_policy(name: str) -> Policy:
    """Return the policy called ``name``, or that of a file, as a spec has it behind ``+policy=``.

    Args:
        name: one of `policy_names`, or a path that ends in ``.yaml`` or ``.yml``.

    Raises:
        InputError: superbit brings no policy of that name; a file as for `read_policy`.
    """
    if is_policy_file(name):
        return read_policy(name)
    if name not in policy_names():
        raise InputError(
            f"no binarization policy is called {name!r}; there are {', '.join(policy_names())}, "
            f"and a path that ends in .yaml is a file's.{did_you_mean(name, policy_names())}"
        )
    folder = resources.files("superbit.upstreams") / "quantization" / "policies"
    content = read_yaml(folder / f"{name}.yaml", "a policy of superbit's")
    return policy_from_dict(content, where=f"{name}.yaml")


def read_policy(file: str | Path) -> Policy:
    """Return the policy that a YAML file holds.

    Raises:
        InputError: it cannot be read, or is no policy; the message names the file and the key.
    """
    return policy_from_dict(read_yaml(Path(file), "a policy, a YAML file"), where=str(file))


def parse_policy(text: str, *, where: str) -> Policy:
    """Return the policy that ``text`` is; ``where`` names its file in messages.

    Raises:
        InputError: not YAML, an unknown or missing key, or a value that none can have.
    """
    return policy_from_dict(parse_yaml(text, where=where), where=where)


def policy_from_dict(content: Any, *, where: str) -> Policy:
    """Return the policy that plain data is; ``where`` names its origin in messages.

    Raises:
        InputError: an unknown or missing key, or a value that none can have.
    """
    _check_keys(content, ("name", "summary", "rules", *_LIKE), where=where)
    name, rules, summary = (content.get(key) for key in ("name", "rules", "summary"))
    if not isinstance(name, str) or not _WORD.fullmatch(name):  # a folder is named after it
        raise InputError(
            f"{where}: name is {name!r}; a word of letters, digits, '_', '.' and '-' is needed."
        )
    if summary is not None and not isinstance(summary, str):
        raise InputError(f"{where}: summary is {summary!r}; a line of text is needed.")
    if any(key in content for key in _LIKE):
        return _like(content, where=where)
    if not isinstance(rules, list) or not rules:
        raise InputError(f"{where}: rules is {rules!r}; a list of rules is needed.")
    return Policy(
        name=name,
        summary=summary or "",
        rules=tuple(
            _rule(rule, where=f"{where}, rule {number}") for number, rule in enumerate(rules, 1)
        ),
    )


def _like(content: Mapping[str, Any], *, where: str) -> Policy:
    """Return another policy's rules under this one's name and bits."""
    missing = [key for key in _LIKE if key not in content]
    if missing or "rules" in content:
        raise InputError(
            f"{where}: either rules, or {', '.join(_LIKE)} together; "
            f"{'both are given' if 'rules' in content else f'it lacks {missing[0]}'}."
        )
    weight, activation = (_bits(content[key], where=f"{where}: {key}") for key in _LIKE[1:])

    def changed(how: Binarization | None, bits: int) -> Binarization | None:
        return how and replace(how, bits=bits, per_channel=how.per_channel and bits == 1)

    return Policy(
        name=content["name"],
        summary=content.get("summary") or "",
        rules=tuple(
            replace(
                rule,
                weight=changed(rule.weight, weight),
                input=changed(rule.input, activation),
                left=changed(rule.left, activation),
                right=changed(rule.right, activation),
            )
            for rule in load_policy(content["like"]).rules
        ),
    )


def _present(values: dict[str, Any]) -> dict[str, Any]:
    """Drop keys without a value, and turn tuples into lists, all the way down."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            value = _present(value)
        if value is not None and value is not False and value != ():
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


def _rule(content: Any, *, where: str) -> Rule:
    _check_keys(content, tuple(field.name for field in fields(Rule)), where=where)
    tensors = {
        key: _binarization(content[key], where=f"{where}, {key}")
        for key in TENSORS
        if key in content
    }
    if tensors.get("weight") and tensors["weight"].shift:
        raise InputError(f"{where}: a weight takes no shift; its mean is subtracted.")
    for key, how in tensors.items():
        if how.per_channel and (key != "weight" or how.bits > 1):
            raise InputError(f"{where}, {key}: per_channel is for weights of 1 bit.")
    if "weight" in tensors and tensors["weight"].set != "signed":
        raise InputError(f"{where}: a weight's set is signed, not {tensors['weight'].set}.")
    if ("left" in tensors) != ("right" in tensors):
        raise InputError(f"{where}: left and right go together: a product has two operands.")
    if bool({"weight", "input"} & set(tensors)) + ("left" in tensors) + ("replace" in content) != 1:
        raise InputError(
            f"{where}: a rule has weight and input, or left and right, or replace; this one has "
            f"{', '.join(key for key in content if key not in _WHERE) or 'none'}."
        )
    replace = content.get("replace")
    if replace is not None:
        _check_choice(replace, REPLACEMENTS, where=f"{where}: replace")
    encoders = content.get("encoders")
    if encoders is not None:
        encoders = _words(encoders, where=f"{where}: encoders")
        for kind in encoders:
            if not encoder_kinds.is_known(kind):
                _check_choice(kind, encoder_kinds.kinds(), where=f"{where}: encoders")
    role, modules = content.get("role"), tuple[str, ...]()
    if role is None:
        modules = _words(content.get("modules"), where=f"{where}: modules")
    elif "modules" in content:
        raise InputError(f"{where}: a rule is for a role or for modules; both are given.")
    else:
        _check_choice(role, tuple(ROLES), where=f"{where}: role")
    return Rule(
        modules=modules,
        role=role,
        encoders=encoders,
        weight=tensors.get("weight"),
        input=tensors.get("input"),
        left=tensors.get("left"),
        right=tensors.get("right"),
        replace=replace,
    )


def _binarization(content: Any, *, where: str) -> Binarization:
    _check_keys(content, tuple(field.name for field in fields(Binarization)), where=where)
    bits = _bits(content.get("bits"), where=f"{where}: bits")
    shift, per_channel = content.get("shift", False), content.get("per_channel", False)
    for key, value in (("shift", shift), ("per_channel", per_channel)):
        if not isinstance(value, bool):
            raise InputError(f"{where}: {key} is {value!r}; true or false is needed.")
    _check_choice(content.get("set"), SETS, where=f"{where}: set")
    return Binarization(bits=bits, set=content["set"], shift=shift, per_channel=per_channel)


def _bits(value: Any, *, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8:
        raise InputError(f"{where} is {value!r}; an integer from 1 to 8 is needed.")
    return value


def _matches(name: str, pattern: str) -> bool:
    parts, globs = name.split("."), pattern.split(".")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))


def _check_keys(content: Any, known: Sequence[str], *, where: str) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{where} is {content!r}; a mapping of {', '.join(known)} is needed.")
    for key in content:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}.{did_you_mean(str(key), list(known))}")


def _check_choice(value: Any, known: Sequence[str], *, where: str) -> None:
    if value not in known:
        hint = did_you_mean(str(value), list(known))
        raise InputError(f"{where} is {value!r}; known are {', '.join(known)}.{hint}")


def _words(value: Any, *, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise InputError(f"{where} is {value!r}; a list of words is needed.")
    return tuple(value)
