"""Writes ``fingerprints.json``: the hidden states that records without a fingerprint stand for.

``python -m superbit.upstreams.identity.known``, whenever ``OUR_REVISION`` is raised or packaged
weights change. Of superbit's own encoders with and without their weights, and of s3prl's filter
banks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from superbit.upstreams import registry
from superbit.upstreams.identity.further import KNOWN, describe_upstream

FILTER_BANKS = ("fbank", "fbank_no_cmvn", "mfcc", "mel", "linear", "spectrogram")


def specs() -> Iterator[str]:
    """Everything whose records need no fingerprint: the canonical specs, in order."""
    yield from FILTER_BANKS
    ours = [entry.name for entry in registry.entries() if entry.ours]
    spelled = (f"{name}{end}" for name in ours for end in ("", "+untrained"))
    yield from dict.fromkeys(str(registry.UpstreamSpec.parse(text)) for text in spelled)


def main() -> None:
    """Measure all of them; those without packaged weights are there as untrained ones only."""
    found = {}
    for spec in specs():
        loaded = registry.load_upstream(spec)
        described = describe_upstream(loaded.entry, loaded.expert)
        if str(loaded.spec) not in found and described is not None:
            rounded = [[float(f"{figure:.6g}") for figure in state] for state in described]
            found[str(loaded.spec)] = {"revision": loaded.entry.revision, "states": rounded}
            print(loaded.spec, flush=True)
    lines = (f" {json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
