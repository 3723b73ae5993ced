"""Conformer on FastConv, as s3prl finds an upstream: a function a name and its twin's.

Layers, width and heads are those of the paper's Table 1, whose Conformer was left with HuBERT's
feed-forward of 3072; with 4 × dim, as the other encoders have it, it is "fair". Conformer is
published with relative positions in its attention; the paper's has none.
"""

from dataclasses import replace as _replace

from superbit.upstreams import pair as _pair
from superbit.upstreams.hubert_config import HubertConfig as _HubertConfig
from superbit.upstreams.hubert_config import nano_size as _nano_size

_TABLE_1 = _HubertConfig(encoder="conformer", layers=16, dim=144, heads=4, ffn_dim=3072)

conformer_s, bq_conformer_s = _pair("conformer_s", _TABLE_1)
conformer_s_fair, bq_conformer_s_fair = _pair(
    "conformer_s_fair", _replace(_TABLE_1, ffn_dim=4 * 144)
)
# two feed-forwards a layer, each of half the width
conformer_nano, bq_conformer_nano = _pair("conformer_nano", _nano_size("conformer", ffn_dim=256))
