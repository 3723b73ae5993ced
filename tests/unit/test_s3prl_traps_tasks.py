"""Traps of s3prl that any task can fall into, closed: each of the ten experts on its corpus.

Traps of single tasks are in test_s3prl_traps.py, those of s3prl as a whole in
test_s3prl_compat.py.
"""

import importlib
import inspect
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from superbit.benchmark.corpora import catalog
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.running.session import Session
from superbit.benchmark.tasks.best_on_dev import require_equal
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams.errors import InputError

pytest.importorskip("s3prl")
pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")
WORKERS = 2


class Energies(nn.Module):
    """An upstream that costs nothing: frame energies through a fixed matrix."""

    def __init__(self, rate: float = 320):
        super().__init__()
        self.rate = rate
        self.register_buffer("matrix", torch.sin(torch.arange(160 * 8.0)).view(160, 8))

    def get_downsample_rates(self, key):
        return self.rate

    def forward(self, wavs):
        frames = []
        for wav in wavs:
            starts = (torch.arange(max(1, int(len(wav) / self.rate))) * self.rate).long()
            padded = nn.functional.pad(wav, (0, 160))
            cut = torch.stack([padded[s : s + 160] for s in starts])
            frames.append(torch.tanh(cut @ self.matrix))
        return {"hidden_states": [nn.utils.rnn.pad_sequence(frames, batch_first=True)]}


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """Derived files, shared by the tests as by the runs of a sweep."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def bound(tiny_paths, work_dir):
    """A task's config at the embedded scale with every path filled in."""

    def bind(task):
        config = resolve(task, scale="embedded")
        places = RunPlaces(paths=tiny_paths, work_dir=work_dir, fold=1 if task == "ER" else None)
        TASKS[task].binding.bind(config["downstream_expert"], places)
        return config, places

    return bind


@pytest.fixture
def build(bound, tmp_path):
    """A task's expert; s3prl writes what it likes into the test's own folder."""

    def expert(task, *, workers=0):
        config, _ = bound(task)
        config["downstream_expert"][TASKS[task].binding.batch[0]]["num_workers"] = workers
        module = importlib.import_module(f"s3prl.downstream.{TASKS[task].downstream}.expert")
        return module.DownstreamExpert(
            upstream_dim=8, upstream_rate=320, **config, expdir=str(tmp_path), seed=1, device="cpu"
        )

    return expert


def splits_of(task):
    trained = () if task == "QbE" else ("train",)
    return (*trained, TASKS[task].binding.dev, TASKS[task].binding.test)


def loader_of(expert, split):
    get = expert.get_dataloader
    return get(split, epoch=0) if "epoch" in inspect.signature(get).parameters else get(split)


