"""Sparseformer, shallow and wide, as s3prl finds an upstream: a function a name and its twin's.

Layers, width and heads are those of the paper's Table 1.
"""

from superbit.upstreams import pair as _pair
from superbit.upstreams.hubert_config import HubertConfig as _HubertConfig
from superbit.upstreams.hubert_config import nano_size as _nano_size

sparseformer_sw_s, bq_sparseformer_sw_s = _pair(
    "sparseformer_sw_s",
    _HubertConfig(encoder="sparseformer", layers=8, dim=512, heads=4, ffn_dim=2048),
)
sparseformer_sw_nano, bq_sparseformer_sw_nano = _pair(
    "sparseformer_sw_nano", _nano_size("sparseformer", ffn_dim=512)
)
