"""Sparseformer, deep and narrow, as s3prl finds an upstream: one function a name,
and one for its 1-bit twin.

Sizes are in `superbit.upstreams.hubert_config`, checkpoints and weights in
`superbit.upstreams.expert`. s3prl also passes ``model_config`` and ``refresh``, which mean
nothing here.
"""

from superbit.upstreams.expert import UpstreamExpert as _UpstreamExpert
from superbit.upstreams.expert import build as _build


def sparseformer_dn_s(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """16 layers × 256: the FP32 Sparseformer-DN-S of Table 1."""
    return _build("sparseformer_dn_s", ckpt=ckpt, untrained=untrained, policy=policy)


def sparseformer_dn_nano(
    ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
) -> _UpstreamExpert:
    """4 layers × 128 on a narrow front end."""
    return _build("sparseformer_dn_nano", ckpt=ckpt, untrained=untrained, policy=policy)


def bq_sparseformer_dn_s(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `sparseformer_dn_s`."""
    return _build("sparseformer_dn_s", ckpt=ckpt, untrained=untrained, policy="w1a1")


def bq_sparseformer_dn_nano(
    ckpt: str | None = None, untrained: bool = False, **_: object
) -> _UpstreamExpert:
    """The 1-bit twin of `sparseformer_dn_nano`."""
    return _build("sparseformer_dn_nano", ckpt=ckpt, untrained=untrained, policy="w1a1")
