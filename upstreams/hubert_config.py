"""The sizes of every speech encoder of this package, as data; importing this needs no torch.

References:
- HuBERT: Hsu et al., 2021, https://arxiv.org/abs/2106.07447 (the model the encoders are cut from).
- FastConv: the front end "WFE-C" of SEW, Wu et al., 2021, https://arxiv.org/abs/2109.06870, with
  64 base channels and one pointwise layer after each strided one.
- Sparse factorised attention: Child et al., 2019, https://arxiv.org/abs/1904.10509, section 4.3;
  stride 32 and expressivity 8 are fairseq's defaults, as the paper gives none.
- Conformer: Gulati et al., 2020, https://arxiv.org/abs/2005.08100; relative positions in its
  attention: Dai et al., 2019, https://arxiv.org/abs/1901.02860.
- Squeezeformer: Kim et al., 2022, https://arxiv.org/abs/2206.00888.
- Layers, widths and heads of the named sizes: Table 1 of the paper.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any

from superbit.upstreams import encoder_kinds
from superbit.upstreams.encoder_kinds import ENCODERS, SQUEEZEFORMERS, WITH_CONVOLUTION
from superbit.upstreams.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "ENCODERS",
    "FASTCONV",
    "FASTCONV_NANO",
    "NAMED_SIZES",
    "SQUEEZEFORMERS",
    "WITH_CONVOLUTION",
    "HubertConfig",
    "add_kind",
    "fastconv_layers",
]

# One convolution of the front end: (channels out, kernel in samples of its input, stride).
ConvLayer = tuple[int, int, int]


def fastconv_layers(*channels: int) -> tuple[ConvLayer, ...]:
    """Return FastConv's 13 layers at the given 13 channel counts.

    Kernels and strides are those of SEW's WFE-C: the receptive field is 400 samples (25 ms at
    16 kHz) and the hop 320 samples (20 ms), as wav2vec 2.0 and HuBERT have them.
    """
    shapes = ((10, 5), *((3, 2), (1, 1)) * 4, *((2, 2), (1, 1)) * 2)
    return tuple(
        (width, kernel, stride) for width, (kernel, stride) in zip(channels, shapes, strict=True)
    )


FASTCONV = fastconv_layers(64, *(128,) * 4, *(256,) * 4, *(512,) * 4)
FASTCONV_NANO = fastconv_layers(32, *(64,) * 4, *(128,) * 8)

PADDINGS = ("independent", "fairseq")
ATTENTION_POSITIONS = ("none", "relative")


@dataclass(frozen=True, kw_only=True)
class HubertConfig:
    """Everything that fixes the shape and the arithmetic of one FP32 model.

    Raises `InputError` for a value that no model can have, naming the key.
    """

    encoder: str  # the kind: one of ENCODERS, or one that was registered
    layers: int
    dim: int  # width of the encoder and of every hidden state
    heads: int
    ffn_dim: int  # inner width of the feed-forward blocks
    conv_layers: tuple[ConvLayer, ...] = FASTCONV
    position_kernel: int = 128  # frames seen by the positional convolution
    position_groups: int = 16
    sparse_stride: int = 32  # frames in a window of the sparse attention
    sparse_expressivity: int = 8  # summary frames at the end of each window, seen by every frame
    depthwise_kernel: int = 31  # frames seen by the convolution module of a layer; odd
    attention_position: str = "none"  # or "relative": distances enter the attention's scores
    reduction_kernel: int = 3  # frames behind one of half the rate
    reduce_before: int | None = None  # layer (from 0) before which time is halved; None: by layers
    recover_before: int | None = None  # layer before which it is doubled again
    padding: str = "independent"  # or "fairseq": zeros after short waveforms leak, as in the peers
    final_dim: int = 256  # width in which pre-training compares frames with units
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    input_dropout: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                _require_integer(field.name, value, at_least=1)
            elif field.type is float:
                _require_probability(field.name, value)
        if not encoder_kinds.is_known(self.encoder):
            _require_choice("encoder", self.encoder, encoder_kinds.kinds())
        _require_choice("padding", self.padding, PADDINGS)
        _require_choice("attention_position", self.attention_position, ATTENTION_POSITIONS)
        object.__setattr__(self, "conv_layers", _as_conv_layers(self.conv_layers))
        _require_division("heads", self.heads, self.dim)
        _require_division("position_groups", self.position_groups, self.dim)
        _require_integer("sparse_stride", self.sparse_stride, at_least=2)
        if self.sparse_expressivity > self.sparse_stride:
            raise InputError(
                f"sparse_expressivity is {self.sparse_expressivity}, more than the "
                f"{self.sparse_stride} frames of a window (sparse_stride)."
            )
        if self.depthwise_kernel % 2 == 0:
            raise InputError(
                f"depthwise_kernel is {self.depthwise_kernel}; an odd number of frames is needed, "
                "so that as many are seen on either side."
            )
        if self.attention_position != "none" and self.encoder not in WITH_CONVOLUTION:
            raise InputError(
                f"attention_position is {self.attention_position!r}, which is not for the "
                f"{self.encoder} encoder; it is for {', '.join(WITH_CONVOLUTION)}."
            )
        _require_integer("reduction_kernel", self.reduction_kernel, at_least=2)
        self._check_half_rate()

    def _check_half_rate(self) -> None:
        for key in ("reduce_before", "recover_before"):
            value = getattr(self, key)
            if value is None:
                continue
            _require_integer(key, value, at_least=0)
            if self.encoder not in SQUEEZEFORMERS:
                raise InputError(
                    f"{key} is {value}, which is not for the {self.encoder} encoder; it is for "
                    f"{', '.join(SQUEEZEFORMERS)}."
                )
        if self.encoder not in SQUEEZEFORMERS:
            return
        _require_integer("layers of a Squeezeformer", self.layers, at_least=2)
        half = self.half_rate_layers
        if not half.start < half.stop < self.layers:
            raise InputError(
                f"reduce_before is {half.start} and recover_before {half.stop}; the first must be "
                f"below the second, and that below the {self.layers} layers."
            )

    @property
    def feature_dim(self) -> int:
        """Channels of the front end's output."""
        return self.conv_layers[-1][0]

    @property
    def half_rate_layers(self) -> range:
        """Indices of the layers that run at half the frame rate: none but in a Squeezeformer.

        There by default the ``layers // 2`` before the last: 7 to 14 of 16, as its paper has it,
        and 1 to 2 of 4.
        """
        if self.encoder not in SQUEEZEFORMERS:
            return range(0)
        start = (self.layers - 1) // 2 if self.reduce_before is None else self.reduce_before
        stop = self.layers - 1 if self.recover_before is None else self.recover_before
        return range(start, stop)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next: the downsample rate, 320 for FastConv."""
        return prod(stride for _, _, stride in self.conv_layers)

    @property
    def receptive_field(self) -> int:
        """Samples behind one frame, so the shortest audio that has a frame: 400 for FastConv."""
        samples = 1
        for _, kernel, stride in reversed(self.conv_layers):
            samples = (samples - 1) * stride + kernel
        return samples

    def convolution_frames(self, samples: int) -> int:
        """Frames that the front end's convolutions give for so many samples (none of padding)."""
        for _, kernel, stride in self.conv_layers:
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain JSON data, defaults included."""
        values = asdict(self)
        values["conv_layers"] = [list(layer) for layer in self.conv_layers]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "HubertConfig":
        """Build from what `to_dict` gave; fields with a default may be absent.

        Raises `InputError` for an unknown key (naming the nearest), a missing one or a bad value.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"a model's config is a mapping of keys to values, not {values!r}.")
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise InputError(
                    f"{key!r} is no key of a model's config.{did_you_mean(str(key), known)}"
                )
        missing = [
            key for key in ("encoder", "layers", "dim", "heads", "ffn_dim") if key not in values
        ]
        if missing:
            raise InputError(f"a model's config lacks {', '.join(missing)}.")
        return cls(**values)


