"""Small upstreams in s3prl's style: one that keeps the contract, eight that each break one rule.

Written as a user would write a hubconf.py: torch and nothing else. Each public function is a
factory called as ``f(ckpt=None, **kwargs)``; loadable by path, e.g. ``hubconf.py:wrong_rate``.
"""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

_HOP = 320  # samples a frame


class _Good(nn.Module):
    """Frames of 320 samples through linear layers: nothing crosses from one frame to another."""

    def __init__(self, layers: int = 2, dim: int = 8) -> None:
        super().__init__()
        # Where superbit's own encoders say how many layers they have.
        self.model = SimpleNamespace(config=SimpleNamespace(layers=layers))
        self.embed = nn.Linear(_HOP, dim)
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))

    def get_downsample_rates(self, key: str) -> int:
        return _HOP

    def _frames(self, wav: torch.Tensor) -> torch.Tensor:
        """(samples,) to (round(samples / 320), 320), the end cut or padded with zeros."""
        count = round(len(wav) / _HOP)
        return nn.functional.pad(wav, (0, max(0, count * _HOP - len(wav))))[: count * _HOP].view(
            count, _HOP
        )

    def _embed(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return pad_sequence([self.embed(self._frames(wav)) for wav in wavs], batch_first=True)

    def forward(self, wavs: list[torch.Tensor]) -> dict:
        states = [self._embed(wavs)]
        for layer in self.layers:
            states.append(torch.tanh(layer(states[-1])))
        return {"hidden_states": states}


class _UnequalShapes(_Good):
    def __init__(self) -> None:
        super().__init__()
        self.layers[-1] = nn.Linear(8, 12)


class _WrongRate(_Good):
    def get_downsample_rates(self, key: str) -> int:
        return _HOP // 2


class _Layerdrop(_Good):
    def forward(self, wavs: list[torch.Tensor]) -> dict:
        states = [self._embed(wavs)]
        for layer in self.layers:
            if not self.training or torch.rand(()) > 0.05:
                states.append(torch.tanh(layer(states[-1])))
        return {"hidden_states": states}


class _Nondeterministic(_Good):
    def forward(self, wavs: list[torch.Tensor]) -> dict:
        states = super().forward(wavs)["hidden_states"]
        # training=True, whatever the mode: the classic slip with the functional form
        return {"hidden_states": [nn.functional.dropout(s, 0.1, training=True) for s in states]}


class _Detached(_Good):
    def forward(self, wavs: list[torch.Tensor]) -> dict:
        return {"hidden_states": [s.detach() for s in super().forward(wavs)["hidden_states"]]}


class _UnsavedState(_Good):
    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.rand(8) + 0.5  # neither parameter nor buffer: not in state_dict

    def forward(self, wavs: list[torch.Tensor]) -> dict:
        return {"hidden_states": [s * self.gain for s in super().forward(wavs)["hidden_states"]]}


class _BatchLeak(_Good):
    def _embed(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        embedded = super()._embed(wavs)
        # normalized over time, padding included, as a GroupNorm over a padded batch does
        return embedded / (embedded.std(dim=1, keepdim=True, correction=0) + 1.0)


def good(ckpt=None, **kwargs):
    """Keeps every rule."""
    return _Good()


def unequal_shapes(ckpt=None, **kwargs):
    """Breaks hidden-states: the last state is wider than the others."""
    return _UnequalShapes()


def wrong_rate(ckpt=None, **kwargs):
    """Breaks frame-count: declares 160 samples a frame and makes one every 320."""
    return _WrongRate()


def layerdrop(ckpt=None, **kwargs):
    """Breaks train-mode: leaves out the state of a layer that was dropped."""
    return _Layerdrop()


def nondeterministic(ckpt=None, **kwargs):
    """Breaks eval-determinism: dropout in eval mode."""
    return _Nondeterministic()


def detached(ckpt=None, **kwargs):
    """Breaks gradients: the hidden states are cut off from the weights."""
    return _Detached()


def unsaved_state(ckpt=None, **kwargs):
    """Breaks save-load: a tensor that matters is not in the state_dict."""
    return _UnsavedState()


def batch_leak(ckpt=None, **kwargs):
    """Breaks batch-invariance (a warning, for upstreams that are not superbit's own)."""
    return _BatchLeak()


class _Half(_Good):
    """Gives what many models give under autocast: float16."""

    def forward(self, wavs):
        states = super().forward(wavs)["hidden_states"]
        return {"hidden_states": [state.half() for state in states]}


def half_precision(ckpt=None, **kwargs):
    """Breaks hidden-states: s3prl's heads compute in float32."""
    return _Half()
