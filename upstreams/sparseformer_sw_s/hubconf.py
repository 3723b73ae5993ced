"""Sparseformer, shallow and wide, as s3prl finds an upstream: one function a name,
and one for its 1-bit twin.

Sizes are in `superbit.upstreams.hubert_config`, checkpoints and weights in
`superbit.upstreams.expert`. s3prl also passes ``model_config`` and ``refresh``, which mean
nothing here.
"""

from superbit.upstreams.expert import UpstreamExpert as _UpstreamExpert
from superbit.upstreams.expert import build as _build


def sparseformer_sw_s(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """8 layers × 512: the FP32 Sparseformer-SW-S of Table 1."""
    return _build("sparseformer_sw_s", ckpt=ckpt, untrained=untrained, policy=policy)


def sparseformer_sw_nano(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """4 layers × 128 on a narrow front end."""
    return _build("sparseformer_sw_nano", ckpt=ckpt, untrained=untrained, policy=policy)


def bq_sparseformer_sw_s(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `sparseformer_sw_s`."""
    return _build("sparseformer_sw_s", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_sparseformer_sw_nano(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `sparseformer_sw_nano`."""
    return _build("sparseformer_sw_nano", ckpt=ckpt, untrained=untrained, policy="w1a1")
