"""Whatever changes an upstream's hidden states changes its identity; nothing else does."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from superbit.benchmark.corpora import catalog as corpora
from superbit.benchmark.features.store import CacheSettings
from superbit.upstreams import checkpoint, registry
from superbit.upstreams.expert import packaged_checkpoint
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.identity import known, sources
from superbit.upstreams.identity.fingerprint import describe, fingerprint, hidden_states
from superbit.upstreams.identity.further import KNOWN, Further
from superbit.upstreams.registry import load_upstream
from superbit.upstreams.spec import UpstreamSpec
from superbit.upstreams.variant import size_of

# No weights: what is read decides. Each function reads in another way.
HUBCONF = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from safetensors.numpy import load_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "neighbourhood"))
import helper_of_identity
from .parts import SHIFT

AT_IMPORT = json.loads((HERE / "settings.json").read_text())["scale"]

class Scaled(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = float(scale) * AT_IMPORT * helper_of_identity.FACTOR
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        rows = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        with open(HERE / "calls", "a") as calls:
            calls.write("x")
        return {"hidden_states": [self.scale * rows.unfold(1, 320, 320) + SHIFT]}

def beside(ckpt=None, **kwargs):
    return Scaled(np.load(HERE / "scale.npy")[0])

def elsewhere(ckpt=None, **kwargs):
    return Scaled(np.fromfile(HERE.parent / "data" / "scale.raw")[0])

def unseen(ckpt=None, **kwargs):
    return Scaled(load_file(HERE / "scale.safetensors")["scale"][0])

def given(ckpt=None, **kwargs):
    return Scaled(load_file(ckpt)["scale"][0] if ckpt else 1.0)

def broken(ckpt=None, **kwargs):
    model = Scaled(1.0)
    model.forward = lambda wavs: 1 / 0
    return model
"""
FUNCTIONS = ("beside", "elsewhere", "unseen", "given", "given@{}/data/w.safetensors")


def save_scale(file: Path, scale: float) -> None:
    save_file({"scale": np.array([scale], np.float32)}, file)


@pytest.fixture
def project(tmp_path):
    """A folder with a hubconf, what it reads, and a module in its neighbourhood."""
    for folder in ("plugin", "neighbourhood", "data"):
        (tmp_path / folder).mkdir()
    plugin = tmp_path / "plugin"
    (plugin / "hubconf.py").write_text(textwrap.dedent(HUBCONF))
    (plugin / "parts.py").write_text("SHIFT = 0.5\n")
    (plugin / "settings.json").write_text('{"scale": 2.0}')
    (tmp_path / "neighbourhood" / "helper_of_identity.py").write_text(
        "from deeper_of_identity import FACTOR\n"
    )
    (tmp_path / "neighbourhood" / "deeper_of_identity.py").write_text("FACTOR = 1.5\n")
    np.save(plugin / "scale.npy", np.array([3.0]))
    np.array([3.0]).tofile(tmp_path / "data" / "scale.raw")
    save_scale(plugin / "scale.safetensors", 3.0)
    save_scale(tmp_path / "data" / "w.safetensors", 3.0)
    yield tmp_path
    sys.path[:] = [path for path in sys.path if not path.startswith(str(tmp_path))]
    for name in ("helper_of_identity", "deeper_of_identity"):
        sys.modules.pop(name, None)


def identity(spec: str) -> dict:
    """What a run's key has of an upstream, and the folder of its features."""
    loaded = load_upstream(spec)
    folder = CacheSettings(folder=Path("cache")).upstream_folder(loaded)
    return {
        "spec": str(loaded.spec),
        "weights": loaded.weights_sha256,
        "revision": loaded.entry.revision,
        **loaded.further.fields(),
        "features": folder.name,
    }


def spec_of(project: Path, function: str) -> str:
    return f"{project}/plugin/hubconf.py:{function.format(project)}"


def require_another(before: dict, after: dict) -> None:
    keyed = [{k: v for k, v in each.items() if k != "features"} for each in (before, after)]
    assert keyed[0] != keyed[1]
    assert before["features"] != after["features"]


