"""Jobs for the stages `samples` and `verdicts` on a tiny model, as one process after another would start them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from judging import answer_row, seal_samples
from sft_jobs import demonstrations
from tiny import make_tiny_model

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import resolve_base
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.config.data import TableName
from pipeline.config.evaluation import SamplingConfig, SuiteConfig, SuiteKind
from pipeline.config.judges import JudgeConfig
from pipeline.config.shared import DType, ModelConfig, ModelSource, RuntimeConfig, TrackingConfig, TrackingMode
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.stages.samples import BATCHES_AT_A_TIME, sample_policy
from pipeline.stages.verdicts import judge_samples
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

NUM_ITEMS = 32
SUITE = SuiteConfig(
    name="drawn", kind=SuiteKind.generation, table=TableName.demonstrations, split="test", batch_size=1,
    sampling=SamplingConfig(max_new_tokens=24, temperature=1.0, seed=3),
)  # fmt: skip
JUDGE = JudgeConfig(name="base", kind="local", batch_size=4)
ITEMS_AT_A_TIME = {"samples": SUITE.batch_size * BATCHES_AT_A_TIME, "verdicts": JUDGE.batch_size}


@dataclass(frozen=True, kw_only=True)
class EvaluationWorkshop:
    """A tiny base, a data set, and completions of two policies, below one folder."""

    folder: Path

    @property
    def outputs(self) -> Path:
        """Where artifacts, work and records lie."""
        return self.folder / "outputs"

    @property
    def store(self) -> Store:
        """The store of all artifacts."""
        return Store(self.outputs)

    def fingerprint(self, name: str) -> str:
        """A made-up fingerprint: 64 hexadecimal digits."""
        return sha256(name.encode()).hexdigest()

    def make(self) -> EvaluationWorkshop:
        """Write everything that a job reads."""
        make_tiny_model(self.folder / "model", context_length=2048)
        work = self.store.work("curate", "c" * 64)
        rows = demonstrations(NUM_ITEMS)
        write_table(work.staging, "demonstrations", "test", rows)
        self.store.seal(
            work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
            outcome=StageOutcome(parts={part_name("demonstrations", "test"): rows_digest(rows)}),
        )  # fmt: skip
        for policy in ("one", "two"):
            answers = [answer_row(f"i{number:02}", f"Answer {number} of {policy}.") for number in range(NUM_ITEMS)]
            seal_samples(self.store, self.folder, policy, answers)
        return self

    def seal_samples(self, name: str) -> Artifact:
        """Do what a run of the stage `samples` does."""
        dataset = self.store.open("curate-")
        return self._run(
            "samples", name, ArtifactKind.samples, sample_policy, {"dataset": [dataset], "policy": []},
            {"suite": SUITE},
        )  # fmt: skip

    def seal_verdicts(self, name: str) -> Artifact:
        """Do what a run of the stage `verdicts` does: the base compares the two policies."""
        found = [artifact for artifact in self.store.artifacts() if artifact.manifest.stage == "samples"]
        return self._run(
            "verdicts", name, ArtifactKind.verdicts, judge_samples, {"samples": found},
            {"judge": JUDGE, "suite": SUITE, "policies": ["one", "two"]},
        )  # fmt: skip

    def _run(
        self, stage: str, name: str, kind: ArtifactKind, function: Callable[[StageJob], StageOutcome],
        inputs: dict[str, list[Artifact]], params: dict[str, Any],
    ) -> Artifact:  # fmt: skip
        """Reuse the sealed artifact, or run the stage under the lock and seal."""
        store, fingerprint = self.store, self.fingerprint(name)
        store.sweep()
        with store.lock(stage, fingerprint):
            artifact = store.current(stage, fingerprint)
            if artifact is None:
                artifact = self._make(stage, name, kind, function, inputs, params)
        store.discard_sealed_work(stage, fingerprint)
        return artifact

    def _make(
        self, stage: str, name: str, kind: ArtifactKind, function: Callable[[StageJob], StageOutcome],
        inputs: dict[str, list[Artifact]], params: dict[str, Any],
    ) -> Artifact:  # fmt: skip
        work, fingerprint = self.store.work(stage, self.fingerprint(name)), self.fingerprint(name)
        model = ModelConfig(source=ModelSource.hub, id=str(self.folder / "model"), dtype=DType.float32)
        tracking = TrackingConfig(mode=TrackingMode.disabled)
        with TrackingSession(tracking, self.outputs, self.outputs / "runs" / name, {}) as session:
            run = session.start(stage=stage, name=stage, fingerprint=fingerprint, work=work, inputs=inputs)
            job = StageJob(
                sections={ModelConfig: model}, inputs=inputs, run=run, work=work, params=params,
                runtime=RuntimeConfig(outputs=str(self.outputs), num_threads=1),
                base_model=resolve_base(model, self.folder / "cache"),
            )  # fmt: skip
            return self.store.seal(
                work, kind=kind, stage=stage, version=1, fingerprint=fingerprint, parents=[], config={},
                outcome=function(job),
            )  # fmt: skip
