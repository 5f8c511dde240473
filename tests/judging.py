"""A job of a judging stage without a chain around it, and a small world of pairs that people judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import simulated_judge  # noqa: F401 - registers the judge
from simulated_judge import quality

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import sha256_file, sha256_text
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Provenance, Store
from pipeline.config.data import TableName
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.judges import JudgeConfig
from pipeline.config.shared import RuntimeConfig
from pipeline.data.rows import Message
from pipeline.evaluation.samples import GenerationSample, write_samples
from pipeline.labels.pair_votes import PairVotes
from pipeline.labels.verdicts import Pair
from pipeline.labels.votes import Item, make_item
from pipeline.tracking.job import StageJob
from pipeline.tracking.run import Run

SUITE = SuiteConfig(name="answers", kind=SuiteKind.generation, table=TableName.prompts)


class Recorder:
    """Stands in for the running stage's record."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def progress(self, total: int, done: int) -> None:
        pass


def answer_row(identifier: str, completion: str, **changes: Any) -> GenerationSample:
    values: dict[str, Any] = {
        "id": identifier,
        "cluster": identifier,
        "prompt": [{"role": "user", "content": f"Question {identifier}?"}],
        "reference": None,
        "topic": None,
        "completion": completion,
        "finish_reason": "stop",
        "num_tokens": 3,
        "unscored": None,
    }
    return GenerationSample(**(values | changes))


def seal_samples(store: Store, folder: Path, name: str, rows: Sequence[GenerationSample]) -> Artifact:
    fingerprint = sha256_text(name)
    work = store.work("samples", fingerprint)
    path = work.staging / "samples.jsonl"
    write_samples(path, rows)
    return store.seal(
        work, kind=ArtifactKind.samples, stage="samples", version=1, fingerprint=fingerprint, config={}, parents=[],
        outcome=StageOutcome(parts={"samples": sha256_file(path)}), provenance=Provenance(base=None, wall_seconds=1.0),
    )  # fmt: skip


def judging_job(
    folder: Path, judge: JudgeConfig, samples: Mapping[str, Sequence[GenerationSample]], suite: SuiteConfig = SUITE
) -> StageJob:
    """A job of `judge_samples` over the samples of one or two policies."""
    store = Store(folder / "outputs")
    artifacts = [seal_samples(store, folder, name, rows) for name, rows in samples.items()]
    return StageJob(
        sections={},
        inputs={"samples": artifacts},
        run=cast(Run, Recorder()),
        work=store.work("verdicts", sha256_text(judge.name)),
        runtime=RuntimeConfig(cache=str(folder / "cache")),
        params={"judge": judge, "suite": suite, "policies": list(samples)},
    )


def judged_world(num_items: int, *, people: int = 3, slip: float = 0.1) -> tuple[dict[str, Item], list[PairVotes]]:
    """Pairs of completions of known quality with the votes of people, who slip now and then.

    Lengths say nothing about quality: every second better completion is the longer one.
    """
    items: dict[str, Item] = {}
    votes: list[PairVotes] = []
    for number in range(num_items):
        prompt = [Message(role="user", content=f"Question {number}?")]
        texts = [f"quality 7, item {number}", f"quality 3, item {number}"]
        texts[number % 2] += " and a few words more"
        item, ids = make_item(prompt, [([Message(role="assistant", content=t)], None) for t in texts],
                              source="made", licence=None)  # fmt: skip
        items[item.id] = item
        first, second = sorted(ids)
        text = item.candidates[first].messages[0]["content"]
        better = 1.0 if quality(text) == 7 else 0.0
        scores = []
        for person in range(people):
            digest = hashlib.sha256(f"{number}/{person}".encode()).digest()
            scores.append(1 - better if digest[0] < 256 * slip else better)
        votes.append(
            PairVotes(pair=Pair(item.id, first, second), scores=scores, annotators=[f"p{p}" for p in range(people)])
        )
    return items, votes
