"""What a report's page shows beside the report: it differs from run to run, or is no part of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StageCurves:
    """The rows of metrics that a training stage recorded."""

    stage: str
    artifact: str
    rows: Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class StageCosts:
    """What making an artifact took."""

    label: str
    artifact: str
    costs: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PolicyCosts:
    """What one policy cost to make, and what it costs to use; None is what was not measured."""

    policy: str
    training_seconds: float | None = None  # of every stage that trained something it was made from
    tokens_per_second: float | None = None  # written in the batches of the evaluation
    completion_seconds: float | None = None  # of the evaluation per completion


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """How the gold score goes with the distance d: R = R0 + d (alpha - beta ln d), fitted (arXiv:2210.10760)."""

    start: float  # R0, at the reference
    alpha: float
    beta: float
    explained: float | None  # share of the scores' variance
    peak_kl: float | None  # nats; None where the fitted score keeps rising or falls from the start
    reason: str | None  # why there is no peak


@dataclass(frozen=True, kw_only=True)
class PolicyMonitor:
    """How far reinforcement learning moved a policy from its reference, and what was measured on the way.

    `monitor` is what the policy's ``monitor.json`` holds: ``measurements`` of {step, monitor_kl in nats per completion,
    monitor_score, monitor_gold where there is one, monitor_completion_tokens}, ``fired``, ``chosen_step``, ``reason``.
    """

    policy: str
    artifact: str
    monitor: Mapping[str, Any]
    law: FittedLaw | None = None  # None without a gold score, or with too few measurements of it


@dataclass(frozen=True, kw_only=True)
class LineageEntry:
    """One artifact that the report rests on."""

    id: str
    kind: str
    stage: str
    parents: Sequence[tuple[str, str]]  # role, artifact id
    facts: Mapping[str, Any] = field(default_factory=dict)  # base digest, fingerprint, environment
    config: Mapping[str, Any] = field(default_factory=dict)
