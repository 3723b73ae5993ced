"""Our loop against s3prl's own ``Runner``: imported, unmodified, same seed, same corpus.

The eight tasks that train and evaluate on dev. Both sides train with evaluations inside the window,
which reseed every generator in s3prl, and test what was best on dev. Batches, the loss of every
step, the metric of every evaluation, the checkpoints with what is in them, and what comes out for
each test item must be the same; on stored features too. ASV and QbE have files of their own.
"""

import h5py
import pytest
import s3prl_loop
import torch
from s3prl_loop import assert_same_weights

from superbit.benchmark.tasks.best_on_dev import BestOnDev
from superbit.benchmark.tasks.catalog import TASKS

pytestmark = pytest.mark.thorough

STEPS = 8
RUNNER = {
    "total_steps": STEPS, "eval_step": 3, "save_step": 4, "log_step": 2,
    "gradient_accumulate_steps": 1,
}  # fmt: skip
ACCUMULATED = {"gradient_accumulate_steps": 2}
# Task: upstream, changes to the runner, changes to the expert's sections. The filter banks draw
# random numbers where s3prl builds them.
LOOPS = {
    "KS": ("fbank_no_cmvn", {}, {}),
    "PR": ("small", ACCUMULATED, {}),
    "ASR": ("bands", {}, {}),
    "ER": ("fbank_no_cmvn", {}, {}),
    "SD": ("fbank", ACCUMULATED, {}),
    # 2.5 s: half of the utterances are longer, and cropped at random.
    "SID": ("bands", ACCUMULATED, {"datarc": {"max_timestep": 40_000}}),
    "IC": ("bands", {}, {}),
    "SF": ("bands", {}, {}),
}
# Above an accuracy of 0 or below a WER of 100 an expert asks for a best checkpoint.
NEVER_BEST = ("ASR", "SF")
# Of losses on stored features, and of LSTMs and optimizers that round otherwise than s3prl's.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def trained(tiny_paths, tmp_path_factory):
    """Give a task's bench, and tape and folder of s3prl's training on it."""
    done = {}

    def train(task):
        if task not in done:
            upstream, runner, section = LOOPS[task]
            bench = s3prl_loop.bench(
                task, upstream, paths=tiny_paths, folder=tmp_path_factory.mktemp(task),
                runner=RUNNER | runner, section=section,
            )  # fmt: skip
            done[task] = bench, *s3prl_loop.train_by_s3prl(bench)
        return done[task]

    with pytest.MonkeyPatch.context() as patch:
        s3prl_loop.use_upstreams(patch)
        yield train


@pytest.mark.parametrize("task", LOOPS)
def test_our_loop_is_s3prls(task, trained, monkeypatch):
    run, theirs, expdir = trained(task)
    split = TASKS[task].binding.test
    states, best = s3prl_loop.checkpoints_of_s3prl(expdir)
    tested, test_dir = s3prl_loop.test_by_s3prl((best or [states[STEPS]])[0], split=split)
    with monkeypatch.context() as patch:
        s3prl_loop.round_alike(patch)
        ours = s3prl_loop.run_ours(run)

    # Training: what was drawn, and what it cost.
    assert ours.tape.batches == theirs.batches + tested.batches
    drawn = [names for kind, names, _ in theirs.batches if kind == "train"]
    assert len(drawn) == STEPS * run.config["runner"]["gradient_accumulate_steps"]
    assert len(set(map(tuple, drawn))) > 1
    torch.testing.assert_close(ours.tape.losses, theirs.losses + tested.losses, atol=1e-5, rtol=0)
    assert_same_logs(ours.tape, theirs, tested)

    # Checkpoints: when, which one is best, and what is in them.
    assert sorted(states) == [4, STEPS]
    for step, file in states.items():
        assert_same_weights(ours.saved[step], torch.load(file, weights_only=False))
    (candidate,) = ours.experiment.candidates
    assert bool(best) == (task not in NEVER_BEST)
    assert ours.tested.selection.checkpoint == ("best" if best else "last")
    if best:
        (file,) = best
        assert {file.name} == {name for *_, names in ours.tape.logged for name in names}
        saved = torch.load(file, weights_only=False)
        assert saved["Step"] == candidate.training.best_step == ours.tested.selection.step
        assert_same_weights(candidate.training.best, saved)

    # The number, item by item.
    assert_same_items(task, ours.tape, tested)
    if task == "SD":  # SUPERB scores these files
        assert_same_predictions(ours.folder, test_dir)

    # The same on stored features, with heads and optimizers as they are used.
    shipped = s3prl_loop.run_ours(run, "stored", stored=True)
    assert shipped.experiment.source.stored > 0
    assert shipped.tape.items() == ours.tape.items()
    torch.testing.assert_close(shipped.tape.losses, theirs.losses + tested.losses, **TOLERANCE)
    assert shipped.tested.value == pytest.approx(ours.tested.value, abs=1e-9)
    assert shipped.tested.selection.step == ours.tested.selection.step
    if task in ("ASR", "SF"):  # whose LSTMs run over padded utterances
        assert shipped.tape.losses != ours.tape.losses


