"""Our loop against s3prl's own ``Runner``: imported, unmodified, same seed, same corpus.

Both train with an evaluation inside the window, which reseeds every generator in s3prl. Batches,
the loss of every step and the metric of every evaluation must be the same.
"""

import argparse
import copy
from functools import partial

import pytest
import torch

from superbit.benchmark import heads
from superbit.benchmark.bindings import BINDINGS, Places
from superbit.benchmark.configs import resolve
from superbit.benchmark.experiment import Experiment
from superbit.benchmark.rng import seed_everything
from superbit.benchmark.tasks import find_task

SEED = 1337
STEPS = 8


def short_config(task, tiny_paths, work_dir):
    config = resolve(task, scale="embedded")
    config["runner"] |= {
        "total_steps": STEPS, "eval_step": 3, "save_step": 4, "log_step": 2,
        "gradient_accumulate_steps": 2 if task in ("PR", "SD") else 1,
    }  # fmt: skip
    BINDINGS[task].bind(
        config["downstream_expert"], Places(paths=tiny_paths, work_dir=work_dir, fold=1)
    )
    return config


class Tape:
    """Writes down what goes through an expert's ``forward`` and ``log_records``."""

    def __init__(self):
        self.batches, self.losses, self.logged = [], [], []

    def listen(self, expert):
        forward, log_records = expert.forward, expert.log_records

        def taped_forward(split, features, *others, **kwargs):
            loss = forward(split, features, *others, **kwargs)
            self.batches.append((split, _names(others), [len(f) for f in features]))
            self.losses.append(loss.item())
            return loss

        def taped_log(split, records, logger, global_step, **kwargs):
            capture = _Capture(logger)
            saves = log_records(split, records, capture, global_step, **kwargs)
            self.logged.append((split, global_step, capture.scalars, saves))
            return saves

        expert.forward, expert.log_records = taped_forward, taped_log
        return self


def _names(others):
    """What tells a batch's items apart: file names, or SD's frame labels."""
    if others[-1] is None or isinstance(others[-1], str):
        return [float(label.sum()) for label in others[0]]
    return list(others[-1])


class _Capture:
    def __init__(self, logger):
        self.logger, self.scalars = logger, {}

    def add_scalar(self, tag, value, global_step=0):
        self.scalars[tag] = float(value)
        self.logger.add_scalar(tag, value, global_step=global_step)


def run_s3prls(upstream, task, config, expdir):
    from s3prl.downstream.runner import Runner

    expdir.mkdir()
    args = argparse.Namespace(
        upstream=upstream, upstream_ckpt=None, upstream_model_config=None, upstream_refresh=False,
        upstream_trainable=False, upstream_feature_selection="hidden_states",
        upstream_layer_selection=None, upstream_feature_normalize=False, device="cpu", seed=SEED,
        downstream=find_task(task).downstream, downstream_variant=None, init_ckpt=None,
        expdir=str(expdir), push_to_hf_hub=False, evaluate_split=BINDINGS[task].test,
    )  # fmt: skip
    config = copy.deepcopy(config)
    config["runner"]["max_keep"] = 1
    seed_everything(SEED)
    runner = Runner(args, config)
    tape = Tape().listen(runner.downstream.model)
    runner.train()
    runner.evaluate()
    return tape, runner


def run_ours(upstream, task, config, expdir):
    from s3prl import hub

    import superbit.upstreams  # noqa: F401  (puts our names into s3prl's hub)

    expdir.mkdir()
    seed_everything(SEED)
    experiment = Experiment(
        # Built as s3prl builds it: fbank draws random numbers to learn its dimension.
        upstream=getattr(hub, upstream)(ckpt=None, model_config=None, refresh=False),
        downstream=find_task(task).downstream,
        config=copy.deepcopy(config), seed=SEED, expdir=expdir,
    )  # fmt: skip
    tape = Tape().listen(experiment.head)
    experiment.train()
    experiment.evaluate(BINDINGS[task].test)
    return tape, experiment


@pytest.mark.parametrize(
    ("task", "upstream"),
    [
        ("KS", "fbank_no_cmvn"),
        ("PR", "vanilla_nano"),
        ("ASR", "fbank"),
        ("ER", "fbank_no_cmvn"),
        ("SD", "fbank"),
    ],
)
def test_our_loop_is_s3prls(task, upstream, tiny_paths, tmp_path, monkeypatch):
    # The loops are compared to the last digit, so the head computes as s3prl's does.
    monkeypatch.setattr(heads, "without_packing", lambda module: None)
    from s3prl import hub

    from superbit.upstreams.vanilla import hubconf

    # Random weights: with trained ones PR's losses are 5 to 18 and their rounding grows past 1e-5.
    monkeypatch.setattr(hub, "vanilla_nano", partial(hubconf.vanilla_nano, untrained=True))
    config = short_config(task, tiny_paths, tmp_path / "work")
    theirs, runner = run_s3prls(upstream, task, config, tmp_path / "theirs")
    ours, experiment = run_ours(upstream, task, config, tmp_path / "ours")

    assert ours.batches == theirs.batches
    in_training = [i for i, batch in enumerate(theirs.batches) if batch[0] == "train"]
    assert len(in_training) == STEPS * config["runner"]["gradient_accumulate_steps"]
    assert len({tuple(theirs.batches[i][1]) for i in in_training}) > 1
    torch.testing.assert_close(ours.losses, theirs.losses, atol=1e-5, rtol=0)

    assert [entry[:2] for entry in ours.logged] == [entry[:2] for entry in theirs.logged[:-1]] + [
        (BINDINGS[task].test, STEPS)
    ]
    for mine, their in zip(ours.logged, theirs.logged, strict=True):
        assert mine[3] == their[3]
        torch.testing.assert_close(mine[2], their[2], atol=1e-5, rtol=1e-6)
    weights = runner.downstream.model.state_dict()
    for name, tensor in experiment.head.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-5, rtol=1e-5)


def test_padded_recurrence_trains_alike(tiny_paths, tmp_path, monkeypatch):
    """What `recurrence` computes otherwise is rounding, which training hardly enlarges."""
    config = short_config("ASR", tiny_paths, tmp_path / "work")
    padded, _ = run_ours("fbank", "ASR", config, tmp_path / "padded")
    monkeypatch.setattr(heads, "without_packing", lambda module: None)
    packed, _ = run_ours("fbank", "ASR", config, tmp_path / "packed")
    assert padded.batches == packed.batches
    assert padded.losses != packed.losses
    torch.testing.assert_close(padded.losses, packed.losses, rtol=2e-5, atol=1e-5)


def test_the_golden_comparison_can_fail(tiny_paths, tmp_path, monkeypatch):
    """A loop that does not reseed at evaluations, as s3prl does, is told apart."""
    config = short_config("KS", tiny_paths, tmp_path / "work")
    theirs, _ = run_s3prls("fbank_no_cmvn", "KS", config, tmp_path / "theirs")
    monkeypatch.setattr("superbit.benchmark.experiment.seed_everything", lambda seed: None)
    ours, _ = run_ours("fbank_no_cmvn", "KS", config, tmp_path / "ours")
    assert ours.batches != theirs.batches
