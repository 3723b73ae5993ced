"""Importing HuBERT base from three sources: the peer's hidden states, and nothing is executed."""

import argparse
import json
import os
import pickle
import shutil
import zipfile

import pytest
import torch
from verbs import run_verb

from superbit import upstreams
from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.importing import unpickle
from superbit.upstreams.importing.checkpoint import import_checkpoint
from superbit.upstreams.s3prl import compat

compat.apply()  # some builds of torchaudio do not import without it

from torchaudio.models import hubert_pretrain_model  # noqa: E402
from transformers import HubertConfig, HubertForCTC, HubertModel  # noqa: E402

KERNELS, STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 192,
    "conv_dim": [32] * 7,
}


def shaken(model):
    """The model with every parameter off its starting point, where biases hide."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def hf_states(model, waveform):
    with torch.no_grad():
        return model(waveform[None], output_hidden_states=True).hidden_states


@pytest.fixture(scope="module")
def hf_peer():
    torch.manual_seed(0)
    return shaken(HubertModel(HubertConfig(**SMALL)))


@pytest.fixture(scope="module")
def hf_saved(hf_peer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("hf")
    hf_peer.save_pretrained(directory)
    return directory


@pytest.fixture
def hf_directory(hf_saved, tmp_path):
    return shutil.copytree(hf_saved, tmp_path / "hf")


@pytest.fixture(scope="module")
def torchaudio_peer():
    torch.manual_seed(1)
    layers = [(32, kernel, stride) for kernel, stride in zip(KERNELS, STRIDES, strict=True)]
    model = hubert_pretrain_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=layers,
        extractor_conv_bias=False,
        encoder_embed_dim=128,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=128,
        encoder_pos_conv_groups=16,
        encoder_num_layers=2,
        encoder_num_heads=2,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=192,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        mask_prob=0.8,
        mask_selection="static",
        mask_other=0.0,
        mask_length=10,
        no_mask_overlap=False,
        mask_min_space=1,
        mask_channel_prob=0.0,
        mask_channel_selection="static",
        mask_channel_other=0.0,
        mask_channel_length=10,
        no_mask_channel_overlap=False,
        mask_channel_min_space=1,
        skip_masked=False,
        skip_nomask=False,
        num_classes=7,
        final_dim=24,
        feature_grad_mult=None,
    )
    return shaken(model)


# What fairseq calls the parts of Hugging Face's model, longest first; written from fairseq's own
# module names and apart from the tables under test.
FAIRSEQ_NAMES = [
    ("feature_extractor.conv_layers.0.layer_norm.", "feature_extractor.conv_layers.0.2."),
    *((f"conv_layers.{i}.conv.", f"conv_layers.{i}.0.") for i in range(7)),
    ("feature_projection.layer_norm.", "layer_norm."),
    ("feature_projection.projection.", "post_extract_proj."),
    (
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        "encoder.pos_conv.0.weight_g",
    ),
    (
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
        "encoder.pos_conv.0.weight_v",
    ),
    ("encoder.pos_conv_embed.conv.bias", "encoder.pos_conv.0.bias"),
    ("attention.", "self_attn."),
    ("feed_forward.intermediate_dense.", "fc1."),
    ("feed_forward.output_dense.", "fc2."),
    ("masked_spec_embed", "mask_emb"),
]


def fairseq_state_dict(peer):
    renamed = {}
    for name, tensor in peer.state_dict().items():
        if name.startswith("encoder.layers.") and name.split(".")[3] == "layer_norm":
            name = name.replace(".layer_norm.", ".self_attn_layer_norm.")
        for theirs, fairseqs in FAIRSEQ_NAMES:
            name = name.replace(theirs, fairseqs)
        renamed[name] = tensor.half().float()
    renamed["label_embs_concat"] = torch.randn(504, 16)
    renamed["final_proj.weight"] = torch.randn(16, 128)
    renamed["final_proj.bias"] = torch.randn(16)
    return renamed


class Dictionary:
    """Stands for fairseq.data.dictionary.Dictionary, which is pickled by its name."""

    def __init__(self):
        self.symbols = ["<s>", "0"]


@pytest.fixture
def fairseq_dictionary(monkeypatch):
    """An object that is pickled as one of fairseq's, which is not installed."""
    import sys
    import types

    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["fairseq.data.dictionary"], "Dictionary", Dictionary, False)
    monkeypatch.setattr(Dictionary, "__module__", "fairseq.data.dictionary")
    return Dictionary()


