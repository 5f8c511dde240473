"""The report stage on sealed artifacts: what it writes, and that it repeats to the byte."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from help_desk import EVALUATE, PLAIN, SUITES, help_desk

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import sha256_file, sha256_text
from pipeline.artifacts.manifest import ArtifactKind, Parent
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Provenance, Store
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.gates import GateConfig, GateKind
from pipeline.config.shared import RuntimeConfig
from pipeline.errors import ArtifactError
from pipeline.evaluation.report import round_floats
from pipeline.evaluation.samples import write_samples
from pipeline.stages.page_inputs import gold_law
from pipeline.stages.report import write_report
from pipeline.tracking.job import StageJob
from pipeline.tracking.run import Run

COSTS = '{"tokens": 60, "wall_seconds": 4.0}'
GATES = {
    "better": GateConfig(kind=GateKind.superiority, suite="fit", hard=True),
    "counted": GateConfig(kind=GateKind.at_most, metric="unscored_share", bound=0.0),
}


class Recorder:
    """Stands in for the running stage's record, which is what the stage tells things to."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.tables: dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = {}

        self.alerts: list[str] = []
        self.registered: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def alert(self, title: str, text: str) -> None:
        self.alerts.append(title)

    def register(self, artifact: Artifact) -> None:
        self.registered.append(artifact.id)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.tables[name] = (columns, rows)


def seal(
    store: Store, stage: str, kind: ArtifactKind, name: str, files: dict[str, str], parents: list[Artifact], *read: str
) -> Artifact:
    """Seal files as an artifact that has read these parts of each of its parents."""
    fingerprint = sha256_text(name)
    work = store.work(stage, fingerprint)
    for file, content in files.items():
        (work.staging / file).write_text(content, encoding="utf-8")
    return store.seal(
        work, kind=kind, stage=stage, version=1, fingerprint=fingerprint, config={"rank": 16},
        outcome=StageOutcome(parts={"tokenizer": "0" * 64}),
        parents=[Parent(str(parent.kind), parent.kind, parent.id, dict.fromkeys(read, "0" * 64)) for parent in parents],
        provenance=Provenance(base={"name": "tiny", "digest": "f" * 64}, wall_seconds=12.5),
    )  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> StageJob:
    store = Store(tmp_path / "outputs")
    dataset = seal(store, "curate", ArtifactKind.dataset, "dataset", {"counts.json": "{}"}, [])
    curve = "".join(json.dumps({"step": step, "loss": 2.0 - step / 10}) + "\n" for step in range(5))
    audit = json.dumps({"accuracy": {"estimate": 0.75, "low": 0.7, "high": 0.8, "n": 400}, "gates": []})
    reward = seal(store, "reward", ArtifactKind.reward_model, "reward", {"audit.json": audit}, [dataset])
    rows = [
        {"step": k, "monitor_kl": k / 2, "monitor_score": k, "monitor_gold": 3 - abs(k - 2), "by_length": []}
        for k in range(5)
    ]
    monitor = json.dumps(
        {"measurements": rows, "fired": None, "chosen_step": 2, "reason": "best gold score", "gates": []}
    )
    files = {"metrics.jsonl": curve, "monitor.json": monitor}
    policy = seal(store, "sft", ArtifactKind.policy, "policy", files, [dataset, reward], "comparisons/train")
    samples = []
    for entry in help_desk():
        write_samples(tmp_path / "rows.jsonl", entry.rows)
        files = {"samples.jsonl": (tmp_path / "rows.jsonl").read_text(encoding="utf-8"), "costs.json": COSTS}
        parents = [dataset] if entry.policy == "base" else [dataset, policy]
        samples.append(seal(store, "samples", ArtifactKind.samples, entry.artifact, files, parents))
    return StageJob(
        sections={EvaluateConfig: replace(EVALUATE, gates=GATES)},
        inputs={"samples": samples, "policies": [policy]},
        run=cast(Run, Recorder()),
        work=store.work("report", "0" * 64),
        runtime=RuntimeConfig(),
        params={
            "suites": SUITES,
            "sealed": ["tuned"],
            "samples": [{"policy": e.policy, "suite": e.suite} for e in help_desk()],
            "baseline": "base",
        },
    )


