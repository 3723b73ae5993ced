"""What a row of Table 1 is about: a spec, resolved to a config or to somebody else's module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from superbit.benchmark import paper
from superbit.upstreams import registry
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.policy import Policy, load_policy
from superbit.upstreams.spec import TWIN_POLICY, TWIN_PREFIX, UpstreamSpec


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model to profile.

    Attributes:
        spec: its canonical spec.
        label: the paper's, where the paper has this model; else the spec.
        config: the sizes of superbit's model, whoever brings its encoder; None for any other
            upstream.
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
        return self.label in paper.table1_figures()

    @property
    def precision(self) -> str:
        """As the paper writes it."""
        return f"FP32-{self.policy.name.upper()}" if self.policy else "FP32"


def subject_of(text: str) -> Subject:
    """Return what ``text`` names; superbit's own are not built, so that no weight is drawn.

    Raises:
        InputError: no such upstream, policy or checkpoint, or a checkpoint of a twin that is
            binarized otherwise than was asked for.
    """
    spec = UpstreamSpec.parse(text).normalized()
    entry = registry.find(spec.name, twin=text.startswith(TWIN_PREFIX))
    if not entry.ours:
        expert = registry.load_upstream(text).expert
        model = getattr(expert, "model", None)
        if isinstance(model, Hubert):  # a file's own function that builds superbit's model
            return Subject(spec=spec, label=str(spec), config=model.config, policy=model.policy)
        return Subject(spec=spec, label=str(spec), expert=expert)
    policy = load_policy(spec.policy) if spec.policy else None
    config, own_sizes = _config(spec, policy)
    label = None
    if own_sizes and spec.policy in (None, TWIN_POLICY):
        label = paper.label_of(spec.name, twin=policy is not None)
    return Subject(spec=spec, label=label or str(spec), config=config, policy=policy)


def _config(spec: UpstreamSpec, policy: Policy | None) -> tuple[HubertConfig, bool]:
    """Return the sizes, which are a checkpoint's where there is one, and whether they are named.

    An FP32 checkpoint has the sizes of any twin of it; a twin's must be of the policy asked for.
    """
    from superbit.upstreams import checkpoint
    from superbit.upstreams.expert import packaged_checkpoint, require_policy
    from superbit.upstreams.variant import size_of

    directory: str | Path | None = spec.checkpoint
    if directory is None and not spec.untrained:
        directory = packaged_checkpoint(spec.name)
    if directory is None:
        return size_of(spec.name), True
    model = checkpoint.load(directory, name=spec.name).model
    if model.policy is not None:
        require_policy(model, policy, asked=str(spec), name=spec.name, ckpt=directory)
    return model.config, model.config == size_of(spec.name)
