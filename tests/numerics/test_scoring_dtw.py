"""Subsequence warping against dtw-python, every path by hand, and s3prl's match."""

import builtins
import importlib
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import superbit.upstreams  # noqa: F401  (s3prl imports only with its shims)
from superbit.benchmark.scoring import dtw as scoring_dtw
from superbit.benchmark.scoring.dtw import (
    frame_distances,
    score_queries,
    standardize,
    subsequence_distance,
)

# as s3prl calls it for QbE
SETTINGS = {
    "step_pattern": "asymmetric",
    "keep_internals": False,
    "distance_only": False,
    "open_begin": True,
    "open_end": True,
}
matrices = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14),
    elements=st.floats(0, 2, allow_subnormal=False),
)


def shortest_path_by_hand(distances: np.ndarray) -> float:
    """Try every start and every sequence of steps 0, 1, 2."""
    rows, columns = distances.shape
    best = np.inf
    for start in range(columns):
        for steps in product((0, 1, 2), repeat=rows - 1):
            path = start + np.concatenate([[0], np.cumsum(steps)]).astype(int)
            if path[-1] < columns:
                best = min(best, distances[np.arange(rows), path].sum())
    return best / rows


@settings(max_examples=100, deadline=None)
@given(matrices)
def test_the_distance_is_dtw_python_s(distances: np.ndarray) -> None:
    dtw = pytest.importorskip("dtw")
    # one document frame: dtw-python's backtracking needs no steps, its distance is the same
    theirs = dtw.dtw(distances, **{**SETTINGS, "distance_only": True}).normalizedDistance
    assert subsequence_distance(distances) == pytest.approx(theirs, abs=1e-9, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(1, 6)),
        elements=st.floats(0, 2, allow_subnormal=False),
    )
)
def test_the_distance_is_the_best_of_all_paths(distances: np.ndarray) -> None:
    assert subsequence_distance(distances) == pytest.approx(shortest_path_by_hand(distances))


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_cells_and_rows_give_the_same_number(distances: np.ndarray) -> None:
    # what numba compiles, and what stands in for it
    before = distances.copy()
    assert scoring_dtw._warp_cells(distances) == scoring_dtw._warp_rows(distances)
    assert subsequence_distance(distances) * len(distances) == pytest.approx(
        scoring_dtw._warp_rows(distances)
    )
    assert (distances == before).all()


def test_without_numba_the_number_is_the_same(monkeypatch) -> None:
    distances = np.random.default_rng(0).random((20, 50))
    compiled = subsequence_distance(distances)
    for name in [name for name in sys.modules if name.split(".")[0] == "numba"]:
        monkeypatch.delitem(sys.modules, name)
    real_import = builtins.__import__

    def no_numba(name, *args, **kwargs):
        if name.split(".")[0] == "numba":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_numba)
    spec = importlib.util.spec_from_file_location("dtw_without_numba", scoring_dtw.__file__)
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    assert plain._warp is plain._warp_rows
    assert plain.subsequence_distance(distances) == compiled


def test_a_stretch_of_the_document_is_found_at_no_cost() -> None:
    rng = np.random.default_rng(1)
    document = rng.normal(size=(40, 8))
    scores = score_queries(
        {"cut out": document[10:22], "every other": document[5:25:2], "absent": -document[3:15]},
        {"d": document},
    )
    assert scores["cut out"]["d"] == pytest.approx(0, abs=1e-9)
    assert scores["every other"]["d"] == pytest.approx(0, abs=1e-9)
    assert scores["absent"]["d"] < -0.05


def test_a_query_s_own_document_scores_best() -> None:
    rng = np.random.default_rng(2)
    documents = {f"d{i}": rng.normal(size=(60, 16)) for i in range(5)}
    queries = {
        f"q{i}": documents[f"d{i}"][20:35] + rng.normal(0, 0.3, size=(15, 16)) for i in range(5)
    }
    scores = score_queries(queries, documents)
    for i in range(5):
        assert max(scores[f"q{i}"], key=scores[f"q{i}"].get) == f"d{i}"


def test_scores_are_those_of_s3prl_s_match() -> None:
    pytest.importorskip("dtw")
    pytest.importorskip("lxml")
    pytest.importorskip("s3prl")
    from s3prl.downstream.quesst14_dtw.expert import cosine_exp, match

    rng = np.random.default_rng(3)
    lengths = [5, 12, 30]
    queries = {f"q{n}": rng.normal(size=(n, 24)).astype(np.float32) for n in lengths}
    documents = {f"d{n}": rng.normal(size=(n, 24)).astype(np.float32) for n in (8, 40, 90)}
    found = score_queries(queries, documents, threads=2)
    for query, document in product(queries, documents):
        theirs = match(
            queries[query], documents[document], query, document, cosine_exp, True, SETTINGS
        )[2]
        assert found[query][document] == pytest.approx(theirs, abs=1e-9)


def test_threads_and_company_do_not_change_a_score() -> None:
    rng = np.random.default_rng(4)
    queries = {f"q{i}": rng.normal(size=(6 + i, 8)) for i in range(4)}
    documents = {f"d{i}": rng.normal(size=(30 + i, 8)) for i in range(4)}
    together = score_queries(queries, documents, threads=3)
    for query, document in product(queries, documents):
        distances = frame_distances(queries[query], documents[document])
        assert together[query][document] == pytest.approx(
            -subsequence_distance(distances), abs=1e-12
        )


def test_frame_distances_are_exp_of_cosine_scaled_by_query_frame() -> None:
    query = np.array([[1.0, 0.0]])
    document = np.array([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    # cosine distances 0, 1, 2
    assert frame_distances(query, document)[0].tolist() == pytest.approx(
        [0.0, (np.e - 1) / (np.e**2 - 1), 1.0]
    )


def test_short_queries_score_zero_everywhere() -> None:
    rng = np.random.default_rng(5)
    documents = {"d": rng.normal(size=(20, 4)), "e": rng.normal(size=(20, 4))}
    scores = score_queries({"four": rng.normal(size=(4, 4))}, documents)
    assert scores == {"four": {"d": 0.0, "e": 0.0}}
    both = score_queries({"four": np.ones((4, 4)), "five": rng.normal(size=(5, 4))}, documents)
    assert both["four"] == {"d": 0.0, "e": 0.0}
    assert both["five"]["d"] < 0


def test_features_are_standardized_over_queries_and_documents() -> None:
    rng = np.random.default_rng(6)
    queries = {"q": (5 + 3 * rng.normal(size=(7, 3))).astype(np.float32)}
    documents = {"d": (1 + 2 * rng.normal(size=(30, 3))).astype(np.float32), "e": np.ones((4, 3))}
    documents["e"] = documents["e"].astype(np.float32)
    ours = standardize(queries, documents)
    everything = np.concatenate([queries["q"], documents["d"], documents["e"]])
    expected = (everything - everything.mean(0)) / everything.std(0, ddof=1)
    found = np.concatenate([ours[0]["q"], ours[1]["d"], ours[1]["e"]])
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.dtype == np.float32


def test_a_constant_dimension_becomes_zero() -> None:
    _, documents = standardize({"q": np.ones((5, 1))}, {"d": np.ones((5, 1))})
    assert documents["d"].ravel().tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("distances", "says"),
    [
        (np.zeros((0, 3)), "shape"),
        (np.zeros(3), "shape"),
        (np.array([[0.0, np.nan]]), "finite"),
    ],
)
def test_distances_without_a_path_are_refused(distances: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        subsequence_distance(distances)


def test_a_frame_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="direction"):
        frame_distances(np.zeros((5, 2)), np.ones((5, 2)))
