"""The upstream spec grammar of the design: parsed in one place, stored canonically."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbit.upstreams import InputError, UpstreamSpec


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("vanilla", "vanilla"),
        ("vanilla_nano+untrained", "vanilla_nano+untrained"),
        ("bq_vanilla", "vanilla+policy=w1a1"),
        ("bq_vanilla+policy=w1a1", "vanilla+policy=w1a1"),
        ("vanilla+policy=w1a2+untrained", "vanilla+untrained+policy=w1a2"),
        ("bq_sparseformer_dn_s@runs/dn/best", "sparseformer_dn_s@runs/dn/best+policy=w1a1"),
        ("path/to/hubconf.py:my_model@weights.pt", "path/to/hubconf.py:my_model@weights.pt"),
        ("a+b/hubconf.py:my_model", "a+b/hubconf.py:my_model"),
        (" vanilla ", "vanilla"),
        ("bq_models/hubconf.py:energies", "bq_models/hubconf.py:energies"),
        ("me@host/hubconf.py:energies@w.pt", "me@host/hubconf.py:energies@w.pt"),
        ("vanilla+policy=w3.yaml+untrained", "vanilla+untrained+policy=w3.yaml"),
        (
            "vanilla@runs/a/last+policy=a+b/me@home/w3.yml",
            "vanilla@runs/a/last+policy=a+b/me@home/w3.yml",
        ),
        ("a+b/hubconf.py:my_model+policy=p/q.yaml", "a+b/hubconf.py:my_model+policy=p/q.yaml"),
    ],
)
def test_canonical_spelling(text, canonical):
    assert str(UpstreamSpec.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("vanilla@", "empty"),
        ("@weights", "empty"),
        ("vanilla+policy=", "empty"),
        ("vanilla+untraind", "'+untraind' is not part of a spec"),
        ("vanilla+untrained+untrained", "twice"),
        ("vanilla@w+untrained", "exclude each other"),
        ("bq_vanilla+policy=w1a2", "write vanilla+policy=w1a2"),
        ("bq_vanilla+policy=p/w3.yaml", "write vanilla+policy=p/w3.yaml"),
        ("vanilla+policy=p/w3", "the path of a file that ends in .yaml"),
        ("vanilla@w+policy=p/w3.json", "the path of a file that ends in .yaml"),
        ("vanilla+policy=a.yaml+policy=b.yaml", "twice"),
    ],
)  # fmt: skip
def test_wrong_specs_say_what_is_wrong(text, said):
    with pytest.raises(InputError, match=said.replace("+", r"\+")):
        UpstreamSpec.parse(text)


@given(
    name=st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(
        lambda n: not n.startswith("bq_")
    ),
    checkpoint=st.none() | st.from_regex(r"[a-z0-9_./-]{1,20}", fullmatch=True),
    policy=st.none()
    | st.from_regex(r"w[0-9]a[0-9]", fullmatch=True)
    | st.from_regex(r"[a-z0-9_./@+=-]{1,20}\.ya?ml", fullmatch=True).filter(
        lambda p: "+policy=" not in p and "+untrained" not in p
    ),
)
def test_canonical_spelling_parses_to_itself(name, checkpoint, policy):
    spec = UpstreamSpec(name=name, checkpoint=checkpoint, policy=policy)
    assert UpstreamSpec.parse(str(spec)) == spec


def test_one_file_has_one_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ["./a/hubconf.py:m@w", "a/b/../hubconf.py:m@./w", f"{tmp_path}/a/hubconf.py:m@w"]
    spellings = {str(UpstreamSpec.parse(text).normalized()) for text in texts}
    assert spellings == {"a/hubconf.py:m@w"}
    policies = ["./a/w3.yaml", "a/b/../w3.yaml", f"{tmp_path}/a/w3.yaml"]
    specs = {str(UpstreamSpec.parse(f"m+policy={p}").normalized()) for p in policies}
    assert specs == {"m+policy=a/w3.yaml"}
    outside = UpstreamSpec.parse("../x/hubconf.py:m").normalized()
    assert str(outside) == f"{tmp_path.parent}/x/hubconf.py:m"


def test_a_policy_is_printed_by_its_name_without_the_folder():
    labels = [UpstreamSpec.parse(f"m+policy={p}").policy_label for p in ("w1a2", "p/q/my_w3.yaml")]
    assert labels == ["W1A2", "MY_W3"]


def test_an_address_is_no_path():
    assert (
        str(UpstreamSpec.parse("hubert_url@https://a/b").normalized()) == "hubert_url@https://a/b"
    )


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("x+policy=w1a1", "bq_x"),
        ("x+untrained+policy=w1a1", "bq_x+untrained"),
        ("x@runs/best+policy=w1a1", "bq_x@runs/best"),
        ("x+policy=w1a2", "x+policy=w1a2"),
        ("x", "x"),
        ("dir/hubconf.py:x+policy=w1a1", "dir/hubconf.py:x+policy=w1a1"),
    ],
)
def test_what_is_typed_means_the_same(text, typed):
    assert UpstreamSpec.parse(text).typed == typed
    assert UpstreamSpec.parse(typed) == UpstreamSpec.parse(text)