SOURCES = {
    "a module of the neighbourhood": lambda p: (
        p / "neighbourhood" / "deeper_of_identity.py"
    ).write_text("FACTOR = 1.25\n"),
    "a module of its folder": lambda p: (p / "plugin" / "parts.py").write_text("SHIFT = 0.25\n"),
    "what is read at import": lambda p: (p / "plugin" / "settings.json").write_text(
        '{"scale": 2.5}'
    ),
}


@pytest.mark.parametrize("edited", SOURCES)
def test_another_source_is_another_upstream_and_runs(project, edited):
    spec = spec_of(project, "beside")
    before, states = identity(spec), hidden_states(load_upstream(spec).expert)
    SOURCES[edited](project)
    if edited == "what is read at import":
        # Python does not import again what is unchanged; another process does.
        after = in_another_process([spec], project)[0]
    else:
        after = identity(spec)
        assert not torch.equal(hidden_states(load_upstream(spec).expert)[0], states[0])
    require_another(before, after)


@pytest.mark.parametrize(
    ("function", "edit"),
    [
        ("beside", lambda p: np.save(p / "plugin" / "scale.npy", np.array([4.0]))),
        ("elsewhere", lambda p: np.array([4.0]).tofile(p / "data" / "scale.raw")),
        ("unseen", lambda p: save_scale(p / "plugin" / "scale.safetensors", 4.0)),
        ("given@{}/data/w.safetensors", lambda p: save_scale(p / "data" / "w.safetensors", 4.0)),
        ("given@{}/data", lambda p: (p / "data" / "notes.json").write_text("{}")),
    ],
)
def test_a_model_without_weights_is_the_files_that_it_reads(project, function, edit):
    if function.endswith("/data"):  # a folder with one file that is not read at all
        (project / "plugin" / "hubconf.py").write_text(
            textwrap.dedent(HUBCONF).replace("load_file(ckpt)", 'np.load(ckpt + "/s.npz")')
        )
        np.savez(project / "data" / "s.npz", scale=np.array([3.0]))
    spec = spec_of(project, function)
    before = identity(spec)
    # by the files alone: the hidden states might differ by too little to show
    edit(project)
    after = identity(spec)
    assert before["upstream_files_sha256"] != after["upstream_files_sha256"]
    require_another(before, after)
    assert before["weights"] == after["weights"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_does_not_matter_changes_nothing(project, function):
    spec = spec_of(project, function)
    before = identity(spec)
    plugin = project / "plugin"
    for file in [*plugin.iterdir(), *(project / "data").iterdir()]:
        os.utime(file, (1, 1))
    (plugin / "notes.txt").write_text("read me")
    (plugin / ".hidden.onnx").write_text("?")
    # a folder of results, where every sweep writes
    (plugin / "results" / "KS").mkdir(parents=True)
    (plugin / "results" / "KS" / "a.json").write_text("{}")
    (plugin / "results" / "work").mkdir()
    (plugin / "results" / "work" / "checkpoint.pt").write_text("?")
    (project / "neighbourhood" / "stranger.py").write_text("X = 1\n")
    assert identity(spec) == before


def in_another_process(specs: list[str], cwd: Path) -> list[dict]:
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); "
        "from test_upstream_identity import identity; "
        "print(json.dumps([identity(spec) for spec in sys.argv[2:]]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), *specs],
        capture_output=True, text=True, check=True, cwd=cwd,
    )  # fmt: skip
    return json.loads(ran.stdout.splitlines()[-1])


def test_another_process_in_another_folder_finds_the_same(project, tmp_path_factory):
    specs = [*(spec_of(project, function) for function in FUNCTIONS), "fbank", "vanilla_nano"]
    here = [identity(spec) for spec in specs]
    # in another order, so that nothing depends on what was imported before
    there = in_another_process(specs[::-1], tmp_path_factory.mktemp("elsewhere"))
    assert there[::-1] == here


@pytest.fixture
def vanilla(tmp_path):
    """A checkpoint of superbit's own, small."""
    model = untrained_model(size_of("vanilla_nano"))
    checkpoint.save(tmp_path / "vanilla", model, training={"note": 1})
    return tmp_path / "vanilla"


