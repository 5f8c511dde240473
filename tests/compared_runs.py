"""Run folders with real reports of invented policies, for the tests and the benchmark of `compare`."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from help_desk import FIT, FORM, GOOD, PLAIN, generated, of, scored

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import sha256_text
from pipeline.artifacts.manifest import ArtifactKind, Parent
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Provenance, Store
from pipeline.config.evaluation import EvaluateConfig, SuiteConfig
from pipeline.evaluation.items import items_json
from pipeline.evaluation.joining import PolicySamples
from pipeline.evaluation.judged import JudgedWins
from pipeline.evaluation.measures import measure_suites
from pipeline.evaluation.report import build_report, to_json

SUITES = {"form": FORM, "fit": FIT}
EVALUATE = EvaluateConfig(suites=["form", "fit"], baseline="sft", num_examples=2, num_regressions=2)


def samples_of(policy: str, skill: float, *, items: int = 40, seed: int = 0, first: int = 0) -> list[PolicySamples]:
    """Answers of a policy that keeps the form with a probability of about `skill`; two items share a cluster."""
    own, shared = random.Random(f"{policy} {skill} {seed}"), random.Random("difficulty")
    hard = [shared.uniform(-0.3, 0.3) for _ in range(first + items)]
    form, fit = [], []
    for number in range(first, first + items):
        identifier, cluster = f"item-{number:04}", f"cluster-{number // 2}"
        answer = GOOD if own.random() < skill + hard[number] else PLAIN
        prompt = f"How do I reset hub {number}?"
        form.append(generated(identifier, answer, cluster=cluster, prompt=prompt))
        nats = 4.0 - skill + hard[number] + own.gauss(0, 0.1)
        fit.append(scored(identifier, nats, tokens=2, cluster=cluster))
    identity = f"{policy}-{skill}-{seed}-{items}-{first}"
    return [
        replace(of(policy, "form", form), artifact=f"samples-form-{identity}"),
        replace(of(policy, "fit", fit), artifact=f"samples-fit-{identity}"),
    ]


def seal_policy(
    store: Store,
    name: str,
    stage: str,
    parents: Sequence[Artifact],
    *,
    rows: Sequence[Mapping[str, float]],
    tokens: int = 50_000,
    seconds: float = 12.5,
) -> Artifact:
    """Seal a policy; its fingerprint comes of the name, and its content of the rows and tokens alone."""
    work = store.work(stage, sha256_text(name))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (work.staging / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (work.staging / "training.json").write_text(json.dumps({"processed_tokens": tokens}), encoding="utf-8")
    inputs = {f"{stage}.key_{number}": number for number in range(60)}
    return store.seal(
        work, kind=ArtifactKind.policy, stage=stage, version=1, fingerprint=sha256_text(name),
        parents=[Parent("policy", parent.kind, parent.id, {}) for parent in parents],
        config={"fingerprint_inputs": inputs}, outcome=StageOutcome(parts={"policy": "0" * 64}),
        provenance=Provenance(wall_seconds=seconds),
    )  # fmt: skip


def write_run(
    outputs: Path,
    name: str,
    samples: Sequence[PolicySamples],
    *,
    config: Mapping[str, Any] | None = None,
    suites: Mapping[str, SuiteConfig] = SUITES,
    dataset: str = "curate-1-a",
    artifacts: Mapping[str, str] | None = None,
    judged: Sequence[JudgedWins] = (),
) -> Path:
    """Write a run folder as `train` leaves it; the policies are what the samples are of."""
    folder = outputs / "runs" / name
    folder.mkdir(parents=True)
    measured = measure_suites(samples, suites, EVALUATE)
    policies = dict.fromkeys(entry.policy for entry in samples)
    provenance = {
        "policies": {policy: (artifacts or {}).get(policy) for policy in policies},
        "datasets": [dataset],
        "base": ["b" * 64],
    }
    report = build_report(samples, suites, EVALUATE, provenance, measured=measured)
    (folder / "report.json").write_text(to_json(report), encoding="utf-8")
    (folder / "items.json").write_text(items_json(measured, judged), encoding="ascii")
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config or {})), encoding="utf-8")
    (folder / "artifacts.json").write_text(json.dumps(artifacts or {}), encoding="utf-8")
    return folder


def write_trial(outputs: Path, number: int, skill: float, *, sweep: str = "sweep", **parameters: Any) -> Path:
    """Write the run folder of a trial: a shared `sft`, and a `dpo` of its own."""
    samples = [*samples_of("sft", 0.5), *samples_of("dpo", skill, seed=number)]
    return write_run(outputs, f"{sweep}-{number}", samples, config={"dpo": parameters, "seed": 17})


def write_sweep(outputs: Path, trials: Sequence[Mapping[str, Any]], *, sweep: str = "sweep", **changes: Any) -> Path:
    """Write `sweep.json`; a trial needs its `params` only."""
    folder = outputs / "runs" / sweep
    folder.mkdir(parents=True)
    listed = [
        {"number": number, "status": "finished", "folder": f"{sweep}-{number}", "overrides": [], "exit_status": 0,
         "objectives": None, "intermediate": [], "reason": "", "started": None, "seconds": 1.0, "study_number": None,
         **trial}
        for number, trial in enumerate(trials)
    ]  # fmt: skip
    content = {
        "format_version": 1, "sweep": sweep, "identity": "0" * 64, "command": "train",
        "experiment": "dpo", "status": "complete",
        "method": "grid", "objectives": [{"name": "form/all_checks/dpo", "direction": "maximize"}], "space": {},
        "trials": listed,
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return folder


def make_grid(outputs: Path) -> Path:
    """Write a sweep of eight trials, a whole grid, with one that failed and one that was pruned."""
    skills = (0.4, 0.5, 0.45, 0.6, 0.5, 0.55, 0.42, 0.47)
    grid = [(beta, rate) for beta in (0.1, 0.5) for rate in (1e-5, 2e-5, 5e-5, 1e-4)]
    trials: list[dict[str, Any]] = []
    for number, ((beta, rate), skill) in enumerate(zip(grid, skills, strict=True)):
        write_trial(outputs, number, skill, beta=beta, optimizer={"learning_rate": rate})
        trials.append({"params": {"dpo.beta": beta, "dpo.optimizer.learning_rate": rate}})
    lost = {"params": {"dpo.beta": 9.0, "dpo.optimizer.learning_rate": 1.0}}
    trials += [
        {**lost, "status": "failed", "exit_status": 17, "reason": "diverged at step 3"},
        {**lost, "status": "pruned", "intermediate": [[10, 0.2]], "folder": "never"},
    ]
    return write_sweep(outputs, trials)
