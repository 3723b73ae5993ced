"""A model with all the parts of a real one, and small enough to be made in a moment."""

from superbit.upstreams.hubert_config import HubertConfig

# two heads of 36 channels: no whole number of words
SMALL = HubertConfig(
    encoder="vanilla",
    layers=2,
    dim=72,
    heads=2,
    ffn_dim=80,
    position_groups=4,
    conv_layers=((16, 400, 320),),
)
