"""QUESST 2014: queries belong to the documents that hold them, and broken copies are told."""

import csv
import shutil
from functools import partial
from pathlib import Path

import corpus_faults
import numpy as np
import pytest
import soundfile
import torch

import superbit.upstreams
from superbit.benchmark.corpora import catalog, quesst14
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.embedded import quesst14 as embedded
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import CorpusPaths, Quesst14Paths
from superbit.benchmark.scoring.dtw import score_queries, standardize
from superbit.benchmark.scoring.term_detection import (
    collect_trials,
    maximum_term_weighted_value,
)
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat

only_problem = partial(corpus_faults.only_problem, quesst14)

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")

SPLITS = ("dev", "eval")


@pytest.fixture(scope="session")
def section(tiny_paths):
    return tiny_paths.section("quesst14")


@pytest.fixture
def copy(section, tmp_path):
    """A copy that a test may break."""
    root = shutil.copytree(section.root, tmp_path / "quesst14Database")
    return Quesst14Paths(root=root)


def texts_of(section):
    with open(section.root / "texts.csv", newline="") as lines:
        return {Path(row["file"]).stem: row["text"] for row in csv.DictReader(lines)}


def test_layout_and_counts(section):
    report = catalog.find("quesst14").check(section, batch_size=8)
    assert report.problems == ()
    assert [(s.name, s.utterances, s.expected_utterances) for s in report.splits] == [
        ("utterances", 40, 2_438),
        ("dev", 13, 138),
        ("eval", 13, 138),
    ]
    assert report.notes[0] == "dev: 10 of 13 queries of all languages occur in 40 documents"
    files = quesst14.files(section)
    assert len(files.text) == 3 + 2 * 3
    assert files.sample_rate == 16_000
    every = [file for split in files.audio.values() for file in split]
    assert len(every) == sizes.QUESST14["tiny"].files == len(list(section.root.rglob("*.wav")))


@pytest.mark.parametrize("size", sizes.SIZES)
@pytest.mark.parametrize("seed", range(4))
def test_each_present_query_is_in_several_documents_and_no_absent_one_in_any(size, seed):
    plan = sizes.QUESST14[size]
    documents, queries = embedded.draw_texts(plan, np.random.default_rng(seed))
    assert len(documents) == plan.documents >= (40 if size == "tiny" else 80)
    both = queries["dev"] + queries["eval"]
    assert len(set(both)) == len(both)
    for split in SPLITS:
        # Counted word by word, without the code under test.
        counts = [
            sum(
                query.split() == line.split()[i : i + len(query.split())]
                for line in documents
                for i in range(len(line.split()))
            )
            for query in queries[split]
        ]
        wanted = plan.splits[split]
        assert min(counts[: wanted.present]) >= 2
        assert set(counts[wanted.present :]) == {0}
        assert len(counts) == wanted.present + wanted.absent >= (10 if size == "tiny" else 25)
        assert max(counts) < plan.documents / 4


def test_ground_truth_is_what_is_said(section):
    texts = texts_of(section)
    documents = quesst14.documents(section)
    for split in SPLITS:
        truth = quesst14.occurrences(section, split)
        assert set(truth) == set(quesst14.queries(section, split))
        for query, held in truth.items():
            assert held == {d for d in documents if f" {texts[query]} " in f" {texts[d]} "}
        assert quesst14.evaluated_documents(section, split) == set(documents)


def test_voices_of_queries_and_documents_are_disjoint(section):
    with open(section.root / "speakers.csv", newline="") as lines:
        table = list(csv.DictReader(lines))
    assert {row["split"] for row in table} == {"utterances", "dev", "eval"}
    variants = [row["variant"] for row in table]
    assert len(set(variants)) == len(variants)


def test_s3prls_data_set_reads_it_and_agrees(section):
    compat.install()
    dataset_module = pytest.importorskip("s3prl.downstream.quesst14_dtw.dataset")
    for split in SPLITS:
        dataset = dataset_module.QUESST14Dataset(split, dataset_root=str(section.root))
        queries = quesst14.queries(section, split)
        documents = quesst14.documents(section)
        assert (dataset.n_queries, dataset.n_docs) == (len(queries), len(documents))
        assert dataset.data == [*queries.values(), *documents.values()]
        samples, name = dataset[0]
        assert name == next(iter(queries))
        # its chain of effects lowers the level by 3 dB
        np.testing.assert_allclose(
            samples, read_audio(queries[name])[0] * 10 ** (-3 / 20), atol=1e-3
        )


