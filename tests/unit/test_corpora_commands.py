"""``superbit corpus make`` and ``corpus check`` as they print."""

import re
import shutil

import pytest
from verbs import run_verb

from superbit.benchmark.corpora import catalog
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.upstreams.errors import InputError

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")


def test_make_says_where_the_paths_file_is(tiny_paths_file, capsys):
    run_verb("corpus make --size tiny", out=tiny_paths_file.parent)
    out = capsys.readouterr().out
    assert f"Paths file: {tiny_paths_file}\n" in out
    assert "size tiny, seed 0" in out


def test_check_prints_counts_beside_superbs_and_the_manifest_hash(
    tiny_paths_file, tmp_path, capsys
):
    assert run_verb("corpus check", paths=tiny_paths_file, results=tmp_path) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "train-clean-100" in line)
    assert re.findall(r"[\d,.]*\d", row.replace("train-clean-100", ""))[:3] == [
        "140",
        "28,539",
        "14",
    ]
    for name in ("librispeech", "speech_commands"):
        sha256 = build_manifest(
            name, load_paths(tiny_paths_file), work_dir=tmp_path / "work"
        ).sha256
        assert f"manifest sha256 {sha256}" in out
    assert "synthesized" in out
    assert "problem" not in out


def test_check_of_broken_corpora_reports_every_fault_and_where_to_get_the_pieces(
    tiny_paths_file, tmp_path, capsys
):
    copy = shutil.copytree(tiny_paths_file.parent, tmp_path / "copy")
    shutil.rmtree(copy / "LibriSpeech/dev-clean")
    clip = next((copy / "speech_commands/test/yes").iterdir())
    clip.write_bytes(clip.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"dev-clean is not there.*2 problems in all"):
        run_verb("corpus check", paths=copy / "paths.yaml", results=tmp_path)
    out = capsys.readouterr().out
    assert f"problem: {copy / 'LibriSpeech/dev-clean'} is not there" in out
    assert f"problem: {clip} is truncated" in out
    assert "https://www.openslr.org/12" in out
    assert "speech_commands_test_set_v0.01.tar.gz" in out


def test_check_names_the_corpora_that_are_not_in_the_file(tiny_paths_file, tmp_path, capsys):
    file = tiny_paths_file.parent.parent / "only.yaml"
    file.write_text(
        f"librispeech:\n  root: {tiny_paths_file.parent}/LibriSpeech\n"
        f"  lexicon: ['{tiny_paths_file.parent}/librispeech-lexicon.txt']\n"
    )
    assert run_verb("corpus check", paths=file, results=tmp_path) == 0
    others = [name for name in catalog.CORPORA if name != "librispeech"]
    assert f"Not in {file}: {', '.join(others)}." in capsys.readouterr().out
