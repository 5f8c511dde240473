"""The last stage of an evaluation: samples of every policy and suite, joined into one report. No model is loaded."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.artifacts.ancestry import ancestry
from pipeline.artifacts.artifact import COSTS_FILE, Artifact
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.evaluation import EvaluateConfig, SuiteConfig
from pipeline.errors import ArtifactError
from pipeline.evaluation.contamination import contamination
from pipeline.evaluation.item_file import ITEMS_FILE
from pipeline.evaluation.items import items_json
from pipeline.evaluation.joining import PolicySamples
from pipeline.evaluation.measures import measure_suites
from pipeline.evaluation.report import Report, build_report, headline_metrics, to_json
from pipeline.evaluation.reward_card import AUDIT_FILE
from pipeline.evaluation.samples import SAMPLES_FILE, read_samples, row_type
from pipeline.pages.report_page import report_page
from pipeline.stages.judged import judge_seconds, read_judges
from pipeline.stages.page_inputs import page_inputs, read_variants, variant_rows
from pipeline.stages.report_tables import log_tables
from pipeline.statistics.decisions import Decision
from pipeline.tracking.job import StageJob

REPORT_FILE, PAGE_FILE = "report.json", "report.html"
NAMED_ITEMS = 5  # contaminated ones that a notice names


def write_report(job: StageJob) -> StageOutcome:
    """Write ``report.json`` and ``items.json``, the same bytes for the same samples, and the page that shows them."""
    started = time.monotonic()
    suites: Mapping[str, SuiteConfig] = job.params["suites"]
    artifacts = job.inputs["samples"]
    pairs = _pairs(job.params["samples"], artifacts)
    policies = dict(zip(job.params["sealed"], job.inputs.get("policies", []), strict=True))
    samples = [
        PolicySamples(
            policy=policy,
            suite=suite,
            artifact=artifact.id,
            rows=read_samples(artifact.file(SAMPLES_FILE), row_type(suites[suite].kind)),
            tokenizer=artifact.manifest.parts.get("tokenizer", ""),
        )
        for policy, suite, artifact in pairs
    ]
    ancestors = ancestry([artifact for consumed in job.inputs.values() for artifact in consumed])
    audits = [_audit(artifact) for artifact in ancestors if artifact.kind is ArtifactKind.reward_model]
    evaluate = replace(job.section(EvaluateConfig), baseline=job.params["baseline"])
    found = _contamination(job, samples, suites, evaluate)
    measured = measure_suites(samples, suites, evaluate)
    judged, wins = read_judges(job, samples, evaluate)
    report = build_report(
        samples,
        suites,
        evaluate,
        {**_provenance(pairs, policies), "taught_by": _taught_by(policies)},
        contamination=found,
        reward_models=audits,
        costs=read_variants(job.one("costs")),
        measured=measured,
        wins=wins,
        **judged,
    )
    report_file = job.staging / REPORT_FILE
    report_file.write_text(to_json(report), encoding="utf-8", newline="\n")
    (job.staging / ITEMS_FILE).write_text(items_json(measured, wins), encoding="ascii", newline="\n")
    variants = variant_rows(report["costs"], job.one("costs"), evaluate.costs.price_per_hour)
    shown = page_inputs(pairs, policies, suites, report, ancestors)
    page = report_page(report, variants=variants, judge_seconds=judge_seconds(job), **shown)
    (job.staging / PAGE_FILE).write_text(page, encoding="utf-8", newline="\n")
    log_tables(job.run, report)
    _tell_baseline(job, report)
    for line in [report["headline"]["text"], *(_contaminated(entry) for entry in found if entry["contaminated"])]:
        job.run.notice(line)
    _tell_gates(job, report, ancestors)
    costs = {"wall_seconds": round(time.monotonic() - started, 3)}
    (job.staging / COSTS_FILE).write_text(json.dumps(costs) + "\n", encoding="utf-8")
    return StageOutcome(parts={"report": sha256_file(report_file)}, metrics=_summary(report), gates=report["gates"])


def _tell_baseline(job: StageJob, report: Mapping[str, Any]) -> None:
    """Say what the others are compared with where nobody asked for it."""
    if job.section(EvaluateConfig).baseline is None and report["baseline"] != "base":
        told = "evaluate.baseline is not set, and `base` is not evaluated"
        job.run.notice(f"baseline: {report['baseline']}, the first policy, because {told}")


def _tell_gates(job: StageJob, report: Mapping[str, Any], ancestors: Sequence[Artifact]) -> None:
    """Alert of hard gates that do not pass, and register each policy on which there are some and all of them do."""
    outcomes: dict[str, set[str]] = {}
    for gate in report["gates"]:
        if gate["hard"]:
            outcomes.setdefault(gate["policy"], set()).add(gate["outcome"])
            if gate["outcome"] != Decision.PASS:
                job.run.alert(
                    f"Gate {gate['name']}: {gate['outcome']}",
                    f"gate {gate['name']}: {gate['outcome']}: {gate['reason']}",
                )
    passed = {report["provenance"]["policies"].get(policy) for policy, found in outcomes.items() if found == {"PASS"}}
    for artifact in ancestors:
        if artifact.id in passed:
            job.run.register(artifact)


def _contamination(
    job: StageJob, samples: Sequence[PolicySamples], suites: Mapping[str, SuiteConfig], evaluate: EvaluateConfig
) -> list[dict[str, Any]]:
    """Look for the items in the train rows of the run's data set; without one nothing is known."""
    dataset = job.one("dataset")
    if dataset is None:
        return []
    return contamination(samples, suites, evaluate, dataset.path, f"the train rows of {dataset.id}")


