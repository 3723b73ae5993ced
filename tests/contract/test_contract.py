"""The upstream contract: every broken mock fails its rule by name, what is right passes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from superbit.upstreams import load
from superbit.upstreams.contract import (
    CheckReport,
    RuleResult,
    check_upstream,
    render,
    rule_names,
)
from superbit.upstreams.expert import UpstreamExpert
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.variant import size_of

MOCKS = Path(__file__).parent / "mocks" / "hubconf.py"

BROKEN = {
    "unequal_shapes": "hidden-states",
    "half_precision": "hidden-states",
    "wrong_rate": "frame-count",
    "nondeterministic": "eval-determinism",
    "unsaved_state": "save-load",
}
# What a frozen upstream may break.
FINE_TUNING = {"layerdrop": "train-mode", "detached": "gradients"}


def mock(name: str, *, draw_seed: int = 0) -> nn.Module:
    return load(f"{MOCKS}:{name}", train=True, draw_seed=draw_seed)


def check(name: str, *, ours: bool = False) -> CheckReport:
    return check_upstream(mock(name), ours=ours, build=lambda: mock(name, draw_seed=1))


def result(report: CheckReport, name: str) -> RuleResult:
    return next(result for result in report.results if result.name == name)


# What passes


def test_a_good_upstream_passes_every_rule_that_applies():
    report = check("good")
    assert report.ok
    assert report.names("not applicable") == ("layer-count",)
    assert set(report.names("pass")) == set(rule_names()) - {"layer-count"}


def test_a_good_upstream_passes_as_one_of_ours():
    assert check("good", ours=True).names("pass") == rule_names()


@pytest.mark.parametrize("name", ["vanilla_nano", "sparseformer_dn_nano"])
def test_our_nano_encoders_pass_every_rule(name):
    report = check_upstream(
        load(name, train=True), ours=True, build=lambda: load(name, draw_seed=1)
    )
    assert report.names("pass") == rule_names(), render(report)


def test_leaks_that_the_checkpoint_declares_are_a_warning_for_ours_too():
    config = replace(size_of("vanilla_nano"), padding="fairseq")
    report = check_upstream(UpstreamExpert(untrained_model(config), untrained=True), ours=True)
    assert report.ok, render(report)
    assert report.names("warn") == ("batch-invariance",)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vanilla", "sparseformer_dn_s", "sparseformer_sw_s"])
def test_our_encoders_at_table_1_size_pass_every_rule_within_a_minute(name):
    report = check_upstream(
        load(name, train=True), ours=True, build=lambda: load(name, draw_seed=1)
    )
    assert report.names("pass") == rule_names(), render(report)
    assert report.seconds < 60


@pytest.mark.parametrize("name", ["fbank", "fbank_no_cmvn"])
def test_features_without_parameters_pass_with_the_parameter_rules_not_applicable(name):
    report = check_upstream(
        load(name, train=True), ours=False, build=lambda: load(name, draw_seed=1)
    )
    assert report.ok, render(report)
    assert report.names("not applicable") == ("layer-count", "gradients", "save-load")
    # Kaldi makes 98 frames of 1 s; a batch pads them to the 100 that s3prl cuts at 10 ms.
    assert report.names("warn") == ("batch-invariance",)
    assert "98 frames alone, 100 in a batch" in result(report, "batch-invariance").seen
    assert "largest deviation 0 " in result(report, "batch-invariance").seen
    assert "Nothing leaks; a sweep caches these" in result(report, "batch-invariance").reason


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        (0.0, "a batch adds zeros up to its longest utterance. Nothing leaks; a sweep caches"),
        (1.0, "nothing leaks into these. The frames that a batch adds or drops depend on it"),
        (None, "with padding that leaks, features depend on the neighbours"),
    ],
)
def test_batch_invariance_gives_the_reason_of_what_was_found(added, reason):
    """A frame fewer alone; in a batch, something in its place, or another value before it."""

    class Shorter(type(mock("good"))):
        def forward(self, wavs):
            # clones: what is changed in place must still have a gradient
            states = [state.clone() for state in super().forward(wavs)["hidden_states"]]
            if len(wavs) == 1:
                return {"hidden_states": [state[:, :-1] for state in states]}
            for row, wav in enumerate(wavs):
                end = round(len(wav) / 320)
                for state in states:
                    state[row, end - 1 :] = added or 0.0
                    if added is None:
                        state[row, 0] += 0.1
            return {"hidden_states": states}

    report = check_upstream(Shorter(), ours=False)
    assert report.names("warn") == ("batch-invariance",)
    assert reason in result(report, "batch-invariance").reason


# What fails, and that nothing else does


@pytest.mark.parametrize(("name", "rule"), BROKEN.items())
def test_a_broken_upstream_fails_its_rule_and_no_other(name, rule):
    report = check(name)
    assert not report.ok
    assert report.names("fail") == (rule,)
    assert report.names("warn") == ()


@pytest.mark.parametrize(("name", "rule"), FINE_TUNING.items())
def test_what_only_fine_tuning_needs_is_a_warning_and_for_ours_a_failure(name, rule):
    report = check(name)
    assert report.ok
    assert report.names("warn") == (rule,)
    assert "a sweep keeps upstreams frozen" in result(report, rule).reason
    assert check(name, ours=True).names("fail") == (rule,)


def test_a_model_that_masks_in_train_mode_is_checked_to_the_end():
    class Masks(type(mock("good"))):
        def forward(self, wavs):
            if self.training and min(map(len, wavs)) < 32_000:
                raise ValueError("mask_length has to be smaller than sequence_length")
            return super().forward(wavs)

    report = check_upstream(Masks(), ours=False, build=Masks)
    assert report.ok, render(report)
    assert report.names("warn") == ("train-mode", "gradients")
    assert result(report, "save-load").status == "pass"
    assert "statistics were not moved" in result(report, "save-load").seen
    ours = check_upstream(Masks(), ours=True, build=Masks)
    assert ours.names("fail") == ("train-mode", "gradients", "save-load")


def test_a_hidden_state_that_train_mode_leaves_out_is_said_to_be_none():
    class Holes(type(mock("good"))):
        def forward(self, wavs):
            states = super().forward(wavs)["hidden_states"]
            return {"hidden_states": [*states[:-1], None] if self.training else states}

    report = check_upstream(Holes(), ours=False)
    assert "train-mode" in report.names("warn")
    assert "no tensor (batch, frames, dim)" in result(report, "train-mode").seen


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("unequal_shapes", "state 0 has shape (4, 185, 8), hidden state 2 has (4, 185, 12)"),
        ("wrong_rate", "50 frames for 1 s, 100 are due"),
        ("layerdrop", "2 hidden states in train mode, 3 in eval mode"),
        ("nondeterministic", "with another random seed"),
        ("detached", "no hidden state of a batch of 1 × 0.05 s depends on a weight"),
        ("unsaved_state", "hidden states of a newly built upstream differ by up to 0."),
    ],
)
def test_a_failure_says_what_was_seen_what_is_needed_and_why(name, seen):
    report = check(name)
    failure = result(report, (BROKEN | FINE_TUNING)[name])
    assert seen in failure.seen
    text = render(report)
    for part in (failure.name, failure.seen, failure.needed, failure.reason):
        assert part in text


def test_features_that_depend_on_the_batch_are_a_warning_and_for_ours_an_error():
    foreign, ours = check("batch_leak"), check("batch_leak", ours=True)
    assert foreign.ok
    assert foreign.names("warn") == ("batch-invariance",)
    assert ours.names("fail") == ("batch-invariance",)


def test_batch_deviation_is_reported_as_measured():
    class AddsTheBatch(type(mock("good"))):
        def forward(self, wavs):
            states = super().forward(wavs)["hidden_states"]
            return {"hidden_states": [s + 0.125 * (len(wavs) - 1) for s in states]}

    seen = result(check_upstream(AddsTheBatch(), ours=True), "batch-invariance").seen
    assert seen.startswith("largest deviation 0.38")  # four waveforms: 3 × 0.125


# Each of superbit's own encoders promises more


def test_ours_must_give_a_state_for_every_layer():
    expert = mock("good")
    expert.model.config.layers = 3
    report = check_upstream(expert, ours=True)
    assert report.names("fail") == ("layer-count",)
    assert result(report, "layer-count").seen == "3 for 3 layers"


def test_one_frame_too_few_is_tolerated_of_others_and_not_of_ours():
    class OneLess(type(mock("good"))):
        def _frames(self, wav):
            return super()._frames(wav)[:-1]

    assert check_upstream(OneLess(), ours=False).ok
    report = check_upstream(OneLess(), ours=True)
    assert report.names("fail") == ("frame-count",)
    assert "49 frames for 1 s, 50 are due" in result(report, "frame-count").seen


def test_ours_must_not_have_a_weight_that_nothing_reaches():
    expert = mock("good")
    expert.mask_emb = nn.Parameter(torch.zeros(8))  # unused outside pre-training, by design
    assert check_upstream(expert, ours=True).ok
    expert.forgotten = nn.Linear(8, 8)
    assert check_upstream(expert, ours=False).ok
    report = check_upstream(expert, ours=True)
    assert report.names("fail") == ("gradients",)
    assert "none reaches forgotten.weight and 1 more" in result(report, "gradients").seen


# The rules one by one


@pytest.mark.parametrize(
    ("rate", "status"),
    [(320, "pass"), (320.0, "warn"), ([320, 320, 320], "fail"), (0, "fail"), (None, "fail")],
)
def test_downsample_rate_is_an_int(rate, status):
    expert = mock("good")
    expert.get_downsample_rates = lambda key: rate
    report = check_upstream(expert, ours=False)
    assert result(report, "downsample-rate").status == status
    assert set(report.names("fail")) <= {"downsample-rate"}


class _Returns(nn.Module):
    """Returns for each batch whatever it is given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        return self.output


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        ([torch.zeros(4, 5, 6)], "returned list, not a dict"),
        ({"features": 1}, "the keys ['features']"),
        ({"hidden_states": torch.zeros(4, 5, 6)}, "is Tensor, not a list"),
        ({"hidden_states": []}, "is empty"),
        ({"hidden_states": [torch.zeros(4, 5)]}, "of shape (4, 5)"),
        ({"hidden_states": [torch.zeros(4, 5, 6).int()]}, "torch.int32"),
        ({"hidden_states": [torch.zeros(3, 5, 6)]}, "3 rows for 4 waveforms"),
    ],
)
def test_hidden_states_that_are_none_are_named(output, seen):
    report = check_upstream(_Returns(output), ours=False)
    assert seen in result(report, "hidden-states").seen
    assert "hidden-states" in report.names("fail")


