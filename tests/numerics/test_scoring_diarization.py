"""DER against a millisecond count of our own, md-eval's figures and s3prl's turns."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.benchmark.corpora.rttm import Turn, read_rttm
from superbit.benchmark.scoring.diarization import (
    DiarizationErrors,
    SettingScore,
    diarization_errors,
    lowest,
    recording_items,
    score_settings,
    turns_of_probabilities,
)
from superbit.benchmark.scoring.statistics import ratio_interval
from superbit.upstreams.errors import InputError

pytest.importorskip("pyannote.metrics")


def count_by_milliseconds(reference: list[Turn], hypothesis: list[Turn]) -> list[int]:
    """Missed, false alarm, confusion, reference in ms: every mapping is tried, turns are whole ms.

    Of equal speakers the NIST rule finds min(reference, hypothesis) at each moment; those that
    are not mapped onto each other are confused.
    """
    length = round(1000 * max(turn.end for turn in [*reference, *hypothesis]))

    def activity(turns: list[Turn]) -> np.ndarray:
        rows = []
        for speaker in sorted({turn.speaker for turn in turns}):
            row = np.zeros(length, dtype=int)
            for turn in turns:
                if turn.speaker == speaker:
                    row[round(1000 * turn.start) : round(1000 * turn.end)] = 1
            rows.append(row)
        return np.array(rows).reshape(len(rows), length)

    ref, hyp = activity(reference), activity(hypothesis)
    talking, found = ref.sum(0), hyp.sum(0)
    # pad with silent speakers, so that anybody may stay unmapped
    silent = np.zeros((len(ref), length), dtype=int)
    padded = np.concatenate([hyp, silent])
    correct = max(
        int((ref * padded[list(chosen)]).sum())
        for chosen in permutations(range(len(padded)), len(ref))
    )
    return [
        int(np.maximum(talking - found, 0).sum()),
        int(np.maximum(found - talking, 0).sum()),
        int(np.minimum(talking, found).sum()) - correct,
        int(talking.sum()),
    ]


def as_list(found: DiarizationErrors) -> list[float]:
    return [found.missed, found.false_alarm, found.confusion, found.reference]


A, B, C = "anna", "ben", "cleo"
CASES = {
    "perfect": ([(0, 4, A), (3, 6, B)], [(0, 4, "x"), (3, 6, "y")], [0, 0, 0, 7]),
    "swapped names": ([(0, 4, A), (5, 6, B)], [(0, 4, B), (5, 6, A)], [0, 0, 0, 5]),
    "overlap heard as one": ([(0, 4, A), (2, 6, B)], [(0, 6, "x")], [2, 0, 2, 8]),
    "one speaker missing": ([(0, 4, A), (4, 6, B)], [(0, 4, "x")], [2, 0, 0, 6]),
    "an extra speaker": ([(0, 4, A)], [(0, 4, "x"), (1, 3, "y")], [0, 2, 0, 4]),
    "third speaker unmapped": (
        [(0, 4, A), (4, 8, B), (8, 9, C)], [(0, 4, "x"), (4, 9, "y")], [0, 0, 1, 9],
    ),
    "nothing found": ([(1, 2, A), (1.5, 3, B)], [], [2.5, 0, 0, 2.5]),
    "nobody talks": ([], [(1, 2, "x"), (1, 3, "y")], [0, 3, 0, 0]),
    "beyond both ends": ([(2, 3, A)], [(0, 6, "x")], [0, 5, 0, 1]),
    "one speaker's turns overlap": ([(0, 3, A), (2, 5, A)], [(0, 5, "x")], [0, 0, 0, 5]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_errors_by_hand(name: str) -> None:
    reference, hypothesis, expected = CASES[name]
    sides = [Turn(*turn) for turn in reference], [Turn(*turn) for turn in hypothesis]
    assert as_list(diarization_errors(*sides)) == pytest.approx(expected, abs=1e-9)
    assert count_by_milliseconds(*sides) == [round(1000 * seconds) for seconds in expected]


def turns(speakers: str) -> st.SearchStrategy[list[Turn]]:
    turn = st.builds(
        lambda start, length, speaker: Turn(start / 1000, (start + length) / 1000, speaker),
        st.integers(0, 3000),
        st.integers(1, 2000),
        st.sampled_from(speakers),
    )
    return st.lists(turn, max_size=6)


@settings(max_examples=150, deadline=None)
@given(turns("ab"), turns("abc"))
def test_errors_agree_with_a_count_of_milliseconds(reference: list, hypothesis: list) -> None:
    if not reference and not hypothesis:
        assert as_list(diarization_errors([], [])) == [0, 0, 0, 0]
        return
    found = [1000 * seconds for seconds in as_list(diarization_errors(reference, hypothesis))]
    assert found == pytest.approx(count_by_milliseconds(reference, hypothesis), abs=1e-6)


# mix-a: overlap; mix-b: a third speaker; mix-c: one speaker found as two; mix-d: nothing found
REFERENCE = """\
SPEAKER mix-a 1 0.500 4.000 <NA> <NA> alto <NA> <NA>
SPEAKER mix-a 1 3.250 3.500 <NA> <NA> bass <NA> <NA>
SPEAKER mix-a 1 7.125 1.375 <NA> <NA> alto <NA> <NA>
SPEAKER mix-b 1 0.000 2.500 <NA> <NA> alto <NA> <NA>
SPEAKER mix-b 1 2.000 2.500 <NA> <NA> bass <NA> <NA>
SPEAKER mix-b 1 4.100 1.900 <NA> <NA> tenor <NA> <NA>
SPEAKER mix-c 1 1.000 3.000 <NA> <NA> solo <NA> <NA>
SPEAKER mix-d 1 0.250 2.000 <NA> <NA> alto <NA> <NA>
SPEAKER mix-d 1 1.250 2.000 <NA> <NA> bass <NA> <NA>
"""
HYPOTHESIS = """\
SPEAKER mix-a 1 0.200 3.800 <NA> <NA> 1 <NA> <NA>
SPEAKER mix-a 1 3.600 4.900 <NA> <NA> 0 <NA> <NA>
SPEAKER mix-a 1 9.000 0.500 <NA> <NA> 1 <NA> <NA>
SPEAKER mix-b 1 0.100 2.100 <NA> <NA> 0 <NA> <NA>
SPEAKER mix-b 1 2.400 3.200 <NA> <NA> 1 <NA> <NA>
SPEAKER mix-c 1 0.500 2.000 <NA> <NA> 0 <NA> <NA>
SPEAKER mix-c 1 2.000 2.500 <NA> <NA> 1 <NA> <NA>
"""
# NIST's md-eval-22.pl -af -c 0 -u UEM on these two files, each UEM from first to last time:
# missed, false alarm, speaker error, scored speaker time in seconds
MD_EVAL = {
    "mix-a": (0.85, 1.175, 1.375, 8.875),
    "mix-b": (1.6, 0.0, 1.1, 6.9),
    "mix-c": (0.0, 1.5, 1.0, 3.0),
    "mix-d": (4.0, 0.0, 0.0, 4.0),
}
MD_EVAL_OVERALL = 55.32


def test_errors_are_those_of_md_eval(tmp_path) -> None:
    (tmp_path / "ref.rttm").write_text(REFERENCE)
    (tmp_path / "hyp.rttm").write_text(HYPOTHESIS)
    reference, hypothesis = read_rttm(tmp_path / "ref.rttm"), read_rttm(tmp_path / "hyp.rttm")
    found = {
        name: diarization_errors(reference[name], hypothesis.get(name, [])) for name in reference
    }
    for name, expected in MD_EVAL.items():
        assert as_list(found[name]) == pytest.approx(expected, abs=1e-6)
    score = SettingScore(threshold=0.5, median_window=1, recordings=found)
    assert score.der == pytest.approx(MD_EVAL_OVERALL, abs=0.005)


def active_frames(pattern: str) -> np.ndarray:
    return np.array([[int(frame)] for frame in pattern], dtype=np.float32)


def spans(probabilities: np.ndarray, **kwargs) -> list[tuple[float, float]]:
    given_setting = {"threshold": 0.5, "median_window": 1, "frame_shift": 0.02, **kwargs}
    found = turns_of_probabilities(probabilities, **given_setting)
    return [(turn.start, turn.end) for turn in found]


def test_a_frame_is_active_above_the_threshold_and_not_at_it() -> None:
    probabilities = np.array([[0.3], [0.30001], [0.5], [0.29]], dtype=np.float32)
    assert spans(probabilities, threshold=0.3) == [(0.02, 0.06)]
    assert spans(probabilities, threshold=0.5) == []


def test_turns_cover_whole_frames_up_to_both_ends() -> None:
    assert spans(active_frames("1101")) == [(0.0, 0.04), (0.06, 0.08)]
    assert spans(active_frames("0000")) == []
    assert spans(np.zeros((0, 2)), median_window=11) == []


def test_the_median_takes_silence_beyond_both_ends() -> None:
    # 5 of 11 are not a majority, in the middle or at an end; 6 are
    assert spans(active_frames("0" * 9 + "1" * 5 + "0" * 9), median_window=11) == []
    assert spans(active_frames("1" * 5 + "0" * 9), median_window=11) == []
    assert spans(active_frames("1" * 6 + "0" * 9), median_window=11) == [(0.0, 0.12)]
    assert spans(active_frames("0" * 9 + "1" * 6), median_window=11) == [(0.18, 0.3)]
    # a hole of five in the middle is filled
    assert spans(active_frames("1" * 12 + "0" * 5 + "1" * 12), median_window=11) == [(0.0, 0.58)]


def test_each_speaker_is_filtered_alone() -> None:
    two = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    found = turns_of_probabilities(two, threshold=0.5, median_window=3, frame_shift=1.0)
    assert found == [Turn(1.0, 2.0, "0"), Turn(3.0, 4.0, "0"), Turn(2.0, 3.0, "1")]


def test_start_and_duration_are_rounded_to_a_hundredth_of_a_second_each() -> None:
    # 213 samples: frame 3 starts at 0.0399375, four frames are 0.05325 long
    frames = active_frames("0001111")
    assert spans(frames, frame_shift=213 / 16000) == [(0.04, 0.04 + 0.05)]
    # 160 samples a frame and 320 are exact
    assert spans(frames, frame_shift=160 / 16000) == [(0.03, 0.07)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=11, max_size=60),
    st.sampled_from([1, 3, 11]),
)
def test_turns_give_back_the_majority_of_every_window(frames: list, window: int) -> None:
    active = np.array(frames, dtype=float)
    found = turns_of_probabilities(active, threshold=0.5, median_window=window, frame_shift=0.02)
    drawn = np.zeros(active.shape, dtype=bool)
    for turn in found:
        drawn[round(turn.start / 0.02) : round(turn.end / 0.02), int(turn.speaker)] = True
    half = window // 2
    for frame, speaker in np.ndindex(*active.shape):
        around = active[max(0, frame - half) : frame + half + 1, speaker]
        assert drawn[frame, speaker] == (around.sum() > half)


@pytest.mark.parametrize(
    ("shape", "kwargs"),
    [((4,), {}), ((4, 2), {"median_window": 10}), ((4, 2), {"frame_shift": 0.0})],
)
def test_what_makes_no_turns_is_refused(shape: tuple, kwargs: dict) -> None:
    with pytest.raises(ValueError, match=r"shape|odd|above 0"):
        spans(np.zeros(shape), **kwargs)


def noisy_corpus() -> tuple[dict[str, np.ndarray], dict[str, list[Turn]]]:
    """Return probabilities of 25 frames a second and the turns that they are noisy versions of."""
    rng = np.random.default_rng(5)
    probabilities, reference = {}, {}
    for name in ("one", "two", "three"):
        truth = np.zeros((250, 2))
        truth[20:140, 0] = truth[90:220, 1] = 1
        reference[name] = [Turn(0.8, 5.6, "p"), Turn(3.6, 8.8, "q")]
        noise = rng.normal(0, 0.25, truth.shape)
        probabilities[name] = np.clip(0.25 + 0.45 * truth + noise, 0, 1)
    return probabilities, reference


def test_ten_settings_are_scored_and_the_lowest_is_reported() -> None:
    probabilities, reference = noisy_corpus()
    scores = score_settings(probabilities, reference, frame_shift=0.04)
    assert [(score.median_window, score.threshold) for score in scores] == [
        (window, threshold) for window in (1, 11) for threshold in (0.3, 0.4, 0.5, 0.6, 0.7)
    ]
    best = lowest(scores)
    assert best.der == min(score.der for score in scores)
    # noise of single frames: the filter mends it, and the truth is at 0.25 and 0.70
    assert (best.median_window, best.threshold) == (11, 0.5)
    items = recording_items(best)
    errors = [
        item["missed_seconds"] + item["false_alarm_seconds"] + item["confusion_seconds"]
        for item in items
    ]
    total = sum(item["reference_seconds"] for item in items)
    assert [item["id"] for item in items] == ["one", "three", "two"]
    assert 100 * sum(errors) / total == pytest.approx(best.der)
    interval = ratio_interval(errors, [item["reference_seconds"] for item in items])
    assert interval.low <= best.der <= interval.high


def test_error_times_are_added_before_they_are_divided() -> None:
    def errors(missed: float, reference: float) -> DiarizationErrors:
        return DiarizationErrors(missed=missed, false_alarm=0.0, confusion=0.0, reference=reference)

    recordings = {"short": errors(1.0, 1.0), "long": errors(0.0, 9.0)}
    score = SettingScore(threshold=0.5, median_window=1, recordings=recordings)
    assert score.der == pytest.approx(10.0)


def test_exchanging_two_recordings_turns_raises_the_error_rate() -> None:
    reference = {"a": [Turn(0, 1, "p"), Turn(1, 2, "q")], "b": [Turn(2, 4, "p"), Turn(3, 4, "q")]}
    probabilities = {"a": np.zeros((100, 2)), "b": np.zeros((100, 2))}
    probabilities["a"][:25, 0] = probabilities["a"][25:50, 1] = 1
    probabilities["b"][50:, 0] = probabilities["b"][75:, 1] = 1
    own = lowest(score_settings(probabilities, reference, frame_shift=0.04)).der
    exchanged = {"a": reference["b"], "b": reference["a"]}
    other = lowest(score_settings(probabilities, exchanged, frame_shift=0.04)).der
    assert own < 10 < 100 < other


def test_both_sides_need_the_same_recordings() -> None:
    turn, frames = [Turn(0, 1, "p")], np.zeros((10, 2))
    with pytest.raises(InputError, match=r"'b'.*same recordings"):
        score_settings({"a": frames, "b": frames}, {"a": turn}, frame_shift=0.02)
    with pytest.raises(InputError, match=r"no predictions.*'b'"):
        score_settings({"a": frames}, {"a": turn, "b": turn}, frame_shift=0.02)
    with pytest.raises(InputError, match="nobody speaks"):
        score_settings({"a": frames}, {"a": []}, frame_shift=0.02)


def test_rttm_comments_and_speaker_info_are_passed_over(tmp_path) -> None:
    file = tmp_path / "some.rttm"
    file.write_text(
        ";; made by hand\n\n"
        "SPKR-INFO rec 1 <NA> <NA> <NA> unknown anna <NA>\n"
        "SPEAKER rec 1   0.50    1.25 <NA> <NA> anna <NA>\n"
    )
    assert read_rttm(file) == {"rec": [Turn(0.5, 1.75, "anna")]}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("SPEAKER rec 1 0.5 1.25 <NA> <NA>", "line 2.*is not 'SPEAKER"),
        ("LEXEME rec 1 0.5 1.25 <NA> <NA> anna <NA>", "line 2.*is not 'SPEAKER"),
        ("SPEAKER rec 1 half 1.25 <NA> <NA> anna <NA>", "line 2.*'half'.*seconds"),
        ("SPEAKER rec 1 -0.5 1.25 <NA> <NA> anna <NA>", "not negative"),
        ("SPEAKER rec 1 0.5 0.00 <NA> <NA> anna <NA>", "above 0"),
        ("SPEAKER rec 1 0.5 nan <NA> <NA> anna <NA>", "above 0"),
    ],
)
def test_a_malformed_rttm_line_is_named(tmp_path, line: str, says: str) -> None:
    file = tmp_path / "some.rttm"
    file.write_text(f"SPEAKER rec 1 0.5 1.25 <NA> <NA> anna <NA>\n{line}\n")
    with pytest.raises(InputError, match=f"some.rttm, {says}" if "line" in says else says):
        read_rttm(file)


def test_an_empty_or_absent_rttm_is_named(tmp_path) -> None:
    (tmp_path / "empty.rttm").write_text("\n")
    with pytest.raises(InputError, match=r"empty.rttm holds no turn"):
        read_rttm(tmp_path / "empty.rttm")
    with pytest.raises(InputError, match=r"absent.rttm cannot be read"):
        read_rttm(tmp_path / "absent.rttm")
