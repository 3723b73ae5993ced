"""What a row of Table 1 is about: a spec, resolved to a config or to somebody else's module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from superbit.benchmark.profiling import paper_table
from superbit.upstreams import registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.policy import Policy, load_policy
from superbit.upstreams.spec import TWIN_POLICY, UpstreamSpec


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model to profile.

    Attributes:
        spec: its canonical spec.
        label: the paper's, where the paper has this model; else the spec.
        config: the sizes of one of superbit's own; None for any other upstream.
        expert: the module of any other upstream; None for superbit's own.
        policy: how its twin is binarized; None for full precision.
    """

    spec: UpstreamSpec
    label: str
    config: HubertConfig | None = None
    expert: nn.Module | None = None
    policy: Policy | None = None

    @property
    def in_paper(self) -> bool:
        """Whether the paper's Table 1 has this row."""
        return self.label in paper_table.printed()

    @property
    def precision(self) -> str:
        """As the paper writes it."""
        return f"FP32-{self.policy.name.upper()}" if self.policy else "FP32"


def resolve(text: str) -> Subject:
    """Return what ``text`` names; superbit's own are not built, so that no weight is drawn.

    Raises:
        InputError: no such upstream, policy or checkpoint.
    """
    spec = UpstreamSpec.parse(text).normalized()
    entry = registry.find(spec.name)
    if not entry.ours:
        return Subject(spec=spec, label=str(spec), expert=registry.load_upstream(text).expert)
    config, own_sizes = _config(spec)
    policy = load_policy(spec.policy) if spec.policy else None
    label = None
    if own_sizes and spec.policy in (None, TWIN_POLICY):
        label = paper_table.label_of(spec.name, twin=policy is not None)
    return Subject(spec=spec, label=label or str(spec), config=config, policy=policy)


def _config(spec: UpstreamSpec) -> tuple[HubertConfig, bool]:
    """Return the sizes, which are a checkpoint's where there is one, and whether they are named."""
    from superbit.upstreams import checkpoint
    from superbit.upstreams.expert import packaged_checkpoint
    from superbit.upstreams.hubert_config import NAMED_SIZES

    directory: str | Path | None = spec.checkpoint
    if directory is None and not spec.untrained:
        directory = packaged_checkpoint(spec.name)
    if directory is None:
        return NAMED_SIZES[spec.name], True
    model = checkpoint.load(directory, name=spec.name).model
    if model.policy is not None and spec.policy is None:
        twin = str(replace(spec, policy=model.policy.name))
        raise InputError(
            f"{directory} holds a twin of policy {model.policy.name!r}, which {str(spec)!r} would "
            f"count as FP32; {twin!r} counts it as it is."
        )
    return model.config, model.config == NAMED_SIZES[spec.name]
