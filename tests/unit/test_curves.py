"""`superbit curves`: which lines of a training's log are drawn, and what is no log."""

import json

import pytest

from superbit.benchmark.cli import main
from superbit.upstreams.errors import InputError
from superbit.upstreams.training.curves import read_curves


def write_log(folder, lines):
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def line(event, update, loss, **more):
    return {"event": event, "update": update, "masked_loss": loss, "masked_accuracy": 0.1, **more}


def test_after_a_stop_the_later_line_of_an_update_counts(tmp_path):
    run = write_log(
        tmp_path / "vanilla_nano" / "twin" / "w1a1",
        [
            {"event": "start"},
            line("update", 50, 4.0),
            line("update", 100, 3.9),
            line("update", 50, 3.5),
            line("held_out", 50, 3.4, chance_loss=4.6),
        ],
    )
    (curve,) = read_curves([run])
    assert (curve.name, curve.kind) == ("vanilla_nano", "w1a1")
    assert [(p["update"], p["masked_loss"]) for p in curve.training] == [(50, 3.5), (100, 3.9)]
    assert [p["masked_loss"] for p in curve.held_out] == [3.4]


def test_the_figure_is_a_png(tmp_path, capsys):
    runs = [
        write_log(tmp_path / name / "phase1", [line("update", u, 4.0 - u / 100) for u in (1, 2)])
        for name in ("one", "two")
    ]
    out = tmp_path / "curves.png"
    assert main(["curves", *map(str, runs), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"2 runs: {out}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "is not there"),
        ('{"event": "update"', "is damaged"),
        ('{"event": "start"}', "holds no masked loss"),
    ],
)
def test_what_is_no_log(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_curves([tmp_path])
