"""What encoders cost, as a file: a page of results is made without building any model.

``results/costs.json`` holds what ``superbit profile --format json`` prints of every encoder that
superbit names in a table or a claim, with the parameters of the positional convolution on top:

    python -m superbit.benchmark.report.costs > results/costs.json

A test holds it against the models. Costs of further upstreams come from the same verb:
``superbit profile my.py:model --format json > mine.json``, then
``superbit report --costs mine.json``. With ``--measure`` that file has the times and the memory of
its machine too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

Costs = Mapping[str, Mapping[str, Any]]

# beside honest costs, what claims speak of
_SIZES = ("layers", "dim", "heads", "ffn_dim", "positional_parameters")
NANOS = ("vanilla", "conformer", "squeeze", "sparseformer_dn", "sparseformer_sw")


def read_costs(further: Sequence[Path] = ()) -> Costs:
    """Return each encoder's row by its canonical spec.

    Args:
        further: files of ``superbit profile --format json``; what they say comes first.

    Raises:
        InputError: a file is not what that verb prints.
    """
    packaged = resources.files("superbit.results") / "costs.json"
    found: dict[str, Mapping[str, Any]] = {}
    for file in (packaged, *further):
        for row in _rows(file):
            try:
                spec = str(UpstreamSpec.parse(str(row["spec"])))
            except KeyError:
                raise _unreadable(file, "a row has no spec") from None
            found[spec] = {**found.get(spec, {}), **row}
    return found


def _rows(file: Traversable | Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(file, str(error)) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unreadable(file, "it is no list of rows")
    return rows


def _unreadable(file: Traversable | Path, problem: str) -> InputError:
    return InputError(
        f"costs {file} cannot be used: {problem}; write it with 'superbit profile SPEC --format "
        "json'."
    )


def as_claims_have_them(costs: Costs) -> dict[str, dict[str, object]]:
    """Return rows as `superbit.benchmark.claims` takes our models' figures, by spec as typed."""
    prefix = "honest_"
    return {
        UpstreamSpec.parse(spec).typed: {
            key.removeprefix(prefix): value
            for key, value in row.items()
            if key.startswith(prefix) or key in _SIZES
        }
        for spec, row in costs.items()
    }


def encoders() -> list[str]:
    """Return the specs of the packaged file: what superbit names in a table or a claim."""
    from superbit.benchmark.claims.data import our_models, read_claims
    from superbit.benchmark.paper import TABLE1_SPECS

    nanos = [f"{twin}{name}_nano" for name in NANOS for twin in ("", "bq_")]
    every = [*TABLE1_SPECS, *nanos, "vanilla_nano+untrained", *our_models(read_claims())]
    return list(dict.fromkeys(every))


def make_costs(specs: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the packaged file; takes ten seconds or so for each."""
    from superbit.benchmark.claims.data import our_models, read_claims
    from superbit.benchmark.claims.figures import positional_parameters
    from superbit.benchmark.profiling.table1 import table1_rows

    claimed = our_models(read_claims())
    rows = []
    for spec in specs:
        row: dict[str, Any] = dict(table1_rows(specs=[spec], challenge=True)[0])
        if spec in claimed:
            row["positional_parameters"] = positional_parameters(spec)
        rows.append(row)
    return rows


if __name__ == "__main__":
    json.dump(make_costs(encoders()), sys.stdout, indent=1)
    print()