def test_without_hidden_states_the_rules_that_need_them_say_so():
    report = check_upstream(_Returns({}), ours=False)
    assert report.names("fail") == ("hidden-states",)
    assert result(report, "finite").seen == "not measured: there are no hidden states"


def test_a_forward_pass_that_raises_fails_with_what_was_raised():
    class NeedsASecond(type(mock("good"))):
        def forward(self, wavs):
            if min(map(len, wavs)) < 16_000:
                raise ValueError("too short")
            return super().forward(wavs)

    report = check_upstream(NeedsASecond(), ours=False)
    seen = result(report, "frame-count").seen
    assert seen == (
        "the forward pass raised ValueError for a batch of 0.05 s in eval mode: too short"
    )
    assert result(report, "eval-determinism").status == "pass"  # later rules still run
    assert [r.name for r in report.results] == list(rule_names())


def test_silence_that_becomes_nan_is_not_finite():
    class DividesByTheLevel(type(mock("good"))):
        def _frames(self, wav):
            return super()._frames(wav / wav.abs().max())

    report = check_upstream(DividesByTheLevel(), ours=False)
    assert report.names("fail") == ("finite",)
    assert result(report, "finite").seen == "400 of 400 values of state 0 for silence"


def test_running_statistics_outside_the_state_dict_do_not_survive_saving():
    class OwnStatistics(type(mock("good"))):
        mean = 0.0

        def forward(self, wavs):
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * float(wavs[0].mean())
            return super().forward([wav - self.mean for wav in wavs])

    report = check_upstream(OwnStatistics(), ours=False, build=OwnStatistics)
    assert report.names("fail") == ("save-load",)


