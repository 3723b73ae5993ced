"""From an FP32 model to its twin: what is swapped, what is refused, what is saved."""

import copy
import importlib
import json
import shutil

import pytest
import ready_processes
import torch
from safetensors.torch import load_file, save_file
from tiny_settings import TINY_SETTINGS
from torch import nn

from superbit.upstreams import checkpoint, expert, registry
from superbit.upstreams.encoder_kinds import ENCODERS
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import (
    binarize_,
    binarized_modules,
    binarized_parameters,
    calibrate,
    is_calibrated,
    quantization,
    quantizer_scales,
)
from superbit.upstreams.quantization.elastic import ElasticQuantizer
from superbit.upstreams.quantization.layers import QuantizedBits, quantized_bits
from superbit.upstreams.quantization.policy import load_policy, parse_policy, policy_names
from superbit.upstreams.variant import VARIANTS, size_of, sizes

# spec's table1_configs.json, keyed by the paper's short names, is package data
IN_TABLE_1 = {
    "vanilla": "vanilla",
    "conformer_s": "conformer",
    "squeeze_xs": "squeeze",
    "sparseformer_dn_s": "sparse_dn",
    "sparseformer_sw_s": "sparse_sw",
}


def tiny(encoder="vanilla"):
    return HubertConfig(
        encoder=encoder,
        layers=2,
        dim=32,
        heads=2,
        ffn_dim=48,
        conv_layers=((16, 10, 5), (32, 8, 4)),
        position_kernel=16,
        own=TINY_SETTINGS.get(encoder),
    )


def audio(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, generator=generator) for length in lengths]


@pytest.fixture(scope="module")
def twin():
    model = binarize_(untrained_model(tiny("conformer")), "w1a1")
    calibrate(model, audio(700, 500))
    return model.eval()


