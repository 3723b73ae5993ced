"""HuBERT's transformer on FastConv, as s3prl finds an upstream: one function a name,
and one for its 1-bit twin.

Sizes are in `superbit.upstreams.hubert_config`, checkpoints and weights in
`superbit.upstreams.expert`. s3prl also passes ``model_config`` and ``refresh``, which mean
nothing here.
"""

from superbit.upstreams.expert import UpstreamExpert as _UpstreamExpert
from superbit.upstreams.expert import build as _build


def vanilla(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """12 layers × 768: the FP32 vanilla transformer of Table 1."""
    return _build("vanilla", ckpt=ckpt, untrained=untrained, policy=policy)


def vanilla_nano(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """4 layers × 128 on a narrow front end."""
    return _build("vanilla_nano", ckpt=ckpt, untrained=untrained, policy=policy)


def bq_vanilla(ckpt: str | None = None, untrained: bool = False, **_: object) -> _UpstreamExpert:
    """The 1-bit twin of `vanilla`."""
    return _build("vanilla", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_vanilla_nano(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `vanilla_nano`."""
    return _build("vanilla_nano", ckpt=ckpt, untrained=untrained, policy="w1a1")
