"""Squeezeformer on FastConv, as s3prl finds an upstream: one function a name,
and one for its 1-bit twin.

Sizes are in `superbit.upstreams.hubert_config`, checkpoints and weights in
`superbit.upstreams.expert`. s3prl also passes ``model_config`` and ``refresh``, which mean
nothing here.
"""

from superbit.upstreams.expert import UpstreamExpert as _UpstreamExpert
from superbit.upstreams.expert import build as _build


def squeeze_xs(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """16 layers × 144, 8 at half the frame rate: the FP32 Squeezeformer of Table 1."""
    return _build("squeeze_xs", ckpt=ckpt, untrained=untrained, policy=policy)


def squeeze_xs_fair(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """16 layers × 144 with feed-forwards of 4 × 144."""
    return _build("squeeze_xs_fair", ckpt=ckpt, untrained=untrained, policy=policy)


def squeeze_xs_faithful(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """16 layers × 144 as in Squeezeformer's own paper, feed-forwards of 4 × 144."""
    return _build("squeeze_xs_faithful", ckpt=ckpt, untrained=untrained, policy=policy)


def squeeze_nano(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """4 layers × 128, 2 at half the frame rate, on a narrow front end."""
    return _build("squeeze_nano", ckpt=ckpt, untrained=untrained, policy=policy)


def bq_squeeze_xs(ckpt: str | None = None, untrained: bool = False, **_: object) -> _UpstreamExpert:
    """The 1-bit twin of `squeeze_xs`."""
    return _build("squeeze_xs", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_squeeze_xs_fair(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `squeeze_xs_fair`."""
    return _build("squeeze_xs_fair", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_squeeze_xs_faithful(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `squeeze_xs_faithful`."""
    return _build("squeeze_xs_faithful", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_squeeze_nano(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `squeeze_nano`."""
    return _build("squeeze_nano", ckpt=ckpt, untrained=untrained, policy="w1a1")
