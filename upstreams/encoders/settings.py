"""What each kind of encoder has of its own, beside what all share in `HubertConfig`; no torch.

One frozen dataclass a kind. On disk its fields stand among the shared ones: ``config.json`` is
flat. It checks its own values when it is made; what also depends on the shared ones (here the
number of layers) it checks in ``check(config)``, where it has one. Raised is `InputError`, which
names the key.

References:
- Conformer: Gulati et al., 2020, https://arxiv.org/abs/2005.08100; relative positions in its
  attention: Dai et al., 2019, https://arxiv.org/abs/1901.02860.
- Squeezeformer: Kim et al., 2022, https://arxiv.org/abs/2206.00888.
- Sparse factorised attention: Child et al., 2019, https://arxiv.org/abs/1904.10509, section 4.3;
  stride 32 and expressivity 8 are fairseq's defaults, as the paper gives none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from superbit.upstreams.errors import InputError, did_you_mean, shortened

if TYPE_CHECKING:
    from superbit.upstreams.hubert_config import HubertConfig

ATTENTION_POSITIONS = ("none", "relative")


@dataclass(frozen=True, kw_only=True)
class SparseformerSettings:
    """Which frames a query of the sparse attention sees."""

    sparse_stride: int = 32  # frames in a window of the sparse attention
    sparse_expressivity: int = 8  # summary frames at the end of each window, seen by every frame

    def __post_init__(self) -> None:
        require_integer("sparse_stride", self.sparse_stride, at_least=2)
        require_integer("sparse_expressivity", self.sparse_expressivity, at_least=1)
        if self.sparse_expressivity > self.sparse_stride:
            raise InputError(
                f"sparse_expressivity is {self.sparse_expressivity}, more than the "
                f"{self.sparse_stride} frames of a window (sparse_stride)."
            )


@dataclass(frozen=True, kw_only=True)
class ConformerSettings:
    """A layer's convolution module, and what its attention knows of places."""

    depthwise_kernel: int = 31  # frames seen by the convolution module of a layer; odd
    attention_position: str = "none"  # or "relative": distances enter the attention's scores

    def __post_init__(self) -> None:
        _check_layer(self)


@dataclass(frozen=True, kw_only=True)
class SqueezeformerSettings:
    """What a Conformer's layer has, and which layers run at half the frame rate."""

    # a layer's place decides its frame rate, so that none can be left out of an update
    layers_can_be_dropped: ClassVar[bool] = False

    depthwise_kernel: int = 31  # as a Conformer's
    attention_position: str = "none"
    reduction_kernel: int = 3  # frames behind one of half the rate
    reduce_before: int | None = None  # layer (from 0) before which time is halved; None: by layers
    recover_before: int | None = None  # layer before which it is doubled again

    def __post_init__(self) -> None:
        _check_layer(self)
        require_integer("reduction_kernel", self.reduction_kernel, at_least=2)
        for key in ("reduce_before", "recover_before"):
            if getattr(self, key) is not None:
                require_integer(key, getattr(self, key), at_least=0)

    def check(self, config: HubertConfig) -> None:
        """Raise `InputError` unless half the rate begins and ends within the config's layers."""
        require_integer("layers of a Squeezeformer", config.layers, at_least=2)
        half = self.half_rate_layers(config.layers)
        if not half.start < half.stop < config.layers:
            raise InputError(
                f"reduce_before is {half.start} and recover_before {half.stop}; the first must be "
                f"below the second, and that below the {config.layers} layers."
            )

    def half_rate_layers(self, layers: int) -> range:
        """Return which of so many layers run at half the frame rate, by index.

        By default the ``layers // 2`` before the last: 7 to 14 of 16, as Squeezeformer's paper has
        it, and 1 to 2 of 4.
        """
        start = (layers - 1) // 2 if self.reduce_before is None else self.reduce_before
        stop = layers - 1 if self.recover_before is None else self.recover_before
        return range(start, stop)


# Of superbit's kinds that have any; in the order in which ``config.json`` has the keys.
SETTINGS: dict[str, type[Any]] = {
    "sparseformer": SparseformerSettings,
    "conformer": ConformerSettings,
    "squeezeformer": SqueezeformerSettings,
    "squeezeformer_faithful": SqueezeformerSettings,
}


def defaults() -> dict[str, Any]:
    """Return every key that a kind of superbit's has of its own, with its default.

    A config on disk has them all, those of other kinds at their defaults.
    """
    return {each.name: each.default for own in SETTINGS.values() for each in fields(own)}


def kinds_with(key: str) -> list[str]:
    """Return the kinds of superbit's that have a setting of that name."""
    return [kind for kind, own in SETTINGS.items() if key in {each.name for each in fields(own)}]


# Ten times and more of any speech encoder there is: beyond it is a slip, or malice.
LARGEST = 1_000_000


def require_integer(key: str, value: Any, *, at_least: int, at_most: int = LARGEST) -> None:
    """Raise `InputError` unless ``value`` is an integer within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        shown = shortened(repr(value))
        raise InputError(f"{key} is {shown}; an integer of at least {at_least} is needed.")
    if value > at_most:
        # a number of thousands of digits has no text
        shown = f"{value:,}" if value < 10**30 else "a number of more than 30 digits"
        raise InputError(f"{key} is {shown}; an integer of at most {at_most:,} is needed.")


def require_choice(key: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `InputError` unless ``value`` is one of ``choices``, naming the nearest."""
    if value not in choices:
        raise InputError(
            f"{key} is {value!r}; known are {', '.join(choices)}."
            f"{did_you_mean(str(value), choices)}"
        )


def _check_layer(own: ConformerSettings | SqueezeformerSettings) -> None:
    require_integer("depthwise_kernel", own.depthwise_kernel, at_least=1)
    if own.depthwise_kernel % 2 == 0:
        raise InputError(
            f"depthwise_kernel is {own.depthwise_kernel}; an odd number of frames is needed, "
            "so that as many are seen on either side."
        )
    require_choice("attention_position", own.attention_position, ATTENTION_POSITIONS)
