"""Where a twin's error comes from: its blocks binarized one at a time, and one after another.

A block is what a layer adds to the residual sum: an attention, a feed-forward or a convolution
module, with all that a policy binarizes in it (a ReLU in an activation's place included). Each is
looked at twice, on the same input, against the model in full precision:

(a) alone: that block is binarized, all others are in full precision;
(b) up to it: that block and all that ran before it are binarized, those after it are not.

What stands between blocks, norms and the like, is in full precision in either model; a trained twin
has learnt it too. It is the model's in (a); in (b) it is the twin's up to where the next block
begins, so that with the last block it is the whole twin. Both are given the model's projected
features, which distillation leaves as they are.

Of y, the block's own output, and z, the encoder's, over all frames of all utterances:

    relative error = ‖y_twin − y_fp‖ / ‖y_fp‖     sign agreement = share of elements where
                                                  y_twin ≥ 0 and y_fp ≥ 0 say the same

References:
- BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016: the twins.
- The hypothesis that this lets one look at: blocks of several kinds, mixed, propagate more error
  through a binarized encoder than blocks of one or two kinds (the paper, on its Conformer).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.convert import binarized_modules

KINDS = {
    "attention": "attention",
    "feed_forward": "feed-forward",
    "convolution": "convolution",
}
OTHER = "other"
_BLOCK_DEPTH = 4  # encoder.layers.<index>.<block>


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far some tensors of a twin are from those of the model in full precision.

    Attributes:
        relative_error: ‖y_twin − y_fp‖ / ‖y_fp‖; 0 for two zeros.
        sign_agreement: share of elements of one sign, where 0 counts as positive.
    """

    relative_error: float
    sign_agreement: float


@dataclass(frozen=True, kw_only=True)
class BlockFlow:
    """One block, in the order in which blocks run.

    Attributes:
        name: dotted.
        kind: a value of `KINDS`, or `OTHER`.
        alone: (a), at the block's output.
        alone_encoder: (a), at the encoder's output.
        up_to: (b), at the block's output.
        up_to_encoder: (b), at the encoder's output.
    """

    name: str
    kind: str
    alone: Deviation
    alone_encoder: Deviation
    up_to: Deviation
    up_to_encoder: Deviation

    @property
    def growth(self) -> float:
        """Relative error of (b) over that of (a): what comes from the blocks before, 1 if none."""
        own, all_before = self.alone.relative_error, self.up_to.relative_error
        return all_before / own if own else (1.0 if not all_before else math.inf)


# Gives names one by one, and may show how far it is.
Each = Callable[[Sequence[str]], Iterable[str]]


def error_flow(
    model: Hubert, twin: Hubert, waveforms: Sequence[Tensor], *, each: Each = iter
) -> list[BlockFlow]:
    """Return the flow of error through the encoder of a model, over utterances taken one by one.

    Args:
        model: in full precision; put in eval mode.
        twin: binarized and calibrated, of the same weights or trained; left as it is.
        waveforms: 1-D tensors at 16 kHz.
        each: goes through the blocks.

    Raises:
        InputError: `Hubert.features` refuses the audio.
    """
    model.eval()
    with torch.no_grad():
        inputs = [model.project(model.features([waveform])[0]) for waveform in waveforms]

    def run(hybrid: nn.Module) -> list[Tensor]:
        assert isinstance(hybrid, Hubert)
        return [hybrid.encode(x, None)[-1] for x in inputs]  # of (1, T, D) each

    return flow(model, twin, blocks_of(twin), run, each=each)


def blocks_of(twin: nn.Module) -> list[str]:
    """Return the dotted names of the blocks in which something is binarized."""
    names = (".".join(name.split(".")[:_BLOCK_DEPTH]) for name in binarized_modules(twin))
    return list(dict.fromkeys(names))


def kind_of(block: str) -> str:
    """Return the kind of a block from its dotted name."""
    own = block.rpartition(".")[2]
    return next((kind for start, kind in KINDS.items() if own.startswith(start)), OTHER)


