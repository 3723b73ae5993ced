"""ASV's whole way to the number against s3prl's ``Runner``, live and on stored features.

As SUPERB does it: train, save checkpoints, test those of every second save one by one
(``test_expdir.sh`` evaluates each ``states-STEP.ckpt``), report the lowest EER. There is no dev
set.
"""

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
import s3prl_loop
import torch
from s3prl_loop import assert_same_weights

# As SUPERB's 10,000 and 20,000 of 200,000.
RUNNER = {"total_steps": 8, "save_step": 2, "test_step": 4, "log_step": 2}
TESTED = (4, 8)


@pytest.fixture(scope="module")
def theirs(tiny_paths, tmp_path_factory):
    """Trained and tested by s3prl; 2.5 s: half of the utterances are cropped at random."""
    with pytest.MonkeyPatch.context() as patch:
        s3prl_loop.use_upstreams(patch)
        bench = s3prl_loop.bench(
            "ASV", "bands", paths=tiny_paths, folder=tmp_path_factory.mktemp("asv"),
            runner=RUNNER | {"gradient_accumulate_steps": 2},
            section={"datarc": {"max_timestep": 40_000}},
        )  # fmt: skip
        tape, expdir = s3prl_loop.train_by_s3prl(bench)
        states, best = s3prl_loop.checkpoints_of_s3prl(expdir)
        tests = {step: s3prl_loop.test_by_s3prl(states[step], split="test") for step in TESTED}
        yield SimpleNamespace(bench=bench, tape=tape, states=states, best=best, tests=tests)


@pytest.fixture(scope="module")
def ours(theirs):
    with pytest.MonkeyPatch.context() as patch:
        s3prl_loop.round_alike(patch)
        return s3prl_loop.run_ours(theirs.bench)


@pytest.fixture(scope="module")
def stored(theirs):
    return s3prl_loop.run_ours(theirs.bench, "stored", stored=True)


def written(folder):
    """The trials of s3prl's prediction file: both utterances and the score."""
    lines = (folder / "test_predict.txt").read_text().splitlines()
    return [
        (*pair.split("_id"), float(score)) for pair, score in map(str.split, lines)
    ]  # an utterance's video may hold a "_", its speaker begins with "id"


def eer_by_definition(trials):
    """Walk the straight pieces of the ROC curve to where both error rates meet; in percent."""
    same = [score for label, score in trials if label]
    other = [score for label, score in trials if not label]
    curve = [(0.0, 1.0)]
    for threshold in sorted({score for _, score in trials}, reverse=True):
        false_alarm = sum(score >= threshold for score in other) / len(other)
        miss = sum(score < threshold for score in same) / len(same)
        curve.append((false_alarm, miss))
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 >= y1:
            share = (y0 - x0) / ((y0 - x0) + (x1 - y1))
            return 100 * (x0 + share * (x1 - x0))
    raise AssertionError("the curve ends at (1, 0)")


def labels_of(bench):
    """Of each trial in the list's order, read without s3prl."""
    lines = bench.places.paths.section("voxceleb1").trials.read_text().splitlines()
    return [line.split()[0] == "1" for line in lines]


def losses_of(tape):
    return [x for x, batch in zip(tape.losses, tape.batches, strict=True) if batch[0] == "train"]