def test_weights_that_share_memory_are_saved_with_torch():
    class Tied(type(mock("good"))):
        def __init__(self):
            super().__init__()
            self.layers[1].weight = self.layers[0].weight

    report = check_upstream(Tied(), ours=False, build=Tied)
    assert report.ok
    assert result(report, "save-load").seen.endswith("through torch.save")


def test_frozen_weights_are_a_warning():
    expert = mock("good").requires_grad_(False)
    assert check_upstream(expert, ours=False).names("warn") == ("gradients",)


def _normalizes_in_place(self, wavs):
    for wav in wavs:
        wav /= 2
    return type(mock("good")).forward(self, wavs)


def _stays_in_eval_mode(self, wavs):
    self.eval()
    return type(mock("good")).forward(self, wavs)


@pytest.mark.parametrize(
    ("forward", "seen"),
    [
        (_normalizes_in_place, "the waveforms given were changed in place"),
        (_stays_in_eval_mode, "a forward pass in train mode changed the mode"),
    ],
)
def test_side_effects_are_seen(forward, seen):
    impolite = type("Impolite", (type(mock("good")),), {"forward": forward})
    report = check_upstream(impolite(), ours=False)
    assert report.names("fail") == ("side-effects",)
    assert result(report, "side-effects").seen == seen