def test_the_stage_writes_report_page_and_costs(job: StageJob) -> None:
    outcome = write_report(job)
    written = ["costs.json", "items.json", "report.html", "report.json"]
    assert sorted(path.name for path in job.staging.iterdir()) == written
    assert outcome.parts == {"report": sha256_file(job.staging / "report.json")}
    assert outcome.metrics["form/all_checks/tuned_minus_base"] == 0.5
    report = json.loads((job.staging / "report.json").read_text(encoding="utf-8"))
    dataset, policy = (entry for entry in (job.work.path.parents[1] / "artifacts").glob("*-*-*") if
                       entry.name.startswith(("curate", "sft")) and entry.is_dir())  # fmt: skip
    ids = sorted([dataset.name, policy.name])
    assert report["provenance"]["policies"] == {"base": None, "tuned": ids[1]}
    assert report["provenance"]["datasets"] == [ids[0]]
    assert report["provenance"]["base"] == ["f" * 64]
    # The policy read comparisons, so its likelihood of demonstrations (the suite `fit`) is told and not counted.
    assert report["provenance"]["taught_by"] == {"tuned": ["comparisons"]}
    assert [entry["suite"] for entry in report["headline"]["verdicts"]] == ["form"]
    page = (job.staging / "report.html").read_text(encoding="utf-8")
    assert "Learning curves" in page
    assert ids[0] in page
    assert "wall seconds 12.5" in page


def test_a_policy_that_was_rolled_back_shows_its_own_monitor_beside_samples_of_the_policy_it_fell_back_to(
    job: StageJob,
) -> None:
    """The weights are those of `tuned`, and so the samples are the same artifacts, made of `tuned` alone."""
    store = Store(job.work.path.parents[1])
    tuned = job.inputs["policies"][0]
    gates = [{"name": "score_rises", "outcome": "FAIL", "reason": "nothing was won"}]
    rows = [{"step": k, "monitor_kl": k, "monitor_score": k, "monitor_gold": -k, "by_length": []} for k in (0, 1, 2)]
    seen = {"measurements": rows, "fired": None, "chosen_step": 0, "reason": "best gold score", "gates": gates}
    rolled = seal(store, "ppo", ArtifactKind.policy, "ppo", {"monitor.json": json.dumps(seen)}, [tuned], "policy")
    places = [place for place, pair in enumerate(job.params["samples"]) if pair["policy"] == "tuned"]
    pairs = [job.params["samples"][place] for place in places]
    inputs = {
        **job.inputs, "samples": 2 * [job.inputs["samples"][place] for place in places], "policies": [tuned, rolled],
    }  # fmt: skip
    shared = [*pairs, *({**pair, "policy": "ppo"} for pair in pairs)]
    params = {**job.params, "samples": shared, "sealed": ["tuned", "ppo"], "baseline": "tuned"}
    evaluate = replace(EVALUATE, baseline="tuned", gates={})
    write_report(replace(job, inputs=inputs, params=params, sections={EvaluateConfig: evaluate}))
    page = (job.staging / "report.html").read_text(encoding="utf-8")
    assert f"ppo <code>{rolled.id}" in page
    assert "The policy is that of rollout 0: best gold score. FAIL score_rises: nothing was won." in page
    report = json.loads((job.staging / "report.json").read_text(encoding="utf-8"))
    assert report["provenance"]["policies"] == {"tuned": tuned.id, "ppo": rolled.id}


def test_a_policy_is_registered_only_when_every_hard_gate_on_it_passes(job: StageJob) -> None:
    write_report(job)
    told = cast(Recorder, job.run)
    report = json.loads((job.staging / "report.json").read_text(encoding="utf-8"))
    assert (told.alerts, told.registered) == ([], [report["provenance"]["policies"]["tuned"]])
    too_much = {**GATES, "far_better": replace(GATES["better"], margin=1000.0)}
    refused = replace(job, run=cast(Run, Recorder()), sections={EvaluateConfig: replace(EVALUATE, gates=too_much)})
    write_report(refused)
    told = cast(Recorder, refused.run)
    # Two claims are corrected for each other, so that the sound one is not shown any more.
    assert (told.alerts, told.registered) == (["Gate better: INCONCLUSIVE", "Gate far_better: FAIL"], [])


