"""One broken upstream in a sweep: its runs fail and say why, the others go on, whatever breaks."""

import errno

import pytest

from superbit.benchmark.features import extraction, planning, supply
from superbit.benchmark.features.store import CacheError
from superbit.benchmark.progress import RunsProgress
from superbit.benchmark.records.schema import UNKNOWN
from superbit.benchmark.records.store import ResultStore

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("forked_workers")]

# Evaluated so often that a store is worth its bytes.
OVERRIDES = """
IC: {runner: {total_steps: 5, eval_step: 1, save_step: 5, log_step: 5}}
SID: {runner: {total_steps: 5, eval_step: 1, save_step: 5, log_step: 5}}
PR: {runner: {total_steps: 5, eval_step: 5, save_step: 5, log_step: 5}}
ER: {runner: {total_steps: 5, eval_step: 5, save_step: 5, log_step: 5}}
"""

# An upstream that keeps the contract but for what is put in the places of its three pieces.
UPSTREAM = """
import multiprocessing, os, sys
import torch

{import}

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.sin(torch.arange(320 * 4.0)).view(320, 4))

    def {rate}(self, key):
        return {hop}

    def forward(self, wavs):
        {before}
        frames = [torch.nn.functional.pad(w, (0, 320)).unfold(0, 320, 320) for w in wavs]
        states = [torch.tanh(f @ self.matrix) for f in frames]
        states = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        return {output}

def model(ckpt=None, **kwargs):
    {build}
    return Model()
"""
PIECES = {
    "import": "",
    "rate": "get_downsample_rates",
    "hop": "320",
    "before": "pass",
    "output": '{"hidden_states": [states]}',
    "build": "pass",
}
RAISES = "raise ValueError('it broke')"
CONTRACT = "the upstream breaks the contract's rule "
# what is other than it should be → what the record's reason says
BROKEN = {
    "builder_raises": ({"build": RAISES}, "cannot be built: ValueError: it broke"),
    "builder_exits": ({"build": "sys.exit(3)"}, "cannot be built: SystemExit: 3"),
    "builder_gives_no_module": ({"build": "return 7"}, "returned int; it must return a torch"),
    "import_raises": ({"import": RAISES}, "cannot be imported: ValueError: it broke"),
    "forward_raises": (
        {"before": RAISES},
        f"{CONTRACT}hidden-states: the forward pass raised ValueError",
    ),
    "forward_exits": ({"before": "sys.exit(3)"}, f"{CONTRACT}hidden-states: raised SystemExit: 3"),
    "forward_raises_for_batches": (
        {"before": f"if len(wavs) > 1: {RAISES}"},
        f"{CONTRACT}hidden-states: the forward pass raised ValueError for a batch",
    ),
    # Nothing before its extraction, or else its training, passes so many.
    "forward_raises_for_five": ({"before": f"if len(wavs) > 4: {RAISES}"}, "ValueError: it broke"),
    "no_hidden_states": (
        {"output": '{"feats": states}'},
        f"{CONTRACT}hidden-states: a dict with the keys ['feats']; needed: a dict whose",
    ),
    "two_shapes": (
        {"output": '{"hidden_states": [states, states[..., :2]]}'},
        f"{CONTRACT}hidden-states: hidden state 0 has shape",
    ),
    "nan": ({"output": '{"hidden_states": [states * torch.nan]}'}, f"{CONTRACT}finite: "),
    "no_rate": (
        {"rate": "get_another_rate"},
        f"{CONTRACT}downsample-rate: there is no method get_downsample_rates",
    ),
    "rate_of_zero": ({"hop": "0"}, f"{CONTRACT}downsample-rate: 0 (int)"),
    "wrong_rate": ({"hop": "160"}, f"{CONTRACT}frame-count: "),
}
DIES = {"before": "if multiprocessing.parent_process(): os._exit(9)"}
WAYS = {"stored": (), "live": ("--no-cache",), "processes": ("--jobs", "2")}
# Processes take ten seconds each to begin; the first test below has them among the fast ones.
FAST_WAYS = ["stored", "live", pytest.param("processes", marks=pytest.mark.slow)]


@pytest.fixture
def upstream(tmp_path):
    """Write an upstream some pieces of which are other than they should be; give its spec."""

    def write(name, **pieces):
        text = UPSTREAM
        for piece, code in (PIECES | pieces).items():
            text = text.replace(f"{{{piece}}}", code)
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        return f"{file}:model"

    return write