@pytest.fixture
def saved(twin, tmp_path):
    checkpoint.save(tmp_path / "twin", twin, training={"updates": 3})
    return tmp_path / "twin"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_twin_has_the_model_s_parameters_and_with_quantizers_off_its_states(encoder):
    model = untrained_model(tiny(encoder)).eval()
    for name, _ in list(model.named_modules()):
        if name.endswith("activation") and "feed_forward" in name:
            model.set_submodule(name, nn.ReLU())  # what a twin has there
    expected = model(audio(600, 400))
    before = dict(model.named_parameters())
    assert binarize_(model, "w1a1") is model
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert {name.rpartition(".")[2] for name in after.keys() - before.keys()} == {"scale", "shift"}
    # alone, as a twin's utterances are, and not in a batch, rounds otherwise
    with quantization(model, on=False):
        for got, due in zip(model(audio(600, 400)), expected, strict=True):
            assert torch.allclose(got[0], due[0], atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_feed_forwards_of_a_twin_are_relu_networks(encoder):
    model = binarize_(untrained_model(tiny(encoder)), "w1a1")
    feed_forwards = [m for n, m in model.named_modules() if n.split(".")[-1].startswith("feed_for")
                     and hasattr(m, "activation")]  # fmt: skip
    assert len(feed_forwards) == 2 * (1 if encoder in ("vanilla", "sparseformer") else 2)
    for module in feed_forwards:
        assert isinstance(module.activation, nn.ReLU)
        assert module.contract.input_quantizer.signed is False


@pytest.mark.parametrize("name", sorted(IN_TABLE_1))
def test_as_many_parameters_are_binarized_as_the_paper_counts(name):
    from importlib import resources

    text = (resources.files("superbit.upstreams") / "table1_configs.json").read_text("utf-8")
    due = json.loads(text)["encoders"][IN_TABLE_1[name]]["params_quantised_in_BQ_twin"]
    with torch.device("meta"):
        model = Hubert(size_of(name))
    binarize_(model, "w1a1")
    assert binarized_parameters(model) == due
    quantized = [quantized_bits(module) for module in binarized_modules(model).values()]
    assert set(quantized) == {QuantizedBits(1, 1)}


@pytest.mark.parametrize(
    ("policy", "bits"), [("w1a2", (1, 2)), ("w1a4", (1, 4)), ("w2a2", (2, 2)), ("w8a8", (8, 8))]
)
def test_bits_are_read_from_the_modules(policy, bits):
    model = binarize_(untrained_model(tiny("squeezeformer")), policy)
    for name, module in binarized_modules(model).items():
        due = (bits[1], bits[1]) if name.endswith("_product") else bits
        assert quantized_bits(module) == QuantizedBits(*due), name
    assert quantized_bits(model.encoder.recovery) == QuantizedBits(32, 32)


@pytest.mark.parametrize("name", policy_names())
def test_policies_of_superbit_have_their_files_names_and_survive_json(name):
    policy = load_policy(name)
    assert policy.name == name
    text = json.dumps(policy.to_dict())
    assert parse_policy(text, where="again") == policy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: p\nlike: w1a1\nweight_bits: 9\nactivation_bits: 1", "weight_bits is 9; an integer"),
        ("name: p\nlike: w1a1\nweight_bits: 1\nactivation_bits: 0", "activation_bits is 0"),
        ("name: p\nlike: w1a1\nweight_bits: 1", "lacks activation_bits"),
        ("name: p\nlike: w1b1\nweight_bits: 1\nactivation_bits: 1", "Did you mean 'w1a1'"),
        ("name: p\nlike: w1a1\nrules: []\nweight_bits: 1\nactivation_bits: 1", "both are given"),
        ("name: p\nrules: [{modules: [a], weight: {bits: 1, set: unsigned}}]", "set is signed"),
        ("name: p\nrules: [{modules: [a], weight: {bits: 2, set: signed, per_channel: true}}]",
         "per_channel is for weights of 1 bit"),
        ("name: p\nrules: [{modules: [a], input: {bits: 1, set: signed, per_channel: true}}]",
         "per_channel is for weights of 1 bit"),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_one_sentence(text, said):
    with pytest.raises(InputError, match=said):
        parse_policy(text, where="p.yaml")


ATTENTION = "encoder.layers.*.attention"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("w1a3", "no binarization policy is called 'w1a3'.*Did you mean"),
        ([{"modules": ["encoder.layers.*.atention.query"],
           "weight": {"bits": 1, "set": "signed"}}], "matches no module"),
        ([{"modules": ["encoder_norm"], "weight": {"bits": 1, "set": "signed"}}], "a LayerNorm"),
        ([{"modules": [f"{ATTENTION}.query"], "left": {"bits": 1, "set": "signed"},
           "right": {"bits": 1, "set": "signed"}}], "are for an attention's"),
        ([{"modules": [f"{ATTENTION}.context_product"],
           "left": {"bits": 1, "set": "unsigned", "shift": True},
           "right": {"bits": 1, "set": "signed"}}], "no channels to shift"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_carried_out_leaves_the_model_as_it_was(policy, said):
    model = untrained_model(tiny())
    if isinstance(policy, list):
        text = json.dumps({"name": "p", "rules": policy})
        policy = parse_policy(text, where="p")
    with pytest.raises(InputError, match=said):
        binarize_(model, policy)
    assert model.policy is None
    assert not binarized_modules(model)


def test_binarizing_twice_is_an_error(twin):
    with pytest.raises(InputError, match="binarized already, by policy 'w1a1'"):
        binarize_(twin, "w1a2")


def test_only_a_twin_can_be_calibrated():
    with pytest.raises(InputError, match="full precision has nothing to calibrate"):
        calibrate(untrained_model(tiny()), audio(600))


@pytest.mark.parametrize("training", [True, False])
def test_a_twin_that_was_never_calibrated_computes_nothing(training):
    model = binarize_(untrained_model(tiny()), "w1a1").train(training)
    assert not is_calibrated(model)
    with pytest.raises(InputError, match="never calibrated"):
        model(audio(600))


def test_calibrating_leaves_modes_weights_and_generators_alone():
    model = binarize_(untrained_model(tiny("conformer")), "w1a1").train()
    model.encoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    scales = {id(parameter) for parameter in quantizer_scales(model)}
    before = {n: p.clone() for n, p in model.named_parameters() if id(p) not in scales}
    norm = model.encoder.layers[1].convolution.norm.running_mean.clone()
    state = torch.get_rng_state()
    calibrate(model, audio(600, 450))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in before.items())
    assert torch.equal(model.encoder.layers[1].convolution.norm.running_mean, norm)
    assert torch.equal(torch.get_rng_state(), state)
    assert is_calibrated(model)


def test_saved_loaded_and_copied_a_twin_gives_the_same_states(twin, saved):
    waveforms = audio(900, 640, seed=1)
    expected = twin(waveforms)
    loaded = checkpoint.load(saved)
    assert loaded.training == {"updates": 3}
    assert loaded.model.policy == twin.policy
    # a model carries the modules of its own kind, whatever roles others have
    assert loaded.model.policy == load_policy("w1a1").resolved(twin, encoder="conformer")
    fresh = binarize_(untrained_model(tiny("conformer"), seed=9), "w1a1")
    fresh.load_state_dict(twin.state_dict())
    for again in (loaded.model, fresh, copy.deepcopy(twin)):
        for got, due in zip(again.eval()(waveforms), expected, strict=True):
            assert torch.equal(got, due)


def test_a_copy_keeps_its_own_account_of_frames(twin):
    other = copy.deepcopy(twin)
    ours, theirs = twin.encoder.layers[0], other.encoder.layers[0]
    assert theirs.valid_frames is not ours.valid_frames
    assert theirs.attention.query.valid_frames is theirs.valid_frames
    assert theirs.convolution.valid_frames is theirs.valid_frames
    other(audio(900))
    assert theirs.valid_frames.count is None  # nothing is kept after a pass


def test_half_precision_keeps_flags(twin, tmp_path):
    checkpoint.save(tmp_path / "half", twin, dtype=torch.float16)
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    flags = [name for name in tensors if name.endswith(".initialized")]
    assert len(flags) == sum(isinstance(m, ElasticQuantizer) for m in twin.modules())
    assert all(tensors[name].dtype == torch.bool for name in flags)
    assert is_calibrated(checkpoint.load(tmp_path / "half").model)


def test_a_checkpoint_whose_flag_is_unset_is_an_error(saved):
    file = saved / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith(".initialized"))
    tensors[name] = torch.tensor(False)
    save_file(tensors, file)
    with pytest.raises(InputError, match="never calibrated"):
        checkpoint.load(saved)


