"""What all speech encoders of this package share in shape and arithmetic; importing needs no torch.

What one kind of encoder has of its own stands in `superbit.upstreams.encoders.settings`; the named
sizes stand in the folders of the variants, which `superbit.upstreams.variant` collects.

References:
- HuBERT: Hsu et al., 2021, https://arxiv.org/abs/2106.07447 (the model the encoders are cut from).
- FastConv: the front end "WFE-C" of SEW, Wu et al., 2021, https://arxiv.org/abs/2109.06870, with
  64 base channels and one pointwise layer after each strided one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

from superbit.upstreams import encoder_kinds
from superbit.upstreams.encoders import settings
from superbit.upstreams.encoders.settings import LARGEST, require_choice, require_integer
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

PADDINGS = ("independent", "fairseq")
# A slip in these would build for hours before anything else shows it.
_LARGEST = {"layers": 1_000, "dim": 65_536, "ffn_dim": 262_144}
_MOST_CONVOLUTIONS = 100


@dataclass(frozen=True, kw_only=True)
class HubertConfig:
    """Everything that fixes the shape and the arithmetic of one FP32 model.

    Raises `InputError` for a value that no model can have, naming the key.
    """

    encoder: str  # the kind: one of superbit's, or one that was registered
    layers: int
    dim: int  # width of the encoder and of every hidden state
    heads: int
    ffn_dim: int  # inner width of the feed-forward blocks
    conv_layers: tuple[ConvLayer, ...] = FASTCONV
    position_kernel: int = 128  # frames seen by the positional convolution
    position_groups: int = 16
    own: Any = None  # what the kind has of its own, a frozen dataclass; None: its defaults
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
                largest = _LARGEST.get(field.name, LARGEST)
                require_integer(field.name, value, at_least=1, at_most=largest)
            elif field.type is float:
                _require_probability(field.name, value)
        require_choice("padding", self.padding, PADDINGS)
        object.__setattr__(self, "conv_layers", _as_conv_layers(self.conv_layers))
        _require_division("heads", self.heads, self.dim)
        _require_division("position_groups", self.position_groups, self.dim)
        kind = encoder_kinds.settings_of(self.encoder)
        if self.own is None and kind is not None:
            object.__setattr__(self, "own", _own(kind, {}))
        if type(self.own) is not (kind or type(None)):
            needed = "None" if kind is None else f"one of {kind.__name__}"
            raise InputError(
                f"own is {self.own!r}; {needed} is needed for the {self.encoder} encoder."
            )
        check = getattr(self.own, "check", None)
        if check is not None:
            check(self)

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
        """Return every setting as plain JSON data, flat: the shared ones and the kind's own.

        Those of superbit's other kinds stand among them at their defaults, in the one order that
        every ``config.json`` has.
        """
        values: dict[str, Any] = {}
        for field in fields(self):
            if field.name == "own":
                values |= settings.defaults() | ({} if self.own is None else asdict(self.own))
            else:
                values[field.name] = getattr(self, field.name)
        values["conv_layers"] = [list(layer) for layer in self.conv_layers]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "HubertConfig":
        """Build from what `to_dict` gave; what has a default may be absent.

        Raises `InputError` for an unknown key (naming the nearest), a missing one, a bad value, or
        a setting of another kind that is not at its default.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"a model's config is a mapping of keys to values, not {values!r}.")
        encoder = values.get("encoder")
        kind = None if encoder is None else encoder_kinds.settings_of(encoder)
        shared, of_kind = _names(cls) - {"own"}, set() if kind is None else _names(kind)
        others = settings.defaults()
        for key, value in values.items():
            if key in shared | of_kind:
                continue
            if key not in others:
                known = shared | of_kind | others.keys()
                raise InputError(
                    f"{key!r} is no key of a model's config.{did_you_mean(str(key), known)}"
                )
            if value != others[key]:
                raise InputError(
                    f"{key} is {value!r}, which is not for the {encoder} encoder; it is for "
                    f"{', '.join(settings.kinds_with(key))}."
                )
        missing = [
            key for key in ("encoder", "layers", "dim", "heads", "ffn_dim") if key not in values
        ]
        if missing:
            raise InputError(f"a model's config lacks {', '.join(missing)}.")
        own = {key: values[key] for key in values if key in of_kind}
        rest = {key: values[key] for key in values if key in shared}
        return cls(**rest, own=None if kind is None else _own(kind, own))


def nano_size(encoder: str, *, ffn_dim: int) -> HubertConfig:
    """Return the size that is feasible on two CPU cores, of one kind of encoder.

    One size for all: at a nano budget "deep and narrow" and "shallow and wide" are not told apart,
    so that the two sparse nanos are one architecture under two names.
    """
    return HubertConfig(
        encoder=encoder, layers=4, dim=128, heads=4, ffn_dim=ffn_dim, conv_layers=FASTCONV_NANO
    )


def _names(kind: type[Any]) -> set[str]:
    return {field.name for field in fields(kind)}


def _own(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Make a kind's settings; what somebody else's raises becomes one sentence."""
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind.__name__}: {error}") from error


def _require_probability(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{key} is {value!r}; a probability of at least 0 and below 1 is needed.")


def _require_division(key: str, divisor: int, dim: int) -> None:
    if dim % divisor:
        raise InputError(f"{key} is {divisor}, which does not divide dim {dim}.")


def _as_conv_layers(value: Any) -> tuple[ConvLayer, ...]:
    """Return lists of lists, as JSON gives them, as tuples of three positive integers."""
    needed = "a list of [channels, kernel, stride] is needed"
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"conv_layers is {value!r}; {needed}.")
    if len(value) > _MOST_CONVOLUTIONS:
        raise InputError(
            f"conv_layers has {len(value):,} layers; at most {_MOST_CONVOLUTIONS} are read."
        )
    for layer in value:
        if not isinstance(layer, list | tuple) or len(layer) != 3:
            raise InputError(f"conv_layers holds {layer!r}; {needed}.")
        for key, number in zip(("channels", "kernel", "stride"), layer, strict=True):
            require_integer(f"conv_layers: {key} of {list(layer)}", number, at_least=1)
    return tuple((int(width), int(kernel), int(stride)) for width, kernel, stride in value)