@pytest.fixture
def sweep(superbit, tiny_paths_file, tmp_path):
    (tmp_path / "overrides.yaml").write_text(OVERRIDES)

    def call(upstreams, *more, tasks="IC"):
        status, out, err = superbit(
            "sweep", "--upstreams", ",".join(upstreams), "--tasks", tasks, "--scale", "embedded",
            "--paths", tiny_paths_file, "--overrides", tmp_path / "overrides.yaml",
            "--results", tmp_path / "results", *more,
        )  # fmt: skip
        assert "Traceback" not in err
        return status, out, err

    return call


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def named(out, begin):
    """What the lines that begin so say of each upstream."""
    lines = [line.removeprefix(begin) for line in out.splitlines() if line.startswith(begin)]
    return {spec: reason for spec, _, reason in (line.partition(": ") for line in lines)}


# One of each phase: an upstream of its own in processes of its own takes ten seconds.
OF_EACH_PHASE = ("builder_raises", "forward_raises", "forward_raises_for_five", "wrong_rate")


@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        ("stored", tuple(BROKEN)),
        ("live", tuple(BROKEN)),
        ("processes", OF_EACH_PHASE),
        pytest.param("processes", tuple(BROKEN), marks=pytest.mark.slow),
    ],
    ids=["stored", "live", "processes", "processes-all"],
)
def test_each_broken_upstream_fails_its_runs_only(sweep, upstream, store, monkeypatch, way, kinds):
    monkeypatch.setattr(supply, "_SECONDS_WORTH_PROCESSES", 0)
    broken = {upstream(name, **BROKEN[name][0]): BROKEN[name][1] for name in kinds}
    # A sweep's upstream is frozen: what it does in train mode is nobody's trouble.
    sound = {upstream("sound", before=f"if self.training: {RAISES}"), "fbank"}
    if way == "processes":
        broken[upstream("dies", **DIES)] = (
            "the process died running: some code in it ended Python, with status 9"
        )
    status, out, err = sweep([*broken, *sound], *WAYS[way])
    assert status == 1, out + err
    records = {record.identity.upstream: record for record in store.read_all()}
    assert {spec for spec, record in records.items() if record.status == "done"} == sound
    assert set(records) == sound | set(broken)
    failed = named(out, "failed: IC × ")
    assert set(failed) == set(broken)
    for spec, said in broken.items():
        assert said in records[spec].reason
        assert failed[spec] == records[spec].reason
        if CONTRACT in said:
            assert f"'superbit check {spec}' tells more" in failed[spec]


@pytest.mark.parametrize("way", ["stored", "live"])
def test_a_dry_run_names_them_and_writes_nothing(sweep, upstream, store, way):
    specs = {upstream(name, **pieces): (name, said) for name, (pieces, said) in BROKEN.items()}
    status, out, err = sweep([*specs, "fbank"], "--dry-run", *WAYS[way])
    assert status == 1, out + err
    found = named(out, "would fail: every run of ")
    # Only training or extraction passes so many.
    assert {specs[spec][0] for spec in found} == set(BROKEN) - {"forward_raises_for_five"}
    for spec, reason in found.items():
        name, said = specs[spec]
        assert said.partition(": ")[0] in reason, name
    assert f"{len(specs) + 1} runs: " in out
    assert store.read_all() == []


@pytest.mark.parametrize("way", FAST_WAYS)
def test_what_raises_for_long_audio_only(sweep, upstream, store, way):
    # Of these two only IEMOCAP's has so long ones, and each of its folds has some.
    spec = upstream("long", before=f"if max(map(len, wavs)) > 50_000: {RAISES}")
    status, out, err = sweep([spec, upstream("sound")], *WAYS[way], tasks="ER,IC")
    assert status == 1, out + err
    failed = [record for record in store.read_all() if record.status == "failed"]
    assert [(r.identity.task, r.identity.upstream) for r in failed] == [("ER", spec)] * 5
    assert (
        "the forward pass raised ValueError for a batch of 1 s, 0.05 s, 3.7 s" in failed[0].reason
    )
    assert len(store.read_all()) == 12