def _contaminated(entry: Mapping[str, Any]) -> str:
    listed = ", ".join(entry["ids"][:NAMED_ITEMS]) + (", …" if entry["contaminated"] > NAMED_ITEMS else "")
    return f"{entry['suite']}: {entry['contaminated']} of {entry['items']} items stand in {entry['against']}: {listed}"


def _pairs(named: Sequence[Mapping[str, str]], artifacts: Sequence[Artifact]) -> list[tuple[str, str, Artifact]]:
    """Say which policy and suite each artifact of samples belongs to; both lists are in the order of the inputs."""
    if len(named) != len(artifacts):
        raise ArtifactError(
            f"The report was promised {len(named)} artifacts of samples and was given {len(artifacts)}."
        )
    return [(entry["policy"], entry["suite"], artifact) for entry, artifact in zip(named, artifacts, strict=True)]


def _provenance(pairs: Sequence[tuple[str, str, Artifact]], sealed: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return what each policy was, by ids and digests."""
    policies: dict[str, str | None] = {}
    for policy, _, artifact in pairs:
        # Null is the base itself; of what is neither that nor an artifact, sampling left a description.
        policies[policy] = sealed[policy].id if policy in sealed else artifact.manifest.resolved.get("policy")
    datasets = {p.id for _, _, artifact in pairs for p in artifact.manifest.parents if p.kind is ArtifactKind.dataset}
    bases = {(artifact.manifest.base or {}).get("digest") for _, _, artifact in pairs}
    return {
        "policies": policies,
        "datasets": sorted(datasets),
        "base": sorted(digest for digest in bases if digest is not None),
    }


def _taught_by(policies: Mapping[str, Artifact]) -> dict[str, list[str]]:
    """Return which tables of the data set each policy's last training read; nothing of what no stage here trained."""
    found: dict[str, list[str]] = {}
    for policy, artifact in policies.items():
        read = [p.part_digests for p in artifact.manifest.parents if p.kind is ArtifactKind.dataset]
        found[policy] = sorted({part.partition("/")[0] for parts in read for part in parts})
    return {policy: tables for policy, tables in found.items() if tables}


def _audit(artifact: Artifact) -> dict[str, Any]:
    """Return the card that a reward model was sealed with, under the name of its stage."""
    card: dict[str, Any] = json.loads(artifact.file(AUDIT_FILE).read_text(encoding="utf-8"))
    return {"name": artifact.manifest.stage, "artifact": artifact.id, **card}


def _summary(report: Report) -> dict[str, Any]:
    best = {"standing": report["standing"]["text"]} if report["standing"] else {}
    return {**headline_metrics(report), "headline": report["headline"]["text"], **best}