def complaint(source, path, out):
    with pytest.raises(InputError) as caught:
        import_checkpoint(source, path, out)
    assert not out.exists() or not any(out.iterdir())
    return str(caught.value)


def assert_same_states(directory, expected, waveform):
    expert = upstreams.load(f"vanilla@{directory}").eval()
    with torch.no_grad():
        states = expert([waveform])["hidden_states"]
    assert len(states) == len(expected) == 3
    for state, other in zip(states, expected, strict=True):
        assert state.shape == other.shape == (1, 49, 128)
        assert (state - other).abs().max() <= 1e-5


# the three sources ------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["safetensors", "bin", "bin of an older torch"])
def test_hugging_face(hf_peer, hf_directory, tmp_path, weights):
    if weights != "safetensors":
        (hf_directory / "model.safetensors").unlink()
        tensors = hf_peer.state_dict()
        if weights != "bin":
            tensors = {
                name.replace("parametrizations.weight.original0", "weight_g").replace(
                    "parametrizations.weight.original1", "weight_v"
                ): tensor
                for name, tensor in tensors.items()
            }
        torch.save(tensors, hf_directory / "pytorch_model.bin")
    imported = import_checkpoint("hf", hf_directory, tmp_path / "out")
    assert imported.dropped == ()
    assert imported.drawn == ("final_proj.weight", "final_proj.bias")
    waveform = torch.randn(16_000)
    assert_same_states(tmp_path / "out", hf_states(hf_peer, waveform), waveform)
    assert torch.equal(imported.model.mask_emb, hf_peer.masked_spec_embed)


def test_hugging_face_tells_heads_and_dropout_by_its_config(tmp_path):
    peer = HubertModel(
        HubertConfig(**{**SMALL, "num_attention_heads": 8, "hidden_dropout": 0.25})
    ).eval()
    peer.save_pretrained(tmp_path / "hf")
    config = import_checkpoint("hf", tmp_path / "hf", tmp_path / "out").model.config
    assert (config.heads, config.dropout, config.padding) == (8, 0.25, "fairseq")
    waveform = torch.randn(16_000)
    assert_same_states(tmp_path / "out", hf_states(peer, waveform), waveform)


def test_the_hubert_within_a_recognizer_of_hugging_face(tmp_path):
    recognizer = HubertForCTC(HubertConfig(**SMALL)).eval()
    recognizer.save_pretrained(tmp_path / "hf")
    imported = import_checkpoint("hf", tmp_path / "hf", tmp_path / "out")
    assert sorted(imported.dropped) == ["lm_head.bias", "lm_head.weight"]
    waveform = torch.randn(16_000)
    assert_same_states(tmp_path / "out", hf_states(recognizer.hubert, waveform), waveform)


