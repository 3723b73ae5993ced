"""What s3prl and SUPERB need of an upstream, as rules that explain themselves.

``check_upstream`` measures every rule and never raises for what an upstream does: a rule that
raises has failed, and the others still run. The rules are in ``contract/rules.py``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from superbit.upstreams.contract.probe import ForwardFailed, NoHiddenStates, Probe, preserved
from superbit.upstreams.contract.rules import RULES, Status


@dataclass(frozen=True)
class RuleResult:
    """What one rule found.

    name: the rule's name, as in :func:`rule_names`
    status: "pass", "fail", "warn" or "not applicable"
    seen: what was measured, or raised
    needed: what would pass
    reason: why s3prl or SUPERB needs it
    """

    name: str
    status: Status
    seen: str
    needed: str
    reason: str


@dataclass(frozen=True)
class CheckReport:
    """All results, in the order of the rules; ``seconds`` is the wall time of the check."""

    results: tuple[RuleResult, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """True if no rule failed; warnings do not count."""
        return not self.names("fail")

    def names(self, status: Status) -> tuple[str, ...]:
        """Names of the rules that ended with ``status``."""
        return tuple(result.name for result in self.results if result.status == status)


def rule_names() -> tuple[str, ...]:
    """The rules' names in the order in which they are measured."""
    return tuple(rule.name for rule in RULES)


def check_upstream(
    expert: nn.Module,
    *,
    ours: bool,
    build: Callable[[], nn.Module] | None = None,
    on_rule: Callable[[RuleResult], None] | None = None,
) -> CheckReport:
    """Measure every rule of the upstream contract on ``expert``.

    What only fine-tuning needs fails superbit's own encoders and warns of others.

    expert: s3prl-style: takes a list of waveforms, returns ``{"hidden_states": [...]}``; it is
        left as it was found (parameters, buffers, gradients, modes), global random states too
    ours: hold it to what superbit promises of its own encoders: layers + 1 hidden states, exactly
        round(samples / 320) frames, the same features alone and in a batch, no idle parameter;
        frames and batch as asked of others where its ``batch_invariant`` is False
    build: makes the same upstream again, for the save and load rule, as a later run would do;
        without it the state is loaded back into ``expert`` itself, which cannot show state that
        lives outside ``state_dict``
    on_rule: called with each result as soon as it is there
    """
    started = time.perf_counter()
    probe = Probe(expert, ours=ours, build=build)
    results = []
    with preserved(expert):
        for rule in RULES:
            reason = rule.reason
            try:
                status, seen, *of_its_own = rule.measure(probe)
                reason = of_its_own[0] if of_its_own else reason
            except NoHiddenStates:
                status, seen = "not applicable", "not measured: there are no hidden states"
            except ForwardFailed as error:
                status, seen = "fail", f"the forward pass raised {error}"
            except Exception as error:  # a rule that raises has failed, the others still run
                status, seen = "fail", f"raised {type(error).__name__}: {_first_line(error)}"
            if status == "fail" and rule.fine_tuning and not ours:
                status = "warn"
            probe.found[rule.name] = status
            result = RuleResult(rule.name, status, seen, rule.needed, reason)
            results.append(result)
            if on_rule is not None:
                on_rule(result)
    return CheckReport(tuple(results), time.perf_counter() - started)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


_MARKS: dict[Status, str] = {
    "pass": "pass",
    "fail": "FAIL",
    "warn": "warn",
    "not applicable": "n/a ",
}


def render_rule(result: RuleResult) -> str:
    """One line: mark, name, what was seen; for a failure or warning also what is needed and why."""
    width = max(map(len, rule_names()))
    lines = [f"{_MARKS[result.status]}  {result.name:<{width}}  {result.seen}"]
    if result.status in ("fail", "warn"):
        lines += [f"      needed: {result.needed}", f"      why:    {result.reason}"]
    return "\n".join(lines)


def render_summary(report: CheckReport) -> str:
    """One line that counts, and names what failed and warned."""
    counts = [f"{len(report.names('pass'))} of {len(report.results)} rules passed"]
    if failed := report.names("fail"):
        counts.append(f"{len(failed)} failed ({', '.join(failed)})")
    if warned := report.names("warn"):
        counts.append(f"{len(warned)} warned ({', '.join(warned)})")
    if skipped := report.names("not applicable"):
        counts.append(f"{len(skipped)} not applicable")
    return f"{', '.join(counts)}; {report.seconds:.1f} s"


def render(report: CheckReport) -> str:
    """The whole report as text: :func:`render_rule` for each result, then a line that counts."""
    return "\n".join([*map(render_rule, report.results), render_summary(report)])
