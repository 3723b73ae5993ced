"""The paths file: what is read from it, and what is said of a bad one."""

import pytest

from superbit.benchmark.corpora.paths import CorpusPaths, load_paths
from superbit.upstreams.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for name in ("libri", "commands/train", "commands/test"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "words.txt").write_text("A AH0\n")
    return tmp_path


LIBRI = "librispeech:\n  root: libri\n  lexicon: [words.txt]\n"
COMMANDS = "speech_commands:\n  root: commands/train\n  test_root: commands/test\n"


def load(folder, text):
    file = folder / "paths.yaml"
    file.write_text(text)
    return load_paths(file)


def refused(folder, text):
    with pytest.raises(InputError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert str(folder / "paths.yaml") in message
    assert "\n" not in message
    return message


def test_relative_paths_are_relative_to_the_file(folder, monkeypatch):
    monkeypatch.chdir("/")
    paths = load(folder, LIBRI + COMMANDS)
    assert paths.librispeech.root == folder / "libri"
    assert paths.librispeech.lexicon == (folder / "words.txt",)
    assert paths.speech_commands.test_root == folder / "commands/test"
    assert paths.present == ("librispeech", "speech_commands")


def test_file_given_relatively(folder, monkeypatch):
    (folder / "paths.yaml").write_text(LIBRI)
    monkeypatch.chdir(folder)
    assert load_paths("paths.yaml").librispeech.root == folder / "libri"


def test_absolute_paths_and_parents(folder):
    text = f"librispeech:\n  root: {folder}/libri\n  lexicon: [libri/../words.txt]\n"
    assert load(folder, text).librispeech.lexicon == (folder / "words.txt",)


def test_the_result_cannot_be_changed(folder):
    paths = load(folder, LIBRI)
    with pytest.raises(ValueError, match="frozen"):
        paths.librispeech.root = folder


def test_absent_corpus(folder):
    paths = load(folder, LIBRI)
    assert paths.present == ("librispeech",)
    with pytest.raises(InputError, match=r"paths.yaml has no section 'speech_commands'"):
        paths.section("speech_commands")
    with pytest.raises(InputError, match="Did you mean 'librispeech'"):
        paths.section("libri_speech")


def test_unknown_section_names_the_nearest(folder):
    message = refused(folder, LIBRI.replace("librispeech", "libri_speech"))
    assert "'libri_speech'" in message
    assert "Did you mean 'librispeech'?" in message


def test_unknown_key_names_the_nearest(folder):
    message = refused(folder, COMMANDS.replace("test_root", "testroot"))
    assert "unknown key 'speech_commands.testroot'" in message
    assert "Did you mean 'test_root'?" in message
    message = refused(folder, COMMANDS + "  tets_root: commands/test\n")
    assert "unknown key 'speech_commands.tets_root'" in message
    assert "Did you mean 'test_root'?" in message


def test_missing_key_says_what_it_should_be(folder):
    message = refused(folder, "librispeech:\n  root: libri\n")
    assert "'librispeech.lexicon' is missing" in message
    assert "WORD PH ON EMES" in message


def test_empty_section(folder):
    assert "'librispeech.root' is missing" in refused(folder, "librispeech:\n")


@pytest.mark.parametrize("lexicon", ["words.txt", "[]", "[1]", "null"])
def test_lexicon_that_is_not_a_list_of_files(folder, lexicon):
    message = refused(folder, f"librispeech:\n  root: libri\n  lexicon: {lexicon}\n")
    assert "'librispeech.lexicon'" in message
    assert "a list of text files" in message


@pytest.mark.parametrize(
    ("wrong", "key", "kind"),
    [
        ("root: nowhere", "librispeech.root", "no folder"),
        ("root: words.txt", "librispeech.root", "no folder"),
        ("lexicon: [words.txt, nowhere.txt]", "librispeech.lexicon", "no file"),
        ("lexicon: [libri]", "librispeech.lexicon", "no file"),
    ],
)
def test_wrong_path_names_key_path_and_what_should_be_there(folder, wrong, key, kind):
    name = wrong.split(":")[0]
    lines = [wrong if line.strip().startswith(name) else line for line in LIBRI.splitlines()]
    text = "\n".join(line if line == lines[0] else "  " + line.strip() for line in lines)
    message = refused(folder, text)
    assert f"'{key}' names {folder}" in message
    assert kind in message
    assert "it should be" in message


def test_section_that_is_not_a_mapping(folder):
    assert "'librispeech' should be a mapping" in refused(folder, "librispeech: libri\n")


def test_files_that_are_no_paths_file(folder):
    assert "YAML mapping" in refused(folder, "- a\n- b\n")
    assert "names no corpus" in refused(folder, "")
    assert "not valid YAML at line 3" in refused(folder, "librispeech:\n  root: [libri\n")
    with pytest.raises(InputError, match=r"none.yaml is not there"):
        load_paths(folder / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_paths(folder)


def test_every_section_of_the_schema_has_descriptions_for_its_errors():
    for name, field in CorpusPaths.model_fields.items():
        section = field.annotation.__args__[0]
        for key, value in section.model_fields.items():
            assert value.description, f"{name}.{key}"


# --- what corpora are called -----------------------------------------------------------------


def test_a_name_at_the_top_is_that_of_every_corpus_without_its_own(folder):
    assert load(folder, LIBRI + COMMANDS).label("librispeech") is None
    paths = load(folder, "name: asterisk-en\n" + LIBRI + COMMANDS + "  name: ' words & more '\n")
    assert paths.label("librispeech") == "asterisk-en"
    assert paths.label("speech_commands") == "words & more"
    assert paths.label("voxceleb1") is None
    assert paths.present == ("librispeech", "speech_commands")
    assert paths.librispeech == load(folder, LIBRI).librispeech


@pytest.mark.parametrize("name", ["", "3", "[a]", "'  '", '"a\\nb"', "x" * 61])
@pytest.mark.parametrize("key", ["name", "librispeech.name"])
def test_a_name_that_is_none_is_refused(folder, name, key):
    top, own = (f"name: {name}\n", "") if key == "name" else ("", f"  name: {name}\n")
    message = refused(folder, top + LIBRI + own)
    assert f"'{key}'" in message
    assert "what the corpus is called" in message


def test_a_mistyped_name_is_an_unknown_key(folder):
    assert "Did you mean 'name'?" in refused(folder, LIBRI + "  nam: x\n")
    assert "names no corpus" in refused(folder, "name: x\n")


def test_names_survive_the_way_to_another_process(folder):
    import pickle

    paths = load(folder, "name: asterisk-en\n" + LIBRI)
    assert pickle.loads(pickle.dumps(paths)).label("librispeech") == "asterisk-en"
