"""The vocabularies that superbit ships: each documented, unchanged, and what it says it is."""

import hashlib
import re
from importlib import resources

import pytest

ASSETS = resources.files("superbit.downstream_configs") / "assets"
# File → sha256, from the table in the README: "| `name` | … | `sha256` |".
DOCUMENTED = dict(
    re.findall(
        r"^\| `([\w.]+)` \|.*\| `([0-9a-f]{64})` \|$",
        (ASSETS / "README.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
)


def test_every_asset_is_in_the_readme():
    on_disk = {file.name for file in ASSETS.iterdir()} - {"README.md"}
    assert on_disk == set(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_asset_is_the_one_in_the_readme(name):
    assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == DOCUMENTED[name]


def test_vocabularies_hold_what_the_readme_says():
    characters = (ASSETS / "character.txt").read_text().splitlines()
    assert characters == [" ", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "'"]
    by_frequency = [line.split(" ")[0] for line in (ASSETS / "characters.dict").open()]
    assert sorted(by_frequency) == sorted(["|", *characters[1:]])
    phones = (ASSETS / "phoneme.txt").read_text().split()
    stressed = {phone[:-1] for phone in phones if phone[-1].isdigit()}
    plain = [phone for phone in phones if not phone[-1].isdigit()]
    # ARPAbet as CMUdict has it: 15 vowels with three stresses, 24 consonants; silence and noise.
    assert plain[:2] == ["SIL", "SPN"]
    assert (len(phones), len(stressed), len(plain) - 2) == (71, 15, 24)
