"""s3prl's own ``Runner`` beside superbit's runs: one task, seed, corpus and upstream for both.

The Runner is imported, unmodified. What superbit runs is its whole procedure for a task, from the
first batch to the number, live or on stored features.
"""

import argparse
import copy
import importlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.features.costs import cost_of
from superbit.benchmark.features.demand import KnownLengths, find_demand
from superbit.benchmark.features.extraction import Shape, extract
from superbit.benchmark.features.store import CacheSettings
from superbit.benchmark.features.supply import FeatureUse
from superbit.benchmark.features.waves import KnownFiles
from superbit.benchmark.running import heads
from superbit.benchmark.running.checkpoints import CHECKPOINT
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.running.session import Session
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS, find_task
from superbit.benchmark.tasks.configs import resolve
from superbit.benchmark.tasks.task import Tested
from superbit.upstreams import registry
from superbit.upstreams.expert import UpstreamExpert
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.registry import load_upstream
from superbit.upstreams.rng import seed_everything

SEED = 1337
_SMALL = HubertConfig(
    encoder="vanilla",
    layers=2,
    dim=16,
    heads=2,
    ffn_dim=32,
    position_groups=4,
    position_kernel=16,
    conv_layers=((8, 10, 5), *[(8, 3, 2)] * 4, *[(16, 2, 2)] * 2),
)


def small(ckpt=None, **kwargs):
    """A random encoder of superbit's kind, with three hidden states, that costs little."""
    return UpstreamExpert(untrained_model(_SMALL), untrained=True)


