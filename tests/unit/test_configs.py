"""Task configs: the benchmark's values, overrides that only touch what exists."""

from importlib import resources

import pytest

from superbit.benchmark.tasks import configs
from superbit.benchmark.tasks.configs import resolve, total_steps
from superbit.upstreams import InputError

# SUPERB's hyper-parameters as s3prl 0.4.18 ships them (its downstream/*/config.yaml, *.yaml).
PROTOCOL = {
    "KS": {
        "runner.total_steps": 200_000,
        "runner.gradient_accumulate_steps": 1,
        "runner.gradient_clipping": 1,
        "runner.eval_step": 5000,
        "runner.save_step": 1000,
        "runner.eval_dataloaders": ["dev", "test"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-4,
        "downstream_expert.datarc.batch_size": 32,
        "downstream_expert.modelrc.projector_dim": 256,
        "downstream_expert.modelrc.select": "UtteranceLevel",
        "downstream_expert.modelrc.UtteranceLevel.pooling": "MeanPooling",
    },
    "PR": {
        "runner.total_steps": 100_000,
        "runner.gradient_accumulate_steps": 2,
        "runner.gradient_clipping": 1,
        "runner.eval_step": 1000,
        "runner.eval_dataloaders": ["dev"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-2,
        "downstream_expert.corpus.batch_size": 16,
        "downstream_expert.corpus.bucketing": True,
        "downstream_expert.corpus.train": ["train-clean-100"],
        "downstream_expert.corpus.dev": ["dev-clean"],
        "downstream_expert.corpus.test": ["test-clean"],
        "downstream_expert.text.mode": "word",
        "downstream_expert.model.project_dim": 256,
        "downstream_expert.model.select": "FrameLevel",
        "downstream_expert.model.zero_infinity": True,
        "downstream_expert.metric": ["per"],
        "downstream_expert.metric_higher_better": False,
        "downstream_expert.save_best_on": ["dev"],
    },
    "ASR": {
        "runner.total_steps": 200_000,
        "runner.gradient_accumulate_steps": 1,
        "runner.gradient_clipping": 1,
        "runner.eval_step": 2000,
        "runner.save_step": 500,
        "runner.eval_dataloaders": ["dev-clean"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-4,
        "specaug.apply_time_warp": True,
        "specaug.time_warp_window": 5,
        "specaug.apply_time_mask": True,
        "specaug.time_mask_width_range": [0, 40],
        "specaug.num_time_mask": 2,
        "specaug.apply_freq_mask": True,
        "specaug.freq_mask_width_range": [0, 50],
        "specaug.num_freq_mask": 4,
        "specaug.adaptive": False,
        "downstream_expert.datarc.batch_size": 32,
        "downstream_expert.datarc.train_batch_size": 32,
        "downstream_expert.datarc.eval_batch_size": 1,
        "downstream_expert.datarc.train": ["train-clean-100"],
        "downstream_expert.datarc.test-clean": ["test-clean"],
        "downstream_expert.datarc.zero_infinity": True,
        "downstream_expert.modelrc.project_dim": 1024,
        "downstream_expert.modelrc.select": "RNNs",
        "downstream_expert.modelrc.RNNs.module": "LSTM",
        "downstream_expert.modelrc.RNNs.bidirection": True,
        "downstream_expert.modelrc.RNNs.dim": [1024, 1024],
        "downstream_expert.modelrc.RNNs.dropout": [0.2, 0.2],
        "downstream_expert.modelrc.RNNs.total_rate": -1,
    },
    "SID": {
        "runner.total_steps": 200_000,
        "runner.gradient_accumulate_steps": 4,
        "runner.eval_step": 5000,
        "runner.eval_dataloaders": ["dev", "test"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-4,
        "downstream_expert.datarc.train_batch_size": 8,
        "downstream_expert.datarc.eval_batch_size": 1,
        "downstream_expert.datarc.max_timestep": 128_000,
        "downstream_expert.modelrc.projector_dim": 256,
        "downstream_expert.modelrc.UtteranceLevel.pooling": "MeanPooling",
    },
    "IC": {
        "runner.total_steps": 200_000,
        "runner.gradient_accumulate_steps": 1,
        "runner.eval_step": 5000,
        "runner.save_step": 250,
        "runner.eval_dataloaders": ["dev", "test"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-4,
        "downstream_expert.datarc.train_batch_size": 32,
        "downstream_expert.modelrc.projector_dim": 256,
        "downstream_expert.modelrc.UtteranceLevel.pooling": "MeanPooling",
    },
    "ER": {
        "runner.total_steps": 30_000,
        "runner.gradient_accumulate_steps": 8,
        "runner.eval_step": 1000,
        "runner.eval_dataloaders": ["dev", "test"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-4,
        "downstream_expert.datarc.train_batch_size": 4,
        "downstream_expert.datarc.valid_ratio": 0.2,
        "downstream_expert.datarc.pre_load": True,
        "downstream_expert.modelrc.UtteranceLevel.pooling": "MeanPooling",
    },
    "SF": {
        "runner.total_steps": 200_000,
        "runner.gradient_accumulate_steps": 1,
        "runner.eval_step": 2000,
        "runner.eval_dataloaders": ["dev"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-4,
        "specaug.apply_time_warp": True,
        "specaug.num_freq_mask": 4,
        "downstream_expert.corpus.batch_size": 32,
        "downstream_expert.corpus.dev": ["valid"],
        "downstream_expert.text.mode": "character-slot",
        "downstream_expert.model.project_dim": 1024,
        "downstream_expert.model.RNNs.dim": [1024, 1024],
        "downstream_expert.model.RNNs.dropout": [0.2, 0.2],
        "downstream_expert.metric_higher_better": True,
    },
    "SD": {
        "runner.total_steps": 30_000,
        "runner.gradient_accumulate_steps": 4,
        "runner.eval_step": 500,
        "runner.save_step": 500,
        "runner.eval_dataloaders": ["dev"],
        "optimizer.torch_optim_name": "Adam",
        "optimizer.lr": 1e-4,
        "downstream_expert.datarc.chunk_size": 2000,
        "downstream_expert.datarc.num_speakers": 2,
        "downstream_expert.loaderrc.train_batchsize": 8,
        "downstream_expert.loaderrc.eval_batchsize": 1,
        "downstream_expert.modelrc.rnn_layers": 1,
        "downstream_expert.modelrc.hidden_size": 512,
    },
    "ASV": {
        "runner.total_steps": 200_000,
        "runner.gradient_accumulate_steps": 5,
        "runner.gradient_clipping": 1000,
        "runner.save_step": 10_000,
        "runner.test_step": 20_000,
        "runner.eval_dataloaders": [],
        "optimizer.torch_optim_name": "AdamW",
        "optimizer.lr": 1e-4,
        "downstream_expert.datarc.train_batch_size": 10,
        "downstream_expert.datarc.max_timestep": 128_000,
        "downstream_expert.datarc.vad_config.min_sec": 32_000,
        "downstream_expert.modelrc.module": "XVector",
        "downstream_expert.modelrc.agg_module": "SP",
        "downstream_expert.modelrc.input_dim": 512,
        "downstream_expert.modelrc.module_config.XVector.agg_dim": 1500,
        "downstream_expert.modelrc.LossConfig.AMSoftmaxLoss.s": 30.0,
        "downstream_expert.modelrc.LossConfig.AMSoftmaxLoss.m": 0.4,
    },
    "QbE": {
        "downstream_expert.feature_normalization": True,
        "downstream_expert.dtwrc.dist_method": "cosine_exp",
        "downstream_expert.dtwrc.minmax_norm": True,
        "downstream_expert.dtwrc.step_pattern": "asymmetric",
        "downstream_expert.dtwrc.subsequence": True,
    },
}


def leaf(config, dotted):
    for key in dotted.split("."):
        config = config[key]
    return config


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [(task, key, value) for task, keys in PROTOCOL.items() for key, value in keys.items()],
)
def test_full_protocol_is_superbs(task, key, value):
    assert leaf(resolve(task, scale="superb"), key) == value


@pytest.mark.parametrize("task", PROTOCOL)
def test_embedded_scale_changes_values_only(task):
    full, small = resolve(task, scale="superb"), resolve(task, scale="embedded")
    assert keys_of(full) == keys_of(small)
    assert total_steps(small) < total_steps(full) or task == "QbE"


def keys_of(config, prefix=""):
    keys = set()
    for key, value in config.items():
        keys.add(prefix + key)
        if isinstance(value, dict):
            keys |= keys_of(value, f"{prefix}{key}.")
    return keys


def test_no_config_holds_a_path():
    folder = resources.files("superbit.downstream_configs")
    for file in folder.iterdir():
        if file.name.endswith(".yaml") and file.name != "paths.example.yaml":
            lines = file.read_text().splitlines()
            assert not [ln for ln in lines if not ln.startswith("#") and "/" in ln], file.name


def test_the_header_of_every_config_holds_its_command():
    folder = resources.files("superbit.downstream_configs")
    for task in PROTOCOL:
        text = (folder / f"{task.lower()}.yaml").read_text()
        assert f"superbit sweep --upstreams vanilla --tasks {task} --scale superb" in text


def test_learning_rate_and_limit():
    config = resolve("KS", scale="embedded", learning_rate=0.5, limit=3)
    assert config["optimizer"]["lr"] == 0.5
    assert config["limit"] == config["runner"]["total_steps"] == 3
    assert "limit" not in resolve("KS", scale="embedded")


def write(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


def test_overrides_of_the_users(tmp_path):
    file = write(tmp_path, "KS:\n  runner: {total_steps: 7}\nPR:\n  optimizer: {lr: 1}\n")
    assert resolve("KS", scale="superb", overrides=file)["runner"]["total_steps"] == 7
    assert resolve("ASR", scale="superb", overrides=file) == resolve("ASR", scale="superb")


def test_overrides_may_add_a_scheduler(tmp_path):
    file = write(tmp_path, "KS:\n  scheduler: {name: linear_schedule_with_warmup}\n")
    assert resolve("KS", scale="superb", overrides=file)["scheduler"]["name"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("KS:\n  runner: {total_step: 7}", "unknown key 'total_step'.*Did you mean 'total_steps'"),
        ("KSS: {}", "unknown task 'KSS'.*Did you mean 'KS'"),
        ("KS:\n  runner: 7", "'runner' must be a mapping"),
        ("KS:\n  runner: {total_steps: many}", "'total_steps' must be of type int"),
        ("KS:\n  runner: {total_steps: 0}", "runner.total_steps: .*greater than 0"),
        ("KS:\n  runner: {total_steps: 1.5}", "runner.total_steps: .*integer"),
        ("KS:\n  optimizer: {lr: -1}", "optimizer.lr: .*greater than 0"),
        ("KS: [", "is not valid YAML at line 1"),
        ("- KS", "top level must be a mapping"),
    ],
)
def test_wrong_overrides_name_file_and_key(tmp_path, text, said):
    file = write(tmp_path, text)
    with pytest.raises(InputError, match=said) as caught:
        resolve("KS", scale="superb", overrides=file)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_of_overrides(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.yaml is not there: it should be"):
        resolve("KS", scale="superb", overrides=tmp_path / "nowhere.yaml")


def test_every_scale_is_named_once():
    assert configs.SCALES == ("superb", "embedded")


def test_the_example_of_a_paths_file_names_every_corpus():
    import yaml

    from superbit.benchmark.corpora.paths import CorpusPaths

    text = (resources.files("superbit.downstream_configs") / "paths.example.yaml").read_text()
    example = CorpusPaths.model_validate(yaml.safe_load(text))
    assert set(example.present) == set(CorpusPaths.model_fields)
