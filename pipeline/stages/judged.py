"""What the report stage reads of judges: their verdicts and their scorecards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifacts.ancestry import read_costs
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.judges import JudgeConfig
from pipeline.evaluation.joining import PolicySamples
from pipeline.evaluation.judged import (
    JudgedPolicies,
    JudgedWins,
    SealedCard,
    compared_pairs,
    judge_entries,
    win_rates,
    wins_by_item,
)
from pipeline.evaluation.judges.registry import build_judge
from pipeline.evaluation.rankings import policy_rankings
from pipeline.evaluation.ratings import RatedPolicy, rating_entries
from pipeline.evaluation.verdicts import VERDICTS_FILE, read_verdicts
from pipeline.stages.scorecard import CARD_FILE
from pipeline.tracking.job import StageJob


def judge_seconds(job: StageJob) -> dict[str, float]:
    """Return the seconds that a thousand questions took here, by judge; of one with prices the money is told instead.

    People and panels are asked nothing, and what was made before questions were counted says nothing.
    """
    judges: Mapping[str, JudgeConfig] = job.params.get("judges", {})
    taken: dict[str, list[dict[str, Any]]] = {}
    for role in ("verdicts", "scorecards", "ratings"):
        for entry, artifact in zip(job.params.get(role, []), job.inputs.get(role, []), strict=True):
            config, costs = judges[entry["judge"]], read_costs(artifact)
            if costs.get("questions") and not config.members and not build_judge(config).is_people:
                taken.setdefault(entry["judge"], []).append(costs)
    return {
        judge: 1000 * sum(one["wall_seconds"] for one in costs) / sum(one["questions"] for one in costs)
        for judge, costs in taken.items()
        if not any(one["cost"] for one in costs)
    }


def read_judges(
    job: StageJob, samples: Sequence[PolicySamples], evaluate: EvaluateConfig
) -> tuple[dict[str, list[dict[str, Any]]], list[JudgedWins]]:
    """Return the `win_rates`, `rankings`, `judges` and ratings of a report, and wins by item; empty without judges."""
    judges: Mapping[str, JudgeConfig] = job.params.get("judges", {})
    judged = [
        JudgedPolicies(
            judge=entry["judge"],
            suite=entry["suite"],
            policies=entry["policies"],
            rows=read_verdicts(artifact.file(VERDICTS_FILE)),
        )
        for entry, artifact in zip(job.params.get("verdicts", []), job.inputs.get("verdicts", []), strict=True)
    ]
    cards = [
        SealedCard(
            judge=entry["judge"],
            suite=entry["suite"],
            content=json.loads(artifact.file(CARD_FILE).read_text(encoding="utf-8")),
            base=(artifact.manifest.base or {}).get("digest"),
        )
        for entry, artifact in zip(job.params.get("scorecards", []), job.inputs.get("scorecards", []), strict=True)
    ]
    bases = {(artifact.manifest.base or {}).get("digest") for artifact in job.inputs["samples"]}
    entries = judge_entries(judges, cards, evaluate, [digest for digest in bases if digest is not None])
    rated = [
        RatedPolicy(**entry, rows=read_verdicts(artifact.file(VERDICTS_FILE)))
        for entry, artifact in zip(job.params.get("ratings", []), job.inputs.get("ratings", []), strict=True)
    ]
    pairs = compared_pairs(judged, samples, evaluate)
    sections = {
        "win_rates": win_rates(pairs, entries, evaluate),
        "rankings": policy_rankings(pairs, entries, evaluate),
        "judges": entries,
        "ratings": rating_entries(rated, job.params["suites"], evaluate),
    }
    return sections, wins_by_item(pairs, judges, entries, samples, evaluate)
