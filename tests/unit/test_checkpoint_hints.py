"""Checkpoints that s3prl's builders take or refuse: Hub names, Hugging Face folders, fairseq."""

import time

import pytest
import torch

from superbit.upstreams import InputError, checkpoint_hints, registry
from superbit.upstreams.contract import check_upstream, render
from superbit.upstreams.s3prl import compat
from superbit.upstreams.spec import UpstreamSpec

pytest.importorskip("s3prl", reason="the peer")
compat.apply()

transformers = pytest.importorskip("transformers")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
}


def save_toy(kind, folder, *, extractor=True):
    """Save a small model of Hugging Face's, with what is done to its waveforms."""
    torch.manual_seed(0)
    model, config = {
        "hubert": (transformers.HubertModel, transformers.HubertConfig),
        "wav2vec2": (transformers.Wav2Vec2Model, transformers.Wav2Vec2Config),
    }[kind]
    model(config(**SIZES)).save_pretrained(folder)
    if extractor:
        transformers.Wav2Vec2FeatureExtractor(
            do_normalize=True, return_attention_mask=True
        ).save_pretrained(folder)
    return folder


def refused(spec):
    with pytest.raises(InputError) as caught:
        registry.load_upstream(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_a_model_of_hugging_face_passes_the_check_of_a_frozen_upstream(kind, tmp_path):
    spec = f"hf_{kind}_custom@{save_toy(kind, tmp_path / kind)}"
    report = check_upstream(
        registry.load(spec), ours=False, build=lambda: registry.load(spec, draw_seed=1)
    )
    assert report.ok, render(report)  # layers and spans are dropped and masked in train mode
    assert "gradients" in report.names("warn")


@pytest.mark.parametrize("name", ["hf_hubert_custom", "hf_wav2vec2_custom"])
def test_a_name_of_the_hub_is_the_builders_to_read(name, monkeypatch, tmp_path):
    folder = save_toy(name.split("_")[1], tmp_path / "held-by-the-hub")
    asked = []
    entry = registry.find(name)

    def build(ckpt, **how):
        if ckpt is None:  # as s3prl's own
            raise ValueError("a checkpoint is needed")
        asked.append(ckpt)
        return entry.build(ckpt=str(folder), **how)

    monkeypatch.setattr(checkpoint_hints, "_unreachable", lambda name: None)
    monkeypatch.setattr(
        registry, "find", lambda _, twin=False: registry.UpstreamEntry(
            name=name, build=build, origin="s3prl", revision="1"
        )
    )  # fmt: skip
    spec = f"{name}@org/toy-model.v1"
    loaded = registry.load(spec)
    assert set(asked) == {"org/toy-model.v1"}
    assert loaded.model.config.hidden_size == 32


def test_where_the_hub_cannot_be_reached_one_sentence_says_so_at_once(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    registry.find("hf_hubert_custom")  # transformers takes its time
    began = time.monotonic()
    message = refused("hf_hubert_custom@org/name")
    assert time.monotonic() - began < 5
    assert "http://127.0.0.1:9 cannot be reached" in message
    assert "'hf download org/name --local-dir DIR' and give hf_hubert_custom@DIR" in message
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refused("hf_wav2vec2_custom@org/name")


@pytest.mark.parametrize(
    ("spec", "origin", "is_name"),
    [
        ("hf_hubert_custom@org/name", "s3prl", True),
        ("hf_hubert_custom@../name", "s3prl", False),
        ("hf_hubert_custom@/org/name", "s3prl", False),
        ("hf_hubert_custom@a/b/c", "s3prl", False),
        ("hf_hubert_custom@name", "s3prl", False),
        ("hf_hubert_custom", "s3prl", False),
        ("hf_hubert_custom@org/here", "s3prl", False),
        ("hubert_local@org/name", "s3prl", False),
        ("mine@org/name", "registered", False),
    ],
)
def test_what_may_be_a_name_of_the_hub(spec, origin, is_name, tmp_path, monkeypatch):
    (tmp_path / "org" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert checkpoint_hints.is_hub_name(UpstreamSpec.parse(spec), origin=origin) == is_name
    if not is_name and "@" in spec and "here" not in spec and origin == "s3prl":
        assert "there is no checkpoint" in refused(spec)


@pytest.mark.parametrize("name", ["hubert_local", "hubert_custom", "wav2vec2_local"])
def test_a_checkpoint_of_fairseq_itself_is_recognized(name, tmp_path):
    file = tmp_path / "checkpoint_best.pt"
    torch.save({"args": None, "cfg": {}, "model": {"mask_emb": torch.zeros(3)}}, file)
    message = refused(f"{name}@{file}")
    package = name.partition("_")[0]
    assert "is a checkpoint of fairseq itself" in message
    assert f"'python -m s3prl.upstream.{package}.convert {file} --output_dir DIR'" in message
    assert ("superbit import --from fairseq" in message) == (package == "hubert")


def test_a_folder_without_a_feature_extractor_is_explained(tmp_path, monkeypatch):
    from s3prl.upstream.hf_hubert import expert

    folder = save_toy("hubert", tmp_path / "hf", extractor=False)

    def fails(ckpt):
        raise OSError(f"Can't load feature extractor for {ckpt!r}")

    monkeypatch.setattr(expert.Wav2Vec2FeatureExtractor, "from_pretrained", fails)
    message = refused(f"hf_hubert_custom@{folder}")
    assert f"{folder} has no preprocessor_config.json" in message