class Search:
    """Queries in documents by DTW on log-mel features."""

    def __init__(self, section, split):
        self.section, self.split = section, split
        self.upstream = superbit.upstreams.load("fbank").eval()
        self.documents = self.features(quesst14.documents(section))
        self.queries = self.features(quesst14.queries(section, split))

    def features(self, files):
        """Every second frame, 20 ms: (frames, 240)."""
        with torch.inference_mode():
            return {
                name: self.upstream([torch.tensor(read_audio(path)[0])])["hidden_states"][0][
                    0
                ].numpy()[::2]
                for name, path in files.items()
            }

    def trials(self, queries):
        scores = score_queries(*standardize(queries, self.documents))
        for of_query in scores.values():
            values = np.array(list(of_query.values()))
            for name, value in of_query.items():
                of_query[name] = float((value - values.mean()) / values.std())
        return collect_trials(
            scores,
            quesst14.occurrences(self.section, self.split),
            documents=quesst14.evaluated_documents(self.section, self.split),
        )


@pytest.fixture(scope="module", params=SPLITS)
def search(request, section):
    return Search(section, request.param)


def margin(trials):
    """Mean score of the trials that hold the query, less that of the others; by query."""
    return {
        query: float(scores[holds].mean() - scores[~holds].mean())
        for query, scores, holds in zip(trials.queries, trials.scores, trials.holds, strict=True)
    }


def test_queries_belong_to_the_documents_that_hold_them(search):
    right = search.trials(search.queries)
    value = maximum_term_weighted_value(right).value
    assert value > 0.1
    # Each query's audio replaced by the next one's: nothing is found.
    present = list(right.queries)
    rotated = dict(zip(present, present[1:] + present[:1], strict=True))
    wrong = search.trials({q: search.queries[rotated.get(q, q)] for q in search.queries})
    assert maximum_term_weighted_value(wrong).value < value / 2
    assert np.mean(list(margin(wrong).values())) < 0.3 < np.mean(list(margin(right).values()))


def test_swapping_the_audio_of_two_queries_lowers_their_scores(search):
    right = search.trials(search.queries)
    before = margin(right)
    value = maximum_term_weighted_value(right).value
    first, second = sorted(before, key=before.get)[-2:]
    swapped = {
        **search.queries,
        first: search.queries[second],
        second: search.queries[first],
    }
    wrong = search.trials(swapped)
    after = margin(wrong)
    assert after[first] < before[first] - 0.5
    assert after[second] < before[second] - 0.5
    assert maximum_term_weighted_value(wrong).value < value


@pytest.mark.parametrize("name", ["utterances", "dev", "eval"])
def test_missing_list(copy, name):
    (copy.root / f"scoring/language_key_{name}.lst").unlink()
    assert f"language_key_{name}.lst is not there" in only_problem(copy)
    with pytest.raises(InputError, match=r"language_key_.*lst is not there"):
        quesst14.files(copy)


def test_list_that_names_an_absent_file(copy):
    (copy.root / "Audio/quesst14_00003.wav").unlink()
    message = only_problem(copy)
    assert "language_key_utterances.lst lists" in message
    assert "Audio/quesst14_00003.wav, which is not there" in message


def test_missing_root(tmp_path):
    problems = quesst14.CORPUS.check(Quesst14Paths(root=tmp_path / "none")).problems
    assert "none is not there: it should be quesst14Database" in problems[0]


def test_line_of_another_form(copy):
    with open(copy.root / "scoring/language_key_dev.lst", "a") as lines:
        lines.write("quesst14_dev_00001.wav\n")
    assert "line 14: 'quesst14_dev_00001.wav' should be '<folder>/Audio/<name>.wav" in only_problem(
        copy
    )


