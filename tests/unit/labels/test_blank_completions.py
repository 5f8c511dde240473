"""A model that wrote nothing was judged too: the vote stays, and nobody is trained on the pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.ingest import IngestConfig
from pipeline.labels.aggregation import aggregate
from pipeline.labels.quality import assess
from tests.read_exports import Export, read_export, write_jsonl

ASKED = [{"role": "user", "content": "Why?"}]


def read(tmp_path: Path, *rows: dict[str, Any], **source: Any) -> Export:
    return read_export(write_jsonl(tmp_path / "rows.jsonl", *rows), **source)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def helpsteer(first: str, second: str) -> dict[str, Any]:
    return {"prompt": "Why?", "response_1": first, "response_2": second, "preference_strength": -2}


def openai(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> dict[str, Any]:
    return {"input": {"messages": ASKED}, "preferred_output": chosen, "non_preferred_output": rejected}


def pandalm(number: int, first: str, second: str) -> dict[str, Any]:
    people = {"annotator1": 1, "annotator2": 1, "annotator3": 2}
    return {
        "idx": number, "instruction": f"Why {number}?", "input": "", "response1": first, "response2": second, **people
    }  # fmt: skip


@pytest.mark.parametrize("blank", ["", " \n", "\u200b"])
def test_its_votes_count_for_annotators_and_make_no_comparison(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([pandalm(1, "So.", blank), pandalm(2, "Yes.", "No.")]), encoding="utf-8")
    export = read_export(path)
    assert (export.bad, len(export.votes)) == ([], 6)
    items = export.collected.items
    report = assess(items, export.votes, IngestConfig())
    assert {card.annotator: card.num_votes for card in report.scorecards} == {f"annotator{who}": 2 for who in (1, 2, 3)}
    assert [(row["num_units"], row["num_votes"]) for row in report.numbers["agreement"]] == [(2, 6)]
    result = aggregate(items, export.votes, IngestConfig(), set_aside=())
    assert [(entry.row.chosen, entry.row.rejected) for entry in result.comparisons] == [(said("Yes."), said("No."))]
    judged = next(item.id for item in items.values() if item.prompt[0]["content"] == "Why 1?")
    assert [(entry["reason"], entry["item"]) for entry in result.problems] == [("E_EMPTY", judged)]
    pairs = result.counts["pairs"]
    assert (pairs["judged"], pairs["empty"], pairs["comparisons"]) == (2, 1, 1)
    assert (result.counts["votes"]["given"], result.counts["votes"]["counted"]) == (6, 6)


@pytest.mark.parametrize(
    "row",
    [
        helpsteer("So.", " "),
        openai(said("So."), said(" ")),
        {"prompt": "Why?", "completion": " ", "label": False},
        {"prompt": ASKED, "completion": said(" "), "label": False},
        {"instruction": "Why?", "models": ["m"], "completions": [{"response": " ", "overall_score": 1}]},
    ],
)
def test_it_is_judged_in_every_form(tmp_path: Path, row: dict[str, Any]) -> None:
    export = read(tmp_path, row)
    assert (export.bad, [vote.status for vote in export.votes]) == ([], ["submitted"])
    texts = [one.messages[-1]["content"] for one in export.item(export.votes[0]).candidates.values()]
    assert " " in texts


def test_a_blank_reply_of_a_conversation_with_a_thumb_is_judged(tmp_path: Path) -> None:
    entry = {
        "formatting": "sharegpt", "file_name": "rows.jsonl", "columns": {"messages": "talk", "kto_tag": "good"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}), encoding="utf-8")
    asked_twice = [*ASKED, *said(""), *ASKED, *said("So.")]
    export = read(tmp_path, *({"talk": talk, "good": False} for talk in ([*ASKED, *said("")], asked_twice)))
    assert [vote.ratings for vote in export.votes] == [(0.0,)]
    assert export.reasons == {2: "E_EMPTY"}  # the blank turn is no completion but part of the prompt


@pytest.mark.parametrize(("text", "reason"), [("\x00", "E_ENCODING"), ("\ud800", "E_ENCODING")])
def test_text_that_no_file_can_hold_is_refused_though_nothing_of_it_is_seen(
    tmp_path: Path, text: str, reason: str
) -> None:
    export = read(tmp_path, helpsteer("So.", "No."), helpsteer("So.", text))
    assert (len(export.votes), export.reasons) == (1, {2: reason})
    export = read(tmp_path, openai(said("So."), said("No.")), openai(said("So."), said(text)))
    assert (len(export.votes), export.reasons) == (1, {2: reason})


def test_a_blank_turn_among_others_is_refused(tmp_path: Path) -> None:
    longer = [*said("Hm."), *ASKED, *said("")]
    export = read(tmp_path, openai(said("So."), [*said("Hm."), *ASKED, *said("No.")]), openai(said("So."), longer))
    assert (len(export.votes), export.reasons) == (1, {2: "E_EMPTY"})


@pytest.mark.parametrize(
    ("good", "blank"),
    [
        ({"instruction": "Why?", "input": "", "output": "So."}, {"output": " "}),
        ({"prompt": "Why?", "completion": "So."}, {"completion": "\u200b"}),
        ({"prompt": ASKED, "completion": said("So.")}, {"completion": said("")}),
        ({"messages": [*ASKED, *said("So.")]}, {"messages": [*ASKED, *said("")]}),
    ],
)
def test_nobody_imitates_nothing(tmp_path: Path, good: dict[str, Any], blank: dict[str, Any]) -> None:
    export = read(tmp_path, good, {**good, **blank})
    assert (export.replies, export.reasons) == (["So."], {2: "E_EMPTY"})


def test_a_preference_that_is_stated_and_not_voted_is_refused(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    export = read(tmp_path, row, {**row, "rejected": ""})
    assert (len(export.votes), export.reasons) == (1, {2: "E_EMPTY"})


def test_a_blank_text_of_argilla_is_an_answer_that_does_not_count(tmp_path: Path) -> None:
    row = {
        "id": "r1", "prompt": "Why?", "completion.responses": ["So.", " "],
        "completion.responses.users": ["ann", "bob"], "completion.responses.status": ["submitted", "submitted"],
    }  # fmt: skip
    judged = {
        **row, "response_1": "Yes.", "response_2": "No.", "best.responses": ["response_1"],
        "best.responses.users": ["bob"], "best.responses.status": ["submitted"],
    }  # fmt: skip
    for record, statuses in ((row, ["invalid"]), (judged, ["submitted", "invalid"])):
        export = read(tmp_path, record)
        assert (export.bad, export.replies) == ([], ["So."])
        assert [vote.status for vote in export.votes] == statuses
        refused = export.votes[-1]
        assert (refused.annotator, refused.question, refused.id) == ("bob", "completion", "r1:completion:bob")
        assert (refused.note or "").startswith("E_EMPTY: the completion has no visible text")
