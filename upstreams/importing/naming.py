"""How Hugging Face, torchaudio and fairseq name the parts of a HuBERT, against our names.

Versions read: transformers 5.23 (`HubertModel`), torchaudio 2.11 (`hubert_base`), fairseq at
3d262bb (`HubertModel`).
"""

from dataclasses import dataclass

# Older versions of torch spell the two halves of a weight norm in another way.
_HALVES = (
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
)


@dataclass(frozen=True, kw_only=True)
class Naming:
    """The names of one source.

    Attributes:
        label: the source, as messages call it.
        parts: pieces of our names and what takes their place, applied in this order.
        wrappers: prefixes that a larger model puts before the names of its HuBERT.
        dropped: beginnings of names of tensors that serve another purpose than hidden states.
        ctc: beginnings of names, among those, of a head that transcribes.
        of_large_only: beginnings of names that only models with a norm after every convolution
            have (HuBERT large and extra large).
    """

    label: str
    parts: tuple[tuple[str, str], ...]
    wrappers: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    ctc: tuple[str, ...] = ("lm_head.", "aux.", "w2v_encoder.proj.")
    of_large_only: tuple[str, ...]

    def theirs(self, ours: str) -> str:
        """Return the source's name of a tensor of ours."""
        for mine, other in self.parts:
            ours = ours.replace(mine, other)
        return ours

    def unwrapped(self, theirs: str) -> str:
        """Return a name of the source without the prefix of a larger model."""
        for wrapper in self.wrappers:
            theirs = theirs.removeprefix(wrapper)
        return theirs


def spelled_alike(name: str) -> str:
    """Return ``name`` with the halves of a weight norm in the newer spelling."""
    for new, old in _HALVES:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


_FRONT_END = (
    ("front_end.blocks.", "feature_extractor.conv_layers."),
    (".norm.", ".layer_norm."),
)
_LAYER = (
    (".attention.query.", ".attention.q_proj."),
    (".attention.key.", ".attention.k_proj."),
    (".attention.value.", ".attention.v_proj."),
    (".attention.output.", ".attention.out_proj."),
    (".attention_norm.", ".layer_norm."),
    (".feed_forward.expand.", ".feed_forward.intermediate_dense."),
    (".feed_forward.contract.", ".feed_forward.output_dense."),
    (".feed_forward_norm.", ".final_layer_norm."),
)

HUGGING_FACE = Naming(
    label="Hugging Face",
    parts=(
        *_FRONT_END,
        ("front_end_norm.", "feature_projection.layer_norm."),
        ("post_extract_proj.", "feature_projection.projection."),
        ("mask_emb", "masked_spec_embed"),
        *_LAYER,
        ("position.conv.", "encoder.pos_conv_embed.conv."),
        ("encoder_norm.", "encoder.layer_norm."),
    ),
    wrappers=("hubert.",),
    dropped=("lm_head.", "projector.", "classifier.", "layer_weights"),
    of_large_only=(
        "feature_extractor.conv_layers.1.layer_norm.",
        "feature_extractor.conv_layers.0.conv.bias",
    ),
)

TORCHAUDIO = Naming(
    label="torchaudio",
    parts=(
        *_FRONT_END,
        ("front_end_norm.", "encoder.feature_projection.layer_norm."),
        ("post_extract_proj.", "encoder.feature_projection.projection."),
        ("mask_emb", "mask_generator.mask_embedding"),
        ("final_proj.", "logit_generator.final_proj."),
        *_LAYER,
        ("encoder.layers.", "encoder.transformer.layers."),
        ("position.conv.", "encoder.transformer.pos_conv_embed.conv."),
        ("encoder_norm.", "encoder.transformer.layer_norm."),
    ),
    wrappers=("wav2vec2.",),
    dropped=("logit_generator.label_embeddings", "aux."),
    of_large_only=(
        "feature_extractor.conv_layers.1.layer_norm.",
        "feature_extractor.conv_layers.0.conv.bias",
    ),
)

FAIRSEQ = Naming(
    label="fairseq",
    parts=(
        # each convolution is followed by a dropout, the first also by its norm
        ("front_end.blocks.0.norm.", "feature_extractor.conv_layers.0.2."),
        ("front_end.blocks.", "feature_extractor.conv_layers."),
        (".conv.weight", ".0.weight"),
        ("front_end_norm.", "layer_norm."),
        (".attention.query.", ".self_attn.q_proj."),
        (".attention.key.", ".self_attn.k_proj."),
        (".attention.value.", ".self_attn.v_proj."),
        (".attention.output.", ".self_attn.out_proj."),
        (".attention_norm.", ".self_attn_layer_norm."),
        (".feed_forward.expand.", ".fc1."),
        (".feed_forward.contract.", ".fc2."),
        (".feed_forward_norm.", ".final_layer_norm."),
        ("position.conv.", "encoder.pos_conv.0."),
        ("encoder_norm.", "encoder.layer_norm."),
        *_HALVES,
    ),
    wrappers=("w2v_encoder.w2v_model.",),  # of a model fine-tuned with CTC
    dropped=("label_embs_concat", "w2v_encoder.proj."),
    of_large_only=(
        "feature_extractor.conv_layers.1.2.",
        "feature_extractor.conv_layers.0.0.bias",
    ),
)