def test_other_languages_are_passed_over(copy):
    source = copy.root / "scoring/language_key_utterances.lst"
    lines = source.read_text().splitlines()
    source.write_text("\n".join([lines[0].replace("nnenglish", "basque"), *lines[1:]]) + "\n")
    assert len(quesst14.documents(copy)) == 39
    # It is a document of the evaluation all the same.
    assert len(quesst14.evaluated_documents(copy, "dev")) == 40
    source.write_text(source.read_text().replace("nnenglish", "czech"))
    assert "lists no file of nnenglish" in only_problem(copy)
    with pytest.raises(InputError, match="lists no file of nnenglish"):
        quesst14.files(copy)


def truth(copy, split, ending):
    [found] = (copy.root / f"scoring/groundtruth_quesst14_{split}").glob(f"*.{ending}")
    return found


def test_missing_ground_truth(copy):
    shutil.rmtree(copy.root / "scoring/groundtruth_quesst14_eval")
    message = only_problem(copy)
    assert "groundtruth_quesst14_eval is not there: it should be the ground truth" in message
    with pytest.raises(InputError, match="it should be the ground truth of eval"):
        quesst14.files(copy)


@pytest.mark.parametrize("ending", ["rttm", "tlist.xml", "ecf.xml"])
def test_missing_file_of_the_ground_truth(copy, ending):
    truth(copy, "dev", ending).unlink()
    assert f"has 0 files *.{ending}: it should have one" in only_problem(copy)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("LEXEME quesst14_00001 1 0 1", "should be 'LEXEME <document> 1 <start>"),
        ("LEXEME quesst14_00001 1 0 1 nobody lex", "names the query 'nobody', which quesst14_dev"),
        (
            "LEXEME nowhere 1 0 1 quesst14_dev_00001 lex",
            "names the document 'nowhere', which quesst14.ecf.xml",
        ),
    ],
)
def test_wrong_line_of_the_ground_truth(copy, line, message):
    with open(truth(copy, "dev", "rttm"), "a") as lines:
        lines.write(line + "\n")
    assert message in only_problem(copy)


def test_ground_truth_that_is_not_xml(copy):
    truth(copy, "dev", "tlist.xml").write_text("<termlist>")
    assert "tlist.xml is not XML" in only_problem(copy)
    truth(copy, "dev", "tlist.xml").write_text("<termlist/>")
    assert 'should have elements <term termid="…">' in only_problem(copy)


def test_query_outside_the_ground_truth(copy):
    shutil.copy(copy.root / "dev_queries/quesst14_dev_00001.wav", copy.root / "dev_queries/x.wav")
    with open(copy.root / "scoring/language_key_dev.lst", "a") as lines:
        lines.write("quesst14Database/dev_queries/x.wav nnenglish\n")
    assert "dev_queries/x.wav is not in the ground truth of dev" in only_problem(copy)


def test_other_lines_of_an_rttm_are_passed_over(copy):
    before = quesst14.occurrences(copy, "dev")
    with open(truth(copy, "dev", "rttm"), "a") as lines:
        lines.write("\n;; note\nSPKR-INFO quesst14_00001 1 <NA> <NA> <NA> adult_male x <NA>\n")
        lines.write("LEXEME quesst14_00001 1 0 1 NO_KEYWORD lex <NA> <NA>\n")
    assert quesst14.occurrences(copy, "dev") == before


def test_the_published_rate_of_8_khz_is_accepted_if_every_file_has_it(copy, tmp_path):
    for path in copy.root.rglob("*.wav"):
        soundfile.write(path, soundfile.read(path)[0][::2], 8_000)
    assert quesst14.CORPUS.check(copy).problems == ()
    manifest = build_manifest("quesst14", CorpusPaths(quesst14=copy), work_dir=tmp_path / "work")
    assert 60 < manifest.seconds < 300
    soundfile.write(copy.root / "Audio/quesst14_00009.wav", np.zeros(16_000), 16_000)
    with pytest.raises(InputError, match=r"00009.wav is sampled at 16,000 Hz; it should be 8,000"):
        build_manifest("quesst14", CorpusPaths(quesst14=copy), work_dir=tmp_path / "work")


def test_unknown_split(section):
    with pytest.raises(InputError, match="has no split 'test': it has dev, eval"):
        quesst14.queries(section, "test")
    with pytest.raises(InputError, match="has no split 'test'"):
        quesst14.occurrences(section, "test")
