"""Gates: what a policy must show before it may be called good enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.fields import MISSING, option
from pipeline.config.suggestions import near_miss

UNSCORED_SHARE, CONTAMINATED_ITEMS, JUDGE_QUALIFIED = "unscored_share", "contaminated_items", "judge_qualified/"
WIN_RATE = "win_rate/"  # and the judge's name: the metric of a win rate


class GateKind(StrEnum):
    """What a gate claims."""

    superiority = "superiority"  # better than the baseline by more than the margin
    non_inferiority = "non_inferiority"  # not worse than the baseline by as much as the margin
    at_least = "at_least"  # the policy's own value is not below the bound
    at_most = "at_most"  # the policy's own value is not above the bound


@dataclass(kw_only=True)
class WaiverConfig:
    """Somebody's word that a gate need not pass for now; `evaluate.waivers.<name>`. The gate's outcome stays."""

    gate: str = MISSING  # its name
    reason: str = MISSING  # why, as readers of the report are told
    by: str = MISSING  # who answers for it


COMPARING = frozenset({GateKind.superiority, GateKind.non_inferiority})


@dataclass(kw_only=True)
class GateConfig:
    """One claim about one metric, decided by its interval; `evaluate.gates.<name>`."""

    kind: GateKind = GateKind.non_inferiority
    suite: str | None = None  # null is every suite, which only counted metrics allow
    # A metric of the suite, `win_rate/<judge>`, or one that is counted and has no interval: `unscored_share`,
    # `contaminated_items`, `judge_qualified/<judge>`. Null is the suite's primary metric.
    metric: str | None = None
    policy: str | None = None  # null is the last policy of the chain
    baseline: str | None = None  # null is `evaluate.baseline`
    margin: float = option(0.0, ge=0)  # in the metric's unit; of a share 0.03 is three points
    bound: float | None = None  # of `at_least` and `at_most`, in the metric's unit
    alpha: float = option(0.05, gt=0, lt=0.5)  # of the two-sided interval, before Holm's correction
    min_power: float = option(0.8, gt=0, lt=1)  # at which the detectable difference and the items needed are stated
    hard: bool = False  # a hard gate that does not pass ends the run with an exit status of its own

    @property
    def is_counted(self) -> bool:
        """Whether the metric is counted over all items, and so certain."""
        return self.metric in (UNSCORED_SHARE, CONTAMINATED_ITEMS) or (self.metric or "").startswith(JUDGE_QUALIFIED)


def gate_problems(
    name: str,
    gate: GateConfig,
    baseline: str,
    policies: Sequence[str],
    suites: Mapping[str, Sequence[str] | None],
) -> Iterator[str]:
    """Yield what is wrong with a gate, each line naming its key.

    Args:
        name: Of the gate.
        gate: The gate.
        baseline: `evaluate.baseline`.
        policies: That are evaluated.
        suites: That are evaluated, with the metrics that a gate may be about; None where nobody knows them yet.
    """
    key = f"evaluate.gates.{name}"
    yield from _kind_problems(key, gate)
    if gate.suite is None and not gate.is_counted:
        yield f"{key}.suite: has no value; name one of the suites ({', '.join(suites)})."
    if gate.suite is not None and gate.suite not in suites and gate.hard:
        yield f"{key}.suite={gate.suite}: this suite is not evaluated ({', '.join(suites)}), so the gate cannot pass."
    metrics = suites.get(gate.suite or "")
    if metrics and gate.metric is not None and not gate.is_counted and gate.metric not in metrics:
        yield (
            f"{key}.metric={gate.metric}: {gate.suite} has no such metric.{near_miss(gate.metric, metrics)} "
            f"Metrics: {', '.join(metrics)}."
        )
    for field, policy in (("policy", gate.policy), ("baseline", gate.baseline)):
        if policy is not None and policy not in policies:
            yield f"{key}.{field}={policy}: it is not among the policies that are evaluated ({', '.join(policies)})."
    if gate.kind in COMPARING and gate.policy is not None and gate.policy == (gate.baseline or baseline):
        yield f"{key}.policy={gate.policy}: it is the baseline, and a policy cannot be better than itself."
    if gate.kind in COMPARING and gate.hard and len(policies) < 2:
        yield f"{key}: there is one policy, and {gate.kind} compares two. Add one to `inputs.evaluate.policy`."


def waiver_of(gate: str, waivers: Mapping[str, WaiverConfig]) -> dict[str, str] | None:
    """Return the waiver of a gate as a report holds it; None where there is none."""
    for name, waiver in waivers.items():
        if waiver.gate == gate:
            return {"name": name, "reason": waiver.reason, "by": waiver.by}
    return None


def waiver_problems(waivers: Mapping[str, WaiverConfig], gates: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the waivers: each is of one gate that there is, and says why and who."""
    seen: dict[str, str] = {}
    for name, waiver in waivers.items():
        key = f"evaluate.waivers.{name}"
        if waiver.gate not in gates:
            yield (
                f"{key}.gate={waiver.gate}: there is no such gate.{near_miss(waiver.gate, gates)} "
                f"Gates: {', '.join(gates) or 'none'}."
            )
        if waiver.gate in seen:
            yield f"{key}.gate={waiver.gate}: {seen[waiver.gate]} waives it already."
        seen.setdefault(waiver.gate, name)
        for field, value in (("reason", waiver.reason), ("by", waiver.by)):
            if not value.strip():
                yield f"{key}.{field}: is empty; a waiver says why a gate need not pass, and who answers for it."


def _kind_problems(key: str, gate: GateConfig) -> Iterator[str]:
    compares = gate.kind in COMPARING
    if compares and gate.is_counted:
        yield f"{key}.kind={gate.kind}: {gate.metric} is counted, not compared; use at_most or at_least with a bound."
    if compares and gate.bound is not None:
        yield f"{key}.bound={gate.bound}: {gate.kind} compares two policies and has a margin in its place."
    if not compares and gate.bound is None:
        yield f"{key}.bound: has no value; {gate.kind} needs one, in the metric's unit (of a share 0.9 is 90 %)."
    if not compares and gate.margin:
        yield f"{key}.margin={gate.margin}: {gate.kind} compares with its bound, which takes the margin's place."
    if gate.kind is GateKind.non_inferiority and not gate.margin:
        yield (
            f"{key}.margin: has no value; non_inferiority needs how much worse is tolerable, in the metric's unit "
            "(of a share 0.03 is three points)."
        )