@pytest.mark.parametrize("kind", ["ours", "stored"])
def test_training_and_its_checkpoints_are_s3prls(kind, theirs, request):
    """On stored features within what float32 keeps of a sum in another order, 1e-7, and what
    training at the embedded rate makes of it in 16 batches: 1e-6 of losses of 15, measured. On
    random encoders, whose embeddings are all alike, it grows faster: 2e-5."""
    run = request.getfixturevalue(kind)
    drawn = [batch for batch in run.tape.items() if batch[0] == "train"]
    assert drawn == theirs.tape.items()
    assert len(drawn) == 16
    if kind == "ours":
        assert run.tape.batches[:16] == theirs.tape.batches
    else:
        assert min(run.experiment.source.stored, run.experiment.source.live) > 0
    rtol = 0 if kind == "ours" else 1e-5
    tolerance = {} if kind == "ours" else {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(losses_of(run.tape), losses_of(theirs.tape), atol=1e-5, rtol=rtol)

    assert theirs.best == []
    assert sorted(theirs.states) == sorted(run.saved) == [2, 4, 6, 8]
    for step, file in theirs.states.items():
        saved = torch.load(file, weights_only=False)
        assert saved["Step"] == step
        assert_same_weights(run.saved[step], saved, **tolerance)
    assert {f.name for f in run.folder.glob("step-*.pt")} == {f"step-{s}.pt" for s in TESTED}
    for step in TESTED:
        ((_, weights),) = torch.load(run.folder / f"step-{step}.pt").items()
        saved = torch.load(theirs.states[step], weights_only=False)
        assert_same_weights(weights, saved, **tolerance)


@pytest.mark.parametrize("kind", ["ours", "stored"])
def test_the_number_is_s3prls(kind, theirs, request):
    run, labels = request.getfixturevalue(kind), labels_of(theirs.bench)
    eers = {}
    for index, (step, (tape, folder)) in enumerate(theirs.tests.items()):
        trials = written(folder)
        scores = [score for *_, score in trials]
        assert [float(s) for s in run.tape.records[index]["scores"]] == pytest.approx(
            scores, abs=1e-6 if kind == "ours" else 1e-4
        )
        ((_, _, scalars, _),) = tape.logged
        eers[step] = eer_by_definition(list(zip(labels, scores, strict=True)))
        assert eers[step] == pytest.approx(100 * scalars["sv-voxceleb1/test-EER"], abs=1e-6)
    assert run.tested.metrics == pytest.approx({f"test-EER-{s}": v for s, v in eers.items()})
    assert run.tested.value == pytest.approx(min(eers.values()))
    best = min(eers, key=eers.get)
    assert run.tested.selection.step == best

    # The trials of the checkpoint that counts, one by one.
    trials = written(theirs.tests[best][1])
    assert len(trials) == len(run.tested.items) == len(labels)
    for item, (first, second, score), label in zip(run.tested.items, trials, labels, strict=True):
        assert (item["enrolment"], item["test"]) == (first, f"id{second}")
        assert item["same_speaker"] == label
        assert item["score"] == pytest.approx(score, abs=1e-4)


def test_another_order_of_trials_is_told_apart(theirs, ours):
    """Labels that are not those of their scores give another EER, at every checkpoint."""
    labels = labels_of(theirs.bench)
    for step, (_, folder) in theirs.tests.items():
        scores = [score for *_, score in written(folder)]
        shuffled = eer_by_definition(list(zip(labels[1:] + labels[:1], scores, strict=True)))
        assert shuffled != pytest.approx(ours.tested.metrics[f"test-EER-{step}"], abs=1e-3)


def test_another_checkpoint_is_told_apart(theirs, ours):
    """The weights between two tested steps, and what they score, are others."""
    with pytest.raises(AssertionError):
        assert_same_weights(
            ours.saved[6], torch.load(theirs.states[8], weights_only=False), atol=1e-4, rtol=1e-4
        )
    first, second = (written(theirs.tests[step][1]) for step in TESTED)
    assert max(abs(a[2] - b[2]) for a, b in zip(first, second, strict=True)) > 1e-3


def test_other_crops_are_told_apart(theirs, monkeypatch):
    """One more draw from Python's generator, as an import may take: batches alike, losses not."""
    seed_everything = s3prl_loop.seed_everything

    def and_draw(seed):
        seed_everything(seed)
        random.getrandbits(24)

    monkeypatch.setattr(s3prl_loop, "seed_everything", and_draw)
    s3prl_loop.round_alike(monkeypatch)
    run = s3prl_loop.run_ours(theirs.bench, "drawn")
    assert run.tape.batches[:16] == theirs.tape.batches
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            losses_of(run.tape), losses_of(theirs.tape), atol=1e-5, rtol=1e-5
        )
