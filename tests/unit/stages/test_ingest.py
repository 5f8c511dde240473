"""The stage `ingest` on the embedded votes, whose truth is known because it was planted."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.store import Artifact, Store
from pipeline.config.data import DataConfig, SourceConfig, SourceSplit, TableName
from pipeline.config.ingest import Aggregation, IngestConfig, QualityConfig
from pipeline.config.paths import project_folder
from pipeline.config.shared import RuntimeConfig, TrackingConfig, TrackingMode
from pipeline.data.rows import Comparison
from pipeline.data.tables import read_table
from pipeline.errors import DataError
from pipeline.labels.tables import read_items, read_votes
from pipeline.labels.votes import Status, Vote, candidate_id, item_id
from pipeline.stages.ingest import ingest
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

HELP_DESK = project_folder() / "data" / "helpdesk"
VOTES = "votes.json"
BAD = {"17", "18"}  # the careless one and the one who always takes the left


def seal(outputs: Path, data: DataConfig, config: IngestConfig) -> Artifact:
    """Run the stage as a job does and seal what it wrote."""
    store = Store(outputs)
    work = store.work("ingest", "a" * 64)
    tracking = TrackingConfig(mode=TrackingMode.disabled)
    with TrackingSession(tracking, outputs, outputs / "runs" / "test", {}) as session:
        run = session.start(stage="ingest", name="ingest", fingerprint="a" * 64, work=work, inputs={})
        job = StageJob(
            sections={DataConfig: data, IngestConfig: config},
            inputs={},
            run=run,
            work=work,
            runtime=RuntimeConfig(outputs=str(outputs)),
            params={"tables": {}},
        )
        outcome = ingest(job)
    return store.seal(
        work, kind=ArtifactKind.labels, stage="ingest", version=1, fingerprint="a" * 64, parents=[], config={},
        outcome=outcome,
    )  # fmt: skip


def help_desk() -> DataConfig:
    def source(name: str, split: SourceSplit) -> SourceConfig:
        return SourceConfig(table=TableName.exports, path=str(HELP_DESK / name), split=split, licence="CC0-1.0")

    return DataConfig(
        name="helpdesk",
        sources=[source(VOTES, SourceSplit.auto), source("test_votes.json", SourceSplit.test)],
    )


def content(artifact: Artifact, name: str) -> Any:
    return json.loads(artifact.file(name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    config = IngestConfig(aggregation=Aggregation.dawid_skene)
    return seal(tmp_path_factory.mktemp("labels"), help_desk(), config)


@cache
def planted() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HELP_DESK / "planted_votes.json").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.slow
def test_the_same_exports_give_the_same_bytes(labels: Artifact, tmp_path: Path) -> None:
    config = IngestConfig(aggregation=Aggregation.dawid_skene)
    assert seal(tmp_path, help_desk(), config).id == labels.id
    assert seal(tmp_path / "other", help_desk(), IngestConfig()).id != labels.id


def test_every_malformed_record_and_vote_is_found_with_its_reason(labels: Artifact) -> None:
    found = Counter(json.loads(line)["reason"] for line in labels.file("quarantine.jsonl").read_text().splitlines())
    wanted = planted()["files"][VOTES]["malformed"]
    assert found == Counter(entry["reason"] for entry in wanted if entry["level"] == "record")
    invalid = [vote for vote in read_votes(labels) if vote.status is Status.invalid]
    assert {vote.id for vote in invalid} == {str(entry["annotation"]) for entry in wanted if entry["level"] == "vote"}
    problems = Counter(problem["reason"] for problem in content(labels, "counts.json")["problems"])
    assert problems == Counter(entry["reason"] for entry in wanted if entry["level"] == "pair")


def test_records_and_votes_add_up(labels: Artifact) -> None:
    counts = content(labels, "counts.json")
    exported = json.loads((HELP_DESK / VOTES).read_text(encoding="utf-8").replace("\\ud8", "\\u00"))
    first = counts["exports"][0]
    assert first["read"] == len(exported) == first["accepted"] + sum(first["quarantined"].values())
    assert first["unlabelled"] == len(planted()["files"][VOTES]["unlabelled"])
    assert first["votes"]["draft"] == len(planted()["files"][VOTES]["drafts"])
    assert counts["votes"]["superseded"] == sum(len(file["superseded"]) for file in planted()["files"].values())
    assert sum(counts["votes"].values()) == len(read_votes(labels)) == counts["aggregated"]["votes"]["given"]
    parts = dict(counts["aggregated"]["votes"])
    assert parts.pop("given") == sum(parts.values())


@pytest.mark.slow
def test_the_bad_annotators_are_set_aside_and_nobody_else_and_can_be_brought_back(
    labels: Artifact, tmp_path: Path
) -> None:
    cards = {card["annotator"]: card for card in content(labels, "quality.json")["annotators"]}
    assert {name for name, card in cards.items() if card["set_aside"]} == BAD
    assert all(card["reasons"] for name, card in cards.items() if name in BAD)
    assert cards["18"]["first_share"]["estimate"] == 1.0
    kept = seal(tmp_path, help_desk(), IngestConfig(quality=QualityConfig(keep=sorted(BAD))))
    assert not any(card["set_aside"] for card in content(kept, "quality.json")["annotators"])
    assert content(kept, "counts.json")["aggregated"]["votes"]["set_aside"] == 0


def test_protected_exports_give_test_comparisons_only(labels: Artifact) -> None:
    sides = {side: read_table(labels, "comparisons", side, Comparison) for side in ("auto", "test")}
    assert len(sides["test"]) >= 150
    assert len(sides["auto"]) >= 600
    assert {row.source for row in sides["test"]} == {"helpdesk/test_votes"}
    assert all(0.5 <= row.confidence <= 1 for rows in sides.values() for row in rows)


class Found(NamedTuple):
    """How well wrong votes are told from right ones."""

    recall: float
    precision: float


@dataclass(frozen=True)
class Judged:
    """A vote for one of two sides, with the pair that it is about and the side that is truly better."""

    vote: Vote
    pair: tuple[str, frozenset[str]]
    named: str
    better: str


def judged(labels: Artifact) -> list[Judged]:
    """Return the votes that count and name a side, on pairs of which one side is truly better."""
    better, task_of = {}, {}
    for name, file in planted()["files"].items():
        better.update({int(task): entry["better"] for task, entry in file["tasks"].items()})
        text = (HELP_DESK / name).read_text(encoding="utf-8")
        for task in json.loads(text):
            annotations = task.get("annotations")
            for annotation in annotations if isinstance(annotations, list) else []:
                task_of[str(annotation["id"])] = task["id"]
    found = []
    for vote in read_votes(labels):
        counts = vote.status is Status.submitted and not vote.gold and not vote.is_tie and len(vote.candidates) == 2
        side = better.get(task_of[vote.id]) if counts else None
        if counts and side != "tie" and side is not None:
            assert vote.ranks is not None
            assert vote.positions is not None
            shown = dict(zip(vote.positions, vote.candidates, strict=True))
            truly = shown[0] if side == "left" else shown[1]
            named = vote.candidates[vote.ranks.index(1)]
            found.append(Judged(vote, (vote.item, frozenset(vote.candidates)), named, truly))
    return found


def measure(votes: list[Judged], believed: dict[tuple[str, frozenset[str]], str]) -> Found:
    wrong = {entry.vote.id for entry in votes if entry.named != entry.better}
    called = {entry.vote.id for entry in votes if entry.named != believed.get(entry.pair, entry.named)}
    return Found(recall=len(wrong & called) / len(wrong), precision=len(wrong & called) / len(called))


def bayes(votes: list[Judged]) -> dict[tuple[str, frozenset[str]], str]:
    """Return the likelier side of each pair by the planted probabilities that an annotator names the better side."""
    right = {str(entry["user"]): entry["named_side_right"] for entry in planted()["model"]["annotators"]}
    odds: dict[tuple[str, frozenset[str]], float] = {}
    for entry in votes:
        chance = right[entry.vote.annotator or ""]
        sign = 1 if entry.named == min(entry.pair[1]) else -1
        odds[entry.pair] = odds.get(entry.pair, 0.0) + sign * math.log(chance / (1 - chance))
    return {pair: min(pair[1]) if value > 0 else max(pair[1]) for pair, value in odds.items() if value}


def believed(labels: Artifact) -> dict[tuple[str, frozenset[str]], str]:
    rows = [row for side in ("auto", "test") for row in read_table(labels, "comparisons", side, Comparison)]
    sides = [(item_id(row.prompt), candidate_id(row.chosen), candidate_id(row.rejected)) for row in rows]
    return {(item, frozenset({chosen, rejected})): chosen for item, chosen, rejected in sides}


def test_wrong_votes_are_found_as_well_as_bayes_rule_finds_them(labels: Artifact) -> None:
    votes = judged(labels)
    assert len(votes) > 3000
    best, ours = measure(votes, bayes(votes)), measure(votes, believed(labels))
    assert best.recall > 0.85
    assert ours.recall > best.recall - 0.03
    assert ours.precision > best.precision - 0.03
    # Negative control: to believe the first vote of each pair finds far fewer.
    first: dict[tuple[str, frozenset[str]], str] = {}
    for entry in votes:
        first.setdefault(entry.pair, entry.named)
    assert measure(votes, first).recall < best.recall - 0.1


def test_items_hold_every_completion_that_a_vote_is_about(labels: Artifact) -> None:
    items = read_items(labels)
    assert all(set(vote.candidates) <= items[vote.item].candidates.keys() for vote in read_votes(labels))


def test_an_export_without_a_vote_is_refused(tmp_path: Path) -> None:
    export = [{"id": 1, "annotations": [], "data": {"prompt": "Q?", "answer1": "One.", "answer2": "Two."}}]
    (tmp_path / "empty.json").write_text(json.dumps(export), encoding="utf-8")
    source = SourceConfig(table=TableName.exports, path=str(tmp_path / "empty.json"), importer="label_studio")
    with pytest.raises(DataError, match="No vote that counts and no demonstration"):
        seal(tmp_path / "outputs", DataConfig(name="none", sources=[source]), IngestConfig())
