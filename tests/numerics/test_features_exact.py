"""A run on stored features against the live run: the same batches, losses and metrics.

Upstream: a very small encoder with independent padding, on the tiny embedded corpora, all ten
tasks; the slow tests take the nano encoder.
"""

import copy
from dataclasses import dataclass, field

import pytest
import torch

from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.features import extraction
from superbit.benchmark.features.costs import cost_of
from superbit.benchmark.features.demand import KnownLengths, find_demand
from superbit.benchmark.features.extraction import Shape, Workers, extract
from superbit.benchmark.features.mixing import WeightedSums
from superbit.benchmark.features.source import UpstreamFeatures
from superbit.benchmark.features.store import CacheSettings
from superbit.benchmark.features.supply import FeatureUse
from superbit.benchmark.features.waves import KnownFiles
from superbit.benchmark.running import experiment
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams.entry import UpstreamEntry
from superbit.upstreams.expert import UpstreamExpert
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.identity.fingerprint import weights_sha256
from superbit.upstreams.registry import LoadedUpstream, load_upstream
from superbit.upstreams.rng import seed_everything
from superbit.upstreams.spec import UpstreamSpec

pytestmark = pytest.mark.thorough

SEED = 1337
TRAINED = ("PR", "ASR", "KS", "SID", "IC", "ER", "SF", "SD", "ASV")
# What the issue promises of the first 50 losses.
TOLERANCE = {"float32": 1e-5, "float16": 1e-3}


LAYERS, DIM = 3, 16