class Bands(nn.Module):
    """Three layers of different worth, 50 frames a second, that tell sounds apart untrained.

    The waveform through a fixed matrix; logarithmic energies of bands; these over five frames.
    """

    WIDTH = 24

    def __init__(self):
        super().__init__()
        # Bands as wide as they are high, from 60 Hz on.
        edges = torch.logspace(0.4, 2.5, self.WIDTH + 2)
        rising = (torch.arange(321)[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - torch.arange(321)[:, None]) / (edges[2:] - edges[1:-1])
        self.register_buffer("bands", torch.minimum(rising, falling).clamp(min=0))
        self.register_buffer("matrix", torch.sin(torch.arange(640.0 * self.WIDTH)).view(640, -1))

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        states = zip(*map(self.layers, wavs), strict=True)
        return {"hidden_states": [pad_sequence(list(each), batch_first=True) for each in states]}

    def layers(self, wave):
        """Map (samples,) to three times (frames, WIDTH)."""
        frames = F.pad(wave, (160, 800)).unfold(0, 640, 320)[: round(len(wave) / 320)]
        power = torch.fft.rfft(frames * torch.hann_window(640)).abs().square()
        energies = (power @ self.bands + 1e-4).log()
        smooth = F.avg_pool1d(energies.T[None], 5, stride=1, padding=2)[0].T
        return torch.tanh(frames @ self.matrix), energies, smooth


def bands(ckpt=None, **kwargs):
    """Build :class:`Bands` as an upstream of somebody else's."""
    return Bands()


def use_upstreams(monkeypatch):
    """Make ``small`` and ``bands`` known to superbit and to s3prl's hub."""
    from s3prl import hub

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    for build in (small, bands):
        monkeypatch.setattr(hub, build.__name__, build, raising=False)  # taken away afterwards
        registry.register(build.__name__, build)


def round_alike(monkeypatch):
    """Let our heads compute what s3prl's do, so that the loops are compared to the last digit.

    What is switched off rounds otherwise: LSTMs over padded utterances, Adam in one pass.
    """
    monkeypatch.setattr(heads, "without_packing", lambda module: None)
    monkeypatch.setattr(heads, "_FUSED", ())


@dataclass(kw_only=True)
class Bench:
    """One task on one upstream.

    Attributes:
        config: resolved, with the paths of the corpus in it.
        folder: for whatever the runs write.
    """

    task: str
    upstream: str
    config: dict[str, Any]
    places: RunPlaces
    folder: Path


def bench(task, upstream, *, paths, folder, runner=None, section=None) -> Bench:
    """Set up a task at the embedded scale.

    Args:
        runner: changes to the config's runner.
        section: changes to the expert's part of the config, by section.
    """
    config = resolve(task, scale="embedded")
    if runner is not None:
        config["runner"] |= runner
    for name, changes in (section or {}).items():
        config["downstream_expert"][name] |= changes
    work_dir = folder / "work"
    work_dir.mkdir(parents=True)
    places = RunPlaces(paths=paths, work_dir=work_dir, fold=1 if task == "ER" else None)
    TASKS[task].binding.bind(config["downstream_expert"], places)
    return Bench(task=task, upstream=upstream, config=config, places=places, folder=folder)


class Tape:
    """What goes through an expert's ``forward`` and ``log_records``.

    ``records`` are those of every evaluation, in order.
    """

    def __init__(self):
        self.batches, self.losses, self.logged, self.records = [], [], [], []

    def listen(self, expert):
        forward, log_records = expert.forward, expert.log_records

        def taped_forward(split, features, *others, **kwargs):
            loss = forward(split, features, *others, **kwargs)
            self.batches.append((split, _names(others), [len(f) for f in features]))
            if loss is not None:
                self.losses.append(loss.item())
            return loss

        def taped_log(split, records, logger=None, global_step=0, **kwargs):
            capture = _Capture(logger)
            saves = log_records(
                split, records=records, logger=capture, global_step=global_step, **kwargs
            )
            self.logged.append((split, global_step, capture.scalars, saves))
            if split != "train":
                self.records.append(dict(records))
            return saves

        expert.forward, expert.log_records = taped_forward, taped_log
        return self

    def items(self) -> list:
        """Return split and names of each batch, without the frames of its utterances."""
        return [batch[:2] for batch in self.batches]


def _names(others):
    """What tells a batch's items apart: names, or SD's frame labels."""
    named = [list(other) for other in others if _are_names(other)]
    return named[0] if named else [float(label.sum()) for label in others[0]]


def _are_names(other):
    return isinstance(other, list | tuple) and all(isinstance(each, str) for each in other)


class _Capture:
    def __init__(self, logger):
        self.logger, self.scalars = logger, {}

    def add_scalar(self, tag, value, global_step=0):
        self.scalars[tag] = float(value)
        self.logger.add_scalar(tag, value, global_step=global_step)


# --- s3prl's side ---------------------------------------------------------------------------------


def train_by_s3prl(bench: Bench) -> tuple[Tape, Path]:
    """Train as ``run_downstream.py -m train`` does; return its tape and its experiment's folder."""
    from s3prl.downstream.runner import Runner

    expdir = bench.folder / "theirs"
    expdir.mkdir()
    config = copy.deepcopy(bench.config)
    config["runner"]["max_keep"] = 100  # so that each checkpoint can be looked at
    args = _args(bench, expdir)
    seed_everything(SEED)
    runner = Runner(args, config)
    tape = Tape().listen(runner.downstream.model)
    runner.train()
    return tape, expdir


def test_by_s3prl(checkpoint: Path, *, split: str) -> tuple[Tape, Path]:
    """Evaluate as ``run_downstream.py -m evaluate -e CHECKPOINT -t SPLIT`` does."""
    from s3prl.downstream.runner import Runner

    saved = torch.load(checkpoint, weights_only=False)
    expdir = checkpoint.with_suffix("")
    expdir.mkdir()
    args = argparse.Namespace(**vars(saved["Args"]))
    args.init_ckpt, args.evaluate_split, args.expdir = str(checkpoint), split, str(expdir)
    seed_everything(SEED)
    runner = Runner(args, saved["Config"])
    tape = Tape().listen(runner.downstream.model)
    runner.evaluate()
    return tape, expdir


test_by_s3prl.__test__ = False  # not for pytest


def search_by_s3prl(bench: Bench, *, layer: int, split: str) -> Path:
    """Search as QbE's ``run_downstream.py -m evaluate -l LAYER -t SPLIT``; return its folder."""
    from s3prl.downstream.runner import Runner

    expdir = bench.folder / f"layer-{layer}-{split}"
    expdir.mkdir()
    args = _args(bench, expdir)
    args.upstream_layer_selection, args.evaluate_split = layer, split
    seed_everything(SEED)
    Runner(args, {**copy.deepcopy(bench.config), "runner": {}}).evaluate()
    return expdir


def _args(bench: Bench, expdir: Path) -> argparse.Namespace:
    # The first import of ASV's expert draws a random number (rich, which librosa imports), and
    # s3prl imports it after seeding: its crops depend on what the process did before.
    importlib.import_module(f"s3prl.downstream.{find_task(bench.task).downstream}.expert")
    return argparse.Namespace(
        upstream=bench.upstream, upstream_ckpt=None, upstream_model_config=None,
        upstream_refresh=False, upstream_trainable=False,
        upstream_feature_selection="hidden_states", upstream_layer_selection=None,
        upstream_feature_normalize=False, device="cpu", seed=SEED,
        downstream=find_task(bench.task).downstream, downstream_variant=None, init_ckpt=None,
        expdir=str(expdir), push_to_hf_hub=False, evaluate_split=TASKS[bench.task].binding.test,
    )  # fmt: skip


# --- our side -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Ours:
    """What a run of superbit's gave.

    Attributes:
        saved: weights of featurizer and head in the checkpoint on disk, each time it was written,
            by step.
    """

    tape: Tape
    experiment: Experiment
    tested: Tested
    folder: Path
    saved: dict[int, dict[str, Any]] = field(default_factory=dict)


def run_ours(bench: Bench, name: str = "ours", *, stored: bool = False) -> Ours:
    """Go superbit's whole way to the task's number.

    Args:
        name: of the folder.
        stored: with features from a store of float32; else the upstream runs on every batch.
    """
    open_source = _stored(bench) if stored else lambda expert: None
    folder = bench.folder / name
    folder.mkdir()
    task = TASKS[bench.task]
    seed_everything(SEED)
    # Built as s3prl builds it: fbank draws random numbers to learn its dimension.
    expert = _build(bench.upstream)
    experiment = Experiment(
        upstream=expert, downstream=task.downstream, config=copy.deepcopy(bench.config),
        seed=SEED, expdir=folder, feature_source=open_source(expert),
    )  # fmt: skip
    tape, saved = Tape().listen(experiment.head), {}
    train = experiment.train

    def taped_train(*, on_save, **others):
        def save():
            on_save()
            state = torch.load(folder / CHECKPOINT)
            (candidate,) = state["candidates"].values()
            saved[state["progress"]["step"]] = candidate["weights"]

        train(on_save=save, **others)

    experiment.train = taped_train
    session = Session(
        experiment=experiment, binding=task.binding, places=bench.places, run_dir=folder,
        key="golden", on_step=lambda step, what: None,
    )  # fmt: skip
    (tested,) = task.procedure(session).values()
    return Ours(tape=tape, experiment=experiment, tested=tested, folder=folder, saved=saved)


def _build(upstream: str) -> torch.nn.Module:
    from s3prl import hub

    import superbit.upstreams  # noqa: F401  (puts our names into s3prl's hub)

    return getattr(hub, upstream)(ckpt=None, model_config=None, refresh=False)


def _stored(bench: Bench):
    """Extract what the task asks for; return what opens the store for an expert."""
    loaded, work_dir = load_upstream(bench.upstream), bench.places.work_dir
    build_manifest(find_task(bench.task).corpus, bench.places.paths, work_dir=work_dir)
    settings = CacheSettings(folder=bench.folder / "cache", precision="float32")
    cost = cost_of(loaded, settings)
    assert cost.may_store
    demand = find_demand(
        bench.task, bench.config, places=bench.places, files=KnownFiles(work_dir),
        rate=cost.rate, lengths=KnownLengths(settings.folder / "lengths.json"),
    )  # fmt: skip
    kind = cost.kind(demand.kind)
    extract(
        list(demand.waves.values()), upstream=loaded, kind=kind, settings=settings,
        shape=Shape(layers=cost.layers, dim=cost.dim, rate=cost.rate), invariant=cost.invariant,
    )  # fmt: skip
    use = FeatureUse(settings=settings, kind=kind, cost=cost)
    return lambda expert: use.open(replace(loaded, expert=expert), work_dir=work_dir, device="cpu")


# --- side by side ---------------------------------------------------------------------------------


def assert_same_weights(ours: dict[str, Any], theirs: dict[str, Any], **tolerance: float) -> None:
    """Compare our featurizer and head with those of a checkpoint of s3prl's."""
    for part, name in (("featurizer", "Featurizer"), ("head", "Downstream")):
        assert ours[part].keys() == theirs[name].keys()
        for key, tensor in ours[part].items():
            torch.testing.assert_close(tensor, theirs[name][key], **tolerance)


def checkpoints_of_s3prl(expdir: Path) -> tuple[dict[int, Path], list[Path]]:
    """Return the files ``states-STEP.ckpt`` by step, and all others: the best ones."""
    states = {int(file.stem.partition("-")[2]): file for file in expdir.glob("states-*.ckpt")}
    others = sorted(set(expdir.glob("*.ckpt")) - set(states.values()))
    return states, others