@pytest.mark.parametrize("pretraining", [False, True])
def test_torchaudio(torchaudio_peer, tmp_path, pretraining):
    peer = torchaudio_peer.wav2vec2
    first = []
    hook = peer.encoder.transformer.layers[0].register_forward_pre_hook(
        lambda _module, inputs: first.append(inputs[0])
    )
    waveform = torch.randn(16_000)
    with torch.no_grad():
        states, _ = peer.extract_features(waveform[None])
    hook.remove()
    file = tmp_path / "hubert.pth"
    torch.save((torchaudio_peer if pretraining else peer).state_dict(), file)
    imported = import_checkpoint("torchaudio", file, tmp_path / "out")
    assert_same_states(tmp_path / "out", [*first, *states], waveform)
    if pretraining:
        assert imported.drawn == ()
        assert imported.dropped == ("logit_generator.label_embeddings",)
        projection = torchaudio_peer.logit_generator.final_proj
        assert torch.equal(imported.model.final_proj.weight, projection.weight)
    else:
        assert imported.drawn == ("mask_emb", "final_proj.weight", "final_proj.bias")


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "older format"])
@pytest.mark.parametrize("config", ["args", "dict", "omegaconf"])
def test_fairseq(hf_peer, fairseq_dictionary, tmp_path, config, archive):
    from omegaconf import OmegaConf

    settings = {
        "model": {"_name": "hubert", "encoder_attention_heads": 4, "layer_norm_first": False},
        "task": {"normalize": False, "labels": ["km"]},
    }
    file = tmp_path / "checkpoint.pt"
    content = {
        "args": argparse.Namespace(**settings["model"]) if config == "args" else None,
        "cfg": {"args": None, "dict": settings, "omegaconf": OmegaConf.create(settings)}[config],
        "model": fairseq_state_dict(hf_peer),
        "task_state": {"dictionaries": [fairseq_dictionary]},
        "extra_state": {"train_iterator": {"epoch": 3}, "best": 2**40},
    }
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    imported = import_checkpoint("fairseq", file, tmp_path / "out")
    assert imported.model.config.heads == 4  # not the two that its width suggests
    assert imported.model.config.final_dim == 16
    assert imported.dropped == ("label_embs_concat",)
    assert imported.drawn == ()
    peer = HubertModel(HubertConfig(**{**SMALL, "num_attention_heads": 4})).eval()
    peer.load_state_dict({k: v.half().float() for k, v in hf_peer.state_dict().items()})
    waveform = torch.randn(16_000)
    assert_same_states(tmp_path / "out", hf_states(peer, waveform), waveform)


def test_the_command_says_what_it_wrote(hf_peer, tmp_path, capsys):
    file, out = tmp_path / "checkpoint.pt", tmp_path / "out"
    torch.save({"model": fairseq_state_dict(hf_peer)}, file)
    out.mkdir()  # empty is as good as missing
    assert run_verb("import --from fairseq", file, out=out) == 0
    printed = capsys.readouterr().out
    saved = checkpoint.load(out)
    parameters = sum(parameter.numel() for parameter in saved.model.parameters())
    assert printed == (
        f"{out}: vanilla, 2 layers × 128, 2 heads, feed-forward 192; {parameters:,} parameters, "
        f"{(out / 'model.safetensors').stat().st_size / 1e6:.1f} MB; dropped: label_embs_concat\n"
    )
    assert saved.training["imported"] == {
        "source": "fairseq",
        "file": "checkpoint.pt",
        "dropped": ["label_embs_concat"],
        "drawn": [],
    }


# weights in other wrappings ---------------------------------------------------------------------


