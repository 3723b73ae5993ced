"""What is trained of the nano encoders, and how long that takes: said before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.variant import nanos

# Updates a second of one thread on a server's core with bfloat16 instructions: (pre-training,
# distillation). Without them it is about half.
PACE = {
    "vanilla_nano": (1.8, 1.1),
    "conformer_nano": (1.7, 1.0),
    "squeeze_nano": (1.8, 1.1),
    "sparseformer_dn_nano": (1.8, 1.1),
    "sparseformer_sw_nano": (1.8, 1.1),
}
UNITS_SECONDS = 40.0  # of fitting units of an hour of speech, and labelling it


@dataclass(frozen=True, kw_only=True)
class NanoRecipe:
    """What fixes the checkpoints, given the speech.

    Attributes:
        seed: the first encoder's; the others' follow. The two sparse ones are of one size, so that
            only their seeds tell them apart.
        clusters: k of the MFCC units of phase 1.
        layer: whose units phase 2 predicts, the middle one as HuBERT's; 0 is the encoder's input.
        layer_clusters: k of those.
        start: of phase 2, ``fresh`` weights as HuBERT's, or those of ``phase1``, which at so few
            updates is far ahead (after 500: masked accuracy 16.6 % against 10.7 %).
        updates_1: of phase 1.
        updates_2: of phase 2.
        updates_twin: of the twin's distillation.
    """

    seed: int = 0
    clusters: int = 100
    layer: int = 2
    layer_clusters: int = 100
    start: str = "phase1"
    updates_1: int = 1000
    updates_2: int = 700
    updates_twin: int = 400

    def seed_of(self, name: str) -> int:
        """Return the seed of one encoder."""
        return self.seed + list(nanos()).index(name)

    def command(self) -> str:
        """Return the command line that says so, without folders."""
        options = [
            f"--{field.name.replace('_', '-')} {getattr(self, field.name)}"
            for field in fields(self)
        ]
        return f"superbit nano {' '.join(options)}"


def parse_encoders(words: str) -> list[str]:
    """Return the nano sizes of a comma-separated list.

    Raises `InputError` for another word.
    """
    names = [word for word in words.split(",") if word]
    for name in names:
        if name not in nanos():
            raise InputError(
                f"{name!r} is no nano encoder; there are {', '.join(nanos())}."
                f"{did_you_mean(name, tuple(nanos()))}"
            )
    return names


def estimated_seconds(name: str, recipe: NanoRecipe) -> float:
    """Return how long one encoder takes on one thread, by `PACE`."""
    pretraining, distillation = PACE[name]
    pretrained = (recipe.updates_1 + recipe.updates_2) / pretraining
    return pretrained + recipe.updates_twin / distillation + UNITS_SECONDS


def estimated_total(names: Sequence[str], recipe: NanoRecipe, *, jobs: int) -> float:
    """Return how many seconds some encoders take, ``jobs`` at a time, the longest first."""
    busy = [0.0] * max(1, jobs)
    for name in longest_first(names, recipe):
        busy[busy.index(min(busy))] += estimated_seconds(name, recipe)
    return UNITS_SECONDS + max(busy)


def plan(names: Sequence[str], recipe: NanoRecipe, jobs: int) -> str:
    """Return what will be done and about how long it takes, ``jobs`` encoders at a time."""
    lines = [
        f"  {name}: {recipe.updates_1} + {recipe.updates_2} updates and {recipe.updates_twin} of "
        f"its twin, about {estimated_seconds(name, recipe) / 60:.0f} minutes"
        for name in longest_first(names, recipe)
    ]
    minutes = estimated_total(names, recipe, jobs=jobs) / 60
    lines.append(
        f"{jobs} at a time, one thread each: about {minutes:.0f} minutes (an estimate, of a "
        "server's cores and an hour of speech, with nothing left from earlier)"
    )
    return "\n".join(lines)


def longest_first(names: Sequence[str], recipe: NanoRecipe) -> list[str]:
    """Return the encoders in the order in which they are begun."""
    return sorted(names, key=lambda name: -estimated_seconds(name, recipe))
