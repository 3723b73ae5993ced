"""A packed twin is the twin that it came from: its states, its hash, and nothing of its weights."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_twins import SMALL

from superbit.upstreams import checkpoint, packed, registry
from superbit.upstreams.encoders.settings import ConformerSettings
from superbit.upstreams.errors import BrokenUpstream, InputError
from superbit.upstreams.expert import UpstreamExpert, untrained_twin
from superbit.upstreams.quantization.convert import quantization
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.policy import load_policy, policy_from_dict

WAVE = 0.1 * torch.randn(9_000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def twin():
    return untrained_twin(SMALL, "w1a1").eval()


@pytest.fixture
def file(twin, tmp_path):
    packed.pack(twin, tmp_path / "twin.safetensors", weights="0" * 64)
    return tmp_path / "twin.safetensors"


def states(model):
    with torch.no_grad():
        return model([WAVE])


def rewritten(file, *, drop=(), metadata=None, **tensors):
    """Write the file again with other content, as a person with a script could."""
    with safe_open(file, framework="pt") as opened:
        held = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        known = opened.metadata()
    held = {name: tensor for name, tensor in held.items() if name not in drop}
    for name, change in tensors.items():
        held[name] = change(held[name])
    known |= metadata or {}
    if "checksum" not in (metadata or {}):
        known["checksum"] = packed._checksum(
            {name: text for name, text in known.items() if name != "checksum"}, held
        )
    save_file(held, file, metadata=known)


@pytest.mark.parametrize("kernel", [choose.OFF, choose.AUTO])
@pytest.mark.parametrize("encoder", ["vanilla", "conformer", "sparseformer", "squeezeformer"])
def test_the_states_are_the_twins_to_the_bit(encoder, kernel, tmp_path):
    model = untrained_twin(replace(SMALL, encoder=encoder), "w1a1").eval()
    packed.pack(model, tmp_path / "f.safetensors", weights="0" * 64)
    other = packed.load(tmp_path / "f.safetensors").model
    with choose.using(kernel):
        assert all(map(torch.equal, states(model), states(other)))
    assert other.config == model.config
    assert other.policy == model.policy


def test_scales_for_each_channel_and_relative_positions(tmp_path):
    content = load_policy("w1a1").to_dict()
    for rule in content["rules"]:
        if "weight" in rule:
            rule["weight"]["per_channel"] = True
    policy = policy_from_dict(content | {"name": "mine"}, where="here")
    own = ConformerSettings(attention_position="relative")
    model = untrained_twin(replace(SMALL, encoder="conformer", own=own), policy).eval()
    packed.pack(model, tmp_path / "f.safetensors", weights="0" * 64)
    other = packed.load(tmp_path / "f.safetensors").model
    assert all(map(torch.equal, states(model), states(other)))


def test_a_scale_below_the_smallest_counts_as_that(twin, tmp_path):
    with torch.no_grad():
        for layer in twin.encoder.layers:
            layer.feed_forward.contract.input_quantizer.scale.fill_(1e-7)
    packed.pack(twin, tmp_path / "f.safetensors", weights="0" * 64)
    other = packed.load(tmp_path / "f.safetensors").model
    for kernel in (choose.OFF, choose.AUTO):
        with choose.using(kernel):
            assert all(map(torch.equal, states(twin), states(other)))


def test_no_float_of_a_binarized_weight_is_in_the_file_or_in_memory(twin, file):
    with safe_open(file, framework="pt") as opened:
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    layer = "encoder.layers.0.attention.query"
    assert held[f"{layer}.weight.bits"].shape == (72, 9)
    assert f"{layer}.weight" not in held
    assert "encoder.layers.0.feed_forward.expand.bias" not in held
    assert held["encoder.layers.0.feed_forward.expand.reached"].dtype == torch.int16
    signs = twin.get_submodule(layer).weight > twin.get_submodule(layer).weight.mean()
    bits = torch.tensor(
        [
            [(b >> k) & 1 for b in row for k in range(8)]
            for row in held[f"{layer}.weight.bits"].tolist()
        ]
    )
    assert torch.equal(bits[:, :72].bool(), signs)
    model = packed.load(file).model
    tensors = [*model.parameters(), *model.buffers()]
    assert sum(t.numel() * t.element_size() for t in tensors) <= 1.01 * file.stat().st_size


def test_the_hash_is_the_twins_and_the_verb_says_sizes(tmp_path, capsys):
    from superbit.benchmark.cli import main

    out = tmp_path / "nano.safetensors"
    assert main(["pack", "bq_vanilla_nano", "--out", str(out), "--rest", "fp16"]) == 0
    said = capsys.readouterr().out
    megabytes = f"{out.stat().st_size / 1e6:.2f} MB"
    assert megabytes in said
    assert "final_proj" in said
    twin, found = (registry.load_upstream(s) for s in ("bq_vanilla_nano", f"bq_vanilla_nano@{out}"))
    # the shipped checkpoint is float16, so nothing was rounded
    assert found.weights_sha256 == twin.weights_sha256
    assert not found.expert.untrained
    with torch.no_grad():
        ours, theirs = (each.expert.eval()([WAVE])["hidden_states"] for each in (found, twin))
    assert all(map(torch.equal, ours, theirs))
    assert found.further.upstream_config_sha256 is not None


def test_rounding_is_another_model(twin, tmp_path):
    size = packed.pack(twin, tmp_path / "f.safetensors", weights="0" * 64, rest="fp16")
    assert not size.exact
    assert packed.load(tmp_path / "f.safetensors").model.packed_weights_sha256 != "0" * 64


def test_random_weights_stay_marked(tmp_path):
    loaded = registry.load_upstream("bq_vanilla_nano+untrained")
    out = tmp_path / "f.safetensors"
    packed.pack(loaded.expert.model, out, weights=loaded.weights_sha256, untrained=True)
    again = registry.load_upstream(f"bq_vanilla_nano@{out}")
    assert again.expert.untrained
    assert isinstance(again.expert, UpstreamExpert)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-100]), "truncated or corrupt"),
        (lambda f: f.write_bytes(f.read_bytes()[:-1] + b"\x55"), "altered"),
        (lambda f: rewritten(f, metadata={"version": "2"}), "version '2'.*reads 1"),
        (lambda f: rewritten(f, metadata={"rest": "fp16", "checksum": "x"}), "altered"),
        (lambda f: rewritten(f, drop=("mask_emb",)), "missing: mask_emb"),
        (lambda f: rewritten(f, mask_emb=lambda t: t * torch.nan), "mask_emb.*not finite"),
        (
            lambda f: rewritten(
                f, **{"encoder.layers.0.attention.key.weight.scale": lambda t: t * torch.nan}
            ),
            "key.weight.scale.*not finite",
        ),
        (
            lambda f: rewritten(f, **{"encoder.layers.0.attention.key.weight.scale": torch.neg}),
            "key.weight.scale is not above 0",
        ),
        (
            lambda f: rewritten(f, metadata={"config": json.dumps({"encoder": "vanilla"})}),
            "lacks layers",
        ),
        (lambda f: rewritten(f, metadata={"config": "{"}), "metadata cannot be read"),
        (
            lambda f: rewritten(
                f, metadata={"config": json.dumps(replace(SMALL, dim=144).to_dict())}
            ),
            "does not fit the config",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(change, sentence, file):
    change(file)
    with pytest.raises((InputError, BrokenUpstream), match=sentence) as caught:
        packed.load(file)
    assert "twin.safetensors" in str(caught.value)


def test_what_cannot_be_packed_or_loaded_says_why(twin, file, tmp_path):
    from superbit.upstreams.hubert import untrained_model

    with pytest.raises(InputError, match="FP32 model"):
        packed.pack(untrained_model(SMALL), tmp_path / "f.safetensors", weights="")
    with pytest.raises(InputError, match="8 bits"):
        packed.pack(untrained_twin(SMALL, _many_bits()), tmp_path / "f.safetensors", weights="")
    with pytest.raises(InputError, match=r"vanilla encoder.*'conformer_nano'.*conformer"):
        packed.load(file, name="conformer_nano")
    with pytest.raises(InputError, match="no packed twin"):
        checkpoint.load(tmp_path / "twin.safetensors")
    with pytest.raises(InputError, match=r"bq_vanilla_nano"):
        registry.load_upstream(f"vanilla_nano@{file}")
    model = packed.load(file).model
    with pytest.raises(InputError, match="packed already"):
        packed.pack(model, tmp_path / "again.safetensors", weights="")
    assert not (tmp_path / "again.safetensors").exists()
    with pytest.raises(InputError, match="packed twin"), quantization(model, on=False):
        states(model)


def _many_bits():
    content = load_policy("w1a1").to_dict()
    for rule in content["rules"]:
        if "weight" in rule:
            rule["weight"]["bits"] = 8
    return policy_from_dict(content | {"name": "mine"}, where="here")
