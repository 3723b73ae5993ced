"""Candidates that train side by side against runs at each learning rate alone: the same numbers."""

import contextlib
import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from superbit.benchmark.features.mixing import Batch, Room
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.running.session import Session
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams import rng
from superbit.upstreams.rng import seed_everything

pytestmark = pytest.mark.thorough

pytest.importorskip("s3prl")
pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")

SEED, RATE = 1337, 320
RATES = (1e-1, 3e-3, 1e-4)
# Dropout and SpecAug draw in every forward pass of ASR and SF.
RNNS = {"dim": [8, 8], "dropout": [0.3, 0.2], "layer_norm": [False] * 2, "proj": [False] * 2,
        "sample_rate": [1, 1]}  # fmt: skip
SMALL = {
    "ASR": {"modelrc": {"project_dim": 8, "RNNs": RNNS}},
    "SF": {"model": {"project_dim": 8, "RNNs": RNNS}},
    "SD": {"modelrc": {"hidden_size": 8}},
    "ASV": {"modelrc": {"input_dim": 8, "module_config": {"XVector": {"agg_dim": 16}}}},
}


def merge(section, changes):
    for key, value in changes.items():
        if isinstance(value, dict):
            merge(section[key], value)
        else:
            section[key] = value


class Bands(nn.Module):
    """Two layers of bounded projections of raw frames: costs nothing and depends on no batch."""

    def __init__(self):
        super().__init__()
        waves = torch.sin(torch.arange(RATE * 12.0).view(RATE, 12) * 0.37)
        self.register_buffer("matrix", waves)

    def get_downsample_rates(self, key):
        return RATE

    def forward(self, wavs):
        frames = [nn.functional.pad(w, (0, RATE)).unfold(0, RATE, RATE) for w in wavs]
        first = [torch.tanh(f @ self.matrix) for f in frames]
        layers = (first, [torch.cos(3 * f) for f in first])
        pad = nn.utils.rnn.pad_sequence
        return {"hidden_states": [pad(layer, batch_first=True) for layer in layers]}


class StoredBands:
    """Stands for a store: every utterance computed alone, given as one shared batch."""

    def __init__(self, upstream, rate):
        self.upstream, self.rate, self.batches = upstream, rate, 0

    def reading(self):
        return contextlib.nullcontext()

    def gather(self, wavs):
        self.batches += 1
        found = []
        for wav in wavs:
            wav = torch.as_tensor(wav, dtype=torch.float32)
            layers = self.upstream([wav])["hidden_states"]
            found.append(torch.stack([layer[0, : round(len(wav) / self.rate)] for layer in layers]))
        return Batch(found, room=Room("cpu"))


@dataclass
class Told:
    """What a candidate did: losses of each forward pass, evaluations, weights, its number."""

    losses: list = field(default_factory=list)
    history: list = field(default_factory=list)
    weights: dict = field(default_factory=dict)
    value: float | None = None

    def listen(self, head):
        forward = head.forward

        def noting(split, features, *others, **kwargs):
            loss = forward(split, features, *others, **kwargs)
            self.losses.append((split, loss.item()))
            return loss

        head.forward = noting


@pytest.fixture
def side_by_side(tiny_paths, tmp_path):
    """``side_by_side("KS", rates)`` trains and tests; returns what each rate's candidate told."""
    runs = []

    def build(task, rates, *, stored=False, steps=6):
        config = resolve(task, scale="embedded", learning_rate=rates[0], limit=4)
        config["runner"] |= {
            "total_steps": steps, "eval_step": 4, "save_step": 3, "log_step": 2,
            "gradient_accumulate_steps": 2 if task in ("PR", "SD") else 1,
        }  # fmt: skip
        if "test_step" in config["runner"]:
            config["runner"]["test_step"] = 3
        section = config["downstream_expert"]
        merge(section, SMALL.get(task, {}))
        places = RunPlaces(paths=tiny_paths, work_dir=tmp_path / "work", fold=1)
        TASKS[task].binding.bind(section, places)
        folder = tmp_path / f"run{len(runs)}"
        folder.mkdir()
        seed_everything(SEED)
        experiment = Experiment(
            upstream=Bands(), downstream=TASKS[task].downstream, config=config, seed=SEED,
            expdir=folder, learning_rates=rates if len(rates) > 1 else (),
            feature_source=StoredBands if stored else None,
            reinitialize_head=TASKS[task].binding.reinitialize_head,
        )  # fmt: skip
        session = Session(
            experiment=experiment, binding=TASKS[task].binding, places=places, run_dir=folder,
            key="k", on_step=lambda step, what: None,
        )  # fmt: skip
        runs.append(session)
        return session

    def run(task, rates, *, prepare=lambda session: None, **options):
        session = build(task, rates, **options)
        told = {}
        for candidate in session.experiment.candidates:
            told[float(candidate.name)] = Told()
            told[float(candidate.name)].listen(candidate.head)
        prepare(session)
        tested = TASKS[task].procedure(session)
        for candidate in session.experiment.candidates:
            each = told[float(candidate.name)]
            each.history, each.weights = candidate.training.history, candidate.weights()
            if candidate.name in tested:
                each.value = tested[candidate.name].value
                each.items = tested[candidate.name].items
                each.selection = tested[candidate.name].selection
        return told, session

    return run


