"""``superbit.load``: an upstream, ready to give hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from torch import Tensor, device, nn

    from superbit.upstreams.spec import UpstreamSpec
    from superbit.upstreams.waveforms import Waveform


class Model:
    """An upstream in eval mode, without gradients; `superbit.load` makes it.

    Attributes:
        spec: how superbit names it: ``NAME[@CHECKPOINT][+untrained][+policy=POLICY]``.
        expert: the s3prl-style module: a list of waveforms → ``{"hidden_states": [...]}``.
        samples_per_frame: 320 where a frame stands for 20 ms.
    """

    def __init__(self, spec: str, expert: nn.Module) -> None:
        self.spec = spec
        self.expert = expert
        rates: Any = expert.get_downsample_rates
        self.samples_per_frame: int = rates("hidden_states")

    def hidden_states(self, waveforms: Sequence[Waveform] | Waveform) -> list[Tensor]:
        """Return every hidden state of a batch of utterances.

        Args:
            waveforms: a list of one-dimensional numpy arrays or torch tensors of floats, (samples,)
                at 16 kHz, full scale 1.0, of different lengths; one alone is a batch of one.

        Returns:
            Tensors (batch, frames, dim), all of one shape, on the model's device: of superbit's own
            upstreams the input of the first layer and the output of each. The first
            ``round(samples / samples_per_frame)`` frames of an utterance are its own; behind them,
            up to the batch's longest, is padding.

        Raises:
            InputError: something else than arrays and tensors, or not of one dimension, or not of
                floats.

        >>> import numpy, superbit
        >>> model = superbit.load("vanilla_nano")
        >>> one_second = numpy.zeros(16_000, dtype="float32")
        >>> states = model.hidden_states([one_second, one_second[:8_000]])
        >>> len(states), tuple(states[0].shape)
        (5, (2, 50, 128))
        """
        import torch

        from superbit.upstreams.errors import InputError
        from superbit.upstreams.waveforms import as_tensors

        tensors = as_tensors(waveforms, device=self._device)
        if not tensors:
            raise InputError("there is no waveform; a list of at least one is needed.")
        for index, tensor in enumerate(tensors):
            if tensor.ndim != 1 or not tensor.is_floating_point():
                raise InputError(
                    f"waveform {index} of {len(tensors)} has {tensor.dtype} samples of shape "
                    f"{tuple(tensor.shape)}; floating point of shape (samples,) is needed."
                )
        with torch.no_grad():
            output = self.expert([tensor.to(self._device).float() for tensor in tensors])
        return list(output["hidden_states"])

    def to(self, device: str | device) -> Model:
        """Move the model to ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, and return it."""
        self.expert.to(device)
        return self

    @property
    def _device(self) -> device:
        import torch

        first = next((t.device for t in (*self.expert.parameters(), *self.expert.buffers())), None)
        return torch.device("cpu") if first is None else first

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.expert.parameters())
        return f"<superbit.Model {self.spec}: {count:,} parameters>"


def load(spec: str | os.PathLike[str] | UpstreamSpec) -> Model:
    """Return the upstream that ``spec`` names, in eval mode, without gradients, on the CPU.

    Args:
        spec: ``NAME[@CHECKPOINT][+untrained][+policy=POLICY]``, as every verb takes it; NAME is
            one of ``superbit list upstreams``, a name of s3prl's hub, or
            ``path/to/hubconf.py:function``; a path object or an `UpstreamSpec` says the same.

    Raises:
        InputError: no such upstream (the message names the nearest), or a checkpoint that does not
            fit it.

    >>> import superbit
    >>> superbit.load("bq_vanilla_nano").spec
    'vanilla_nano+policy=w1a1'
    """
    from superbit.messages import in_python

    with in_python():
        from superbit.benchmark.progress import Reporter
        from superbit.upstreams import registry
        from superbit.upstreams.spec import UpstreamSpec, spelled

    with in_python(), Reporter().quiet():
        expert = registry.load(spec)
        found = UpstreamSpec.parse(spelled(spec)).normalized()
    untrained = found.untrained or getattr(expert, "untrained", False) is True
    return Model(str(replace(found, untrained=untrained)), expert)