def test_gates_costs_audits_and_monitors_are_found_behind_the_policies(job: StageJob) -> None:
    outcome = write_report(job)
    assert [(gate["name"], gate["outcome"]) for gate in outcome.gates] == [("better", "PASS"), ("counted", "PASS")]
    report = json.loads((job.staging / "report.json").read_text(encoding="utf-8"))
    assert round_floats(outcome.gates) == report["gates"]
    (audit,) = report["reward_models"]
    assert (audit["name"], audit["accuracy"]["estimate"]) == ("reward", 0.75)
    page = (job.staging / "report.html").read_text(encoding="utf-8")
    # 60 tokens in 4 s, 17/4 tokens a completion; the policy and its reward model took 12.5 s each.
    assert "no training, writes 15 tokens/s, 0.317 s per completion" in page
    assert "trained in 25 s, writes 15 tokens/s, 0.283 s per completion" in page
    assert (
        "The gold score was highest at rollout 2, at a divergence of 1 nats; from there to the end it fell by 2" in page
    )
    assert "The fitted law of the gold score" in page


def test_the_law_of_the_gold_score_starts_at_the_reference() -> None:
    rows = [
        {"step": k, "monitor_kl": k, "monitor_gold": 0.3 + k**0.5 * (1.2 - 0.3 * math.log(k))} for k in (1, 2, 4, 9)
    ]
    law = gold_law([{"step": 0, "monitor_kl": -0.1, "monitor_gold": 0.3}, *reversed(rows)])
    assert law is not None
    # ln k is twice the logarithm of the distance.
    assert (law.start, law.alpha, law.beta) == pytest.approx((0.3, 1.2, 0.6))
    assert law.peak_kl == pytest.approx(math.e**2)
    assert gold_law([{"step": 0, "monitor_kl": 0.0, "monitor_score": 1.0}]) is None
    assert gold_law(rows[:2]) is None


def test_the_report_repeats_to_the_byte_and_names_no_path(job: StageJob) -> None:
    write_report(job)
    first = {name: (job.staging / name).read_bytes() for name in ("report.json", "items.json", "report.html")}
    write_report(job)
    assert {name: (job.staging / name).read_bytes() for name in first} == first
    for content in first.values():
        assert str(job.work.path.parents[2]).encode() not in content


def test_the_record_is_told_every_metric(job: StageJob) -> None:
    write_report(job)
    recorder = cast(Recorder, job.run)
    columns, rows = recorder.tables["metrics"]
    report = json.loads((job.staging / "report.json").read_text(encoding="utf-8"))
    assert len(rows) == len(report["metrics"]) == 7 * 3
    assert [dict(zip(columns, row, strict=True)) for row in rows] == report["metrics"]
    assert recorder.notices[0] == report["headline"]["text"]
    columns, rows = recorder.tables["gates"]
    assert [(row[columns.index("name")], row[columns.index("outcome")]) for row in rows] == [
        ("better", "PASS"), ("counted", "PASS"),
    ]  # fmt: skip
    columns, rows = recorder.tables["examples"]
    told = [dict(zip(columns, row, strict=True)) for row in rows]
    assert len(told) == 2 * len(report["examples"])
    assert {"suite": "form", "id": "a", "change": "improved", "prompt": "user: How do I reset the hub?",
            "policy": "base", "completion": PLAIN, "passed": "max_words", "failed": "regex"} in told  # fmt: skip
    assert "win_rates" not in recorder.tables


def test_samples_that_nobody_named_are_refused(job: StageJob) -> None:
    short = {**job.params, "samples": job.params["samples"][:-1]}
    other = StageJob(
        sections=job.sections, inputs=job.inputs, run=job.run, work=job.work, runtime=job.runtime, params=short
    )
    with pytest.raises(ArtifactError, match="promised 3 artifacts of samples and was given 4"):
        write_report(other)


@pytest.mark.slow
def test_the_stage_imports_no_torch() -> None:
    code = "import sys, pipeline.stages.report; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
