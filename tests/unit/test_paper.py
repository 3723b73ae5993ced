"""The paper's tables as the package holds them: labels, names, digits."""

import pytest

from superbit.benchmark.paper import (
    TABLE1_FIGURES,
    TABLE1_SPECS,
    TEXT_COLUMNS,
    label_of,
    name_of,
    printed_rows,
    table1_figures,
)
from superbit.upstreams import registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec


def test_every_row_is_one_of_superbits_own_upstreams():
    names = [name_of(row["model"]) for row in printed_rows(1)]
    assert names == list(TABLE1_SPECS)
    assert {name_of(row["model"]) for row in printed_rows(2)} == set(names)
    for name in names:
        assert registry.find(UpstreamSpec.parse(name).name).ours


def test_a_label_and_a_name_lead_to_each_other():
    for row in printed_rows(1):
        name = name_of(row["model"])
        plain = name.removeprefix("bq_")
        assert label_of(plain, twin=name != plain) == row["model"]
    assert label_of("vanilla_nano", twin=False) is None
    with pytest.raises(InputError, match="'Sparseformer-XL' is no model of the paper's tables"):
        name_of("Sparseformer-XL")


def test_figures_are_the_digits_in_print_and_what_is_empty_is_left_out():
    assert printed_rows(2)[0]["er_acc"] == "65.00"
    figures = table1_figures()
    assert figures["Vanilla Trans"]["storage_mb"] == 184.42
    assert "bop_bq_g" not in figures["Vanilla Trans"]
    assert figures["BQ-Squeeze-XS"]["nvda_est_time_1e-4s"] == 3.28
    assert {*TABLE1_FIGURES, *TEXT_COLUMNS} - {"source"} <= set(printed_rows(1)[0])
