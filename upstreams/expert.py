"""The one s3prl upstream of this package: waveforms in, hidden states out, for every encoder.

Reference: s3prl 0.4.18, ``s3prl/upstream/interfaces.py``.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from superbit.upstreams import checkpoint, s3prl_compat
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import NAMED_SIZES

s3prl_compat.apply()

from s3prl.upstream.interfaces import UpstreamBase  # noqa: E402  (needs the shims in place)


class UpstreamExpert(UpstreamBase):
    """What s3prl's runners, featurizers and tasks hold of a model.

    Attributes:
        model: the encoder; its ``config`` has the sizes.
        name: the named size it was asked for by, or its encoder's kind.
        untrained: the weights are random; every record and table says so.
        batch_invariant: an utterance's hidden states do not depend on its batch.
    """

    def __init__(self, model: Hubert, *, untrained: bool, name: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.name = name or model.config.encoder
        self.untrained = untrained
        self.batch_invariant = model.config.padding == "independent"

    def get_downsample_rates(self, key: str) -> int:
        """Return the samples a frame, the same for every hidden state (320)."""
        return self.model.config.hop

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor] | Tensor]:
        """Return the hidden states of 1-D waveforms at 16 kHz, which s3prl gives unnormalised.

        ``hidden_states`` holds layers + 1 tensors (batch, frames, dim); ``last_hidden_state``, the
        name under which s3prl offers the encoder's output alone (its option ``-s``), is the last.

        Raises `InputError` as `Hubert.forward` does.
        """
        states = self.model(wavs)
        return {"hidden_states": states, "last_hidden_state": states[-1]}


def build(
    name: str,
    *,
    ckpt: str | Path | None = None,
    untrained: bool = False,
    policy: str | None = None,
) -> UpstreamExpert:
    """Return the expert of a named size.

    Args:
        name: one of `NAMED_SIZES`.
        ckpt: a checkpoint directory; its sizes and front end apply, its encoder kind must be the
            name's. Without it, weights packaged with superbit if there are any; else the weights
            are random from a fixed seed, the expert is marked untrained, and the global random
            generator is left as it was.
        untrained: random weights even where packaged ones exist.
        policy: how to binarize the model; there is no such policy yet.

    Raises:
        InputError: an unknown name or policy, both ``ckpt`` and ``untrained``, or a checkpoint
            that does not load.
    """
    if name not in NAMED_SIZES:
        raise InputError(
            f"{name!r} is no encoder of superbit; there are {', '.join(NAMED_SIZES)}."
            f"{did_you_mean(name, set(NAMED_SIZES))}"
        )
    if policy is not None:
        raise InputError(f"no binarization policy called {policy!r} is known for {name!r}.")
    if untrained:
        if ckpt is not None:
            raise InputError(f"{name!r} cannot both be untrained and have the weights of {ckpt}.")
    elif ckpt is None:
        ckpt = packaged_checkpoint(name)
    if ckpt is None:
        model = untrained_model(NAMED_SIZES[name])
    else:
        model = checkpoint.load(ckpt, name=name).model
    return UpstreamExpert(model, untrained=ckpt is None, name=name)


def packaged_checkpoint(name: str) -> Path | None:
    """Return the checkpoint directory that superbit brings for ``name``, None if there is none.

    It lies in the folder of the variant that the name belongs to: ``<variant>/<name>/``.
    """
    found = sorted(Path(__file__).parent.glob(f"*/{name}/{checkpoint.WEIGHTS_FILE}"))
    return found[0].parent if found else None
