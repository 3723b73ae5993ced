"""What kinds of encoder have of their own, in sizes at which a few frames show all that they do."""

from superbit.upstreams.encoders.settings import (
    ConformerSettings,
    SparseformerSettings,
    SqueezeformerSettings,
)

TINY_SETTINGS = {
    "sparseformer": SparseformerSettings(sparse_stride=4, sparse_expressivity=1),
    "conformer": ConformerSettings(depthwise_kernel=5),
    "squeezeformer": SqueezeformerSettings(depthwise_kernel=5),
    "squeezeformer_faithful": SqueezeformerSettings(depthwise_kernel=5),
}
