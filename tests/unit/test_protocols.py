"""SUPERB's five ways to a number, on scores worked out by hand."""

import math

import pytest

from superbit.benchmark.records import choose
from superbit.benchmark.scoring.diarization import DiarizationErrors, SettingScore
from superbit.benchmark.tasks.asv import lowest_test_eer
from superbit.benchmark.tasks.best_on_dev import best_on_dev
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.qbe import best_dev_layer
from superbit.benchmark.tasks.sd import lowest_test_der


def test_tasks_of_one_protocol_in_words_have_one_procedure():
    ways = {(task.protocol, type(task.procedure)) for task in TASKS.values()}
    assert len(ways) == len({protocol for protocol, _ in ways}) == 5


def test_the_best_on_dev_is_tested():
    selection = best_on_dev(best_step=200, score=91.5, last_step=300)
    assert (selection.step, selection.selected_on, selection.checkpoint) == (200, "dev", "best")
    assert selection.score == 91.5


def test_the_last_step_is_tested_where_none_was_best():
    selection = best_on_dev(best_step=None, score=None, last_step=300)
    assert (selection.step, selection.selected_on, selection.checkpoint) == (300, None, "last")


def test_asv_takes_the_lowest_test_eer_and_says_so():
    selection = lowest_test_eer({20_000: 9.0, 40_000: 7.5, 60_000: 7.5, 80_000: 8.0})
    assert (selection.step, selection.score, selection.selected_on) == (40_000, 7.5, "test")


def setting(threshold, window, wrong):
    errors = DiarizationErrors(missed=wrong, false_alarm=0.0, confusion=0.0, reference=10.0)
    return SettingScore(threshold=threshold, median_window=window, recordings={"r": errors})


def test_sd_takes_the_lowest_der_of_the_grid_and_says_so():
    head = best_on_dev(best_step=10, score=88.0, last_step=20)
    best, selection = lowest_test_der(
        [setting(0.3, 1, 2.0), setting(0.5, 11, 1.0), setting(0.7, 1, 3.0)], head=head
    )
    assert (best.threshold, best.median_window) == (0.5, 11)
    assert selection.score == pytest.approx(10.0)
    assert (selection.selected_on, selection.step) == ("test", 10)
    assert "threshold 0.5, median filter 11" in selection.rule


def test_qbe_takes_the_best_layer_on_dev():
    layer, selection = best_dev_layer([1.0, 6.0, 6.0, 2.0])
    assert layer == 1
    assert (selection.selected_on, selection.score) == ("dev", 6.0)


def test_the_mean_of_five_folds_and_its_t_interval():
    mean, interval = choose.mean_of_folds([60.0, 62.0, 64.0, 66.0, 68.0])
    assert mean == 64.0
    # Sample standard deviation sqrt(10), standard error sqrt(2), quantile 2.776 (4 degrees).
    assert interval.high - mean == pytest.approx(2.7764451 * math.sqrt(2.0))
    assert mean - interval.low == pytest.approx(interval.high - mean)


def test_four_folds_are_no_mean():
    with pytest.raises(ValueError, match="5 folds, not 4"):
        choose.mean_of_folds([1.0] * 4)