def package_listing():
    import s3prl

    root = Path(s3prl.__file__).parent
    return sorted(str(path) for path in root.rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("task", list(TASKS))
def test_split_names_worker_counts_and_caches(task, build):
    """Every split that we ask for is there, with the config's workers; the package is left alone.

    Loaders are asked for twice: s3prl's CTC expert loses the number with the first.
    """
    build(task)  # what an import leaves behind is no cache
    before = package_listing()
    expert = build(task, workers=WORKERS)
    counts = [loader_of(expert, split).num_workers for split in splits_of(task) * 2]
    assert counts == [WORKERS] * len(counts)
    assert package_listing() == before


def test_asr_has_no_split_of_the_name_test(build):
    assert TASKS["ASR"].binding.test == "test-clean"
    with pytest.raises(KeyError, match="test"):
        build("ASR").get_dataloader("test")


# --- directory order ------------------------------------------------------------------------------


class _Scanned:
    """What ``os.scandir`` gives, in an order of ours."""

    def __init__(self, entries):
        self.entries = iter(entries)

    def __iter__(self):
        return self.entries

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def close(self):
        pass


@pytest.fixture
def list_directories(monkeypatch):
    """Give names in sorted order, or in the opposite one, as another file system may."""
    scandir, listdir = os.scandir, os.listdir

    def order(*, backwards):
        def scan(path="."):
            with scandir(path) as entries:
                return _Scanned(sorted(entries, key=lambda e: e.name, reverse=backwards))

        monkeypatch.setattr(os, "scandir", scan)
        monkeypatch.setattr(
            os, "listdir", lambda path=".": sorted(listdir(path), reverse=backwards)
        )

    return order


def test_the_fixture_turns_listings_around(list_directories, tmp_path):
    for name in "bac":
        (tmp_path / name).touch()
    list_directories(backwards=True)
    assert [path.name for path in tmp_path.glob("*")] == ["c", "b", "a"]
    assert [path.name for path in tmp_path.iterdir()] == ["c", "b", "a"]
    assert next(os.walk(tmp_path))[2] == ["c", "b", "a"]


@pytest.mark.parametrize("corpus", list(catalog.CORPORA))
def test_a_corpus_is_the_same_in_any_directory_order(corpus, tiny_paths, list_directories):
    found = []
    for backwards in (False, True):
        list_directories(backwards=backwards)
        found.append(catalog.find(corpus).files(tiny_paths.section(corpus)))
    assert found[0] == found[1]


def contents(value):
    """What a data set holds, without addresses: plain values, found through its objects."""
    if isinstance(value, dict):
        return {str(key): contents(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [contents(item) for item in value]
    if type(value).__module__.startswith(("s3prl.", "superbit.", "torch.utils.data")):
        return contents(vars(value))
    return str(value) if isinstance(value, str | int | float | Path) else type(value).__name__


@pytest.mark.parametrize("task", list(TASKS))
def test_items_come_in_one_order_in_any_directory_order(task, build, list_directories):
    orders = []
    for backwards in (False, True):
        list_directories(backwards=backwards)
        expert = build(task)
        orders.append(
            {split: contents(loader_of(expert, split).dataset) for split in splits_of(task)}
        )
    assert len(str(orders[0])) > 1_000
    assert orders[0] == orders[1]


# --- the loop -------------------------------------------------------------------------------------


@pytest.fixture
def session(bound, tmp_path):
    """A run of a few steps, as the runner builds it."""

    def build(task, *, rate=320, **changes):
        config, places = bound(task)
        config["runner"] |= {"total_steps": 2, "eval_step": 2, "save_step": 2}
        section = config["downstream_expert"]
        for key in TASKS[task].binding.batch[:-1]:
            section = section[key]
        section |= changes
        experiment = Experiment(
            upstream=Energies(rate),
            downstream=TASKS[task].downstream,
            config=config,
            seed=1,
            expdir=tmp_path,
        )
        return Session(
            experiment=experiment,
            binding=TASKS[task].binding,
            places=places,
            run_dir=tmp_path,
            key="k",
            on_step=lambda step, what: None,
        )

    return build


def test_a_train_split_smaller_than_a_batch_ends_in_an_error(session):
    experiment = session("KS", batch_size=10_000).experiment
    # The trap: an epoch without a batch, over and over.
    assert len(loader_of(experiment.head, "train")) == 0
    with pytest.raises(InputError, match=r"the train split has fewer items than one batch; lower"):
        experiment.train()


@pytest.mark.parametrize("task", [task for task in TASKS if task != "QbE"])
def test_a_batch_larger_than_the_corpus_is_refused_before_the_run(task, tiny_paths):
    corpus = TASKS[task].corpus
    report = catalog.find(corpus).check(tiny_paths.section(corpus), batch_size=10_000)
    (problem,) = report.problems
    assert "fewer than a batch of 10000" in problem
    with pytest.raises(InputError, match="fewer than a batch"):
        report.raise_for_problems()


def test_without_a_best_checkpoint_the_last_one_is_tested_in_percent(session):
    """ASR asks for a best checkpoint below a WER of 100 only, and gives percent, not a fraction."""
    run = session("ASR")
    (tested,) = TASKS["ASR"].procedure(run).values()
    assert run.experiment.candidates[0].training.best is None
    assert (tested.selection.checkpoint, tested.selection.step) == ("last", 2)
    assert "none was best" in tested.selection.rule
    assert tested.metrics["test-clean-wer"] == pytest.approx(tested.value)
    assert tested.value >= 99.0


def test_a_best_checkpoint_that_is_no_longer_the_last_is_tested(session):
    run = session("KS")
    (candidate,) = run.experiment.candidates
    saved, training = candidate.weights(), candidate.training
    for parameter in run.experiment.head.parameters():
        nn.init.zeros_(parameter)
    run.experiment.position.step, run.experiment.position.evaluated_step = 2, 2
    training.best, training.best_step = saved, 1
    training.history.append({"step": 1, "split": "dev", "acc": 0.5})
    (tested,) = TASKS["KS"].procedure(run).values()
    selection = tested.selection
    assert (selection.checkpoint, selection.step, selection.score) == ("best", 1, 50.0)
    for name, value in candidate.weights()["head"].items():
        assert torch.equal(value, saved["head"][name]), name


@pytest.mark.parametrize("task", ["KS", "SID", "IC", "ER"])
def test_an_expert_that_gives_fractions_is_reported_in_percent(task, session):
    run = session(task)
    evaluation = run.experiment.evaluate(run.binding.dev)
    fraction = evaluation.metrics[run.binding.metric]
    assert 0.0 <= fraction <= 1.0
    scored = TASKS[task].procedure
    value = scored.score(scored.items(evaluation.records))
    assert value == pytest.approx(100.0 * fraction, abs=1e-4)


def test_a_number_in_the_wrong_unit_is_refused():
    with pytest.raises(RuntimeError, match=r"superbit's wer is 50\.0+ and s3prl's own is 0\.5"):
        require_equal(50.0, 0.5, "wer")


def test_sd_trains_with_a_downsample_rate_that_is_no_integer(session, tmp_path):
    """Labels have one row a feature frame: s3prl refuses a difference of more than a few."""
    run = session("SD", rate=640 / 3)
    run.experiment.train()
    assert run.experiment.position.step == 2
    assert float((tmp_path / "frame_shift").read_text()) == pytest.approx(640 / 3)
