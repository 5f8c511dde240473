"""A chain whose policies are text and whose samples, verdicts, scorecards and report are the real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fake_stages
import simulated_judge  # noqa: F401 - registers the judge
from judging import answer_row
from simulated_judge import draw

from pipeline.artifacts.hashing import FileHashes, sha256_file
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.judges import JudgeConfig
from pipeline.config.root import Config
from pipeline.evaluation.samples import write_samples
from pipeline.graph.execution import Executed, run_nodes
from pipeline.graph.run_folder import RunFolder
from pipeline.graph.spec import STAGES as REAL
from pipeline.graph.wiring import nodes_for
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

NUM_ITEMS = 40
STAGES = {
    **fake_stages.STAGES,
    "samples": replace(fake_stages.STAGES["samples"], entry="judged_stages:sample"),
    **{name: REAL[name] for name in ("verdicts", "scorecard", "report")},
}


def sample(job: StageJob) -> StageOutcome:
    """Write completions whose quality follows from the policy's state."""
    policy = job.one("policy")
    state = policy.file("adapter.txt").read_text() if policy else "base"
    rows = [answer_row(f"i{k:02}", f"quality {int(10 * draw(state, k))}, item {k}") for k in range(NUM_ITEMS)]
    path = job.staging / "samples.jsonl"
    write_samples(path, rows)
    return StageOutcome(parts={"samples": sha256_file(path), "tokenizer": "0" * 64})


def run_judged(
    config: Config, judges: dict[str, JudgeConfig], lines: list[str], suites: dict[str, SuiteConfig] | None = None
) -> tuple[list[Executed], RunFolder]:
    """Run the chain as `train` does."""
    nodes, problems = nodes_for(config, suites or fake_stages.make_suites(), {}, STAGES, judges)
    assert problems == []
    outputs = Path(config.runtime.outputs)
    folder = RunFolder.create(outputs, config.name, "0")
    with TrackingSession(config.tracking, outputs, folder.path, {}) as session:
        done = run_nodes(
            nodes, config=config, store=Store(outputs), session=session, base=fake_stages._no_base,
            hashes=FileHashes(outputs / "hashes.json"), plugins={}, folder=folder, say=lines.append,
        )  # fmt: skip
    return done, folder