def edit_json(file: Path, change) -> None:
    held = json.loads(file.read_text())
    change(held)
    file.write_text(json.dumps(held))


@pytest.mark.parametrize(
    ("field", "value"), [("heads", 1), ("padding", "fairseq"), ("attention_dropout", 0.25)]
)
def test_the_config_of_a_checkpoint_is_part_of_it(vanilla, field, value):
    spec = f"vanilla_nano@{vanilla}"
    before = identity(spec)
    assert before["upstream_config_sha256"]
    edit_json(vanilla / "config.json", lambda held: held["training"].update(note=2))
    (vanilla / "log.txt").write_text("step 1")
    assert identity(spec) == before
    edit_json(vanilla / "config.json", lambda held: held["model"].update({field: value}))
    after = identity(spec)
    assert after["weights"] == before["weights"]
    require_another(before, after)


def test_the_preprocessor_of_a_hugging_face_model_is_part_of_it(tmp_path):
    from s3prl.hub import hf_hubert_custom  # noqa: F401  (brings what transformers needs)
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    folder = tmp_path / "hf"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = HubertConfig(
        **sizes, intermediate_size=32, conv_dim=(8,) * 7, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    spec = f"hf_hubert_custom@{folder}"
    before = identity(spec)
    assert identity(spec) == before
    edit_json(folder / "preprocessor_config.json", lambda held: held.update(do_normalize=True))
    after = identity(spec)
    assert after["weights"] == before["weights"]
    require_another(before, after)


def test_the_task_of_an_s3prl_checkpoint_is_part_of_it(tmp_path):
    from s3prl.upstream.hubert import hubert_model

    task = hubert_model.HubertPretrainingConfig(normalize=False)
    sizes = hubert_model.HubertConfig(
        label_rate=50.0, encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=32,
        encoder_attention_heads=2, final_dim=8, conv_pos=16, conv_pos_groups=4,
        conv_feature_layers="[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
    )  # fmt: skip
    torch.manual_seed(0)
    model = hubert_model.HubertModel(sizes, task, [["a", "b"]])

    def save(normalize: bool) -> None:
        held = {
            "task_cfg": asdict(replace(task, normalize=normalize)),
            "model_cfg": asdict(sizes),
            "model_weight": model.state_dict(),
            "dictionaries_symbols": [["a", "b"]],
        }
        torch.save(held, tmp_path / "hubert.pt")

    spec = f"hubert_local@{tmp_path}/hubert.pt"
    save(False)
    before = identity(spec)
    assert identity(spec) == before
    save(True)
    after = identity(spec)
    assert after["weights"] == before["weights"]
    require_another(before, after)


def test_a_plug_in_is_its_modules_where_no_package_brings_them(project, monkeypatch):
    folder = project / "package"
    folder.mkdir()
    (folder / "plugin_of_identity.py").write_text(
        "from plugin_parts_of_identity import build as made\n"
        "def build(ckpt=None, **kwargs):\n    return made()\n"
    )
    (folder / "plugin_parts_of_identity.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Identity()\n"
    )
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[superbit.upstreams]\nplugged_mine = plugin_of_identity:build\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    before = identity("plugged_mine")
    assert identity("plugged_mine") == before
    (folder / "plugin_parts_of_identity.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Flatten()\n"
    )
    require_another(before, identity("plugged_mine"))
    for name in ("plugin_of_identity", "plugin_parts_of_identity"):
        sys.modules.pop(name, None)


def test_other_hidden_states_are_another_fingerprint_and_noise_is_not(project):
    states = hidden_states(load_upstream("fbank").expert)
    found = fingerprint(describe(states))
    generator = torch.Generator().manual_seed(0)
    noisy = [s * (1 + 1e-6 * torch.randn(s.shape, generator=generator)) for s in states]
    assert not torch.equal(noisy[0], states[0])
    assert fingerprint(describe(noisy)) == found
    for other in ([1.05 * s for s in states], [s[:, :-1] for s in states], [*states, states[0]]):
        assert fingerprint(describe(other)) != found


@pytest.mark.parametrize("name", ["vanilla_nano", "bq_vanilla_nano", "fbank", "mfcc"])
def test_what_needs_no_more_than_name_and_weights_keeps_its_key(name):
    assert load_upstream(name).further == Further()


def test_the_hidden_states_on_record_are_of_everything_shipped_and_of_this_revision():
    """If it fails: python -m superbit.upstreams.identity.known."""
    on_record = json.loads(KNOWN.read_text())
    shipped = {
        str(UpstreamSpec.parse(entry.name))
        for entry in registry.entries()
        if entry.ours and packaged_checkpoint(entry.name)
    }
    untrained = {spec for spec in known.specs() if "+untrained" in spec}
    assert set(on_record) == {*known.FILTER_BANKS} | shipped | untrained
    for name, held in on_record.items():
        wanted = "1" if name in known.FILTER_BANKS else str(registry.OUR_REVISION)
        assert held["revision"] == wanted, name


@pytest.mark.parametrize("name", ["vanilla_nano", "fbank"])
def test_another_code_of_ours_or_of_s3prls_is_another_upstream(name, monkeypatch):
    """Somebody edits an encoder, or upgrades s3prl: weights and revision stay."""
    loaded = load_upstream(name)
    expert_class = type(loaded.expert.model if loaded.entry.ours else loaded.expert)
    forward = expert_class.forward

    def edited(self, wavs):
        output = forward(self, wavs)
        if isinstance(output, dict):
            return output | {"hidden_states": [1.1 * s for s in output["hidden_states"]]}
        return [1.1 * state for state in output]

    monkeypatch.setattr(expert_class, "forward", edited)
    assert load_upstream(name).further.upstream_fingerprint


def test_a_measurement_leaves_everything_as_it_was(vanilla):
    for spec in (f"vanilla_nano@{vanilla}", "fbank"):
        loaded = load_upstream(spec)
        loaded.expert.train()
        before = torch.get_rng_state()
        assert loaded.further.upstream_fingerprint or spec == "fbank"
        assert torch.equal(torch.get_rng_state(), before)
        assert all(module.training for module in loaded.expert.modules())
        assert all(p.dtype == torch.float32 for p in loaded.expert.parameters())
        assert registry.weights_sha256(loaded.expert) == loaded.weights_sha256


def test_a_forward_pass_that_raises_ends_nothing(project):
    loaded = load_upstream(spec_of(project, "broken"))
    assert loaded.further.upstream_fingerprint is None
    assert loaded.further.upstream_files_sha256


def test_what_another_process_planned_is_not_measured_again(project):
    planned = Further(upstream_fingerprint="f" * 64)
    spec = spec_of(project, "beside")
    loaded = load_upstream(spec, planned=planned)
    assert loaded.further.upstream_fingerprint == "f" * 64
    assert loaded.further.upstream_files_sha256 == load_upstream(spec).further.upstream_files_sha256


def test_files_of_python_and_of_packages_are_nobodys():
    assert not sources.is_somebodys(Path(json.__file__))
    assert not sources.is_somebodys(Path(torch.__file__))
    assert not sources.is_somebodys(Path(registry.__file__))
    assert not sources.is_somebodys(Path("/etc/hosts"))
    assert not sources.is_somebodys(Path.home() / ".cache" / "matplotlib" / "fonts.json")
    assert not sources.is_somebodys(packaged_checkpoint("vanilla_nano") / "config.json")
    assert not sources.is_somebodys(Path(corpora.__file__))
    assert sources.is_somebodys(Path.home() / "project" / "weights.bin")
    kept = Path.home() / ".cache/huggingface/hub/models--a--b/snapshots/1/config.json"
    assert sources.is_somebodys(kept)


@pytest.mark.parametrize("name", ["model.json", "model.pt.json", "model_config.json"])
def test_a_file_whose_name_begins_as_the_checkpoints_is_another(tmp_path, name):
    checkpoint_file, beside = tmp_path / "model", tmp_path / name
    checkpoint_file.write_text("weights")
    beside.write_text("heads: 2")
    found = sources.opened(
        [str(checkpoint_file), str(beside)], hubconf=None, checkpoint=str(checkpoint_file)
    )
    assert found == {f"opened/{name}": beside}
