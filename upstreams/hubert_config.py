"""The sizes of every speech encoder of this package, as data; importing this needs no torch.

References:
- HuBERT: Hsu et al., 2021, https://arxiv.org/abs/2106.07447 (the model the encoders are cut from).
- FastConv: the front end "WFE-C" of SEW, Wu et al., 2021, https://arxiv.org/abs/2109.06870, with
  64 base channels and one pointwise layer after each strided one.
- Sparse factorised attention: Child et al., 2019, https://arxiv.org/abs/1904.10509, section 4.3;
  stride 32 and expressivity 8 are fairseq's defaults, as the paper gives none.
- Layers, widths and heads of the named sizes: Table 1 of the paper.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import Any

from superbit.upstreams.errors import InputError, did_you_mean

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

ENCODERS = ("vanilla", "sparseformer")
PADDINGS = ("independent", "fairseq")


@dataclass(frozen=True, kw_only=True)
class HubertConfig:
    """Everything that fixes the shape and the arithmetic of one FP32 model.

    Raises `InputError` for a value that no model can have, naming the key.
    """

    encoder: str  # the kind, one of ENCODERS
    layers: int
    dim: int  # width of the encoder and of every hidden state
    heads: int
    ffn_dim: int  # inner width of the feed-forward blocks
    conv_layers: tuple[ConvLayer, ...] = FASTCONV
    position_kernel: int = 128  # frames seen by the positional convolution
    position_groups: int = 16
    sparse_stride: int = 32  # frames in a window of the sparse attention
    sparse_expressivity: int = 8  # summary frames at the end of each window, seen by every frame
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
        _require_choice("encoder", self.encoder, ENCODERS)
        _require_choice("padding", self.padding, PADDINGS)
        object.__setattr__(self, "conv_layers", _as_conv_layers(self.conv_layers))
        _require_division("heads", self.heads, self.dim)
        _require_division("position_groups", self.position_groups, self.dim)
        _require_integer("sparse_stride", self.sparse_stride, at_least=2)
        if self.sparse_expressivity > self.sparse_stride:
            raise InputError(
                f"sparse_expressivity is {self.sparse_expressivity}, more than the "
                f"{self.sparse_stride} frames of a window (sparse_stride)."
            )

    @property
    def feature_dim(self) -> int:
        """Channels of the front end's output."""
        return self.conv_layers[-1][0]

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

NAMED_SIZES: dict[str, HubertConfig] = {
    "vanilla": HubertConfig(encoder="vanilla", layers=12, dim=768, heads=12, ffn_dim=3072),
    "sparseformer_dn_s": HubertConfig(
        encoder="sparseformer", layers=16, dim=256, heads=4, ffn_dim=1024
    ),
    "sparseformer_sw_s": HubertConfig(
        encoder="sparseformer", layers=8, dim=512, heads=4, ffn_dim=2048
    ),
    "vanilla_nano": _NANO,
    "sparseformer_dn_nano": replace(_NANO, encoder="sparseformer"),
    "sparseformer_sw_nano": replace(_NANO, encoder="sparseformer"),
}
