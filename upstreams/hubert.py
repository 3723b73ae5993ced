"""One model for every encoder: FastConv, positional convolution, encoder, hidden states.

References:
- HuBERT, Hsu et al., 2021, https://arxiv.org/abs/2106.07447.
- wav2vec 2.0, Baevski et al., 2020, https://arxiv.org/abs/2006.11477 (front end to encoder).

    waveform -> FastConv -> LN -> linear -> + positional convolution -> LN -> layers

With ``padding: independent`` an utterance's hidden states do not depend on its batch: the front
end, which normalises over time, sees it alone; padded frames are 0 before the positional
convolution and hidden from attention. With ``padding: fairseq`` they do, as in fairseq: the norm
runs over the zeros after short waveforms, and a frame is padding only when all its samples are.

Notation: B batch, N samples, T frames, C channels of the front end, D width, L layers.
"""

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pad_sequence

from superbit.upstreams import encoder_kinds
from superbit.upstreams.encoders.conformer import ConformerEncoder
from superbit.upstreams.encoders.frontend import FastConv
from superbit.upstreams.encoders.position import PositionalConvolution
from superbit.upstreams.encoders.relative_attention import RelativeSelfAttention
from superbit.upstreams.encoders.sparseformer import SparseformerEncoder
from superbit.upstreams.encoders.squeezeformer import ScaleAndBias, SqueezeformerEncoder
from superbit.upstreams.encoders.vanilla import TransformerEncoder
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.layers import weights_held
from superbit.upstreams.quantization.policy import Policy

# The class of each of superbit's own kinds; `encoder_kinds.ENCODERS` names them without torch.
ENCODER_CLASSES: dict[str, type[nn.Module]] = {
    "vanilla": TransformerEncoder,
    "conformer": ConformerEncoder,
    "squeezeformer": SqueezeformerEncoder,
    "squeezeformer_faithful": SqueezeformerEncoder,
    "sparseformer": SparseformerEncoder,
}

LINEAR_STD = 0.02  # BERT's, kept by HuBERT

# Modules that know their own start; that of a norm or a scale is the identity.
STARTS_ITSELF = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    PositionalConvolution,
    RelativeSelfAttention,
    ScaleAndBias,
)


