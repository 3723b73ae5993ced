"""Sparseformer, deep and narrow, as s3prl finds an upstream: a function a name and its twin's.

Layers, width and heads are those of the paper's Table 1.
"""

from superbit.upstreams import pair as _pair
from superbit.upstreams.hubert_config import HubertConfig as _HubertConfig
from superbit.upstreams.hubert_config import nano_size as _nano_size

sparseformer_dn_s, bq_sparseformer_dn_s = _pair(
    "sparseformer_dn_s",
    _HubertConfig(encoder="sparseformer", layers=16, dim=256, heads=4, ffn_dim=1024),
)
sparseformer_dn_nano, bq_sparseformer_dn_nano = _pair(
    "sparseformer_dn_nano", _nano_size("sparseformer", ffn_dim=512)
)
