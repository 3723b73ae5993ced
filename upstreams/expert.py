"""The one s3prl upstream of this package: waveforms in, hidden states out, for every encoder.

Reference: s3prl 0.4.18, ``s3prl/upstream/interfaces.py``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from superbit.upstreams import checkpoint, packed, variant
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarize_, calibrate
from superbit.upstreams.quantization.policy import Policy, load_policy, policy_names
from superbit.upstreams.s3prl import compat
from superbit.upstreams.spec import TWIN_POLICY, TWIN_PREFIX, is_policy_file
from superbit.upstreams.waveforms import Waveform, as_tensors

compat.apply()

from s3prl.upstream.interfaces import UpstreamBase  # noqa: E402  (needs the shims in place)

CALIBRATION_SAMPLES = 32_000  # of the signal that untrained twins are calibrated on, 2 s


class UpstreamExpert(UpstreamBase):
    """What s3prl's runners, featurizers and tasks hold of a model.

    Attributes:
        model: the encoder; its ``config`` has the sizes.
        name: the named size it was asked for by, or its encoder's kind; a twin's with its policy.
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

    def forward(self, wavs: Sequence[Waveform] | Waveform) -> dict[str, list[Tensor] | Tensor]:
        """Return the hidden states of 1-D waveforms at 16 kHz, which s3prl gives unnormalised.

        They are a list of float tensors or numpy arrays; one alone is a batch of one.
        ``hidden_states`` holds layers + 1 tensors (batch, frames, dim); ``last_hidden_state``, the
        name under which s3prl offers the encoder's output alone (its option ``-s``), is the last.

        Raises `InputError` as `Hubert.forward` and `as_tensors` do.
        """
        states = self.model(as_tensors(wavs))
        return {"hidden_states": states, "last_hidden_state": states[-1]}


def build(
    name: str,
    *,
    size: HubertConfig | None = None,
    ckpt: str | Path | None = None,
    untrained: bool = False,
    policy: str | None = None,
) -> UpstreamExpert:
    """Return the expert of a named size.

    Args:
        name: of the size, one of `variant.sizes` where ``size`` is not given.
        size: what it is.
        ckpt: a checkpoint directory, or the file of a packed twin; its sizes and front end apply,
            its encoder kind must be the name's. Without it, weights packaged with superbit if there
            are any; else the weights are random from a fixed seed, the expert is marked untrained,
            and the global random generator is left as it was.
        untrained: random weights even where packaged ones exist.
        policy: the name of a binarization policy, or the path of its file, for the twin; None for
            full precision. An untrained twin has the FP32 model's weights and is calibrated on a
            fixed signal.

    Raises:
        InputError: an unknown name or policy, both ``ckpt`` and ``untrained``, or a checkpoint
            that does not load, or holds another precision than was asked for.
    """
    size = size or variant.size_of(name)
    wanted = None if policy is None else load_policy(policy)
    if untrained:
        if ckpt is not None:
            raise InputError(f"{name!r} cannot both be untrained and have the weights of {ckpt}.")
    elif ckpt is None:
        ckpt = packaged_checkpoint(name, policy=policy)
    if ckpt is not None:
        read = packed.load if packed.is_packed(ckpt) else checkpoint.load
        found = read(ckpt, name=name, encoder=size.encoder)
        model, untrained = found.model, found.training.get("untrained") is True
        require_policy(model, wanted, asked=_twin_name(name, policy), name=name, ckpt=ckpt)
    else:
        untrained = True
        model = untrained_model(size) if wanted is None else untrained_twin(size, wanted)
    return UpstreamExpert(model, untrained=untrained, name=_twin_name(name, policy))


def untrained_twin(config: HubertConfig, policy: Policy | str) -> Hubert:
    """Return the twin of `untrained_model`, calibrated on a fixed seeded signal.

    In double precision, so that the scales are the same to the bit on any number of threads: in
    single, sums that are ordered otherwise differ, and thresholds make more of it.
    """
    model = binarize_(untrained_model(config).double(), policy)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(CALIBRATION_SAMPLES, generator=generator)
    # rises and falls four times, as syllables in a second or two of speech do
    envelope = torch.sin(torch.linspace(0, 4 * torch.pi, CALIBRATION_SAMPLES)).abs()
    calibrate(model, [0.1 * noise * envelope])
    return model.float()


def _twin_name(name: str, policy: str | None) -> str:
    if policy is None:
        return name
    return f"{TWIN_PREFIX}{name}" if policy == TWIN_POLICY else f"{name}+policy={policy}"


def require_policy(
    model: Hubert, wanted: Policy | None, *, asked: str, name: str, ckpt: str | Path
) -> None:
    """Raise `InputError` unless the model that ``ckpt`` holds is binarized as was asked.

    What counts is what becomes of each module of this model: rules for other kinds of encoder, or
    the same rules written otherwise, make no other twin.

    Args:
        model: what ``ckpt`` holds.
        wanted: the policy that was asked for.
        asked: by what name.
        name: of the FP32 model.
        ckpt: the checkpoint, for messages.
    """
    found = model.policy
    if found is None and wanted is None:
        return
    if found is None:
        raise InputError(
            f"{ckpt} holds an FP32 model, but {asked!r} was asked for, its twin: a twin is "
            f"distilled from it, or {name!r} loads it as it is."
        )
    if wanted is not None:
        kind = model.config.encoder
        with torch.device("meta"):
            plain = Hubert(model.config)
        if found.effect(plain, encoder=kind) == wanted.effect(plain, encoder=kind):
            return
        if found.name == wanted.name:
            whose = "the policy of that name"
            if found.name in policy_names():
                whose = "superbit's policy of that name"
            raise InputError(
                f"{ckpt} holds a twin of policy {found.name!r} with other rules than {whose}, "
                f"which {asked!r} asks for; its config.json has them, under 'policy', and a file "
                f"of them loads it: '{name}+policy=PATH.yaml'."
            )
    if found.name in policy_names():
        way_out = f"{_twin_name(name, found.name)!r} loads it"
    else:
        way_out = f"'{name}+policy=PATH.yaml' loads it, with the file of that policy"
    raise InputError(
        f"{ckpt} holds a twin of policy {found.name!r}, but {asked!r} was asked for; {way_out}."
    )


def packaged_checkpoint(name: str, *, policy: str | None = None) -> Path | None:
    """Return the checkpoint directory that superbit brings for a size, None if there is none.

    It lies in the folder of the variant that the name belongs to: ``<variant>/<name>/``, where a
    twin has its own.

    Args:
        name: of the size; a twin's prefix is understood too.
        policy: of a twin; there are none by files.
    """
    if policy is not None and is_policy_file(policy):
        return None
    folder = _twin_name(name, policy)
    found = sorted(Path(__file__).parent.glob(f"*/{folder}/{checkpoint.WEIGHTS_FILE}"))
    return found[0].parent if found else None