class Hubert(nn.Module):
    """The model of one `HubertConfig`: FP32, and after `quantization.convert.binarize_` a twin."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.config = config
        self.policy: Policy | None = None  # what `binarize_` did; None in full precision
        self.packed_weights_sha256: str | None = None  # of the twin that a packed one was made from
        self.front_end = FastConv(config.conv_layers)
        self.front_end_norm = nn.LayerNorm(config.feature_dim)
        self.post_extract_proj = (
            nn.Identity()
            if config.feature_dim == config.dim
            else nn.Linear(config.feature_dim, config.dim)
        )
        self.input_dropout = nn.Dropout(config.input_dropout)
        # these two serve pre-training only; Table 1 counts them
        self.mask_emb = nn.Parameter(torch.empty(config.dim))
        self.final_proj = nn.Linear(config.dim, config.final_dim)
        self.position = PositionalConvolution(
            config.dim, kernel=config.position_kernel, groups=config.position_groups
        )
        self.encoder_norm = nn.LayerNorm(config.dim)
        self.encoder_dropout = nn.Dropout(config.dropout)
        self.encoder = _make_encoder(config)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every weight anew from torch's global generator, as HuBERT's pre-training starts.

        Linear layers: N(0, 0.02²), bias 0. Front end: Kaiming's normal. Convolutions of the
        encoder: torch's own, uniform within ±1 / √fan-in, as in fairseq's Conformer. Whatever else
        holds numbers starts by its own ``reset_parameters``.

        Raises `InputError` for a module of the encoder that has none.
        """
        named = self.encoder.named_modules() if self.policy is None else ()
        others = [
            module
            for name, module in named
            if not isinstance(module, (*STARTS_ITSELF, nn.Linear, nn.Conv1d))
            and _holds_numbers(name, module, kind=self.config.encoder)
        ]
        if self.mask_emb.is_meta:  # nothing to draw
            return
        for module in self.modules():
            if isinstance(module, STARTS_ITSELF):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=LINEAR_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.encoder.modules():
            if isinstance(module, nn.Conv1d):
                module.reset_parameters()
        for module in self.front_end.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.uniform_(self.mask_emb)
        for module in others:
            module.reset_parameters()

    def forward(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Return L + 1 hidden states, each (B, frames, D): the first input, every layer's output.

        ``waveforms`` are 1-D and hold samples at 16 kHz. With independent padding an utterance of
        n samples has ``round(n / 320)`` frames, where s3prl's Featurizer cuts: for most lengths
        one more than the convolutions give, and then a repetition of its last one. The same
        repetition fills the frames beyond, up to the batch's longest, because s3prl's newer
        interface keeps one more frame than the Featurizer: so it too is the utterance's own.
        With fairseq padding the frames are those of the convolutions over the longest waveform.

        Raises `InputError` for an empty list, and for a waveform that is not 1-D, not of
        floating-point samples, or too short to give a frame (400 samples).
        """
        if self._one_by_one and len(waveforms) > 1:
            self._check(waveforms)
            with weights_held(self), parametrize.cached():
                encoded = [self.encode_batch([waveform]) for waveform in waveforms]
            frames = [count for _, (count,) in encoded]
            rows = zip(*(states for states, _ in encoded), strict=True)  # one state of each
            states = [pad_sequence([one[0] for one in row], batch_first=True) for row in rows]
        else:
            states, frames = self.encode_batch(waveforms)
        if self.config.padding == "fairseq":
            return states
        return _repeat_last_frame(
            states, frames, [round(len(waveform) / self.config.hop) for waveform in waveforms]
        )

    @property
    def _one_by_one(self) -> bool:
        """Whether each utterance goes through the model alone, as a twin's do in eval mode.

        A product over a batch rounds otherwise than one over a single utterance (1e-7); where a
        value is near a threshold that flips a bit, and what was 1e-7 becomes a step of a scale.
        """
        alone = self.config.padding == "independent"
        return alone and self.policy is not None and not self.training

    def encode_batch(self, waveforms: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
        """Return L + 1 states (B, T, D) of waveforms in one batch, and each one's frames of T.

        What lies beyond an utterance's frames means nothing. Raises `InputError` as `forward`.
        """
        features, frames = self.features(waveforms)
        valid = frame_mask(frames, features.shape[1], features.device)
        return self.encode(self.project(features), valid), frames

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return the front end's output (B, T, C) and how many frames each utterance has of T."""
        self._check(waveforms)
        like = self.mask_emb  # any parameter tells the device and the precision of the model
        waveforms = [waveform.to(device=like.device, dtype=like.dtype) for waveform in waveforms]
        if self.config.padding == "independent":
            return self._independent_features(waveforms)
        samples = pad_sequence(waveforms, batch_first=True)  # (B, N)
        features = self.front_end(samples)
        # fairseq cuts the samples into T equal groups; a group with one sample of audio is valid
        group = samples.shape[1] // features.shape[1]
        total = features.shape[1]
        return features, [min(-(-len(waveform) // group), total) for waveform in waveforms]

    def _independent_features(self, waveforms: list[Tensor]) -> tuple[Tensor, list[int]]:
        """Pass each waveform alone, so that its features are the same to the bit in any batch.

        A norm masked to the valid samples would do on paper; in float32 its rounding, amplified
        where speech pauses, comes near the 1e-5 that we promise, and convolving the padding costs
        more than it saves. Crops of one length (pre-training) have no padding and go together.
        """
        if self.training and len({len(waveform) for waveform in waveforms}) == 1:
            features = self.front_end(torch.stack(waveforms))
            return features, [features.shape[1]] * len(waveforms)
        alone = [self.front_end.alone(waveform) for waveform in waveforms]  # (T, C) each
        return pad_sequence(alone, batch_first=True), [len(features) for features in alone]

    def project(self, features: Tensor) -> Tensor:
        """Map the front end's features (B, T, C) to the encoder's width (B, T, D)."""
        return self.input_dropout(self.post_extract_proj(self.front_end_norm(features)))

    def encode(self, x: Tensor, valid: Tensor | None) -> list[Tensor]:
        """Map (B, T, D) to L + 1 states of that shape; ``valid`` is (B, T) bool, None for all."""
        if valid is not None:
            x = x.masked_fill(~valid[:, :, None], 0.0)
        x = self.encoder_norm(x + self.position(x))
        return self.encoder(self.encoder_dropout(x), valid)

    def _check(self, waveforms: Sequence[Tensor]) -> None:
        if len(waveforms) == 0:
            raise InputError("the list of waveforms is empty; at least one is needed.")
        shortest = self.config.receptive_field
        for index, waveform in enumerate(waveforms):
            name = f"waveform {index} of {len(waveforms)}"
            if waveform.dim() != 1:
                raise InputError(
                    f"{name} has shape {tuple(waveform.shape)}; one channel of shape (samples,) "
                    "is needed."
                )
            if not waveform.is_floating_point():
                raise InputError(
                    f"{name} holds {waveform.dtype} samples; floating point, full scale 1.0, "
                    "is needed."
                )
            if len(waveform) < shortest:
                raise InputError(
                    f"{name} has {len(waveform)} samples; at least {shortest} are needed for "
                    "one frame."
                )


def frame_mask(frames: Sequence[int], total: int, device: torch.device) -> Tensor | None:
    """Return which of ``total`` frames are each utterance's own, (B, total) bool.

    None where all of them are, so that a batch without padding pays for no mask. ``frames`` are
    Python integers: nothing here waits for the device.
    """
    if all(count == total for count in frames):
        return None
    ends = torch.tensor(frames, device=device)
    return torch.arange(total, device=device) < ends[:, None]


def _repeat_last_frame(
    states: list[Tensor], frames: Sequence[int], wanted: Sequence[int]
) -> list[Tensor]:
    """Lengthen each state (B, T, D) to ``max(wanted)`` frames by each utterance's own last one."""
    total = max(wanted)
    if total == states[0].shape[1] and all(count == total for count in frames):
        return states
    device = states[0].device
    last = torch.tensor(frames, device=device)[:, None] - 1
    index = torch.minimum(torch.arange(total, device=device)[None], last)[:, :, None]  # (B, T, 1)
    return [state.gather(1, index.expand(-1, -1, state.shape[-1])) for state in states]


def _make_encoder(config: HubertConfig) -> nn.Module:
    """Build the encoder of a config's kind.

    Raises `InputError` for one of somebody else's that is not of the form that others rely on.
    """
    found = encoder_kinds.registered(config.encoder)
    if found is None:
        return ENCODER_CLASSES[config.encoder](config)
    encoder = found.build(config)
    layers = getattr(encoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(set(layers)) != config.layers:
        raise InputError(
            f"encoder kind {config.encoder!r}: its module needs 'layers', an nn.ModuleList of the "
            f"config's {config.layers} layers, each a module of its own."
        )
    for name, module in encoder.named_modules():
        if module._non_persistent_buffers_set:
            raise InputError(
                f"encoder kind {config.encoder!r}: {name or 'the encoder'} has buffers outside of "
                f"its state_dict ({', '.join(sorted(module._non_persistent_buffers_set))}), which "
                "no checkpoint brings back; make them persistent, or compute them in forward."
            )
    return encoder


def _holds_numbers(name: str, module: nn.Module, *, kind: str) -> bool:
    """Whether a module itself holds what has to be drawn; raise if it cannot draw it.

    A model is made without storage first, so nothing of it has a start until it is drawn.
    """
    held = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if held and not callable(getattr(module, "reset_parameters", None)):
        raise InputError(
            f"encoder kind {kind!r}: {name or 'the encoder'} ({type(module).__name__}) holds "
            "parameters or buffers and has no reset_parameters(), which must set them all."
        )
    return bool(held)


def untrained_model(config: HubertConfig, *, seed: int = 0) -> Hubert:
    """Return a model on the CPU whose weights follow from the seed alone.

    The global random generator is left as it was.
    """
    # made without storage first, so that only our own draws are taken, and none twice
    with torch.device("meta"):
        model = Hubert(config)
    model.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.reset_parameters()
    return model
