"""Exports read into one set of votes: counted, merged, and never twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.data import DataConfig, SourceConfig, SourceSplit, TableName
from pipeline.config.ingest import IngestConfig
from pipeline.data.rows import Message
from pipeline.errors import DataError
from pipeline.labels import collecting
from pipeline.labels.collecting import Collected, Reporting, collect, merged
from pipeline.labels.importers import registry
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, register_importer
from pipeline.labels.votes import Imported, Scale, Status, Vote, make_item
from tests.made_votes import Ballots

EARLY, LATE = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"


def _open(context: ImportContext) -> ReadRecord:
    """Read {"prompt", "a", "b", "votes": [{"id", "by", "better", "at"}]}, the smallest export that there can be."""

    def read(fields: dict[str, Any]) -> Imported:
        prompt = [Message(role="user", content=fields["prompt"])]
        completions = [([Message(role="assistant", content=fields[side])], None) for side in ("a", "b")]
        protected = context.source.split is SourceSplit.test
        item, ids = make_item(
            prompt, completions, source=context.name, licence=context.source.licence, protected=protected
        )
        pair = tuple(sorted(ids))
        votes = []
        for vote in fields["votes"]:
            rating = vote.get("rating")
            places = tuple(1 if candidate == ids["ab".index(vote["better"])] else 2 for candidate in pair)
            verdict = (
                {"scale": Scale.pairwise, "candidates": pair, "ranks": places, "strength": vote.get("strength")}
                if rating is None
                else {"scale": Scale.thumbs, "candidates": (ids[0],), "ranks": (1,), "ratings": (rating,)}
            )
            votes.append(
                Vote(
                    id=vote["id"], source=context.name, item=item.id, annotator=vote["by"], question="",
                    created=vote["at"], tool="tiny", **verdict,
                )
            )  # fmt: skip
        return Imported(items=[item], votes=votes, unlabelled=int(not votes), notices=["says nothing of time"])

    return read


@pytest.fixture(autouse=True)
def tiny_importer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_importers", dict(registry.importers()))
    register_importer(Importer(name="tiny", recognises=lambda sample, path: False, open=_open))


def record(prompt: str, *votes: tuple[str, str | None, str, str | None], a: str = "yes", b: str = "no") -> str:
    listed = [{"id": id, "by": by, "better": better, "at": at} for id, by, better, at in votes]
    return json.dumps({"prompt": prompt, "a": a, "b": b, "votes": listed})


def read(
    folder: Path, *files: list[str], limit: int | None = None, protected: int | None = None
) -> tuple[Collected, list[dict[str, Any]]]:
    sources = []
    for number, lines in enumerate(files):
        path = folder / f"votes{number}.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        split = SourceSplit.test if number == protected else SourceSplit.auto
        sources.append(SourceConfig(table=TableName.exports, path=str(path), importer="tiny", limit=limit, split=split))
    bad: list[dict[str, Any]] = []
    reporting = Reporting(bad_record=bad.append, account=lambda account: None)
    data = DataConfig(name="desk", sources=sources)
    return collect(data, IngestConfig(max_quarantined_fraction=0.5), {}, reporting), bad


def test_the_latest_vote_of_a_person_counts_and_the_earlier_one_is_kept(tmp_path: Path) -> None:
    votes = [("1", "ann", "a", LATE), ("2", "ann", "b", EARLY), ("3", "bob", "b", EARLY)]
    collected, _ = read(tmp_path, [record("Q?", *votes)])
    statuses = {vote.id: vote.status for vote in collected.votes}
    assert statuses == {"1": Status.submitted, "2": Status.superseded, "3": Status.submitted}


def test_without_times_the_vote_further_down_counts(tmp_path: Path) -> None:
    collected, _ = read(tmp_path, [record("Q?", ("1", "ann", "a", None)), record("Q?", ("2", "ann", "b", None))])
    assert [vote.status for vote in collected.votes] == [Status.superseded, Status.submitted]


def test_only_the_same_judgement_made_again_takes_the_place_of_an_earlier_one() -> None:
    ballots = Ballots()
    item = ballots.item("AB")
    first = ballots.vote(item, "AB", "ann")
    ballots.vote(item, "BA", "ann", gold=True)  # the known answer that she gave
    ballots.vote(item, "BA", "ann", question="style")
    ballots.vote(item, "BA", "ann", ratings={"A": 1.0, "B": 2.0})
    ballots.vote(item, "BA", "ann", status=Status.draft)
    ballots.vote(item, "BA", "bob")
    assert collecting._supersede(ballots.votes) == ballots.votes
    ballots.vote(item, "BA", "ann")
    found = collecting._supersede(ballots.votes)
    assert [vote.id for vote in found if vote.status is Status.superseded] == [first.id]


def test_what_any_record_says_of_a_completion_is_kept() -> None:
    prompt, answer = [Message(role="user", content="Q?")], [Message(role="assistant", content="yes")]
    plain, named = (
        make_item(prompt, [(answer, model)], source="desk", licence=None, topic=topic)[0]
        for model, topic in ((None, None), ("model-7", "sums"))
    )
    for item in (merged(plain, named), merged(named, plain)):
        (candidate,) = item.candidates.values()
        assert (candidate.model, candidate.messages, item.topic) == ("model-7", answer, "sums")


def test_conversations_of_a_protected_export_are_for_testing_only(tmp_path: Path) -> None:
    sources = []
    for split in (SourceSplit.auto, SourceSplit.test):
        turns = [{"role": "user", "content": f"Of {split}?"}, {"role": "assistant", "content": "So."}]
        path = tmp_path / f"{split}.jsonl"
        path.write_text(json.dumps({"messages": turns}), encoding="utf-8")
        sources.append(SourceConfig(table=TableName.exports, path=str(path), importer="openai", split=split))
    reporting = Reporting(bad_record=lambda entry: None, account=lambda account: None)
    found = collect(DataConfig(name="desk", sources=sources), IngestConfig(), {}, reporting).demonstrations
    assert {split: [row.prompt[0]["content"] for row in rows] for split, rows in found.items()} == {
        "auto": ["Of auto?"], "test": ["Of test?"],
    }  # fmt: skip


def test_a_pair_shown_the_other_way_round_is_the_same_pair(tmp_path: Path) -> None:
    swapped = record("Q?", ("2", "ann", "b", None), a="no", b="yes")
    collected, _ = read(tmp_path, [record("Q?", ("1", "ann", "a", None)), swapped])
    first, second = collected.votes
    assert (first.candidates, first.ranks) == (second.candidates, second.ranks)
    assert [first.status, second.status] == [Status.superseded, Status.submitted]
    other = read(tmp_path, [record("Q?", ("1", "ann", "a", None)), record("Q?", ("2", "ann", "b", None))])[0].votes
    assert other[0].ranks != other[1].ranks  # whereas the other side of the same order is another verdict


def test_votes_of_nobody_are_votes_of_different_people(tmp_path: Path) -> None:
    collected, _ = read(tmp_path, [record("Q?", ("1", None, "a", None), ("2", None, "b", None))])
    assert [vote.status for vote in collected.votes] == [Status.submitted] * 2


def test_an_annotation_exported_twice_is_one_vote_and_counted_as_a_copy(tmp_path: Path) -> None:
    lines = [record("Q?", ("1", "ann", "a", None))]
    collected, _ = read(tmp_path, lines, lines)
    assert len(collected.votes) == 1
    assert [account.copies for account in collected.accounts] == [0, 1]
    # Another verdict under the same id is an edited annotation, not a copy.
    edited, _ = read(tmp_path, lines, [record("Q?", ("1", "ann", "b", None))])
    assert [vote.status for vote in edited.votes] == [Status.superseded, Status.submitted]


@pytest.mark.parametrize("said", [("rating", 1.0, 0.0), ("strength", 1.0, 3.0)])
def test_an_edited_rating_or_strength_is_no_copy_although_the_order_is_the_same(
    tmp_path: Path, said: tuple[str, float, float]
) -> None:
    """A thumb has one completion, which is first whatever was said of it."""
    name, before, after = said
    lines = [
        [json.dumps({"prompt": "Q?", "a": "yes", "b": "no",
                     "votes": [{"id": "1", "by": "ann", "better": "a", "at": at, name: value}]})]
        for at, value in ((EARLY, before), (LATE, after))
    ]  # fmt: skip
    collected, _ = read(tmp_path, *lines, lines[1])
    assert [account.copies for account in collected.accounts] == [0, 0, 1]
    first, second = collected.votes
    assert [first.status, second.status] == [Status.superseded, Status.submitted]
    assert (second.ratings or (second.strength,)) == (after,)


def test_one_prompt_is_one_item_whatever_the_file(tmp_path: Path) -> None:
    other = record("Q?", ("2", "bob", "a", None), a="perhaps", b="no")
    collected, _ = read(tmp_path, [record("Q?", ("1", "ann", "a", None))], [other], protected=1)
    (item,) = collected.items.values()
    assert {candidate.messages[0]["content"] for candidate in item.candidates.values()} == {"yes", "no", "perhaps"}
    assert item.protected  # for all who judged it, whichever file comes first
    (item,) = read(tmp_path, [other], [record("Q?", ("1", "ann", "a", None))], protected=0)[0].items.values()
    assert item.protected


def test_every_record_is_accounted_for(tmp_path: Path) -> None:
    lines = [record("Q1?", ("1", "ann", "a", None)), "{broken", record("Q2?"), record("Q3?"), record("Q4?")]
    collected, bad = read(tmp_path, lines, limit=3)
    (account,) = collected.accounts
    records = account.records.as_dict()
    assert (records["read"], records["accepted"], records["over_limit"]) == (5, 3, 1)
    assert records["quarantined"] == {"E_JSON": 1}
    assert [(entry["line"], entry["reason"]) for entry in bad] == [(2, "E_JSON")]
    assert account.unlabelled == 2
    assert collected.notices == ["desk/votes0: says nothing of time"]  # once per file, not per record


def test_a_file_of_nothing_but_bad_records_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ingest\.max_quarantined_fraction"):
        read(tmp_path, ["{broken"] * 30)


def test_a_file_that_begins_badly_is_still_recognised(tmp_path: Path) -> None:
    good = [record(f"Q{number}?", (str(number), "ann", "a", None)) for number in range(30)]
    collected, bad = read(tmp_path, ["{broken"] * (collecting.NUM_LOOKED_AT + 2) + good)
    assert (len(collected.votes), len(bad)) == (30, collecting.NUM_LOOKED_AT + 2)