def _require_integer(key: str, value: Any, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise InputError(f"{key} is {value!r}; an integer of at least {at_least} is needed.")


def _require_probability(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{key} is {value!r}; a probability of at least 0 and below 1 is needed.")


def _require_choice(key: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            f"{key} is {value!r}; known are {', '.join(choices)}."
            f"{did_you_mean(str(value), choices)}"
        )


def _require_division(key: str, divisor: int, dim: int) -> None:
    if dim % divisor:
        raise InputError(f"{key} is {divisor}, which does not divide dim {dim}.")


def _as_conv_layers(value: Any) -> tuple[ConvLayer, ...]:
    """Return lists of lists, as JSON gives them, as tuples of three positive integers."""
    needed = "a list of [channels, kernel, stride] is needed"
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"conv_layers is {value!r}; {needed}.")
    for layer in value:
        if not isinstance(layer, list | tuple) or len(layer) != 3:
            raise InputError(f"conv_layers holds {layer!r}; {needed}.")
        for key, number in zip(("channels", "kernel", "stride"), layer, strict=True):
            _require_integer(f"conv_layers: {key} of {list(layer)}", number, at_least=1)
    return tuple((int(width), int(kernel), int(stride)) for width, kernel, stride in value)


# Feasible on two CPU cores. One size for all: at a nano budget "deep and narrow" and "shallow and
# wide" are not told apart, so the two sparse nanos are one architecture under two names.
_NANO = HubertConfig(
    encoder="vanilla", layers=4, dim=128, heads=4, ffn_dim=512, conv_layers=FASTCONV_NANO
)

# The feed-forward of the paper's Conformer and Squeezeformer was left at HuBERT's 3072; with the
# 4 × dim of the other encoders they are "fair", and the block of the Squeezeformer's own paper
# is "faithful". Both are published with relative positions; the paper's have none.
_CONFORMER = HubertConfig(encoder="conformer", layers=16, dim=144, heads=4, ffn_dim=3072)
_SQUEEZE = replace(_CONFORMER, encoder="squeezeformer")

NAMED_SIZES: dict[str, HubertConfig] = {
    "vanilla": HubertConfig(encoder="vanilla", layers=12, dim=768, heads=12, ffn_dim=3072),
    "conformer_s": _CONFORMER,
    "conformer_s_fair": replace(_CONFORMER, ffn_dim=4 * 144),
    "squeeze_xs": _SQUEEZE,
    "squeeze_xs_fair": replace(_SQUEEZE, ffn_dim=4 * 144),
    "squeeze_xs_faithful": replace(
        _SQUEEZE, encoder="squeezeformer_faithful", ffn_dim=4 * 144, reduction_kernel=5
    ),
    "sparseformer_dn_s": HubertConfig(
        encoder="sparseformer", layers=16, dim=256, heads=4, ffn_dim=1024
    ),
    "sparseformer_sw_s": HubertConfig(
        encoder="sparseformer", layers=8, dim=512, heads=4, ffn_dim=2048
    ),
    "vanilla_nano": _NANO,
    # two feed-forwards a layer, each of half the width
    "conformer_nano": replace(_NANO, encoder="conformer", ffn_dim=256),
    "squeeze_nano": replace(_NANO, encoder="squeezeformer", ffn_dim=256),
    "sparseformer_dn_nano": replace(_NANO, encoder="sparseformer"),
    "sparseformer_sw_nano": replace(_NANO, encoder="sparseformer"),
}


def add_kind(
    kind: str,
    build: "Callable[[HubertConfig], nn.Module]",
    *,
    sizes: Mapping[str, Mapping[str, Any]],
    revision: int = 1,
) -> None:
    """Make a kind known, and its named sizes; `superbit.upstreams.register_encoder` says more.

    Raises:
        InputError: a name that is none or is taken, a size that no model can have, or roles that
            do not exist.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", kind) or kind in ENCODERS:
        raise InputError(
            f"encoder kind {kind!r}: a kind is a word of small letters, digits and '_', and not "
            f"one of superbit's own ({', '.join(ENCODERS)})."
        )
    before = encoder_kinds.registered(kind)
    own = () if before is None else before.sizes
    for name in sizes:
        if not name.isidentifier() or name.startswith("bq_"):
            raise InputError(
                f"encoder kind {kind!r}: size {name!r} is no name of an upstream; a name is a "
                "Python identifier, like 'my_nano', and does not begin with 'bq_'."
            )
        if name in NAMED_SIZES and name not in own:
            raise InputError(f"encoder kind {kind!r}: the name {name!r} is taken; choose another.")
    encoder_kinds.check_roles(getattr(build, "roles", {}), where=f"encoder kind {kind!r}")
    new = encoder_kinds.EncoderKind(build=build, revision=revision, sizes=tuple(sizes))
    encoder_kinds.remember(kind, new)
    try:
        made = {
            name: HubertConfig.from_dict({"encoder": kind, **size}) for name, size in sizes.items()
        }
    except InputError as error:
        encoder_kinds.remember(kind, before)
        raise InputError(f"encoder kind {kind!r}, sizes: {error}") from None
    for name in own:
        NAMED_SIZES.pop(name, None)
    NAMED_SIZES.update(made)
