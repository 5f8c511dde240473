"""Stages of a few milliseconds, wired and cached like the real ones: text instead of tensors.

As a script, ``python tests/fake_stages.py OUTPUTS SOURCE [KEY=VALUE ...]`` runs the chain once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import FileHashes, sha256_text
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.config.data import CurateConfig, DataConfig, SourceConfig, TableName
from pipeline.config.evaluation import EvaluateConfig, SamplingConfig, SuiteConfig, SuiteKind
from pipeline.config.root import Config
from pipeline.config.shared import RuntimeConfig, TrackingConfig, TrackingMode
from pipeline.config.stages import SFTConfig
from pipeline.errors import PipelineError
from pipeline.graph.execution import Executed, run_nodes
from pipeline.graph.run_folder import RunFolder
from pipeline.graph.spec import STAGES as REAL_STAGES
from pipeline.graph.spec import Consumes, StageSpec
from pipeline.graph.wiring import nodes_for
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

NUM_STEPS = 6
SAVE_EVERY = 2
STEP_LOG = "FAKE_STEP_LOG"  # environment: a file that gets a line for every step that is really made
FAIL_AT = "FAKE_FAIL_AT"  # environment: <step>:<error>, raised before that step

DATASET = Consumes(
    role="dataset",
    kind=ArtifactKind.dataset,
    parts=("demonstrations/train", "demonstrations/validation"),
    required=("demonstrations/train",),
    default=("curate",),
)
POLICY = Consumes(role="policy", kind=ArtifactKind.policy, parts=("policy",), optional=True)


def _spec(name: str, kind: ArtifactKind, function: str, **fields: Any) -> StageSpec:
    return StageSpec(name=name, version=1, kind=kind, entry=f"fake_stages:{function}", **fields)


STAGES = {
    spec.name: spec
    for spec in (
        _spec(
            "curate",
            ArtifactKind.dataset,
            "curate",
            sections=(DataConfig, CurateConfig),
            reads_tables=(TableName.demonstrations, TableName.prompts),
            runs_in_plan=True,
        ),
        _spec(
            "sft", ArtifactKind.policy, "train", sections=(SFTConfig,), consumes=(DATASET, POLICY), libraries=("numpy",)
        ),
        _spec(
            "dpo",
            ArtifactKind.policy,
            "train",
            sections=(SFTConfig,),
            consumes=(
                DATASET,
                Consumes(role="policy", kind=ArtifactKind.policy, parts=("policy",), default=("sft",), optional=True),
            ),
        ),
        _spec("samples", ArtifactKind.samples, "sample", consumes=(DATASET, POLICY)),
        _spec(
            "report",
            ArtifactKind.report,
            "report",
            sections=(EvaluateConfig,),
            consumes=REAL_STAGES["report"].consumes,
            runs_checks=True,
        ),
    )
}


def curate(job: StageJob) -> StageOutcome:
    """Put line ``<split> <text>`` of the source into the table of the split."""
    source = Path(job.section(DataConfig).sources[0].path)
    tables: dict[str, list[str]] = {}
    for line in source.read_text().splitlines():
        split, _, text = line.partition(" ")
        tables.setdefault(f"demonstrations/{split}", []).append(text)
    for part, rows in tables.items():
        path = job.staging / f"{part}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(rows))
    return StageOutcome(parts={part: sha256_text("\n".join(rows)) for part, rows in tables.items()})


def train(job: StageJob) -> StageOutcome:
    """Hash the train rows once per step, with checkpoints."""
    dataset, policy, config = job.one("dataset"), job.one("policy"), job.section(SFTConfig)
    assert dataset is not None
    rows = dataset.file("demonstrations/train.txt").read_text()
    state = policy.file("adapter.txt").read_text() if policy else "base"
    checkpoint = job.work.checkpoints.newest(job.run.notice)
    first = 0
    if checkpoint is not None:
        first, state = checkpoint.step, (checkpoint.path / "state.txt").read_text()
        job.run.cut(first)
    for step in range(first + 1, NUM_STEPS + 1):
        _maybe_fail(step)
        state = hashlib.sha256(f"{state} {rows} {config.seed} {config.optimizer.learning_rate}".encode()).hexdigest()
        job.run.log({"loss": 1 / step}, step)
        if STEP_LOG in os.environ:
            with Path(os.environ[STEP_LOG]).open("a") as log:
                log.write(f"{step}\n")
        if step % SAVE_EVERY == 0:
            draft = job.work.checkpoints.draft()
            (draft / "state.txt").write_text(state)
            job.work.checkpoints.commit(draft, step, {})
            job.work.checkpoints.rotate(keep=2, also=set())
    write_durably(job.staging / "adapter.txt", state)
    return StageOutcome(parts={"policy": sha256_text(state)}, metrics={"loss": 1 / NUM_STEPS})


def sample(job: StageJob) -> StageOutcome:
    """Join the policy's state to every row of the suite's split."""
    dataset, policy, suite = job.one("dataset"), job.one("policy"), job.params["suite"]
    assert dataset is not None
    rows = dataset.file(f"{suite.table}/{suite.split}.txt").read_text().splitlines()[: suite.limit]
    state = policy.file("adapter.txt").read_text() if policy else "base"
    text = "\n".join(f"{state[:8]} {suite.sampling.temperature} {row}" for row in rows)
    (job.staging / "samples.txt").write_text(text)
    return StageOutcome(parts={"samples": sha256_text(text)})


def report(job: StageJob) -> StageOutcome:
    """List the samples by suite and policy."""
    joined = {
        f"{pair['suite']}/{pair['policy']}": artifact.file("samples.txt").read_text()
        for pair, artifact in zip(job.params["samples"], job.inputs["samples"], strict=True)
    }
    text = json.dumps(joined, sort_keys=True)
    (job.staging / "report.json").write_text(text)
    (job.staging / "report.html").write_text(f"<pre>{text}</pre>")
    return StageOutcome(parts={"report": sha256_text(text)})


def _maybe_fail(step: int) -> None:
    at, _, kind = os.environ.get(FAIL_AT, "").partition(":")
    if at == str(step):
        errors: dict[str, BaseException] = {
            "bug": RuntimeError("a bug"),
            "interrupt": KeyboardInterrupt(),
            "disk": OSError(28, "No space left on device", "adapter.txt"),
        }
        raise errors[kind]


def make_config(outputs: Path, source: Path, stages: tuple[str, ...] = ("curate", "sft", "evaluate")) -> Config:
    """A configuration of the fake chain without anything outside ``outputs``."""
    return Config(
        name="fake",
        stages=list(stages),
        data=DataConfig(name="fake", sources=[SourceConfig(table=TableName.demonstrations, path=str(source))]),
        runtime=RuntimeConfig(outputs=str(outputs)),
        tracking=TrackingConfig(mode=TrackingMode.disabled),
    )


def make_suites(*names: str) -> dict[str, SuiteConfig]:
    """Suites over the test split that differ in their temperature."""
    return {
        name: SuiteConfig(
            name=name,
            kind=SuiteKind.generation,
            table=TableName.demonstrations,
            sampling=SamplingConfig(temperature=float(index)),
        )
        for index, name in enumerate(names or ("answers",))
    }


def write_source(path: Path, **changes: str) -> Path:
    """A source with rows of every split."""
    rows = {"train": "first", "validation": "second", "test": "third", **changes}
    path.write_text("".join(f"{split} {text}\n" for split, text in rows.items() if text))
    return path


def run_chain(
    config: Config, suites: dict[str, SuiteConfig] | None = None, say: Callable[[str], None] = print
) -> tuple[list[Executed], RunFolder]:
    """Run the fake chain as `train` runs the real one."""
    nodes, problems = nodes_for(config, make_suites() if suites is None else suites, {}, STAGES)
    assert problems == []
    outputs = Path(config.runtime.outputs)
    folder = RunFolder.create(outputs, config.name, "0")
    with TrackingSession(config.tracking, outputs, folder.path, {}) as session:
        done = run_nodes(
            nodes,
            config=config,
            store=Store(outputs),
            session=session,
            base=_no_base,
            hashes=FileHashes(outputs / "hashes.json"),
            plugins={},
            folder=folder,
            say=say,
            again="python -m pipeline train +experiment=fake",
        )
    return done, folder


def _no_base(_: Any) -> Any:
    raise AssertionError("no fake stage uses a base model")


if __name__ == "__main__":
    try:
        run_chain(make_config(Path(sys.argv[1]), Path(sys.argv[2])))
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
