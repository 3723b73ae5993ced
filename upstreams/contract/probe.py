"""What the rules of the upstream contract look at: waveforms, forward passes, saved state.

Shapes: a waveform is (samples,) at 16 kHz; a hidden state is (batch, frames, dim).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from superbit.upstreams.rng import seed_everything
from superbit.upstreams.sound import SAMPLE_RATE

SHORTEST = 800  # 0.05 s, the shortest input that s3prl.nn passes to an upstream
LENGTHS = (SHORTEST, 4_937, 16_000, 59_201, 320_000)  # samples: 0.05 s to 20 s
# The longest is left out: with padded batches it alone would cost as much as the whole check.
MIXED_LENGTHS = (16_000, SHORTEST, 59_201, 4_937)


class NoHiddenStates(Exception):
    """The forward pass ran, but returned nothing that the rules could look at."""


class ForwardFailed(Exception):
    """The forward pass raised. The message says what, and for which waveforms in which mode."""


def waveform(samples: int) -> Tensor:
    """Noise, (samples,), at about the level of speech (RMS 0.1), seeded by its length."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


def silence(samples: int = SAMPLE_RATE) -> Tensor:
    """All zeros, (samples,)."""
    return torch.zeros(samples)


def square_wave(samples: int = SAMPLE_RATE) -> Tensor:
    """A full-scale square wave of 100 Hz, (samples,): the loudest input a file can hold."""
    return 1.0 - 2.0 * ((torch.arange(samples) // 80) % 2)


def seconds(samples: int) -> str:
    """A length in samples as text in seconds, e.g. ``"0.05 s"``."""
    return f"{samples / SAMPLE_RATE:.3g} s"


def tensors_of(expert: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer, persistent or not."""
    return chain(expert.parameters(), expert.buffers())


@contextmanager
def preserved(expert: nn.Module) -> Iterator[None]:
    """On exit, parameters, buffers, gradients, modes and random states are as they were."""
    # Not a deep copy: a copy of an s3prl upstream with hooks would write into the original's list.
    values = [(tensor, tensor.detach().clone()) for tensor in tensors_of(expert)]
    buffers = [(module, dict(module._buffers)) for module in expert.modules()]
    gradients = [(parameter, parameter.grad) for parameter in expert.parameters()]
    modes = [(module, module.training) for module in expert.modules()]
    random_states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    for parameter, _ in gradients:
        parameter.grad = None  # backward() adds to what is there
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        for module, before in buffers:
            module._buffers.update(before)  # a buffer may have been replaced by a new tensor
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        torch.set_rng_state(random_states[0])
        np.random.set_state(random_states[1])
        random.setstate(random_states[2])


class Probe:
    """An upstream under check. Forward passes that several rules look at run once.

    promises_invariance: one of superbit's own, unless its checkpoint's config says that padding
        leaks (``padding: fairseq``), as it did for weights trained elsewhere
    side_effects: what forward passes changed besides computing, over all of them
    found: the status of every rule measured so far, by name
    """

    def __init__(
        self, expert: nn.Module, *, ours: bool, build: Callable[[], nn.Module] | None
    ) -> None:
        self.expert = expert
        self.ours = ours
        self.promises_invariance = ours and getattr(expert, "batch_invariant", True)
        self.build = build
        self.side_effects: list[str] = []
        self.forward_passes = 0
        self.found: dict[str, str] = {}
        self._alone: dict[int, list[Tensor]] = {}
        self._mixed_output: Any = None
        first = next(tensors_of(expert), None)
        self.device = first.device if first is not None else torch.device("cpu")

    def forward(
        self,
        wavs: Sequence[Tensor],
        *,
        train: bool = False,
        gradients: bool = False,
        expert: nn.Module | None = None,
        seed: int = 0,
    ) -> Any:
        """What ``expert`` (by default the one under check) returns for ``wavs``, as it is.

        Raises ForwardFailed where the forward pass raises.
        """
        expert = self.expert if expert is None else expert
        expert.train(train)
        seed_everything(seed)
        given = [wav.to(self.device, copy=True) for wav in wavs]
        modes = [module.training for module in expert.modules()]
        self.forward_passes += 1
        mode = "train" if train else "eval"
        with torch.set_grad_enabled(gradients):
            try:
                output = expert(given)
            except Exception as error:
                lengths = ", ".join(seconds(len(wav)) for wav in wavs)
                what = (str(error).strip() or "no message").splitlines()[0]
                raise ForwardFailed(
                    f"{type(error).__name__} for a batch of {lengths} in {mode} mode: {what}"
                ) from error
            grad_mode_changed = torch.is_grad_enabled() != gradients
        if grad_mode_changed:
            self._note("gradients were switched on or off for the caller")
        if modes != [module.training for module in expert.modules()]:
            self._note(f"a forward pass in {mode} mode changed the mode")
        if not all(torch.equal(now.cpu(), wav) for now, wav in zip(given, wavs, strict=True)):
            self._note("the waveforms given were changed in place")
        return output

    def states(self, wavs: Sequence[Tensor], **how: Any) -> list[Tensor]:
        """The hidden states for ``wavs``, each (batch, frames, dim).

        Raises NoHiddenStates if the output holds none; ``how`` as in :meth:`forward`.
        """
        return self._states_in(self.forward(wavs, **how))

    @staticmethod
    def _states_in(output: Any) -> list[Tensor]:
        states = output.get("hidden_states") if isinstance(output, dict) else None
        if not isinstance(states, list | tuple) or not states:
            raise NoHiddenStates
        if not all(isinstance(state, Tensor) and state.dim() == 3 for state in states):
            raise NoHiddenStates
        return list(states)

    def alone(self, samples: int) -> list[Tensor]:
        """Hidden states of ``waveform(samples)`` in a batch of one, in eval mode; computed once."""
        if samples not in self._alone:
            self._alone[samples] = self.states([waveform(samples)])
        return self._alone[samples]

    def mixed_output(self) -> Any:
        """What the upstream returns for a batch of ``MIXED_LENGTHS`` in eval mode, once."""
        if self._mixed_output is None:
            self._mixed_output = self.forward([waveform(samples) for samples in MIXED_LENGTHS])
        return self._mixed_output

    def mixed(self) -> list[Tensor]:
        """The hidden states in :meth:`mixed_output`."""
        return self._states_in(self.mixed_output())

    def rate(self) -> Any:
        """The declared downsample rate, whatever it is; None where there is none."""
        declared = getattr(self.expert, "get_downsample_rates", None)
        return declared("hidden_states") if callable(declared) else None

    def _note(self, side_effect: str) -> None:
        if side_effect not in self.side_effects:
            self.side_effects.append(side_effect)


def move_state(expert: nn.Module, *, seed: int) -> None:
    """Move all that training would move: parameters by seeded noise, statistics by forward passes.

    Changes ``expert`` in place and leaves it in train mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in expert.parameters():
            if parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                # The constant moves what is all zeros, as biases often are.
                parameter.add_(noise * 0.01 * (parameter.abs().mean() + 0.01))
    expert.train()
    device = next(tensors_of(expert)).device
    with torch.no_grad():
        expert([(waveform(SAMPLE_RATE + seed) + 0.05).to(device)])


def through_a_file(state: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """``state`` written to disk and read back, and the name of the format that could hold it."""
    from safetensors.torch import load_file, save_file

    with TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        try:
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        except (RuntimeError, AttributeError):  # shared tensors; a value that is no tensor
            torch.save(state, path)
            return torch.load(path, weights_only=True), "torch.save"
        return load_file(path), "safetensors"
