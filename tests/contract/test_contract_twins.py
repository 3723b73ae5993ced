"""The 1-bit twin of every nano keeps s3prl's contract, as `superbit check` measures it."""

import pytest

from superbit.upstreams.contract import check_upstream, render_summary
from superbit.upstreams.registry import load, load_upstream

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    "spec",
    [
        "bq_vanilla_nano",
        "bq_conformer_nano",
        "bq_squeeze_nano",
        "bq_sparseformer_dn_nano",
        "bq_sparseformer_sw_nano",
        pytest.param("squeeze_nano+policy=w2a2", marks=pytest.mark.slow),
    ],
)
def test_a_twin_passes_every_rule(spec):
    loaded = load_upstream(spec)
    report = check_upstream(loaded.expert, ours=loaded.entry.ours, build=lambda: load(spec))
    assert report.names("pass") == tuple(r.name for r in report.results), render_summary(report)
