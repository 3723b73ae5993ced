"""Records as a DataFrame, beside the files that they are of."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from superbit.benchmark.records.frame import COLUMNS, to_frame
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.spec import typed

EMBEDDED = Path(__file__).parents[2] / "results" / "embedded"
OLD = Path(__file__).parent / "data" / "results_v1"


def raw_records(task: str) -> list[dict]:
    with gzip.open(EMBEDDED / f"{task}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["json"] for line in file]


def same(cell: object, said: object) -> bool:
    return pd.isna(cell) if said is None else cell == said


@pytest.mark.parametrize("task", ["ER", "KS", "QbE"])
def test_a_row_says_what_the_record_says(task: str) -> None:
    raw = raw_records(task)[:100]
    frame = to_frame(RunRecord.model_validate(each) for each in raw)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == len(raw)
    for each, row in zip(raw, frame.to_dict("records"), strict=True):
        identity = each["identity"]
        assert row["upstream"] == typed(identity["upstream"])
        for name in ("task", "seed", "learning_rate", "fold"):
            assert same(row[name], identity[name])
        for name in ("key", "value", "scale", "status", "untrained", "limited"):
            assert row[name] == each[name]
        for name in ("low", "high"):
            assert same(row[name], each["interval"] and each["interval"][name])
        assert row["n"] == each["items"]["count"]
        assert pd.isna(row["reason"])
        corpus = each["corpus"]
        assert row["corpus"] == (corpus.get("label") or corpus["version"] or corpus["name"])
        assert row["started"] == each["provenance"]["started"]
    assert set(frame.metric) == {TASKS[task].metric}
    assert set(frame.unit) == {TASKS[task].unit}


def test_a_failed_run_has_a_row_with_its_reason() -> None:
    frame = to_frame(ResultStore(OLD).read_all())
    failed, done = frame.to_dict("records")
    assert (failed["status"], failed["reason"]) == ("failed", "a.wav holds no samples.")
    assert all(pd.isna(failed[name]) for name in ("value", "low", "n"))
    assert (done["value"], done["n"]) == (37.5, 2)


def test_columns_have_their_types_whatever_the_records() -> None:
    for records in ([], ResultStore(OLD).read_all()):
        frame = to_frame(records)
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == COLUMNS
    assert frame.value.mean() == 37.5
    assert list(frame[frame.status == "done"].value) == [37.5]
