"""Sparseformer: the vanilla encoder with fixed factorised sparse attention in every layer.

Reference: Child et al., 2019, https://arxiv.org/abs/1904.10509, section 4.3. Only which keys a
frame sees differs from `vanilla.py`: the parameters are the same, name by name.
"""

from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.encoders.vanilla import TransformerEncoder
from superbit.upstreams.hubert_config import HubertConfig


class SparseformerEncoder(TransformerEncoder):
    """Post-LN transformer layers under the sparse mask."""

    @staticmethod
    def make_attention(config: HubertConfig) -> SparseSelfAttention:
        """Return one layer's attention: sparse, with the config's stride and expressivity."""
        return SparseSelfAttention(
            config.dim,
            config.heads,
            stride=config.sparse_stride,
            expressivity=config.sparse_expressivity,
            dropout=config.attention_dropout,
        )