@pytest.fixture(scope="module")
def upstream():
    """An encoder that costs little; as superbit's own, so that its config is part of its name."""
    config = HubertConfig(
        encoder="vanilla", layers=LAYERS - 1, dim=DIM, heads=2, ffn_dim=32,
        position_groups=4, position_kernel=16,
        conv_layers=((8, 10, 5), *[(8, 3, 2)] * 4, *[(16, 2, 2)] * 2),
    )  # fmt: skip
    expert = UpstreamExpert(untrained_model(config), untrained=True)
    return LoadedUpstream(
        spec=UpstreamSpec.parse("vanilla_nano+untrained"),
        entry=UpstreamEntry(
            name="small", build=lambda **_: expert, origin="superbit", revision="1"
        ),
        expert=expert,
        weights_sha256=weights_sha256(expert),
    )


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory, tiny_paths):
    folder = tmp_path_factory.mktemp("work")
    for corpus in {task.corpus for task in TASKS.values()}:
        build_manifest(corpus, tiny_paths, work_dir=folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


def config_of(task, steps, *, limit, **datarc):
    config = resolve(task, scale="embedded", limit=limit)
    if "runner" in config:
        config["runner"] |= {"total_steps": steps, "eval_step": max(1, steps // 2)}
        config["runner"]["save_step"] = steps
    config["downstream_expert"].get("datarc", {}).update(datarc)
    return config


@dataclass
class Tape:
    """What goes through a head: splits, lengths and names of its batches, and the losses."""

    batches: list = field(default_factory=list)
    losses: list = field(default_factory=list)

    def listen(self, head):
        forward = head.forward

        def taped(split, features, *others, **kwargs):
            loss = forward(split, features, *others, **kwargs)
            self.batches.append((split, [_plain(other) for other in others]))
            if loss is not None:
                self.losses.append(loss.item())
            return loss

        head.forward = taped


def _plain(value):
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


class Bench:
    """Runs one task live and from a store."""

    def __init__(self, task, config, *, upstream, paths, work_dir, cache, tmp_path):
        self.task, self.config, self.upstream = task, config, upstream
        self.places = RunPlaces(paths=paths, work_dir=work_dir, fold=2 if task == "ER" else None)
        self.cache, self.tmp_path, self.work_dir = cache, tmp_path, work_dir
        self.files = KnownFiles(work_dir)

    def extract(self, precision):
        settings = CacheSettings(folder=self.cache, precision=precision)
        cost = cost_of(self.upstream, settings)
        assert cost.may_store
        demand = find_demand(
            self.task, self.config, places=self.places, files=self.files, rate=cost.rate,
            lengths=KnownLengths(self.cache / "lengths.json"),
        )  # fmt: skip
        computed = extract(
            list(demand.waves.values()), upstream=self.upstream, kind=cost.kind(demand.kind),
            shape=Shape(layers=cost.layers, dim=cost.dim, rate=cost.rate), settings=settings,
            invariant=cost.invariant,
        )  # fmt: skip
        use = FeatureUse(settings=settings, kind=cost.kind(demand.kind), cost=cost)
        return use, demand, computed

    def run(self, precision=None):
        """Train and test; returns what the head saw, its metrics and the source of features."""
        source = None
        if precision is not None:
            use, _, _ = self.extract(precision)
            source = use.open(self.upstream, work_dir=self.work_dir, device="cpu")

        config = copy.deepcopy(self.config)
        TASKS[self.task].binding.bind(config["downstream_expert"], self.places)
        expdir = self.tmp_path / str(precision)
        expdir.mkdir(exist_ok=True)
        seed_everything(SEED)
        trained = experiment.Experiment(
            upstream=self.upstream.expert, downstream=TASKS[self.task].downstream, config=config,
            seed=SEED, expdir=expdir, feature_source=source,
            reinitialize_head=TASKS[self.task].binding.reinitialize_head,
        )  # fmt: skip
        tape = Tape()
        tape.listen(trained.head)
        if self.task == "QbE":
            trained.collect_layers("dev")
            return tape, trained.layer_records, trained.source
        trained.train()
        metrics = trained.evaluate(TASKS[self.task].binding.test).metrics
        # Of what a metric is a share: utterances; of ASV's two error rates each kind of trial.
        if self.task == "ASV":
            same = [label == "1" for label, _, _ in trained.head.test_dataset.pair_table]
            self.items = min(sum(same), len(same) - sum(same))
        else:
            self.items = sum(len(b[-1] or [0]) for split, b in tape.batches if split != "train")
        return tape, metrics, trained.source


@pytest.fixture
def bench(upstream, tiny_paths, work_dir, cache, tmp_path):
    def make(task, steps=4, *, limit=5, **datarc):
        config = config_of(task, steps, limit=limit, **datarc)
        return Bench(
            task, config, upstream=upstream, paths=tiny_paths, work_dir=work_dir, cache=cache,
            tmp_path=tmp_path,
        )  # fmt: skip

    return make


def assert_same(live, stored, *, tolerance, items):
    """Same batches, losses within ``tolerance``, each metric within one item."""
    assert stored[0].batches == live[0].batches
    assert len(live[0].losses) == len(stored[0].losses) > 0
    for mine, their in zip(stored[0].losses, live[0].losses, strict=True):
        assert mine == pytest.approx(their, abs=tolerance, rel=tolerance)
    for name, value in live[1].items():
        assert stored[1][name] == pytest.approx(value, abs=max(1.001 / items, tolerance))


def distances(live, stored):
    """How far losses are apart at most, of what they are or of one, and how far metrics."""
    losses = zip(live[0].losses, stored[0].losses, strict=True)
    return (
        max(abs(a - b) / max(1.0, abs(b)) for a, b in losses),
        max(abs(value - stored[1][name]) for name, value in live[1].items()),
    )


@pytest.mark.parametrize("task", TRAINED)
def test_a_stored_run_is_the_live_run(bench, task):
    runs = bench(task)
    live = runs.run()
    for precision, tolerance in TOLERANCE.items():
        stored = runs.run(precision)
        assert_same(live, stored, tolerance=tolerance, items=runs.items)
        assert stored[2].stored > 0


# What reads batches like another, by data sets of one shape, is tried in full by the slow tests.
LIKE_ANOTHER = {"ER": "KS", "IC": "KS", "SID": "KS", "SF": "ASR"}


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=[pytest.mark.slow] if task in LIKE_ANOTHER else [])
        for task in TRAINED
    ],
)
def test_a_stored_run_of_filter_banks_is_the_live_run(bench, task):
    """Whose utterances are followed by zeros, as many as the batch has room for.

    What float16 adds to that is the upstream's, not the task's: it is tried on PR.
    """
    runs = bench(task)
    runs.upstream = load_upstream("fbank")
    live = runs.run()
    for precision in TOLERANCE if task == "PR" else ("float32",):
        stored = runs.run(precision)
        assert_same(live, stored, tolerance=TOLERANCE[precision], items=runs.items)
        assert stored[2].stored > 0


