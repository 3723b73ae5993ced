"""The sweep benchmark's formula, merging and table, and its corpora's lengths."""

import numpy as np
import pytest
import soundfile
import torch

import superbit.upstreams  # noqa: F401  (makes s3prl importable)
from superbit.benchmark.bench import clocks, corpora, formula, noise, report
from superbit.benchmark.bench import sweep as bench

ABOUT = {"task": "KS", "upstream": "vanilla", "machine": "m", "threads": 2, "torch": "2"}


def steps_line(variant, seconds, **others):
    return {
        **ABOUT, "kind": "steps", "variant": variant, "steps": 20, "seconds_a_step": seconds,
        "start": 1.0, **others,
    }  # fmt: skip


def evaluation_line(variant, split, start, each):
    return {
        **ABOUT, "kind": "evaluation", "variant": variant, "split": split, "start": start,
        "seconds_an_utterance": each,
    }  # fmt: skip


def some_lines():
    parts = {"loading": 0.01, "store": 0.02, "upstream": 0.05}
    return [
        steps_line("s3prl", 2.0),
        steps_line("s3prl", 4.0, start=0.5),
        steps_line("s3prl", 3.0),
        steps_line("stored", 0.1, parts=parts),
        evaluation_line("s3prl", "dev", 1.0, 0.5),
        evaluation_line("stored", "dev", 1.0, 0.001),
        {**ABOUT, "kind": "extraction", "seconds_an_hour": 600.0, "layers": 13},
        {**ABOUT, "kind": "profile", "hottest": ["conv1d (torch) 50 %"]},
    ]


def protocol(**changes):
    values = {"steps": 1000, "evaluations": {"dev": (2, 100)}, "stored_hours": 0.5} | changes
    return formula.Protocol(**values)


def merged(lines):
    ((setting, tasks),) = formula.merge(lines).items()
    return setting, tasks


def test_blocks_are_merged_by_their_median():
    setting, tasks = merged(some_lines())
    assert setting == formula.Setting(upstream="vanilla", machine="m", threads=2, torch="2")
    measured = tasks["KS"]
    assert measured.steps == {"s3prl": 3.0, "stored": 0.1}
    assert measured.spread["s3prl"] == (2.0, 4.0)
    assert measured.blocks["s3prl"] == (3, 60)
    assert measured.epochs["s3prl"] == 0.5


def test_lines_of_two_settings_or_tasks_stay_apart():
    lines = [
        steps_line("s3prl", 1.0),
        steps_line("s3prl", 2.0) | {"threads": 1},
        steps_line("s3prl", 3.0) | {"task": "ER"},
    ]
    found = formula.merge(lines)
    assert {setting.threads: sorted(tasks) for setting, tasks in found.items()} == {
        2: ["ER", "KS"],
        1: ["KS"],
    }
    assert sorted(t.steps["s3prl"] for tasks in found.values() for t in tasks.values()) == [1, 2, 3]


def test_the_formula_by_hand():
    measured = merged(some_lines())[1]["KS"]
    # 1,000 steps of 3 s, two evaluations of 1 + 100 × 0.5 s
    assert formula.seconds(measured, protocol(), "s3prl") == pytest.approx(3000 + 2 * 51)
    # half an hour of audio at 600 s, 1,000 steps of 0.1 s, two evaluations of 1 + 100 × 0.001 s
    assert formula.seconds(measured, protocol(), "stored") == pytest.approx(300 + 100 + 2.2)
    # five runs share what is extracted; each starts its loader three times
    five = protocol(runs=5, epochs=3)
    assert formula.seconds(measured, five, "stored") == pytest.approx(300 + 5 * (3 + 100 + 2.2))
    assert formula.seconds(measured, five, "s3prl") == pytest.approx(5 * (1.5 + 3000 + 102))


def test_parts_add_up_and_the_head_is_what_is_left():
    measured = merged(some_lines())[1]["KS"]
    parts = formula.cost_parts(measured, protocol(), "stored")
    assert parts["head"] == pytest.approx(1000 * (0.1 - 0.08))
    assert parts["upstream"] == pytest.approx(50)
    assert sum(parts.values()) == pytest.approx(402.2)
    assert formula.reason(parts).startswith("75 % of our time is computing the features once")


