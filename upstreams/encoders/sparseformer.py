"""Sparseformer: the vanilla encoder with fixed factorised sparse attention in every layer.

Reference: Child et al., 2019, https://arxiv.org/abs/1904.10509, section 4.3. Only which keys a
frame sees differs from `vanilla.py`: the parameters are the same, name by name.
"""

from typing import ClassVar

from superbit.upstreams.encoder_kinds import Roles
from superbit.upstreams.encoders.settings import SparseformerSettings
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.encoders.stack import Stack
from superbit.upstreams.encoders.vanilla import TransformerEncoder, make_layer
from superbit.upstreams.hubert_config import HubertConfig


def make_attention(config: HubertConfig) -> SparseSelfAttention:
    """Return one layer's attention: sparse, with the config's stride and expressivity."""
    own: SparseformerSettings = config.own
    return SparseSelfAttention(
        config.dim,
        config.heads,
        stride=own.sparse_stride,
        expressivity=own.sparse_expressivity,
        dropout=config.attention_dropout,
    )


class SparseformerEncoder(Stack):
    """Post-LN transformer layers under the sparse mask."""

    roles: ClassVar[Roles] = TransformerEncoder.roles

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config, lambda config: make_layer(config, make_attention(config)))
