"""Squeezeformer on FastConv, as s3prl finds an upstream: a function a name and its twin's.

Layers, width and heads are those of the paper's Table 1, whose Squeezeformer was left with HuBERT's
feed-forward of 3072; with 4 × dim it is "fair", and with the block of Squeezeformer's own paper
"faithful". That is published with relative positions in its attention; these have none.
"""

from dataclasses import replace as _replace

from superbit.upstreams import pair as _pair
from superbit.upstreams.encoders.settings import SqueezeformerSettings as _Settings
from superbit.upstreams.hubert_config import HubertConfig as _HubertConfig
from superbit.upstreams.hubert_config import nano_size as _nano_size

_TABLE_1 = _HubertConfig(encoder="squeezeformer", layers=16, dim=144, heads=4, ffn_dim=3072)
_FAIR = _replace(_TABLE_1, ffn_dim=4 * 144)

squeeze_xs, bq_squeeze_xs = _pair("squeeze_xs", _TABLE_1)
squeeze_xs_fair, bq_squeeze_xs_fair = _pair("squeeze_xs_fair", _FAIR)
squeeze_xs_faithful, bq_squeeze_xs_faithful = _pair(
    "squeeze_xs_faithful",
    _replace(_FAIR, encoder="squeezeformer_faithful", own=_Settings(reduction_kernel=5)),
)
# two feed-forwards a layer, each of half the width
squeeze_nano, bq_squeeze_nano = _pair("squeeze_nano", _nano_size("squeezeformer", ffn_dim=256))