def test_an_upstream_that_works_again_leaves_no_failure_behind(sweep, upstream, store, superbit):
    spec, sound = upstream("again", build=RAISES), upstream("sound")
    assert sweep([spec, sound], "--lr", "0.1,0.01")[0] == 1
    failed = [record for record in store.read_all() if record.status == "failed"]
    assert {(r.identity.upstream, r.identity.weights_sha256) for r in failed} == {(spec, UNKNOWN)}
    assert len(failed) == 2
    assert "ValueError: it broke" in failed[0].traceback
    # It is tried anew, in the same records' place.
    status, out, _ = sweep([spec, sound], "--lr", "0.1,0.01")
    assert status == 1
    assert "0 to run, 2 done before, 2 that cannot run" in out
    assert len(store.read_all()) == 4
    assert [search.identity.upstream for search in store.read_searches()] == [sound]

    upstream("again")
    assert sweep([spec, sound], "--lr", "0.1,0.01")[0] == 0
    assert {record.status for record in store.read_all()} == {"done"}
    upstream("again", build=RAISES)
    assert sweep([spec, sound], "--lr", "0.1,0.01")[0] == 1
    upstream("again")
    assert sweep([spec, sound], "--lr", "0.1,0.01")[0] == 0
    assert {record.status for record in store.read_all()} == {"done"}
    assert "failed" not in superbit("table", "2", "--results", store.root)[1]


def test_where_none_can_be_built_it_is_the_command_lines_mistake(sweep, upstream, store):
    status, _, err = sweep([upstream("one", build=RAISES), upstream("two", build="return 7")])
    assert status == 2
    assert "one.py" in err
    assert "two.py" in err
    assert store.read_all() == []


@pytest.mark.parametrize("wrong", ["fbnk", "gone.py:model", "hf_hubert_custom@gone", "a+b"])
def test_a_name_that_is_wrong_ends_it_before_anything_runs(sweep, upstream, store, wrong):
    status, out, err = sweep([upstream("broken", build=RAISES), wrong, "fbank"])
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert store.read_all() == []


# As on a full disk, in the process of the run only.
FULL_DISK = """
    def full(_):
        raise OSError(28, 'No space left on device')
    if multiprocessing.parent_process():
        os.fsync = full
"""


@pytest.mark.parametrize("way", FAST_WAYS)
def test_a_record_that_cannot_be_written_fails_its_run_only(
    sweep, upstream, store, monkeypatch, way
):
    write, spec = ResultStore.write, upstream("unlucky", build=FULL_DISK)
    sound = upstream("sound")

    def write_but_that(self, record, *items, **more):
        if record.identity.upstream == spec:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, record, *items, **more)

    if way != "processes":
        monkeypatch.setattr(ResultStore, "write", write_but_that)
    status, out, err = sweep([spec, sound], *WAYS[way])
    assert status == 1, out + err
    assert [(r.identity.upstream, r.status) for r in store.read_all()] == [(sound, "done")]
    assert "No space left on device (and no record of it could be stored: " in out


def test_a_cache_that_cannot_be_written_leaves_runs_live(sweep, store, monkeypatch):
    def full(*_):
        raise CacheError("the disk is full: free some space.")

    monkeypatch.setattr(extraction, "write_shard", full)
    status, out, err = sweep(["fbank"])
    assert status == 0, out + err
    assert "features of fbank for IC: what is not stored stays live: the disk is full" in err
    (record,) = store.read_all()
    assert record.provenance.features["stored"] == 0
    assert record.provenance.features["live"] > 0


def test_datasets_that_cannot_be_walked_through_leave_runs_live(sweep, store, monkeypatch):
    def find_demand(task, *_, **__):
        raise KeyError("speaker")

    monkeypatch.setattr(planning, "find_demand", find_demand)
    status, out, err = sweep(["fbank"])
    assert status == 0, out + err
    assert "IC   live: its datasets cannot be walked through: KeyError: 'speaker'" in out


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_upstreams_runs_begin_before_the_next_ones_features(
    sweep, upstream, store, monkeypatch, jobs
):
    extract, start, order = supply.extract, RunsProgress.start, []

    def extracting(waves, *, upstream, **more):
        order.append(f"features {upstream.spec.name.rpartition('/')[2][:1]}")
        return extract(waves, upstream=upstream, **more)

    def starting(self, index):
        order.append(f"run {self._labels[index].rpartition('/')[2][:1]}")
        start(self, index)

    monkeypatch.setattr(supply, "extract", extracting)
    monkeypatch.setattr(RunsProgress, "start", starting)
    status, out, err = sweep([upstream("a"), upstream("b")], "--jobs", jobs, tasks="IC,SID")
    assert status == 0, out + err
    assert order == [
        "features a", "run a", "run a", "features b", "run b", "run b"
    ]  # fmt: skip
    for record in store.read_all():
        assert record.provenance.features["stored"] > record.provenance.features["live"], out + err