@torch.no_grad()
def flow(
    model: nn.Module,
    twin: nn.Module,
    blocks: Sequence[str],
    run: Callable[[nn.Module], list[Tensor]],
    *,
    each: Each = iter,
) -> list[BlockFlow]:
    """Return the flow of error through ``blocks`` that both modules have by one name.

    Args:
        model: the reference.
        twin: a copy of it in which the blocks differ, and perhaps what stands between them.
        blocks: dotted names; every one of them runs, and returns a tensor.
        run: computes the outputs of a module of that structure, always from the same input.
        each: goes through the blocks.
    """
    hybrid = copy.deepcopy(twin).eval()
    between = _between(model, blocks)
    exact = {name: model.get_submodule(name) for name in blocks}
    binarized = {name: hybrid.get_submodule(name) for name in blocks}
    numbers = {name: (_numbers(model, name), _numbers(hybrid, name)) for name in between}
    ran = _order(model, [*blocks, *between], run)
    expected, expected_out = _outputs(model, blocks, run)
    order = [name for name in ran if name in expected]

    def deviations(changed: set[str], name: str) -> tuple[Deviation, Deviation]:
        for one in blocks:
            hybrid.set_submodule(one, binarized[one] if one in changed else exact[one])
        for one, (models, twins) in numbers.items():
            _set_numbers(hybrid, one, twins if one in changed else models)
        found, found_out = _outputs(hybrid, [name], run)
        return deviation(found[name], expected[name]), deviation(found_out, expected_out)

    rows = []
    for position, name in enumerate(each(order)):
        alone, alone_encoder = deviations({name}, name)
        following = order[position + 1 : position + 2]
        before_next = ran[: ran.index(following[0])] if following else ran
        up_to, up_to_encoder = deviations(set(before_next), name)
        rows.append(
            BlockFlow(
                name=name,
                kind=kind_of(name),
                alone=alone,
                alone_encoder=alone_encoder,
                up_to=up_to,
                up_to_encoder=up_to_encoder,
            )
        )
    return rows


def deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Deviation:
    """Return how far tensors are from others of the same shapes, taken together."""
    pairs = [(one.double(), other.double()) for one, other in zip(found, expected, strict=True)]
    difference = sum(float((one - other).square().sum()) for one, other in pairs)
    norm = sum(float(other.square().sum()) for _, other in pairs)
    same = sum(int(((one >= 0) == (other >= 0)).sum()) for one, other in pairs)
    without_norm = math.inf if difference else 0.0
    error = math.sqrt(difference / norm) if norm else without_norm
    return Deviation(
        relative_error=error, sign_agreement=same / sum(one.numel() for one, _ in pairs)
    )


def _between(model: nn.Module, blocks: Sequence[str]) -> list[str]:
    """Return the modules that hold numbers themselves and are in no block, by name."""
    return [
        name
        for name, _ in model.named_modules()
        if name
        and any(_numbers(model, name))
        and not any(name == block or name.startswith(f"{block}.") for block in blocks)
    ]


def _numbers(model: nn.Module, name: str) -> Sequence[dict[str, Any]]:
    """Return the parameters and the buffers that a module holds itself, not its children."""
    module = model.get_submodule(name)
    return dict(module._parameters), dict(module._buffers)


def _set_numbers(model: nn.Module, name: str, numbers: Sequence[dict[str, Any]]) -> None:
    module = model.get_submodule(name)
    module._parameters.update(numbers[0])
    module._buffers.update(numbers[1])


def _order(
    model: nn.Module, names: Sequence[str], run: Callable[[nn.Module], list[Tensor]]
) -> list[str]:
    """Return those of the named modules that run, in the order in which they first end."""
    ran: dict[str, None] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(*_: object) -> None:
            ran.setdefault(name)

        return record

    handles = [model.get_submodule(name).register_forward_hook(recorder(name)) for name in names]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
    return list(ran)


def _outputs(
    module: nn.Module, names: Sequence[str], run: Callable[[nn.Module], list[Tensor]]
) -> tuple[Mapping[str, list[Tensor]], list[Tensor]]:
    """Return what each named block gave, in the order in which they ran, and the end result."""
    found: dict[str, list[Tensor]] = {}
    with _recorded(module, names, found):
        out = run(module)
    return found, out


@contextmanager
def _recorded(
    module: nn.Module, names: Sequence[str], found: dict[str, list[Tensor]]
) -> Iterator[None]:
    """Append to ``found`` what the named blocks return, for a while."""

    def recorder(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            found.setdefault(name, []).append(output)

        return record

    handles = [module.get_submodule(name).register_forward_hook(recorder(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
