"""Chance: what an answer that is the same for every item reaches, and values that are no better."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from superbit.benchmark.records.choose import merge_folds
from superbit.benchmark.records.schema import Chance, Corpus, Interval, RunIdentity, RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.scoring import chance, diarization
from superbit.benchmark.scoring.diarization import Turn
from superbit.benchmark.scoring.slots import slot_items, slot_type_f1
from superbit.benchmark.scoring.term_detection import (
    collect_trials,
    maximum_term_weighted_value,
    term_weighted_value,
)
from superbit.benchmark.scoring.verification import equal_error_rate
from superbit.benchmark.tasks.catalog import TASKS

EMBEDDED = Path(__file__).parents[2] / "results" / "embedded"
LABELS = ["up", "down", "up", "left", "up", "down", "right"]
TRANSCRIPTS = ["A B C", "B C", "D B", "A", "C A D"]
SLOTS = [
    "play B-artist x E-artist",
    "B-city y E-city in B-artist x E-artist",
    "B-city y E-city",
    "nothing here",
    "B-party z E-party B-city y E-city",
]


def record(task, value, *, low=None, high=None, level=None, fold=None):
    identity = RunIdentity(
        upstream="fbank",
        weights_sha256="5d" * 32,
        upstream_revision="1",
        task=task,
        task_revision=1,
        config={"scale": "embedded"},
        corpus_sha256="0a" * 32,
        learning_rate=1e-3,
        seed=1337,
        fold=fold,
    )
    return RunRecord(
        key=identity.key,
        status="done",
        identity=identity,
        scale="embedded",
        limited=False,
        untrained=False,
        value=value,
        interval=None if low is None else Interval(low=low, high=high, level=0.95, method="m"),
        chance=None if level is None else Chance(value=level, method="m"),
        corpus=Corpus(name="c", kind="real", sha256="0a" * 32),
    )


# --- the level, against an independent way to it ----------------------------------------------


@pytest.mark.parametrize("task", ["KS", "SID", "IC", "ER"])
def test_of_labels_it_is_the_best_of_all_constant_answers(task):
    items = [{"reference": label, "correct": False} for label in LABELS]
    best = max(np.mean([label == said for label in LABELS]) for said in set(LABELS))
    assert chance.of_items(TASKS[task], items).value == pytest.approx(100 * best)


@pytest.mark.parametrize("task", ["PR", "ASR"])
@pytest.mark.parametrize("texts", [TRANSCRIPTS, ["A A", "B B"], ["", "A"], ["", "", "B C"]])
def test_of_transcripts_it_is_the_best_of_no_token_and_one(task, texts):
    import jiwer

    tokens = {token for text in texts for token in text.split()}
    rates = []
    for said in ["", *tokens]:
        found = [jiwer.process_words([text or " "], [said or " "]) for text in texts if text]
        errors = sum(f.substitutions + f.deletions + f.insertions for f in found)
        errors += sum(len(said.split()) for text in texts if not text)
        rates.append(100 * errors / sum(len(text.split()) for text in texts))
    found = chance.of_items(TASKS[task], [{"reference": text} for text in texts])
    assert found.value == pytest.approx(min(rates))


@pytest.mark.parametrize("texts", [SLOTS, SLOTS[:3], ["none", "of", SLOTS[0]], SLOTS[4:]])
def test_of_slots_it_is_the_best_of_all_fixed_sets(texts):
    names = ["artist", "city", "party"]
    best = 0.0
    for count in range(len(names) + 1):
        for chosen in itertools.combinations(names, count):
            said = " ".join(f"B-{name} v E-{name}" for name in chosen)
            items = slot_items(texts, texts, [said] * len(texts))
            best = max(best, slot_type_f1(items))
    found = chance.of_items(TASKS["SF"], slot_items(texts, texts, texts))
    assert found.value == pytest.approx(best)


def test_of_trials_it_is_what_one_score_for_all_gives():
    found = chance.of_items(TASKS["ASV"], [])
    assert found.value == equal_error_rate([0, 1, 0, 0, 1], [0.3] * 5).percent == 50.0


def test_of_queries_it_is_what_one_score_for_all_gives():
    documents = ["a", "b", "c", "d"]
    scores = {"q": dict.fromkeys(documents, 1.0), "r": dict.fromkeys(documents, 1.0)}
    trials = collect_trials(scores, {"q": {"a"}, "r": {"b", "c"}}, documents=documents)
    assert term_weighted_value(trials, 1.0) < 0  # everything detected
    found = chance.of_items(TASKS["QbE"], [])
    assert found.value == 100 * maximum_term_weighted_value(trials).value == 0.0


def test_of_diarization_it_is_the_best_constant_activity_counted_by_hand():
    # ten seconds: one talks for 8, the other for 6 of which 5 overlap; 1 s is silent
    reference = {"r": [Turn(0.0, 8.0, "a"), Turn(3.0, 9.0, "b")]}
    probabilities = {"r": np.zeros((100, 2))}
    found = diarization.chance(probabilities, reference, frame_shift=0.1)
    nobody = 1.0
    one = (5 + 1 + 1) / 14  # overlap missed, b alone taken for a, silence
    both = (20 - 14) / 14  # 20 s of two speakers for 14
    assert found.value == pytest.approx(100 * min(nobody, one, both))
    silent = {"r": [Turn(0.0, 1.0, "a")]}
    nearly_silent = diarization.chance(probabilities, silent, frame_shift=0.1)
    assert nearly_silent.value == 100.0
    assert "nobody" in nearly_silent.method


def test_every_task_has_a_rule_with_words():
    assert {task.chance for task in TASKS.values()} == set(chance.WORDS)


@pytest.mark.parametrize("items", [[], [{"id": "a", "correct": True}]])
def test_without_references_there_is_no_level(items):
    assert chance.of_items(TASKS["KS"], items) is None


# --- who is no better ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "value", "low", "high", "level", "expected"),
    [
        ("KS", 8.33, 5.8, 11.8, 8.33, True),
        ("KS", 12.0, 9.0, 16.0, 8.33, False),
        ("KS", 3.0, 1.0, 5.0, 8.33, True),  # worse than chance is no better
        ("PR", 95.0, 93.0, 97.0, 96.0, True),
        ("PR", 99.0, 98.0, 99.5, 96.0, True),
        ("PR", 66.0, 64.0, 68.0, 96.0, False),
        ("QbE", 0.0, 0.0, 0.0, 0.0, True),
        ("KS", 8.33, None, None, 8.33, True),
        ("KS", 8.34, None, None, 8.33, False),
        ("KS", 8.33, 5.8, 11.8, None, None),
    ],
)
def test_a_value_whose_interval_holds_chance_or_is_worse_is_not_better(
    task, value, low, high, level, expected
):
    found = chance.at_chance(record(task, value, low=low, high=high, level=level))
    assert found is expected


def test_a_mean_is_at_chance_where_each_of_its_seeds_is():
    low, high = record("KS", 8.0, level=8.33), record("KS", 9.0, level=8.33)
    assert chance.all_at_chance([low, low]) is True
    assert chance.all_at_chance([low, high]) is False
    assert chance.all_at_chance([low, record("KS", 8.0)]) is None
    assert chance.all_at_chance([]) is None


def test_folds_have_the_mean_of_their_levels():
    folds = [record("ER", 25.0, level=20.0 + fold, fold=fold) for fold in range(1, 6)]
    ((mean,), _) = merge_folds(folds)
    assert mean.chance.value == 23.0
    unknown = [record("ER", 25.0, fold=1), *folds[1:]]
    assert merge_folds(unknown)[0][0].chance is None


def test_levels_of_earlier_records_are_read_from_their_items(tmp_path):
    store = ResultStore(tmp_path)
    written = store.write(record("KS", 50.0), [{"reference": x, "correct": False} for x in "aab"])
    (found,) = chance.with_chance([written], store)
    assert found.chance.value == pytest.approx(200 / 3)
    assert store.read_all() == [written]  # no record is touched
    (tmp_path / "KS" / written.items.file).unlink()
    assert chance.with_chance([written], store)[0].chance is None


# --- the committed records -------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    store = ResultStore(EMBEDDED)
    return chance.with_chance(store.read_all(), store)


@pytest.mark.parametrize(
    ("task", "level"), [("KS", 100 / 12), ("SID", 1.0), ("IC", 100 / 15), ("ER", 25.0)]
)
def test_fbank_learned_nothing_from_a_mean_over_time(embedded, task, level):
    of_task = [r for r in embedded if r.identity.task == task]
    assert {round(r.chance.value, 9) for r in of_task} == {round(level, 9)}
    assert chance.all_at_chance([r for r in of_task if r.identity.upstream == "fbank"])
    trained = [r for r in of_task if r.identity.upstream == "vanilla_nano"]
    assert not chance.all_at_chance(trained)


def test_tables_know_chance_without_numpy():
    # the base install has neither torch nor numpy, and prints tables of records
    code = (
        "import sys\n"
        "for name in ('numpy', 'torch', 'scipy', 's3prl'): sys.modules[name] = None\n"
        "from superbit.benchmark.cli import main\n"
        f"sys.exit(main(['table', '2', '--results', {str(EMBEDDED)!r}, '--mean-over-seeds']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("≤chance") > 4
