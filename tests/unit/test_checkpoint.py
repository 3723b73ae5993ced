"""Checkpoints: what is written is what is read, and every broken one is named."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_settings import TINY_SETTINGS

from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig

CONFIG = HubertConfig(
    encoder="sparseformer",
    layers=2,
    dim=32,
    heads=2,
    ffn_dim=48,
    conv_layers=((16, 10, 5), (32, 8, 4)),
    position_kernel=16,
    own=TINY_SETTINGS["sparseformer"],
    padding="fairseq",
)


@pytest.fixture(scope="module")
def model():
    return untrained_model(CONFIG, seed=3).eval()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints") / "run" / "best"
    checkpoint.save(directory, model, training={"updates": 7})
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def edit_config(directory, **changes):
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(directory, change):
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def complaint(directory, **kwargs):
    with pytest.raises(InputError) as caught:
        checkpoint.load(directory, **kwargs)
    return str(caught.value)


def test_what_is_saved_is_what_is_loaded(model, saved):
    loaded = checkpoint.load(saved, name="sparseformer_dn_s")
    assert loaded.model.config == CONFIG  # sizes, front end and padding are the checkpoint's own
    assert loaded.training == {"updates": 7}
    before, after = model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    waveforms = [torch.randn(900), torch.randn(500)]
    for a, b in zip(model(waveforms), loaded.model.eval()(waveforms), strict=True):
        assert torch.equal(a, b)


def test_a_loaded_model_can_be_trained_and_leaves_the_file_alone(saved):
    content = (saved / "model.safetensors").read_bytes()
    loaded = checkpoint.load(saved).model
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.fill_(0.0)
    assert (saved / "model.safetensors").read_bytes() == content


def test_half_precision_takes_half_the_bytes_and_loads_as_float32(model, tmp_path):
    checkpoint.save(tmp_path / "half", model, dtype=torch.float16)
    checkpoint.save(tmp_path / "full", model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("full", "half")]
    assert sizes[0] - sizes[1] == pytest.approx(2 * parameters, abs=100)
    loaded = checkpoint.load(tmp_path / "half").model
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].half().float())


def test_config_is_readable_json_of_three_keys(saved):
    content = json.loads((saved / "config.json").read_text())
    assert content == {"format": 1, "model": CONFIG.to_dict(), "training": {"updates": 7}}


def test_a_failing_save_leaves_the_old_checkpoint_and_no_litter(model, copy):
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    with pytest.raises(TypeError):
        checkpoint.save(copy, model, training={"when": object()})
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(copy, model, training={"loss": float("nan")})
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_a_write_cut_short_leaves_the_old_checkpoint_and_no_litter(model, copy, monkeypatch):
    before = {file.name: file.read_bytes() for file in copy.iterdir()}

    def disk_full(tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(copy, model)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_saving_again_replaces(model, copy):
    checkpoint.save(copy, untrained_model(CONFIG, seed=4), training={"updates": 8})
    loaded = checkpoint.load(copy)
    assert loaded.training == {"updates": 8}
    assert not torch.equal(loaded.model.mask_emb, model.mask_emb)


def test_another_encoder_than_the_name_asks_for(saved):
    message = complaint(saved, name="vanilla")
    assert message.startswith(f"{saved} holds a sparseformer encoder, but 'vanilla' was asked for")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert f"there is no {copy / name}" in complaint(copy)


def test_no_directory_or_a_file_in_its_place(saved, tmp_path):
    assert str(tmp_path / "nowhere") in complaint(tmp_path / "nowhere")
    message = complaint(saved / "model.safetensors")
    assert "is a file and no packed twin; a checkpoint is a directory" in message


@pytest.mark.parametrize("kept", [0, 5, 200, 20_000])
def test_a_truncated_weights_file(copy, kept):
    file = copy / "model.safetensors"
    assert kept < file.stat().st_size
    file.write_bytes(file.read_bytes()[:kept])
    message = complaint(copy)
    assert str(file) in message
    assert "truncated or corrupt" in message


def test_weights_that_are_no_safetensors(copy):
    torch.save({"a": torch.zeros(3)}, copy / "model.safetensors")
    assert str(copy / "model.safetensors") in complaint(copy)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[1, 2]"])
def test_a_config_that_is_no_json_object(copy, text):
    (copy / "config.json").write_bytes(text)
    assert f"{copy / 'config.json'} " in complaint(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2; this version of superbit reads 1"),
        ({"format": None}, "format None"),
        ({"trianing": {}}, "unknown key 'trianing'. Did you mean 'training'?"),
        ({"training": 3}, "training is 3"),
        ({"model": {**CONFIG.to_dict(), "layer": 2}}, "'layer' is no key"),
        ({"model": {**CONFIG.to_dict(), "heads": 5}}, "heads is 5"),
        ({"model": {}}, "lacks encoder"),
        ({"model": 3}, "mapping"),
    ],
)
def test_a_config_with_a_wrong_entry(copy, changes, words):
    edit_config(copy, **changes)
    message = complaint(copy)
    assert str(copy / "config.json") in message
    assert words in message


def test_tensors_that_do_not_fit_are_named(copy):
    def change(tensors):
        del tensors["mask_emb"]
        tensors["surplus"] = torch.zeros(2)
        tensors["final_proj.bias"] = torch.zeros(3)
        tensors["encoder_norm.bias"] = torch.zeros(32, dtype=torch.int32)

    edit_tensors(copy, change)
    message = complaint(copy)
    assert str(copy / "model.safetensors") in message
    for words in (
        "missing: mask_emb",
        "not part of the model: surplus",
        "final_proj.bias has shape (3,), where the config needs (256,)",
        "encoder_norm.bias holds torch.int32",
    ):
        assert words in message
    assert len(message.splitlines()) == 5


def test_many_tensors_that_do_not_fit_take_ten_lines(copy):
    values = {**CONFIG.to_dict(), "layers": 3}  # a third layer of 16 tensors, none of them there
    edit_config(copy, model=values)
    lines = complaint(copy).splitlines()[1:]
    assert len(lines) == 10
    assert lines[0] == "  missing: encoder.layers.2.attention.key.bias"
    assert lines[-1] == "  and 7 more"


def test_an_integer_is_stored_and_loaded_as_one(model, tmp_path, monkeypatch):
    # a batch norm counts its batches; half precision has no integer above 2048 to the unit
    class Counting(checkpoint.Hubert):
        def __init__(self, config):
            super().__init__(config)
            self.register_buffer("batches", torch.tensor(0))

    monkeypatch.setattr(checkpoint, "Hubert", Counting)
    counting = Counting(CONFIG)
    counting.batches.fill_(4097)
    checkpoint.save(tmp_path / "half", counting, dtype=torch.float16)
    loaded = checkpoint.load(tmp_path / "half").model
    assert loaded.batches.dtype == torch.int64
    assert loaded.batches == 4097
    edit_tensors(tmp_path / "half", lambda tensors: tensors.update(batches=torch.tensor(1.5)))
    assert "batches holds torch.float32, where torch.int64 is needed" in complaint(
        tmp_path / "half"
    )