def assert_same_logs(ours, theirs, tested):
    """Every evaluation and every line of training: split, step, scalars, checkpoints asked for."""
    steps = [entry[:2] for entry in theirs.logged] + [(tested.logged[0][0], STEPS)]
    assert [entry[:2] for entry in ours.logged] == steps
    for mine, their in zip(ours.logged, theirs.logged + tested.logged, strict=True):
        assert mine[3] == their[3]
        torch.testing.assert_close(mine[2], their[2], atol=1e-5, rtol=1e-6)


def assert_same_items(task, ours, tested):
    scored = TASKS[task].procedure
    if not isinstance(scored, BestOnDev):
        return
    items = scored.items(tested.records[-1])
    assert items == scored.items(ours.records[-1])
    ((_, _, scalars, _),) = tested.logged
    (metric,) = [v for tag, v in scalars.items() if tag.endswith(f"-{TASKS[task].binding.metric}")]
    assert scored.score(items) == pytest.approx(metric * TASKS[task].binding.metric_scale, abs=1e-4)


def assert_same_predictions(ours, theirs):
    files = sorted(file.name for file in (theirs / "scoring/predictions").glob("*.h5"))
    assert files
    for name in files:
        mine, their = (h5py.File(d / "scoring/predictions" / name)["T_hat"][...]
                       for d in (ours, theirs))  # fmt: skip
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(their), atol=1e-5, rtol=0)
    assert (ours / "frame_shift").read_text() == (theirs / "frame_shift").read_text()


@pytest.mark.parametrize("task", ["KS", "SID"])
def test_a_loop_without_reseeding_is_told_apart(task, trained, monkeypatch):
    """s3prl reseeds at evaluations: the order of files afterwards, and where SID crops."""
    monkeypatch.setattr("superbit.benchmark.running.experiment.seed_everything", lambda seed: None)
    run, theirs, _ = trained(task)
    ours = s3prl_loop.run_ours(run, "unseeded")
    assert ours.tape.batches[: len(theirs.batches)] != theirs.batches


def test_another_seed_is_told_apart(trained, monkeypatch):
    run, theirs, _ = trained("IC")
    monkeypatch.setattr(s3prl_loop, "SEED", s3prl_loop.SEED + 1)
    ours = s3prl_loop.run_ours(run, "other seed")
    assert ours.tape.batches[:3] != theirs.batches[:3]


def test_another_learning_rate_is_told_apart(trained, monkeypatch):
    """A thousandth more: the same batches, but other losses and other checkpoints."""
    run, theirs, expdir = trained("SF")
    states, _ = s3prl_loop.checkpoints_of_s3prl(expdir)
    monkeypatch.setitem(run.config["optimizer"], "lr", 1.001 * run.config["optimizer"]["lr"])
    s3prl_loop.round_alike(monkeypatch)
    ours = s3prl_loop.run_ours(run, "other rate")
    count = len(theirs.losses)
    assert ours.tape.batches[:count] == theirs.batches
    with pytest.raises(AssertionError):
        torch.testing.assert_close(ours.tape.losses[:count], theirs.losses, atol=1e-5, rtol=0)
    with pytest.raises(AssertionError):
        assert_same_weights(ours.saved[4], torch.load(states[4], weights_only=False))
