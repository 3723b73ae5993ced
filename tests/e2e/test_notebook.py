"""The notebook runs as its reader runs it, and prints what its text says."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "benchmark" / "notebooks"


def text_of(cell):
    return "".join(str(output.get("data", {}).get("text/plain", "")) for output in cell["outputs"])


def test_it_runs_to_its_end():
    book = nbformat.read(FOLDER / "quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells)  # none is kept: it would grow old
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    _, shapes, errors, costs, runs, table, compared = (
        cell for cell in book.cells if cell["cell_type"] == "code"
    )
    assert text_of(shapes).count("(1, 50, 128)") == 5
    first, *others = eval(text_of(errors))
    assert all(0 < first < error < 1 for error in others)
    assert "bq_vanilla_nano" in text_of(costs)
    assert "KS" in text_of(runs)
    for cell in (table, compared):
        assert "<table" in cell["outputs"][-1]["data"]["text/html"]