@pytest.mark.slow
@pytest.mark.parametrize("task", TRAINED)
def test_fifty_steps(bench, task, monkeypatch):
    """ASV's training amplifies rounding: no two of its runs that round differently agree to 1e-5
    after 50 steps. At SUPERB's own learning rate it is held against what noise of 1e-7 in the
    features does to its losses. SF, too, needs that rate: at 50 times it, as at the embedded scale,
    its losses part by 1.04e-5."""
    runs = bench(task, steps=50, limit=None)
    runs.upstream = load_upstream("vanilla_nano+untrained")
    if task in ("ASV", "SF"):
        runs.config["optimizer"]["lr"] = 1e-4
    live = runs.run()
    amplified = 1.0
    if task == "ASV":
        exact = runs.run("float32")
        generator, sums_of = torch.Generator().manual_seed(0), WeightedSums.of

        def noisy(sums, featurizer):
            return [
                each * (1 + 1e-7 * torch.randn(each.shape, generator=generator))
                for each in sums_of(sums, featurizer)
            ]

        with monkeypatch.context() as patch:
            patch.setattr(WeightedSums, "of", noisy)
            noise = runs.run("float32")
        worst = max(
            abs(a - b) / max(abs(b), 1e-9)
            for a, b in zip(noise[0].losses, exact[0].losses, strict=True)
        )
        amplified = max(1.0, 10 * worst / 1e-5)
    for precision, tolerance in TOLERANCE.items():
        scale = amplified if precision == "float32" else 1.0
        stored = runs.run(precision)
        losses, metrics = distances(live, stored)
        print(f"{task}, {precision}: losses to {losses:.1e}, metrics to {metrics:.1e}")  # for -rP
        assert_same(live, stored, tolerance=tolerance * scale, items=runs.items)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_qbe_has_every_layer(bench, precision):
    runs = bench("QbE")
    live, stored = runs.run(), runs.run(precision)
    assert len(stored[1]) == len(live[1]) == LAYERS
    for mine, their in zip(stored[1], live[1], strict=True):
        assert mine["audio_names"] == their["audio_names"]
        for got, wanted in zip(mine["features"], their["features"], strict=True):
            torch.testing.assert_close(got, wanted, atol=10 * TOLERANCE[precision], rtol=1e-3)


def test_silence_crops_of_ks_are_drawn_and_computed_anew(bench):
    runs = bench("KS")
    _, demand, _ = runs.extract("float32")
    assert demand.drawn_share == pytest.approx(1 / 12)
    assert not any("_background_noise_" in wave.file.path for wave in demand.waves.values()
                   if "/train/" in wave.file.path)  # fmt: skip
    stored = runs.run("float32")
    silences = sum(names.count("_background_noise_") for names in map(str, stored[0].batches))
    assert stored[2].live == silences > 0


