"""What a report's page shows beside the report, read from the artifacts that it rests on: costs, curves, lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifacts.ancestry import TRAINED, ancestry, read_costs, read_rows
from pipeline.artifacts.artifact import Artifact
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.evaluation.metric_names import COMPLETION_TOKENS
from pipeline.evaluation.variants import TIMES_FILE, VARIANTS_FILE, cost_per_1000
from pipeline.pages.report_inputs import FittedLaw, LineageEntry, PolicyCosts, PolicyMonitor, StageCosts, StageCurves
from pipeline.ppo.monitor import MONITOR_FILE
from pipeline.statistics.overoptimization import fit_overoptimization

Pairs = Sequence[tuple[str, str, Artifact]]  # policy, suite, samples


def page_inputs(
    pairs: Pairs,
    policies: Mapping[str, Artifact],
    suites: Mapping[str, SuiteConfig],
    report: Mapping[str, Any],
    ancestors: Sequence[Artifact],
) -> dict[str, Any]:
    """Return the arguments of `report_page` that are no part of the report.

    Args:
        pairs: Which policy and suite each artifact of samples belongs to.
        policies: The artifact of each policy that has one, by the policy's name.
        suites: By name.
        report: The report.
        ancestors: Every artifact behind the report.
    """
    return {
        "curves": [curves for artifact in ancestors if (curves := _curves(artifact))],
        "monitors": _monitors(policies),
        "costs": _costs(pairs, ancestors),
        "policy_costs": _policy_costs(pairs, policies, suites, report),
        "lineage": [_lineage_entry(artifact) for artifact in ancestors],
    }


def _policy_costs(
    pairs: Pairs, policies: Mapping[str, Artifact], suites: Mapping[str, SuiteConfig], report: Mapping[str, Any]
) -> list[PolicyCosts]:
    """Return what each policy cost to make and to use; speed is that of the completions of all suites together."""
    costs = []
    for policy in dict.fromkeys(policy for policy, _, _ in pairs):
        made_of = ancestry([policies[policy]]) if policy in policies else []
        trained = [made for made in made_of if made.kind in TRAINED]
        used = {
            samples.id: read_costs(samples)
            for name, suite, samples in pairs
            if name == policy and suites[suite].kind is SuiteKind.generation
        }
        measured = [cost for cost in used.values() if cost.get("tokens") and cost["wall_seconds"]]
        seconds, tokens = (sum(cost[key] for cost in measured) for key in ("wall_seconds", "tokens"))
        lengths = [
            (entry["estimate"], entry["n"])
            for entry in report["metrics"]
            if (entry["metric"], entry["policy"], entry["baseline"]) == (COMPLETION_TOKENS, policy, None)
        ]
        mean_length = sum(length * n for length, n in lengths) / sum(n for _, n in lengths) if lengths else None
        costs.append(
            PolicyCosts(
                policy=policy,
                training_seconds=sum(made.manifest.wall_seconds for made in trained) if trained else None,
                tokens_per_second=tokens / seconds if measured else None,
                completion_seconds=mean_length * seconds / tokens if measured and mean_length is not None else None,
            )
        )
    return costs


def read_variants(artifact: Artifact | None) -> dict[str, Any] | None:
    """Return what ways to run one policy change, if they were measured."""
    if artifact is None:
        return None
    content: dict[str, Any] = json.loads(artifact.file(VARIANTS_FILE).read_text(encoding="utf-8"))
    return content


def variant_rows(
    content: Mapping[str, Any] | None, artifact: Artifact | None, price_per_hour: float
) -> list[dict[str, Any]]:
    """Return one row per way to run the policy: what it changes, what it takes, and what a thousand answers cost."""
    if content is None or artifact is None:
        return []
    measured = json.loads(artifact.file(TIMES_FILE).read_text(encoding="utf-8"))
    times = {entry["name"]: entry for entry in measured}
    rows = []
    for entry in content["variants"]:
        taken = times.get(entry["name"])
        cost = cost_per_1000(taken["seconds_per_1000"], price_per_hour) if taken and price_per_hour else None
        rows.append({**entry, "times": taken, "cost_per_1000": cost})
    return rows


def _costs(pairs: Pairs, ancestors: Sequence[Artifact]) -> list[StageCosts]:
    """Return what making each artifact took."""
    labels: dict[str, list[str]] = {}
    for policy, suite, artifact in pairs:  # two suites that differ in their checks share one artifact
        labels.setdefault(artifact.id, []).append(f"{suite}, {policy}")
    return [
        StageCosts(
            label="; ".join(labels.get(artifact.id, [artifact.manifest.stage])),
            artifact=artifact.id,
            costs={name: value for name, value in read_costs(artifact).items() if not isinstance(value, list)},
        )
        for artifact in ancestors
    ]


def _curves(artifact: Artifact) -> StageCurves | None:
    """Return the rows that a training stage recorded, if it made this artifact."""
    rows = read_rows(artifact)
    return StageCurves(stage=artifact.manifest.stage, artifact=artifact.id, rows=rows) if rows else None


def _monitors(policies: Mapping[str, Artifact]) -> list[PolicyMonitor]:
    """Return how far each policy that reinforcement learning made has moved, and what was said of it on the way."""
    found = []
    for policy, artifact in policies.items():
        if MONITOR_FILE in artifact.manifest.files:
            monitor = json.loads(artifact.file(MONITOR_FILE).read_text(encoding="utf-8"))
            law = gold_law(monitor["measurements"])
            found.append(PolicyMonitor(policy=policy, artifact=artifact.id, monitor=monitor, law=law))
    return found


def gold_law(measurements: Sequence[Mapping[str, Any]]) -> FittedLaw | None:
    """Fit how the gold score goes with the distance from the reference, whose own score is that of the first step."""
    held = sorted((row for row in measurements if row.get("monitor_gold") is not None), key=lambda row: row["step"])
    if not held:
        return None
    start = float(held[0]["monitor_gold"])
    distances = [max(float(row["monitor_kl"]), 0.0) for row in held]  # an estimate that can come out below zero
    fitted = fit_overoptimization(distances, [row["monitor_gold"] - start for row in held])
    if fitted is None:
        return None
    return FittedLaw(
        start=start, alpha=fitted.alpha, beta=fitted.beta, explained=fitted.explained, peak_kl=fitted.peak_kl,
        reason=fitted.reason,
    )  # fmt: skip


def _lineage_entry(artifact: Artifact) -> LineageEntry:
    manifest = artifact.manifest
    facts = {
        "fingerprint": manifest.fingerprint,
        "content_digest": manifest.content_digest,
        "base": manifest.base,
        "resolved": manifest.resolved,
        "environment": manifest.environment,
        "created": manifest.created,
    }
    return LineageEntry(
        id=artifact.id,
        kind=str(artifact.kind),
        stage=manifest.stage,
        parents=[(parent.role, parent.id) for parent in manifest.parents],
        facts=facts,
        config={name: value for name, value in manifest.config.items() if name != "fingerprint_inputs"},
    )
