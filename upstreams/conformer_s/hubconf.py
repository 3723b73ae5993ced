"""Conformer on FastConv, as s3prl finds an upstream: one function a name,
and one for its 1-bit twin.

Sizes are in `superbit.upstreams.hubert_config`, checkpoints and weights in
`superbit.upstreams.expert`. s3prl also passes ``model_config`` and ``refresh``, which mean
nothing here.
"""

from superbit.upstreams.expert import UpstreamExpert as _UpstreamExpert
from superbit.upstreams.expert import build as _build


def conformer_s(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """16 layers × 144: the FP32 Conformer of Table 1, feed-forwards of 3072."""
    return _build("conformer_s", ckpt=ckpt, untrained=untrained, policy=policy)


def conformer_s_fair(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """16 layers × 144 with feed-forwards of 4 × 144."""
    return _build("conformer_s_fair", ckpt=ckpt, untrained=untrained, policy=policy)


def conformer_nano(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """4 layers × 128 on a narrow front end."""
    return _build("conformer_nano", ckpt=ckpt, untrained=untrained, policy=policy)


def bq_conformer_s(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `conformer_s`."""
    return _build("conformer_s", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_conformer_s_fair(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `conformer_s_fair`."""
    return _build("conformer_s_fair", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_conformer_nano(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `conformer_nano`."""
    return _build("conformer_nano", ckpt=ckpt, untrained=untrained, policy="w1a1")
