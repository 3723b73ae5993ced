"""The rules of the upstream contract: each measures one property and says why it is needed.

Facts about s3prl are of version 0.4.18: ``upstream/interfaces.py`` (the featurizer of
``run_downstream``), ``nn/upstream.py`` (S3PRLUpstream), ``downstream/runner.py``.

A rule looks at a :class:`Probe` and returns what it found: a status, and what was seen.
Shapes: a waveform is (samples,) at 16 kHz; a hidden state is (batch, frames, dim).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from superbit.upstreams.contract.probe import (
    LENGTHS,
    MIXED_LENGTHS,
    SAMPLE_RATE,
    SHORTEST,
    NoHiddenStates,
    Probe,
    move_state,
    seconds,
    silence,
    square_wave,
    through_a_file,
    waveform,
)

Status = Literal["pass", "fail", "warn", "not applicable"]
# A third part is the reason where it is another than the rule's.
Finding = tuple[Status, str] | tuple[Status, str, str]

FRAME_TOLERANCE = 5  # s3prl's TOLERABLE_SEQLEN_DIFF: the difference must be smaller
HOP = 320  # samples from frame to frame in every encoder of superbit
INVARIANCE_TOLERANCE = 1e-5  # largest |alone − batched|, for features at the scale of 1
TRAIN_FORWARDS = 20  # layerdrop of 5 % on 4 layers passes unseen with probability 0.02
ONLY_ZEROS_FOLLOW = (
    "only the number of frames differs: a batch adds zeros up to its longest utterance. Nothing "
    "leaks; a sweep caches these features all the same, and puts the zeros back when it reads them."
)
ONLY_THE_NUMBER_DIFFERS = (
    "only the number of frames differs, and no value of those that an utterance has alone: nothing "
    "leaks into these. The frames that a batch adds or drops depend on it, so features are cached "
    "with --cache-any-upstream only."
)
# Parts of parameter names that pre-training uses and hidden states do not.
UNUSED_BY_DESIGN = ("mask_emb", "final_proj", "label_embs")
FROZEN = "It matters for fine-tuning alone: a sweep keeps upstreams frozen, in eval mode."


@dataclass(frozen=True)
class ContractRule:
    """One property: its name, what would pass, why it is needed, and how it is measured.

    fine_tuning: what breaks it does not touch a frozen upstream, so of somebody else's a warning
    """

    name: str
    needed: str
    reason: str
    measure: Callable[[Probe], Finding]
    fine_tuning: bool = False


RULES: list[ContractRule] = []  # in the order in which they are measured


def _rule(
    name: str, *, needed: str, reason: str, fine_tuning: bool = False
) -> Callable[[Callable[[Probe], Finding]], Callable[[Probe], Finding]]:
    def add(measure: Callable[[Probe], Finding]) -> Callable[[Probe], Finding]:
        RULES.append(ContractRule(name, needed, reason, measure, fine_tuning))
        return measure

    return add


@_rule(
    "hidden-states",
    needed='a dict whose "hidden_states" is a list of float32 tensors (batch, frames, dim), all of '
    "one shape, with one row a waveform",
    reason="s3prl's featurizer stacks all hidden states and learns one weight for each; it can "
    "stack only equal shapes. The heads compute in float32 and refuse any other type.",
)
def _hidden_states(probe: Probe) -> Finding:
    output = probe.mixed_output()
    if not isinstance(output, dict):
        return "fail", f"the forward pass returned {type(output).__name__}, not a dict"
    if "hidden_states" not in output:
        return "fail", f"a dict with the keys {sorted(map(str, output))}"
    states = output["hidden_states"]
    if not isinstance(states, list | tuple):
        return "fail", f'"hidden_states" is {type(states).__name__}, not a list or tuple'
    if not states:
        return "fail", '"hidden_states" is empty'
    for index, state in enumerate(states):
        if not isinstance(state, Tensor):
            return "fail", f"hidden state {index} is {type(state).__name__}, not a tensor"
        if state.dim() != 3 or state.dtype != torch.float32:
            return "fail", f"hidden state {index} is {state.dtype} of shape {tuple(state.shape)}"
        if state.shape != states[0].shape:
            shapes = f"{tuple(states[0].shape)}, hidden state {index} has {tuple(state.shape)}"
            return "fail", f"hidden state 0 has shape {shapes}"
    if len(states[0]) != len(MIXED_LENGTHS):
        return "fail", f"{len(states[0])} rows for {len(MIXED_LENGTHS)} waveforms"
    return "pass", f"{len(states)} of shape {tuple(states[0].shape)}"


@_rule(
    "layer-count",
    needed="one hidden state before the first layer and one after each: layers + 1",
    reason="SUPERB weighs the outputs of all layers and the input of the first, as s3prl's HuBERT "
    "does; with fewer, results of different encoders cannot be compared.",
)
def _layer_count(probe: Probe) -> Finding:
    if not probe.ours:
        return "not applicable", "required of superbit's own encoders only"
    model: Any = probe.expert.model
    layers = model.config.layers
    count = len(probe.alone(SAMPLE_RATE))
    return ("pass" if count == layers + 1 else "fail"), f"{count} for {layers} layers"


@_rule(
    "downsample-rate",
    needed='get_downsample_rates("hidden_states") returns an int above 0: samples per frame; of '
    f"superbit's encoders {HOP}",
    reason="s3prl's runner asserts that the method is there and cuts features by it; speaker "
    "diarization slices with it and s3prl.nn refuses anything but an int.",
)
def _downsample_rate(probe: Probe) -> Finding:
    if not callable(getattr(probe.expert, "get_downsample_rates", None)):
        return "fail", "there is no method get_downsample_rates"
    rate = probe.rate()
    seen = f"{rate!r} ({type(rate).__name__})"
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < float(rate) < inf:
        return "fail", seen
    if probe.ours and rate != HOP:
        return "fail", seen
    return ("pass" if isinstance(rate, int) else "warn"), seen


@_rule(
    "frame-count",
    needed=f"frames within {FRAME_TOLERANCE - 1} of round(samples / rate) for the longest "
    f"waveform, from 0.05 s to 20 s; of superbit's encoders exactly as many",
    reason="s3prl's featurizer asserts it before it cuts each utterance to round(samples / rate) "
    "frames; labels of frame-wise tasks are laid out by the same count.",
)
def _frame_count(probe: Probe) -> Finding:
    if probe.found["downsample-rate"] == "fail":
        return "not applicable", "not measured: downsample-rate failed"
    rate = probe.rate()
    counts = [(samples, probe.alone(samples)[0].shape[1], "") for samples in LENGTHS]
    counts.append((max(MIXED_LENGTHS), probe.mixed()[0].shape[1], " in a batch"))
    wrong = []
    for samples, frames, where in counts:
        due = round(samples / rate)
        if abs(frames - due) >= (1 if probe.promises_invariance else FRAME_TOLERANCE):
            wrong.append(f"{frames} frames for {seconds(samples)}{where}, {due} are due")
    if wrong:
        return "fail", "; ".join(wrong)
    return "pass", ", ".join(f"{frames} for {seconds(n)}{where}" for n, frames, where in counts)


@_rule(
    "finite",
    needed="no NaN and no infinity, for noise, silence and a full-scale square wave",
    reason="silence between words and clipped recordings are in the corpora; one NaN turns the "
    "loss, and then every weight of the head, into NaN.",
)
def _finite(probe: Probe) -> Finding:
    outputs = {f"noise of {seconds(samples)}": probe.alone(samples) for samples in LENGTHS}
    outputs["a batch of mixed lengths"] = probe.mixed()
    outputs["silence"] = probe.states([silence()])
    outputs["a square wave"] = probe.states([square_wave()])
    for name, states in outputs.items():
        for index, state in enumerate(states):
            bad = int((~torch.isfinite(state)).sum())
            if bad:
                return "fail", f"{bad} of {state.numel()} values of state {index} for {name}"
    return "pass", "all values, for noise, silence and a square wave"


@_rule(
    "eval-determinism",
    needed="the same bits for the same waveforms in eval mode, whatever the random state",
    reason="SUPERB trains heads on a frozen upstream, so features are computed once and kept; "
    "dropout or dither in eval mode makes every result irreproducible.",
)
def _eval_determinism(probe: Probe) -> Finding:
    first = probe.alone(SAMPLE_RATE)
    for seed in (0, 1, 2):
        again = probe.states([waveform(SAMPLE_RATE)], seed=seed)
        if len(again) != len(first):
            return "fail", f"{len(first)} hidden states, then {len(again)}"
        for index, (a, b) in enumerate(zip(first, again, strict=True)):
            if not torch.equal(a, b):
                how = "another" if seed else "the same"
                difference = f"differs by up to {_deviation(a, b):.2g}"
                return "fail", f"state {index} {difference} with {how} random seed"
    return "pass", "4 forward passes over 1 s, 3 random seeds, same bits"


def _deviation(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return inf
    return float((a - b).abs().nan_to_num(nan=inf).max())


@_rule(
    "batch-invariance",
    needed=f"each utterance has the same valid frames alone and in a batch of mixed lengths: as "
    f"many, and no value further off than {INVARIANCE_TOLERANCE:g} (times the RMS where above 1)",
    reason="with padding that leaks, features depend on the neighbours in the batch, so results "
    "change with the batch size and features cannot be cached.",
)
def _batch_invariance(probe: Probe) -> Finding:
    # Without them it is not known which frames are valid, or what to compare.
    for needed_first in ("downsample-rate", "frame-count", "eval-determinism"):
        if probe.found[needed_first] == "fail":
            return "not applicable", f"not measured: {needed_first} failed"
    rate, mixed = probe.rate(), probe.mixed()
    worst, worst_scale, where, cut, zeros = 0.0, 1.0, "", "", True
    for row, samples in enumerate(MIXED_LENGTHS):
        alone = probe.alone(samples)
        valid = round(samples / rate)
        frames = min(valid, alone[0].shape[1]), min(valid, mixed[0].shape[1])
        if frames[0] != frames[1] and not cut:
            cut = f"{seconds(samples)} has {frames[0]} frames alone, {frames[1]} in a batch; "
        for index, (one, many) in enumerate(zip(alone, mixed, strict=True)):
            shared = min(valid, one.shape[1], many.shape[1])
            if shared == 0:
                continue
            expected, got = one[0, :shared], many[row, :shared]
            zeros &= one.shape[1] >= shared and not bool(many[row, shared:valid].any())
            scale = max(1.0, float(expected.square().mean().sqrt()))
            deviation = _deviation(expected, got)
            if deviation / scale >= worst / worst_scale:
                worst, worst_scale = deviation, scale
                where = f"state {index} of {seconds(samples)}"
    seen = f"{cut}largest deviation {worst:.2g} ({worst / worst_scale:.2g} of scale) at {where}"
    if not cut and worst <= INVARIANCE_TOLERANCE * worst_scale:
        return "pass", seen
    status: Status = "fail" if probe.promises_invariance else "warn"
    if worst <= INVARIANCE_TOLERANCE * worst_scale:
        return status, seen, ONLY_ZEROS_FOLLOW if zeros else ONLY_THE_NUMBER_DIFFERS
    return status, seen


@_rule(
    "train-mode",
    needed="as many hidden states, of the same shapes, in train mode as in eval mode, every time",
    reason="s3prl counts the states once in eval mode and asserts that count at every step of "
    f"fine-tuning; layerdrop breaks it. {FROZEN}",
    fine_tuning=True,
)
def _train_mode(probe: Probe) -> Finding:
    wav = [waveform(LENGTHS[1])]
    due = [tuple(state.shape) for state in probe.alone(LENGTHS[1])]
    for attempt in range(TRAIN_FORWARDS):
        try:
            seen = [tuple(s.shape) for s in probe.states(wav, train=True, seed=attempt)]
        except NoHiddenStates:
            what = "in train mode a hidden state is no tensor (batch, frames, dim)"
            return "fail", f"{what} (forward pass {attempt + 1})"
        if len(seen) != len(due):
            counts = f"{len(seen)} hidden states in train mode, {len(due)} in eval mode"
            return "fail", f"{counts} (forward pass {attempt + 1})"
        if seen != due:
            return "fail", f"shapes {seen} in train mode, {due} in eval mode"
    return "pass", f"{len(due)} hidden states in {TRAIN_FORWARDS} forward passes"


@_rule(
    "gradients",
    needed="finite gradients from the hidden states to the weights, from 0.05 s on; of superbit's "
    "encoders to every weight that hidden states use",
    reason="fine-tuning (s3prl's -f) trains the upstream through its hidden states; s3prl's own "
    f"tests run backward from 0.05 s. {FROZEN}",
    fine_tuning=True,
)
def _gradients(probe: Probe) -> Finding:
    named = dict(probe.expert.named_parameters())
    if not named:
        return "not applicable", "there are no parameters"
    trainable = {name: p for name, p in named.items() if p.requires_grad}
    if not trainable:
        return ("fail" if probe.ours else "warn"), f"all {len(named)} parameters are frozen"
    short = waveform(SHORTEST)
    counts = []
    for batch in ([short], [short, -short], [waveform(SAMPLE_RATE)]):
        what = f"a batch of {len(batch)} × {seconds(len(batch[0]))}"
        loss = _random_projection(probe.states(batch, train=True, gradients=True))
        if not loss.requires_grad:
            return "fail", f"no hidden state of {what} depends on a weight that can be trained"
        loss.backward()
        gradients = {name: p.grad for name, p in trainable.items() if p.grad is not None}
        probe.expert.zero_grad(set_to_none=True)
        for name, gradient in gradients.items():
            if not bool(torch.isfinite(gradient).all()):
                return "fail", f"the gradient of {name} is not finite for {what}"
        if not any(bool(gradient.any()) for gradient in gradients.values()):
            return "fail", f"every gradient is zero for {what}"
        idle = [n for n in trainable if n not in gradients and not _is_unused_by_design(n)]
        if probe.ours and idle:
            more = f" and {len(idle) - 1} more" if idle[1:] else ""
            return "fail", f"none reaches {idle[0]}{more} for {what}"
        counts.append(f"{len(gradients)} for {what}")
    return "pass", f"of {len(trainable)} trainable parameters: {', '.join(counts)}"


def _random_projection(states: list[Tensor]) -> Tensor:
    # Not the plain sum: behind a layer norm that is a constant, whose gradient is zero.
    generator = torch.Generator().manual_seed(0)
    terms = [(s * torch.randn(s.shape, generator=generator).to(s)).sum() for s in states]
    return torch.stack(terms).sum()


def _is_unused_by_design(name: str) -> bool:
    return any(part in name for part in UNUSED_BY_DESIGN)


@_rule(
    "save-load",
    needed="after state_dict, a file and load_state_dict, the same bits in the hidden states",
    reason="s3prl resumes a fine-tuned upstream from its state_dict; state kept anywhere else is "
    "lost without a word.",
)
def _save_load(probe: Probe) -> Finding:
    expert = probe.expert
    if not expert.state_dict():
        return "not applicable", "there are no parameters and no buffers to save"
    wav = [waveform(SAMPLE_RATE)]
    # What masks in train mode may not take short audio; its weights move all the same.
    unmoved = _moved(probe, expert, seed=1)
    expected = probe.states(wav)
    state, file_format = through_a_file(expert.state_dict())
    if probe.build is not None:
        torch.manual_seed(2)  # another random state than the original had: nothing by luck
        other, where = probe.build().to(probe.device), "a newly built upstream"
    else:
        _moved(probe, expert, seed=2)
        other, where = expert, "the same upstream after its weights were changed"
    other.load_state_dict(state)
    got = probe.states(wav, expert=other)
    deviation = max(_deviation(a, b) for a, b in zip(expected, got, strict=True))
    if all(torch.equal(a, b) for a, b in zip(expected, got, strict=True)):
        return "pass", f"same bits from {where}, through {file_format}{unmoved}"
    return "fail", f"hidden states of {where} differ by up to {deviation:.2g}"


def _moved(probe: Probe, expert: nn.Module, *, seed: int) -> str:
    """Move the state of ``expert``; return what could not be moved, as words, or none."""
    try:
        move_state(expert, seed=seed)
    except Exception:
        if probe.ours:
            raise
        return "; statistics were not moved, as the forward pass raised in train mode"
    return ""


@_rule(
    "side-effects",
    needed="a forward pass leaves train and eval mode, the gradient mode and its input alone",
    reason="task code passes the same waveforms on and relies on the mode it set; an upstream that "
    "changes either changes the results of others.",
)
def _side_effects(probe: Probe) -> Finding:
    if probe.side_effects:
        return "fail", "; ".join(probe.side_effects)
    return "pass", f"none in {probe.forward_passes} forward passes"