# The check itself


def test_the_upstream_is_left_as_it_was_found():
    class WithStatistics(type(mock("good"))):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(8)
            self.register_buffer("calls", torch.zeros(()))

        def _embed(self, wavs):
            self.calls = self.calls + 1  # replaced, not changed in place
            return self.norm(super()._embed(wavs).transpose(1, 2)).transpose(1, 2)

    expert = WithStatistics()
    expert.train()
    expert.norm.eval()
    expert.embed.bias.grad = torch.full((8,), 7.0)
    before = {key: value.clone() for key, value in expert.state_dict().items()}
    torch.manual_seed(5)
    due = torch.rand(3)
    torch.manual_seed(5)
    report = check_upstream(expert, ours=False)
    assert result(report, "save-load").status == "pass"
    assert torch.equal(torch.rand(3), due)
    assert expert.training
    assert not expert.norm.training
    assert torch.equal(expert.embed.bias.grad, torch.full((8,), 7.0))
    assert expert.layers[0].weight.grad is None
    after = expert.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_results_are_handed_over_as_they_come():
    seen: list[RuleResult] = []
    report = check_upstream(mock("good"), ours=False, on_rule=seen.append)
    assert tuple(seen) == report.results


def test_the_report_has_a_line_a_rule_and_a_last_line_that_counts():
    lines = render(check("good", ours=True)).splitlines()
    assert len(lines) == len(rule_names()) + 1
    assert all(
        line.split()[:2] == ["pass", name] for line, name in zip(lines, rule_names(), strict=False)
    )
    assert lines[-1].startswith("11 of 11 rules passed; ")
    last = render(check("wrong_rate")).splitlines()[-1]
    assert last.startswith("8 of 11 rules passed, 1 failed (frame-count), 2 not applicable; ")