def test_a_config_with_another_policy_does_not_fit_the_tensors(saved):
    file = saved / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "policy": load_policy("w2a2").to_dict()}))
    with pytest.raises(InputError, match=r"does not fit the config\.json"):
        checkpoint.load(saved)
    file.write_text(json.dumps({**config, "policy": {"name": "p", "rulez": []}}))
    with pytest.raises(InputError, match=r"config\.json, policy: unknown key 'rulez'"):
        checkpoint.load(saved)


def test_precision_asked_for_and_found_must_agree(saved, tmp_path):
    with pytest.raises(InputError, match="holds a twin of policy 'w1a1', but 'conformer_nano'"):
        expert.build("conformer_nano", ckpt=saved)
    with pytest.raises(InputError, match=r"but 'conformer_nano\+policy=w1a2' was asked for"):
        expert.build("conformer_nano", ckpt=saved, policy="w1a2")
    assert expert.build("conformer_nano", ckpt=saved, policy="w1a1").untrained is False
    checkpoint.save(tmp_path / "plain", untrained_model(tiny("conformer")))
    with pytest.raises(InputError, match="holds an FP32 model, but 'bq_conformer_nano'"):
        registry.load(f"bq_conformer_nano@{tmp_path / 'plain'}")
    shutil.copytree(saved, tmp_path / "other")
    config = json.loads((saved / "config.json").read_text())
    rules = [rule for rule in config["policy"]["rules"] if "replace" not in rule]
    config["policy"]["rules"] = rules  # same tensors, another activation
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="with other rules than superbit's policy"):
        expert.build("conformer_nano", ckpt=tmp_path / "other", policy="w1a1")


