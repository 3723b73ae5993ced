"""The s3prl expert: how it is built, and what s3prl's own Featurizer makes of it."""

import importlib
from pathlib import Path

import pytest
import torch

from superbit.upstreams import checkpoint, expert, registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.variant import VARIANTS, size_of, sizes

NAMES = sorted(sizes())


def hub_functions(variant):
    module = importlib.import_module(f"superbit.upstreams.{variant}.hubconf")
    # as s3prl.hub does: whatever is callable and does not begin with an underscore is a name
    return {
        name: function
        for name, function in vars(module).items()
        if callable(function) and not name.startswith("_")
    }


@pytest.fixture(scope="module")
def nano():
    return expert.build("sparseformer_dn_nano", untrained=True)


def test_hubconfs_offer_the_named_sizes_and_nothing_else():
    offered = [name for variant in VARIANTS for name in hub_functions(variant)]
    assert sorted(offered) == sorted([*NAMES, *(f"bq_{name}" for name in NAMES)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_hub_functions_take_what_s3prl_gives_and_build_their_own_name(variant, monkeypatch):
    asked = []
    monkeypatch.setattr(expert, "build", lambda name, **kwargs: asked.append((name, kwargs)))
    for name, function in hub_functions(variant).items():
        function(ckpt="there", model_config=None, refresh=False)
        policy = "w1a1" if name.startswith("bq_") else None
        plain = name.removeprefix("bq_")
        due = {"size": size_of(plain), "ckpt": "there", "untrained": False, "policy": policy}
        assert asked.pop() == (plain, due)


def test_the_variants_are_the_folders_that_hold_a_hubconf():
    folders = Path(expert.__file__).parent.glob("*/hubconf.py")
    assert sorted(VARIANTS) == sorted(file.parent.name for file in folders)


def test_a_name_of_a_variant_by_the_path_of_its_file_is_the_same_upstream():
    file = Path(expert.__file__).with_name("vanilla") / "hubconf.py"
    found = registry.load_upstream(f"{file}:bq_vanilla_nano+untrained")
    assert (
        found.weights_sha256 == registry.load_upstream("bq_vanilla_nano+untrained").weights_sha256
    )


def test_s3prls_featurizer_cuts_every_utterance_to_its_frames(nano):
    from s3prl.upstream.interfaces import Featurizer

    featurizer = Featurizer(nano, upstream_device="cpu")
    assert featurizer.layer_num == 5
    assert featurizer.output_dim == 128
    assert featurizer.downsample_rate == 320
    waveforms = [torch.randn(n) for n in (16_000, 800, 12_345)]
    features = featurizer(waveforms, nano(waveforms))
    assert [tuple(f.shape) for f in features] == [(50, 128), (2, 128), (39, 128)]
    last = Featurizer(nano, "last_hidden_state", upstream_device="cpu")
    assert torch.equal(last(waveforms, nano(waveforms))[0], nano(waveforms)["hidden_states"][-1][0])


def test_without_weights_it_is_untrained_the_same_every_time_and_says_so(nano):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    again = expert.build("sparseformer_dn_nano", untrained=True)
    assert torch.equal(torch.rand(2), expected)  # the global generator is as it was
    assert nano.untrained is again.untrained is True
    assert nano.name == "sparseformer_dn_nano"
    assert nano.batch_invariant is True
    for name, tensor in nano.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_with_a_checkpoint_its_weights_and_sizes_apply(nano, tmp_path):
    checkpoint.save(tmp_path / "best", nano.model)
    loaded = expert.build("sparseformer_sw_s", ckpt=str(tmp_path / "best"))
    assert loaded.untrained is False
    assert loaded.name == "sparseformer_sw_s"
    assert loaded.model.config == nano.model.config
    assert torch.equal(loaded.model.mask_emb, nano.model.mask_emb)
    with pytest.raises(InputError, match="holds a sparseformer encoder, but 'vanilla_nano'"):
        expert.build("vanilla_nano", ckpt=tmp_path / "best")


def test_packaged_weights_are_used_unless_untrained_is_asked_for(nano, tmp_path, monkeypatch):
    packaged = expert.build("sparseformer_dn_nano").model
    with torch.no_grad():
        packaged.mask_emb.fill_(0.5)
    checkpoint.save(tmp_path / "variant" / "sparseformer_dn_nano", packaged)
    monkeypatch.setattr(expert, "__file__", str(tmp_path / "expert.py"))
    found = expert.packaged_checkpoint("sparseformer_dn_nano")
    assert found == tmp_path / "variant" / "sparseformer_dn_nano"
    assert expert.packaged_checkpoint("sparseformer_dn_s") is None
    trained = expert.build("sparseformer_dn_nano")
    assert trained.untrained is False
    assert torch.equal(trained.model.mask_emb, packaged.mask_emb)
    random = expert.build("sparseformer_dn_nano", untrained=True)
    assert random.untrained is True
    assert torch.equal(random.model.mask_emb, nano.model.mask_emb)


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("vanila", {}, "Did you mean 'vanilla'"),
        ("vanilla_nano", {"policy": "w1a3"}, "'w1a3'.*Did you mean"),
        ("vanilla_nano", {"untrained": True, "ckpt": "there"}, "both"),
        ("vanilla_nano", {"ckpt": "nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_what_cannot_be_built_is_an_input_error(name, kwargs, words):
    with pytest.raises(InputError, match=words):
        expert.build(name, **kwargs)