def test_search_has_one_pass_a_layer_with_s3prl_and_one_a_split_with_ours():
    lines = [
        evaluation_line("s3prl", "dev", 2.0, 0.1),
        evaluation_line("stored", "dev", 2.0, 0.01),
        {**ABOUT, "kind": "search", "variant": "s3prl", "seconds_a_pair": 0.004},
        {**ABOUT, "kind": "search", "variant": "stored", "seconds_a_pair": 0.001},
        {**ABOUT, "kind": "extraction", "seconds_an_hour": 600.0, "layers": 13},
    ]
    measured = merged(lines)[1]["KS"]
    qbe = formula.Protocol(steps=0, stored_hours=1.0, layers=13, queries=10, documents=90)
    theirs = 14 * (2 + 100 * 0.1) + 14 * 900 * 0.004
    ours = 600 + 2 * (2 + 100 * 0.01) + 14 * 900 * 0.001
    assert formula.seconds(measured, qbe, "s3prl") == pytest.approx(theirs)
    assert formula.seconds(measured, qbe, "stored") == pytest.approx(ours)


def test_what_is_not_measured_is_not_guessed():
    lines = [line for line in some_lines() if line["kind"] != "extraction"]
    setting, tasks = merged(lines)
    assert formula.seconds(tasks["KS"], protocol(), "stored") is None
    assert formula.seconds(tasks["KS"], protocol(), "live") is None
    text = report.render({setting: tasks}, lambda task, measured: protocol())
    assert "KS: a figure is missing" in text
    assert "misses its goal" not in text


def test_the_table_names_ratio_share_and_reason_of_a_missed_goal():
    text = report.render(formula.merge(some_lines()), lambda task, measured: protocol())
    row = next(line for line in text.splitlines() if line.startswith("| KS"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:6] == ["KS", "3", "", "0.1", "30×", "600"]
    assert cells[6:] == ["0.862", "0.112", "7.71×", "≥ 10×", "10 % of a step"]
    assert "KS misses its goal, 7.71× instead of 10×: 75 % of our time is computing" in text
    assert "conv1d (torch) 50 %" in text
    assert "0.5 h × 600 s/h + 0 × 1 s + 1,000 × 0.1 s + 2 × (1 + 100 × 0.001 s, dev)" in text
    assert "Five rates: not measured" in text


def test_five_rates_are_held_against_five_runs_and_against_one():
    lines = some_lines()
    five = "stored, five rates"
    lines += [steps_line(five, 0.12), evaluation_line(five, "dev", 1.0, 0.001)]
    text = report.render(formula.merge(lines), lambda task, measured: protocol())
    # 5 × 3102 s against 300 + 120 + 2.2 s; one rate takes 402.2 s
    assert "36.7×; 1.05 times the cost of one rate (goal: at most 1.5, held)" in text
    assert "Five rates in all, 1 tasks: 36.7× (goal: ≥ 4×)" in text


def test_a_validation_says_how_far_the_formula_is_off():
    lines = [
        *some_lines(),
        {
            **ABOUT, "kind": "validation", "variant": "stored", "steps": 120, "measured": 10.0,
            "predicted": 9.0,
        },
    ]  # fmt: skip
    text = report.render(formula.merge(lines), lambda task, measured: protocol())
    assert "One real run of KS, stored, 120 steps" in text
    assert "10 s; the formula says 9 s (-10 %)" in text


def test_every_task_has_a_goal():
    from superbit.benchmark.tasks.catalog import TASKS

    assert set(report.GOALS) == set(TASKS)


def test_lengths_have_the_mean_of_superbs_hours():
    for corpus, splits in noise.LENGTHS.items():
        for split, lengths in splits.items():
            drawn = lengths.quantiles(400)
            where = f"{corpus} {split}"
            assert drawn.mean() == pytest.approx(lengths.mean, rel=0.02), where
            assert (drawn >= lengths.shortest).all(), where
            assert (drawn <= lengths.longest).all(), where


def test_two_fifths_of_voxceleb1_are_above_the_crop():
    drawn = noise.LENGTHS["voxceleb1"]["train"].quantiles(1000)
    assert (drawn > 8).mean() == pytest.approx(0.39, abs=0.01)


@pytest.mark.parametrize("task", ["PR", "KS", "SID", "IC", "ER", "SF", "SD", "QbE"])
def test_layouts_are_what_the_checks_want(task, tmp_path):
    from superbit.benchmark.corpora import catalog
    from superbit.benchmark.corpora.paths import load_paths
    from superbit.benchmark.tasks.catalog import TASKS

    corpus = TASKS[task].corpus
    file = corpora.make_corpus(task, tmp_path, train=24, evaluated=12)
    assert catalog.find(corpus).check(load_paths(file).section(corpus)).problems == ()


def test_asv_trims_a_tenth(tmp_path):
    from s3prl.downstream.sv_voxceleb1 import dataset

    sound = noise.speech_like(30 * 16_000, np.random.default_rng(0), pauses=True)
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="PCM_16")
    trimmed = dataset.apply_effects_file(str(tmp_path / "a.wav"), dataset.EFFECTS)[0].shape[-1]
    assert trimmed / len(sound) == pytest.approx(noise.VOICED_SHARE, abs=0.02)