def in_shards(peer, directory, kind):
    """Write the model in several files, as ``save_pretrained`` does with a large one."""
    peer.save_pretrained(directory, max_shard_size="200kB")
    index = directory / "model.safetensors.index.json"
    if kind == "bin":  # which newer versions no longer write
        places = json.loads(index.read_text())["weight_map"]
        named = {name: file.replace(".safetensors", ".bin") for name, file in places.items()}
        for file in set(places.values()):
            (directory / file).unlink()
        for file in set(named.values()):
            shard = {k: v for k, v in peer.state_dict().items() if named[k] == file}
            torch.save(shard, directory / file)
        index.unlink()
        index = directory / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": named}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_model_in_several_files(hf_peer, tmp_path, kind):
    index = in_shards(hf_peer, tmp_path / "hf", kind)
    assert len(list(index.parent.glob(f"*.{kind}"))) > 2
    imported = import_checkpoint("hf", index.parent, tmp_path / "out")
    assert imported.dropped == ()
    waveform = torch.randn(16_000)
    assert_same_states(tmp_path / "out", hf_states(hf_peer, waveform), waveform)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda index, file: file.unlink(), "which does not lie beside it"),
        (lambda index, file: index.write_text("{}"), "has no weight_map"),
        (lambda index, file: index.write_text("{"), "is not readable JSON"),
        (lambda index, file: file.write_bytes(file.read_bytes()[:50]), "truncated or corrupt"),
        (
            lambda index, file: index.write_text(index.read_text().replace(file.name, "../x")),
            "which does not lie beside it",
        ),
        (
            lambda index, file: index.write_text(index.read_text().replace("masked_spec", "gone")),
            "lacks the tensor 'gone_embed'",
        ),
    ],
)
def test_several_files_that_are_not_whole(hf_peer, tmp_path, kind, spoil, words):
    index = in_shards(hf_peer, tmp_path / "hf", kind)
    spoil(index, sorted(index.parent.glob(f"*.{kind}"))[1])
    message = complaint("hf", index.parent, tmp_path / "out")
    if kind == "bin" and words == "truncated or corrupt":
        words = "is truncated"
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("source", ["hf", "torchaudio", "fairseq"])
def test_what_training_puts_before_names_is_taken_off(
    hf_peer, hf_directory, torchaudio_peer, tmp_path, source, prefix
):
    tensors = {
        "hf": hf_peer.state_dict(),
        "torchaudio": torchaudio_peer.state_dict(),
        "fairseq": fairseq_state_dict(hf_peer),
    }[source]
    found = []
    for before in ("", prefix):
        path = file = tmp_path / "weights.pt"
        if source == "hf":
            path, file = hf_directory, hf_directory / "pytorch_model.bin"
            (path / "model.safetensors").unlink(missing_ok=True)
        wrapped = {f"{before}{name}": tensor for name, tensor in tensors.items()}
        torch.save({"model": wrapped} if source == "fairseq" else wrapped, file)
        imported = import_checkpoint(source, path, tmp_path / f"out-{before}")
        found.append(imported.model.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


@pytest.mark.parametrize("config", ["dict", "omegaconf"])
def test_a_fairseq_model_fine_tuned_with_ctc_without_its_head(
    hf_peer, fairseq_dictionary, tmp_path, config, capsys
):
    from omegaconf import OmegaConf

    settings = {
        "model": {
            "_name": "hubert_ctc",
            "normalize": "${task.normalize}",
            "w2v_args": {"model": {"encoder_attention_heads": 4, "layer_norm_first": False}},
        },
        "task": {"normalize": False, "labels": "ltr"},
    }
    tensors = {
        f"w2v_encoder.w2v_model.{name}": tensor
        for name, tensor in fairseq_state_dict(hf_peer).items()
        if not name.startswith(("final_proj", "label_embs"))
    }
    tensors |= {
        "w2v_encoder.proj.weight": torch.randn(32, 128),
        "w2v_encoder.proj.bias": torch.randn(32),
    }
    file, out = tmp_path / "asr.pt", tmp_path / "out"
    cfg = OmegaConf.create(settings) if config == "omegaconf" else settings
    torch.save({"args": None, "cfg": cfg, "model": tensors, "task_state": fairseq_dictionary}, file)
    assert run_verb("import --from fairseq", file, out=out) == 0
    printed = capsys.readouterr().out
    assert "dropped: w2v_encoder.proj.weight, w2v_encoder.proj.bias" in printed
    assert "the head that transcribes (CTC) is left out" in printed
    peer = HubertModel(HubertConfig(**{**SMALL, "num_attention_heads": 4})).eval()
    peer.load_state_dict({k: v.half().float() for k, v in hf_peer.state_dict().items()})
    waveform = torch.randn(16_000)
    assert_same_states(out, hf_states(peer, waveform), waveform)
    # where the value of an interpolation says what ours does not compute
    settings["task"]["normalize"] = True
    cfg = OmegaConf.create(settings) if config == "omegaconf" else settings
    torch.save({"cfg": cfg, "model": tensors}, file)
    assert "normalised waveforms" in complaint("fairseq", file, tmp_path / "other")


def test_fairseqs_checkpoint_as_s3prl_converted_it(hf_peer, tmp_path):
    file = tmp_path / "converted.pt"
    content = {
        "task_cfg": {"normalize": False},
        "model_cfg": {"encoder_attention_heads": 4, "layer_norm_first": False},
        "model_weight": fairseq_state_dict(hf_peer),
        "dictionaries_symbols": [["<s>", "0"]],
    }
    torch.save(content, file)
    imported = import_checkpoint("fairseq", file, tmp_path / "out")
    assert (imported.model.config.heads, imported.dropped) == (4, ("label_embs_concat",))
    peer = HubertModel(HubertConfig(**{**SMALL, "num_attention_heads": 4})).eval()
    peer.load_state_dict({k: v.half().float() for k, v in hf_peer.state_dict().items()})
    waveform = torch.randn(16_000)
    assert_same_states(tmp_path / "out", hf_states(peer, waveform), waveform)
    content["task_cfg"]["normalize"] = True
    torch.save(content, file)
    assert "normalised waveforms" in complaint("fairseq", file, tmp_path / "other")


@pytest.mark.parametrize("said", [True, False, None])
def test_normalization_that_ours_leaves_out_is_said_with_what_it_does(
    hf_peer, hf_directory, tmp_path, capsys, said
):
    if said is not None:
        (hf_directory / "preprocessor_config.json").write_text(json.dumps({"do_normalize": said}))
    out = tmp_path / "out"
    assert run_verb("import --from hf", hf_directory, out=out) == 0
    printed = capsys.readouterr().out
    assert ("do_normalize" in printed) == bool(said)
    assert ("do_normalize" in checkpoint.load(out).training["imported"]) == bool(said)
    if said:
        # what it says, measured by the peer
        signal = 0.05 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
        normalized = (signal - signal.mean()) / (signal.var(correction=0) + 1e-7).sqrt()
        pairs = zip(hf_states(hf_peer, signal), hf_states(hf_peer, normalized), strict=True)
        errors = [((a - b).square().sum(), b.square().sum()) for a, b in pairs]
        expected = float(sum(e for e, _ in errors) / sum(s for _, s in errors)) ** 0.5
        printed_percent = float(printed.rpartition("hidden states are ")[2].split()[0])
        assert printed_percent == pytest.approx(100 * expected, rel=0.1)


# nothing is executed ----------------------------------------------------------------------------


class Runs:
    """An object whose unpickling calls any function with any arguments."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def touch(file):
    """Stands for what a malicious file would do."""
    file.touch()


@pytest.mark.parametrize("source", ["hf", "torchaudio", "fairseq"])
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "older format"])
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, "system"),
        (os.mkdir, "mkdir"),
        (exec, "builtins.exec"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (shutil.rmtree, "shutil.rmtree"),
        (torch.hub.load, "torch.hub.load"),
        (torch.compile, "torch.compile"),
    ],
)
def test_a_malicious_pickle_runs_nothing(
    hf_peer, hf_directory, tmp_path, source, archive, function, named
):
    marker = tmp_path / "marker"
    arguments = {
        "system": f"touch {marker}",
        "mkdir": str(marker),
        "exec": f"open({str(marker)!r}, 'w')",
        "eval": f"open({str(marker)!r}, 'w')",
        "rmtree": str(hf_directory / "nothing"),
    }.get(function.__name__, str(marker))
    tensors = {**fairseq_state_dict(hf_peer), "surplus": Runs(function, arguments)}
    file = hf_directory / "pytorch_model.bin" if source == "hf" else tmp_path / "weights.pt"
    (hf_directory / "model.safetensors").unlink()
    torch.save(
        {"model": tensors} if source == "fairseq" else tensors,
        file,
        _use_new_zipfile_serialization=archive,
    )
    path = hf_directory if source == "hf" else file
    message = complaint(source, path, tmp_path / "out")
    assert named in message
    assert not marker.exists()


def test_the_malicious_pickle_of_these_tests_does_run_where_pickles_are_trusted(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Runs(exec, f"open({str(marker)!r}, 'w')"), protocol=2))
    assert marker.exists()


def test_a_function_of_a_known_package_becomes_a_placeholder(tmp_path):
    # numpy reads pickles of its own, and subprocesses hide behind typing's and enum's attributes
    import numpy

    class Loads:
        def __reduce__(self):
            return numpy.fromfile, (str(tmp_path / "secret"),)

    (tmp_path / "secret").write_bytes(b"12345678")
    torch.save({"model": {"a": torch.ones(2)}, "args": Loads()}, tmp_path / "weights.pt")
    content = unpickle.load(tmp_path / "weights.pt")
    assert type(content["args"]) is unpickle.Placeholder
    assert torch.equal(content["model"]["a"], torch.ones(2))


def test_another_protocol_hides_no_global(tmp_path):
    marker = tmp_path / "marker"
    file = tmp_path / "weights.pt"
    torch.save({"model": Runs(os.mkdir, str(marker))}, file, pickle_protocol=4)
    assert "protocol" in complaint("fairseq", file, tmp_path / "out")
    assert not marker.exists()


# what cannot be imported ------------------------------------------------------------------------


def test_an_output_that_is_taken(hf_directory, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="out is there already"):
        import_checkpoint("hf", hf_directory, out)
    with pytest.raises(InputError, match=r"notes.txt is there already"):
        import_checkpoint("hf", hf_directory, out / "notes.txt")
    assert [file.name for file in out.iterdir()] == ["notes.txt"]


def test_a_source_that_is_unknown(hf_directory, tmp_path):
    assert "Did you mean 'fairseq'" in complaint("fairsec", hf_directory, tmp_path / "out")


@pytest.mark.parametrize("source", ["hf", "torchaudio", "fairseq"])
def test_a_path_that_is_not_there(source, tmp_path):
    assert f"there is no {tmp_path / 'x'}" in complaint(source, tmp_path / "x", tmp_path / "out")


@pytest.mark.parametrize("source", ["torchaudio", "fairseq"])
def test_a_directory_where_a_file_is_needed(source, hf_directory, tmp_path):
    assert f"there is no file {hf_directory}" in complaint(source, hf_directory, tmp_path / "out")


def test_a_file_where_a_directory_is_needed(hf_directory, tmp_path):
    file = hf_directory / "model.safetensors"
    assert f"{file} is no directory" in complaint("hf", file, tmp_path / "out")


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors"])
def test_a_file_of_hugging_face_that_is_missing(hf_directory, tmp_path, gone):
    (hf_directory / gone).unlink()
    assert gone in complaint("hf", hf_directory, tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 100, 5000])
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "older format"])
def test_a_truncated_file(hf_peer, tmp_path, kept, archive):
    file = tmp_path / "weights.pt"
    content = {"model": fairseq_state_dict(hf_peer)}
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    file.write_bytes(file.read_bytes()[:kept])
    assert str(file) in complaint("fairseq", file, tmp_path / "out")


def test_something_else_than_a_checkpoint(tmp_path):
    file = tmp_path / "weights.pt"
    for content in ([1, 2], {"weights": {}}, {"model": []}, {"model": {}}, {"model": {"a": 1}}):
        torch.save(content, file)
        assert str(file) in complaint("fairseq", file, tmp_path / "out")
    file.write_text("weights")
    assert "is not a file of torch.save" in complaint("fairseq", file, tmp_path / "out")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "weights")
    assert "is not a file of torch.save" in complaint("fairseq", file, tmp_path / "out")


def test_weights_of_another_source(torchaudio_peer, tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({"model": torchaudio_peer.wav2vec2.state_dict()}, file)
    message = complaint("fairseq", file, tmp_path / "out")
    assert "lacks feature_extractor.conv_layers.0.0.weight" in message


@pytest.mark.parametrize("source", ["hf", "torchaudio", "fairseq"])
def test_tensors_that_are_missing_superfluous_or_misshapen(
    hf_peer, torchaudio_peer, hf_directory, tmp_path, source
):
    tensors = {
        "hf": hf_peer.state_dict(),
        "torchaudio": torchaudio_peer.wav2vec2.state_dict(),
        "fairseq": fairseq_state_dict(hf_peer),
    }[source]
    last = next(name for name in tensors if "layers.1.final_layer_norm.weight" in name)
    bias = next(name for name in tensors if "layers.1.final_layer_norm.bias" in name)
    tensors = {**tensors, "surplus": torch.zeros(2), bias: torch.zeros(5)}
    del tensors[last]
    file = hf_directory / "pytorch_model.bin" if source == "hf" else tmp_path / "weights.pt"
    (hf_directory / "model.safetensors").unlink()
    torch.save({"model": tensors} if source == "fairseq" else tensors, file)
    message = complaint(source, hf_directory if source == "hf" else file, tmp_path / "out")
    lines = message.splitlines()
    assert str(file) in lines[0]
    assert [line.strip() for line in lines[1:]] == sorted(
        [
            f"missing: {last}",
            "not part of the model: surplus",
            f"{bias} has shape (5,), where the config needs (128,)",
        ]
    )


def test_many_missing_tensors_take_ten_lines(hf_peer, tmp_path):
    tensors = fairseq_state_dict(hf_peer)
    for name in list(tensors):
        if name.startswith("encoder.layers.0.") and "fc1.weight" not in name:
            del tensors[name]
    file = tmp_path / "weights.pt"
    torch.save({"model": tensors}, file)
    lines = complaint("fairseq", file, tmp_path / "out").splitlines()[1:]
    assert len(lines) == 10
    assert lines[0] == "  missing: encoder.layers.0.fc1.bias"
    assert lines[-1] == "  and 6 more"  # a layer has 16 tensors


@pytest.mark.parametrize("source", ["hf", "torchaudio", "fairseq"])
def test_hubert_large_is_refused_in_one_sentence(tmp_path, source):
    large = HubertModel(
        HubertConfig(**SMALL, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
    )
    path = tmp_path / "large"
    large.save_pretrained(path)
    if source != "hf":
        tensors = large.state_dict()
        if source == "fairseq":
            tensors = {
                name.replace(".conv.", ".0.").replace(".layer_norm.", ".2.1."): tensor
                for name, tensor in tensors.items()
                if name.startswith("feature_extractor.")
            }
        path = tmp_path / "large.pt"
        torch.save({"model": tensors} if source == "fairseq" else tensors, path)
    message = complaint(source, path, tmp_path / "out")
    assert "only HuBERT base" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"layer_norm_first": True}, "large HuBERT"), ({"normalize": True}, "normalised waveforms")],
)
def test_settings_of_fairseq_that_ours_does_not_compute(hf_peer, tmp_path, settings, words):
    file = tmp_path / "weights.pt"
    content = {"model": fairseq_state_dict(hf_peer), "args": argparse.Namespace(**settings)}
    torch.save(content, file)
    assert words in complaint("fairseq", file, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "wav2vec2"}, "model_type is 'wav2vec2'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"feat_proj_layer_norm": False}, "feat_proj_layer_norm is False"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "conv_stride is"),
        ({"num_attention_heads": 5}, "heads is 5"),
    ],
)
def test_a_config_of_hugging_face_that_ours_does_not_compute(
    hf_directory, tmp_path, changes, words
):
    file = hf_directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    message = complaint("hf", hf_directory, tmp_path / "out")
    assert words in message
    assert str(hf_directory) in message


def test_a_width_that_does_not_tell_the_heads(torchaudio_peer, tmp_path):
    tensors = torchaudio_peer.wav2vec2.state_dict()
    prefix = "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1"
    tensors[prefix] = torch.zeros(96, 6, 128)
    file = tmp_path / "weights.pt"
    torch.save(tensors, file)
    assert "width is 96" in complaint("torchaudio", file, tmp_path / "out")
