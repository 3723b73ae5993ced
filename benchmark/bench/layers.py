"""What each layer of an encoder holds: words and speakers, by a linear probe of every hidden state.

    python -m superbit.benchmark.bench.layers --paths results/local/corpora/paths.yaml \
        --upstreams vanilla_nano,vanilla_nano+untrained [--out FILE]

A logistic regression on the mean over time of one hidden state at a time, standardized, trained on
the training split and scored on the test split: KS's words (without silence, which is drawn at
random) and SID's speakers. State 0 is what enters the first block, so what a state has beyond it,
the blocks have added. Appends a JSON line an upstream to the file, and prints it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from superbit.benchmark.corpora import speech_commands, voxceleb1
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.paths import CorpusPaths, load_paths
from superbit.benchmark.records.provenance import collect
from superbit.upstreams.registry import load_upstream

OUT = Path("results/bench/layers.jsonl")
REGULARIZATION = 0.1  # scikit-learn's C: fixed, not tuned, the same for all
ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Audio files of one split, and the class of each."""

    files: tuple[Path, ...]
    classes: tuple[str, ...]


def words(paths: CorpusPaths) -> tuple[Labelled, Labelled]:
    """KS's training and test files, without silence."""
    section = paths.speech_commands
    assert section is not None
    audio = speech_commands.files(section).audio
    return tuple(  # type: ignore[return-value]
        Labelled(
            files=tuple(file.path for file, name in named),
            classes=tuple(name for _, name in named),
        )
        for named in (
            [(f, speech_commands.class_of(f.path.parent.name)) for f in audio["train"]],
            [
                (f, f.path.parent.name)
                for f in audio["test"]
                if f.path.parent.name != speech_commands.SILENCE
            ],
        )
    )


def speakers(paths: CorpusPaths) -> tuple[Labelled, Labelled]:
    """SID's training and test files."""
    section = paths.voxceleb1
    assert section is not None
    keys = voxceleb1.identification_split(section)
    audio = voxceleb1.files(section).audio
    by_key = {"/".join(f.path.parts[-3:]): f.path for split in audio.values() for f in split}
    return tuple(  # type: ignore[return-value]
        Labelled(
            files=tuple(by_key[key] for key in keys[split]),
            classes=tuple(key.split("/")[0] for key in keys[split]),
        )
        for split in ("train", "test")
    )


def means(upstream: nn.Module, files: Sequence[Path]) -> np.ndarray:
    """Return the mean over time of every hidden state, ``(files, states, dim)``."""
    rows = []
    with torch.inference_mode():
        for file in files:
            wav = torch.from_numpy(read_audio(file)[0])
            states = upstream([wav])["hidden_states"]
            rows.append(torch.stack([state[0].mean(0) for state in states]).numpy())
    return np.stack(rows)


def accuracies(upstream: nn.Module, train: Labelled, test: Labelled) -> list[float]:
    """Return the probe's test accuracy of every hidden state, in %."""
    of_train, of_test = means(upstream, train.files), means(upstream, test.files)
    found = []
    for state in range(of_train.shape[1]):
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=ITERATIONS)
        )
        probe.fit(of_train[:, state], train.classes)
        found.append(round(100 * probe.score(of_test[:, state], test.classes), 2))
    return found


def main() -> None:
    """Probe the upstreams that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--upstreams", required=True, metavar="SPEC,…")
    parser.add_argument("--paths", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    paths = load_paths(arguments.paths)
    splits = {"KS": words(paths), "SID": speakers(paths)}
    about = collect()
    for spec in arguments.upstreams.split(","):
        loaded = load_upstream(spec)
        upstream = loaded.expert.eval()
        line = {
            "bench": "layers",
            "upstream": str(loaded.spec),
            "weights_sha256": loaded.weights_sha256,
            "items": {task: [len(part.files) for part in both] for task, both in splits.items()},
            "accuracy": {task: accuracies(upstream, *both) for task, both in splits.items()},
            "machine": f"{about.cpu}, {about.cpu_count} processors",
            "commit": about.commit,
            "dirty": about.dirty,
            "date": datetime.date.today().isoformat(),
            "command": f"python {shlex.join(sys.argv)}",
        }
        text = json.dumps(line)
        print(text, flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