def test_silence_crops_of_several_batches_pass_together(bench, monkeypatch):
    """With worker processes, as at SUPERB's scale: what a crop gives stays what it was alone."""
    runs = bench("KS", steps=12, num_workers=2)
    live, passes = runs.run(), []
    runs.extract("float32")
    compute = UpstreamFeatures.compute

    def counted(features, waves):
        passes.append(len(waves))
        return compute(features, waves)

    monkeypatch.setattr(UpstreamFeatures, "compute", counted)
    stored = runs.run("float32")
    assert_same(live, stored, tolerance=1e-5, items=runs.items)
    silences = sum(names.count("_background_noise_") for names in map(str, stored[0].batches))
    assert stored[2].live == silences > 0
    # Twelve batches of training are two groups; dev is evaluated twice, its five batches together.
    assert len(passes) == 2 + 2


def test_a_resumed_run_computes_ahead_in_the_same_groups(bench):
    """To the bit: from a step in the middle of a group."""
    runs = bench("KS", steps=12, num_workers=2)
    runs.config["runner"]["eval_step"] = 100
    use, _, _ = runs.extract("float32")

    def built(steps):
        config = copy.deepcopy(runs.config)
        config["runner"]["total_steps"] = steps
        TASKS["KS"].binding.bind(config["downstream_expert"], runs.places)
        seed_everything(SEED)
        return experiment.Experiment(
            upstream=runs.upstream.expert, downstream=TASKS["KS"].downstream, config=config,
            seed=SEED, expdir=runs.tmp_path,
            feature_source=use.open(runs.upstream, work_dir=runs.work_dir, device="cpu"),
        )  # fmt: skip

    def trained(run):
        losses = {}
        run.train(on_step=lambda step, loss: losses.update({step: loss}))
        return losses

    straight = trained(built(12))
    first = built(5)
    trained(first)
    second = built(12)
    second.load_state(first.state())
    seed_everything(0)  # of another process
    resumed = trained(second)
    assert resumed == {step: straight[step] for step in range(6, 13)}


@pytest.mark.parametrize("task", ["SID", "ASV"])
def test_long_utterances_are_cropped_at_random_and_computed_anew(bench, task):
    # about half of the utterances are longer
    runs = bench(task, max_timestep={"SID": 35_000, "ASV": 45_000}[task])
    live, stored = runs.run(), runs.run("float32")
    _, demand, _ = runs.extract("float32")
    assert 0 < demand.drawn_share < 1
    assert_same(live, stored, tolerance=1e-5, items=runs.items)
    assert stored[2].live > 0
    assert stored[2].stored > 0


def test_pr_and_asr_share_their_features(bench):
    bench("PR").extract("float16")
    _, demand, computed = bench("ASR").extract("float16")
    assert demand.waves
    assert computed == 0


def test_stored_audio_is_not_decoded(bench, monkeypatch):
    runs = bench("IC")
    runs.extract("float32")

    def refuse(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr("torchaudio.load", refuse)
    monkeypatch.setattr("soundfile.read", refuse)
    _, _, source = runs.run("float32")
    assert source.live == 0


def test_processes_extract_what_one_does(bench, tmp_path, monkeypatch):
    runs = bench("QbE")
    runs.upstream = load_upstream("vanilla_nano+untrained")
    monkeypatch.setattr(extraction, "CHUNK_SECONDS", 8.0)
    _, demand, _ = runs.extract("float32")
    waves = sorted(demand.waves.values(), key=lambda wave: wave.key)[:16]
    stores = []
    for workers in (None, Workers(2)):
        settings = CacheSettings(folder=tmp_path / str(len(stores)), precision="float32")
        computed = extract(
            waves, upstream=runs.upstream, kind="frames", settings=settings, invariant=True,
            shape=Shape(layers=5, dim=128, rate=320), workers=workers,
        )  # fmt: skip
        assert computed == len(waves)
        stores.append(settings.store(runs.upstream, "frames"))
    workers.close()
    for wave in waves:
        one, two = (torch.from_numpy(store.read(wave.key)) for store in stores)
        assert one.shape == (5, round(wave.samples / 320), 128)
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
