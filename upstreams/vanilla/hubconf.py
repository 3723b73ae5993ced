"""HuBERT's transformer on FastConv, as s3prl finds an upstream: a function a name and its twin's.

Layers, width and heads are those of the paper's Table 1.
"""

from superbit.upstreams import pair as _pair
from superbit.upstreams.hubert_config import HubertConfig as _HubertConfig
from superbit.upstreams.hubert_config import nano_size as _nano_size

vanilla, bq_vanilla = _pair(
    "vanilla", _HubertConfig(encoder="vanilla", layers=12, dim=768, heads=12, ffn_dim=3072)
)
vanilla_nano, bq_vanilla_nano = _pair("vanilla_nano", _nano_size("vanilla", ffn_dim=512))