def assert_same(mine, alone):
    assert mine.losses == alone.losses
    assert mine.history == alone.history
    assert mine.selection == alone.selection
    assert (mine.value, mine.items) == (alone.value, alone.items)
    for part in ("featurizer", "head"):
        for name, tensor in alone.weights[part].items():
            assert torch.equal(mine.weights[part][name], tensor), name


@pytest.mark.parametrize("stored", [False, True], ids=["live", "stored"])
@pytest.mark.parametrize("task", ["ASR", "KS"])
def test_a_candidate_is_the_run_at_its_rate_alone(task, stored, side_by_side):
    together, _ = side_by_side(task, RATES, stored=stored)
    for rate in RATES:
        alone, _ = side_by_side(task, (rate,), stored=stored)
        assert_same(together[rate], alone[rate])
    assert together[RATES[0]].losses[0] == together[RATES[1]].losses[0]  # one initialization
    assert together[RATES[0]].losses != together[RATES[1]].losses


@pytest.mark.parametrize("task", ["PR", "SD", "SF", "ASV", "ER"])
def test_a_candidate_is_the_run_at_its_rate_alone_in_other_tasks(task, side_by_side):
    together, _ = side_by_side(task, RATES[1:], stored=True)
    alone, _ = side_by_side(task, RATES[2:], stored=True)
    assert_same(together[RATES[2]], alone[RATES[2]])


def test_what_heads_draw_is_told_apart(side_by_side, monkeypatch):
    """The comparison can fail: generators that run on from one head to the next."""
    monkeypatch.setattr(rng.Draws, "restore", lambda draws: None)
    together, _ = side_by_side("ASR", RATES[1:], stored=True)
    alone, _ = side_by_side("ASR", RATES[2:], stored=True)
    assert together[RATES[2]].losses != alone[RATES[2]].losses


def test_batches_and_features_are_read_once(side_by_side):
    _, three = side_by_side("KS", RATES, stored=True)
    _, one = side_by_side("KS", RATES[:1], stored=True)
    assert three.experiment.source.batches == one.experiment.source.batches
    heads = [candidate.head for candidate in three.experiment.candidates]
    assert all(head.train_dataset is heads[0].train_dataset for head in heads)
    weights = {weight.data_ptr() for head in heads for weight in head.parameters()}
    assert len(weights) == 3 * len(list(heads[0].parameters()))


@pytest.mark.parametrize("task", ["KS", "ASR"])
def test_one_that_diverges_leaves_the_others_alone(task, side_by_side):
    rates = (1e30, RATES[1])
    together, session = side_by_side(task, rates, stored=True)
    alone, _ = side_by_side(task, rates[1:], stored=True)
    assert_same(together[rates[1]], alone[rates[1]])
    lost, sound = session.experiment.candidates
    assert 1 < lost.training.diverged <= 6
    assert sound.training.diverged is None


def test_one_that_fails_leaves_the_others_alone(side_by_side):
    def break_first(session):
        head = session.experiment.candidates[0].head
        forward, calls = head.forward, []

        def failing(split, *args, **kwargs):
            calls.append(split)
            if len(calls) == 4:
                torch.rand(3)  # an odd number of draws must not reach the others
                raise ValueError("no\nmore")
            return forward(split, *args, **kwargs)

        head.forward = failing

    for rates in (RATES[:2], RATES[1::-1]):
        together, session = side_by_side("ASR", rates, stored=True, prepare=break_first)
        alone, _ = side_by_side("ASR", rates[1:], stored=True)
        assert_same(together[rates[1]], alone[rates[1]])
        assert session.experiment.candidates[0].training.failure == "no more"
    with pytest.raises(ValueError, match="no\nmore"):
        side_by_side("ASR", RATES[:1], stored=True, prepare=break_first)


def test_a_checkpoint_holds_every_candidate(side_by_side):
    """Continued with fewer candidates, the rest go on as if never stopped."""
    straight, _ = side_by_side("ASR", RATES, stored=True)
    kept = []

    def keep_at_step_3(session):
        train = session.experiment.train

        def keeping(*, on_save, **others):
            def save():
                on_save()
                if session.experiment.position.step == 3:
                    kept.append(copy.deepcopy(session.experiment.state()))

            train(on_save=save, **others)

        session.experiment.train = keeping

    side_by_side("ASR", RATES, stored=True, prepare=keep_at_step_3)
    resumed, _ = side_by_side(
        "ASR", RATES[1:], stored=True, prepare=lambda s: s.experiment.load_state(kept[0])
    )
    for rate in RATES[1:]:
        assert resumed[rate].losses == straight[rate].losses[3:]
        assert resumed[rate].value == straight[rate].value


def test_the_mean_of_single_frames_is_s3prls_own():
    from s3prl.downstream.model import MeanPooling

    pool, generator = MeanPooling(), torch.Generator().manual_seed(0)
    for frames, lengths in ((1, [1, 1, 1]), (4, [4, 1, 2])):
        features = torch.randn(3, frames, 5, generator=generator, requires_grad=True)
        given = torch.tensor(lengths, dtype=torch.int32)
        ours, count = pool(features, given)
        theirs, their_count = MeanPooling.forward.__wrapped__(pool, features, given)
        assert torch.equal(ours, theirs)
        assert torch.equal(count, their_count)
        up = torch.randn(3, 5, generator=generator)
        mine, other = (torch.autograd.grad(out, features, up)[0] for out in (ours, theirs))
        assert torch.equal(mine, other)