def test_audio_above_the_limit_is_links(tmp_path):
    corpora.make_corpus("IC", tmp_path, train=60, evaluated=8, distinct_seconds=20)
    inodes = {path.stat().st_ino: path for path in tmp_path.rglob("train*/*.wav")}
    assert len(list(tmp_path.rglob("train*/*.wav"))) == 60
    seconds = sum(soundfile.info(path).duration for path in inodes.values())
    assert 15 < seconds <= 20


def test_superbs_numbers_go_into_the_formula():
    measured = formula.Measured(layers=13)
    ks = bench.superb_protocol("KS", measured)
    assert (ks.steps, ks.runs) == (200_000, 1)
    # every 5,000 steps, and test once more in the end
    assert ks.evaluations == {"dev": (40, 6_798), "test": (41, 3_081)}
    assert ks.epochs == pytest.approx(200_000 * 32 / 51_094)
    assert ks.stored_hours == pytest.approx(14.2 + 1.9 + 0.86)
    assert bench.superb_protocol("ER", measured).runs == 5
    # ten checkpoints, no dev; half a batch of 32 is a batch of ASR
    assert bench.superb_protocol("ASV", measured).evaluations == {"test": (10, 4_708)}
    assert bench.superb_protocol("ASR", measured).epochs == pytest.approx(200_000 * 16 / 28_539)
    qbe = bench.superb_protocol("QbE", measured)
    assert (qbe.steps, qbe.layers, qbe.queries, qbe.documents) == (0, 13, 138, 2_438)


def test_a_prediction_is_the_formula_at_the_runs_own_size():
    lines = [*some_lines(), evaluation_line("stored", "test", 0.5, 0.002)]
    line = {
        **ABOUT, "kind": "validation", "variant": "stored", "steps": 40, "measured": 1.0,
        "files": 640, "hours": 0.2, "evaluations": {"dev": [1, 102], "test": [2, 96]},
    }  # fmt: skip
    predicted = bench.with_prediction(line, lines)["predicted"]
    # 40 × 32 draws of 640 files are two epochs
    by_hand = 0.2 * 600 + 2 * 1 + 40 * 0.1 + (1 + 102 * 0.001) + 2 * (0.5 + 96 * 0.002)
    assert predicted == pytest.approx(by_hand)


def test_replacing_forgets_one_task_of_one_setting():
    other_task, other_threads = ABOUT | {"task": "ER"}, ABOUT | {"threads": 1}
    assert bench.without([ABOUT, other_task, other_threads], ABOUT) == [other_task, other_threads]


def test_a_whole_run_is_held_against_one_fold_of_superbs_numbers():
    lines = [
        steps_line("stored", 1.0) | {"start": 0.0},
        *(evaluation_line("stored", split, 0.0, 0.0) for split in ("dev", "test")),
        {**ABOUT, "kind": "extraction", "seconds_an_hour": 100.0, "layers": 13},
    ]
    lines = [line | {"task": "ER"} for line in lines]
    whole = {
        **ABOUT, "task": "ER", "kind": "validation", "variant": "stored", "steps": 30_000,
        "files": 3_548, "hours": 6.9, "evaluations": {"dev": [30, 887], "test": [31, 1_106]},
    }  # fmt: skip
    predicted = bench.with_prediction(whole, lines)["predicted"]
    assert predicted == pytest.approx(30_000 + 6.9 * 100)


@pytest.mark.parametrize("together", [1, 2])
def test_what_passes_together_is_not_taken_for_the_start(monkeypatch, together):
    """Five batches of ten: a second each, and two for what passes together with its neighbour."""
    clock = [0.0]
    monkeypatch.setattr(clocks, "now", lambda: clock[0])

    class Head(torch.nn.Module):
        def forward(self, split, features):
            return features

        def log_records(self):
            return []

    head = Head()

    def evaluate():
        clock[0] += 7.0
        for batch in range(5):
            if together == 2 and batch % 2 == 0:
                clock[0] += 4.0 if batch < 4 else 2.0
            clock[0] += 1.0
            head("dev", [None] * 10)

    found = clocks.time_evaluation("dev", [head], evaluate, together=together)
    assert found.seconds_an_utterance == pytest.approx(0.1 if together == 1 else 0.3)
    assert found.start == pytest.approx(7.0)


def test_steps_are_timed_one_by_one():
    steps = clocks.timed_steps(0.0, [3.0, 4.0, 6.0], 6.5, warm_up=1, steps=2)
    assert steps.single == [1.0, 2.0]
    assert steps.seconds_a_step == 1.5
    assert steps.start == 2.0  # 3 s to the end of a first step of 1.5, and half a second behind
