"""Votes and items go to disk and come back as they were."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.data.rows import Message
from pipeline.labels.tables import read_items, read_votes, write_items, write_votes
from pipeline.labels.votes import Item, Scale, Status, Vote, make_item


def some_votes() -> tuple[Item, list[Vote]]:
    prompt = [Message(role="user", content="Which plan?")]
    completions = [([Message(role="assistant", content=text)], f"model {text}") for text in ("One.", "Two.", "Three.")]
    item, ids = make_item(prompt, completions, source="desk/votes", licence="CC0-1.0", topic="plans", protected=True)
    first, second, third = sorted(ids)
    full = Vote(
        id="7",
        source="desk/votes",
        item=item.id,
        annotator="ann",
        question="better",
        scale=Scale.ranking,
        candidates=(first, second, third),
        ranks=(2, 1, None),
        ratings=(0.5, None, 3.0),
        strength=2.5,
        positions=(1, 0, 2),
        created="2026-01-01T00:00:00+00:00",
        seconds=4.25,
        tool="label_studio",
        status=Status.superseded,
        gold=True,
        note="hm",
    )
    bare = Vote(
        id="8", source="desk/votes", item=item.id, annotator=None, question="", scale=Scale.pairwise,
        candidates=(first, second),
    )  # fmt: skip
    return item, [full, bare]


def sealed(folder: Path, item: Item, votes: list[Vote]) -> tuple[Artifact, StageOutcome]:
    store = Store(folder)
    work = store.work("ingest", "a" * 64)
    outcome = StageOutcome(
        parts={"items": write_items(work.staging, [item]), "votes": write_votes(work.staging, votes)}
    )
    artifact = store.seal(
        work, kind=ArtifactKind.labels, stage="ingest", version=1, fingerprint="a" * 64, parents=[], config={},
        outcome=outcome,
    )  # fmt: skip
    return artifact, outcome


def test_votes_and_items_come_back_as_they_were(tmp_path: Path) -> None:
    item, votes = some_votes()
    artifact, _ = sealed(tmp_path, item, votes)
    assert read_votes(artifact) == votes
    assert read_items(artifact) == {item.id: item}


def test_a_digest_is_of_the_votes_and_moves_with_one_of_them(tmp_path: Path) -> None:
    item, votes = some_votes()
    before = sealed(tmp_path / "a", item, votes)[1].parts
    assert sealed(tmp_path / "b", item, votes)[1].parts == before
    after = sealed(tmp_path / "c", item, votes[:1])[1].parts
    assert after["votes"] != before["votes"]
    assert after["items"] == before["items"]