def test_an_untrained_twin_is_marked_and_always_the_same():
    first, second = (registry.load_upstream("bq_vanilla_nano+untrained") for _ in range(2))
    assert str(first.spec) == "vanilla_nano+untrained+policy=w1a1"
    assert first.expert.untrained is True
    assert first.expert.name == "bq_vanilla_nano"
    assert first.weights_sha256 == second.weights_sha256
    plain = registry.load("vanilla_nano+untrained")
    query = "model.encoder.layers.0.attention.query.weight"
    assert torch.equal(first.expert.state_dict()[query], plain.state_dict()[query])
    narrow = registry.load("vanilla_nano+untrained+policy=w1a2")
    assert narrow.model.encoder.layers[0].attention.query.input_quantizer.bits == 2


def test_an_untrained_twin_does_not_depend_on_how_sums_are_ordered():
    """Another order of channels is another order of every sum over them."""
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(expert.untrained_twin(size_of("conformer_nano"), "w1a1").state_dict())
    torch.set_num_threads(threads)
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


def test_every_name_has_a_twin_in_the_lists_in_the_hub_and_in_its_folder():
    from s3prl import hub

    twins = [f"bq_{name}" for name in sizes()]
    listed = {entry.name: entry for entry in registry.entries()}
    assert set(twins) <= listed.keys()
    assert listed["bq_vanilla"].ours
    assert "1-bit twin of vanilla" in listed["bq_vanilla"].summary
    assert set(twins) <= set(registry.names())
    assert all(callable(getattr(hub, name)) for name in twins)
    assert hub.bq_vanilla_nano(ckpt=None, model_config=None, refresh=False).model.policy.name == (
        "w1a1"
    )
    for variant in VARIANTS:
        module = importlib.import_module(f"superbit.upstreams.{variant}.hubconf")
        names = {name for name in vars(module) if not name.startswith(("_", "bq_"))}
        names = {name for name in names if name in sizes()}
        assert {f"bq_{name}" for name in names} <= vars(module).keys()


RANK = """
import sys, torch, torch.distributed as dist
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarize_, calibrate, quantizer_scales
torch.set_num_threads(1)
rank, folder, config = int(sys.argv[1]), sys.argv[2], HubertConfig.from_dict(eval(sys.argv[3]))
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
model = binarize_(untrained_model(config).double(), "w1a1")
calibrate(model, [torch.load(f"{folder}/audio.pt")[rank]])
torch.save(torch.stack(quantizer_scales(model)).detach(), f"{folder}/{rank}.pt")
dist.barrier()  # gloo can abort in a rank whose peer has left
dist.destroy_process_group()
"""


def test_two_ranks_end_with_one_scale_that_of_all_their_audio(tmp_path):
    waveforms = [wave.double() for wave in audio(900, 500)]
    torch.save(waveforms, tmp_path / "audio.pt")
    config = tiny("conformer")
    words = (tmp_path, repr(config.to_dict()))
    ranks = [ready_processes.Program(RANK, rank, *words) for rank in (0, 1)]
    assert [rank.finished().returncode for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second)
    model = binarize_(untrained_model(config).double(), "w1a1")
    calibrate(model, waveforms)
    alone = torch.stack(quantizer_scales(model)).detach()
    assert torch.allclose(first, alone, rtol=1e-9)
