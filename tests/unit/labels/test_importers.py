"""Importers on specimens written by hand: what counts, what does not, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from read_exports import Export, read_export, write_jsonl

from pipeline.errors import ConfigError, DataError
from pipeline.labels.votes import Scale


def read(tmp_path: Path, *rows: dict[str, Any], **source: Any) -> Export:
    return read_export(write_jsonl(tmp_path / "rows.jsonl", *rows), **source)


def verdicts(export: Export) -> list[tuple[str, dict[str, int | None] | None]]:
    return [(vote.status.value, export.order(vote)) for vote in export.votes]


# --- Argilla ---------------------------------------------------------------------------------------------------------


def argilla(responses: dict[str, list[dict[str, Any]]], **more: Any) -> dict[str, Any]:
    fields = {"prompt": "Why?", "response_1": "So.", "response_2": "No.", "response_3": "Hm."}
    return {"id": "r1", "fields": fields, "suggestions": {}, "responses": responses, **more}


def test_argilla_ranks_with_ties_and_in_part(tmp_path: Path) -> None:
    answers = [
        {"value": ["response_2", "response_1", "response_3"], "user_id": "a"},
        {"value": ["response_3"], "user_id": "b"},
        {
            "value": [
                {"value": "response_1", "rank": 1},
                {"value": "response_3", "rank": 1},
                {"value": "response_2", "rank": 3},
            ],
            "user_id": "c",
        },
        {"value": ["response_4", "response_1"], "user_id": "d"},
        {"value": ["response_1", "response_1"], "user_id": "e"},
    ]
    export = read(tmp_path, argilla({"order": answers}))
    assert verdicts(export) == [
        ("submitted", {"So.": 2, "No.": 1, "Hm.": 3}),
        ("submitted", {"So.": None, "No.": None, "Hm.": 1}),
        ("submitted", {"So.": 1, "No.": 2, "Hm.": 1}),
        ("invalid", None),
        ("invalid", None),
    ]
    assert [vote.id for vote in export.votes[:2]] == ["r1:order:a", "r1:order:b"]
    assert export.votes[3].note == 'E_LABEL: the ranking names "response_4", which is no completion of this record'


def test_argilla_joins_the_ratings_of_one_person(tmp_path: Path) -> None:
    rating = {
        "quality_1": [{"value": 4, "user_id": "a"}, {"value": 1, "user_id": "b"}],
        "quality_3": [{"value": 2, "user_id": "a"}],
        "tone": [{"value": 3, "user_id": "a"}],
        "topics": [{"value": ["billing", "shipping"], "user_id": "a"}],
    }
    export = read(tmp_path, argilla(rating))
    assert [(vote.annotator, vote.question, export.rated(vote)) for vote in export.votes] == [
        ("a", "quality", {"So.": 4.0, "Hm.": 2.0}),
        ("b", "quality", {"So.": 1.0}),
    ]
    notices = "\n".join(export.collected.notices)
    assert "ratings in `tone` are not read" in notices
    assert "answers to `topics` are labels or spans" in notices


def test_argilla_keeps_every_vote_of_people_whom_it_does_not_name(tmp_path: Path) -> None:
    rated = {"quality_1": [{"value": 4}, {"value": 1}], "quality_2": [{"value": 2}]}
    export = read(tmp_path, argilla(rated))
    assert [export.rated(vote) for vote in export.votes] == [{"So.": 4.0, "No.": 2.0}, {"So.": 1.0}]
    export = read(tmp_path, argilla({"best": [{"value": ["response_1"]}] * 3}))
    assert [vote.status.value for vote in export.votes] == ["submitted"] * 3
    assert export.counts["copies"] == 0


def test_argilla_free_text_is_a_completion_where_its_question_says_so(tmp_path: Path) -> None:
    row = {
        "id": "r1", "prompt": "Why?", "completion.responses": ["So it is.", "Draft"],
        "completion.responses.users": ["a", "b"], "completion.responses.status": ["submitted", "draft"],
        "remark.responses": ["Fine work", None], "remark.responses.users": ["a", "b"],
        "remark.responses.status": ["submitted", "discarded"],
    }  # fmt: skip
    export = read(tmp_path, row)
    assert export.replies == ["So it is."]
    assert ["`remark` is not read" in notice for notice in export.collected.notices] == [True]
    assert read(tmp_path, row, columns={"completion": "remark"}).replies == ["Fine work"]
    with pytest.raises(
        ConfigError, match=r"columns\.complete: the importer `argilla` has no such field\. Did you mean"
    ):
        read(tmp_path, row, columns={"complete": "remark"})


def test_argilla_lists_that_do_not_fit_are_set_aside(tmp_path: Path) -> None:
    row = {
        "prompt": "Why?", "response_1": "So.", "response_2": "No.", "best.responses": ["response_1"],
        "best.responses.users": ["a", "b"], "best.responses.status": ["submitted", "submitted"],
    }  # fmt: skip
    export = read(tmp_path, {**row, "best.responses.users": ["a"]}, row)
    assert export.reasons == {1: "E_SCHEMA", 2: "E_SCHEMA"}
    whole = {**row, "best.responses.users": ["a"], "best.responses.status": ["submitted"]}
    assert verdicts(read(tmp_path, whole)) == [("submitted", {"So.": 1, "No.": 2})]


# --- OpenAssistant ---------------------------------------------------------------------------------------------------


def reply(text: str, rank: int | None, **more: Any) -> dict[str, Any]:
    return {"message_id": text, "text": text, "role": "assistant", "rank": rank, "replies": [], **more}


def tree(*replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    root = {"message_id": "m", "text": "Why?", "role": "prompter", "replies": list(replies)}
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root, **more}


def test_openassistant_ranks_siblings_and_passes_over_what_was_removed(tmp_path: Path) -> None:
    deeper = {
        "message_id": "n", "text": "Really?", "role": "prompter", "rank": None,
        "replies": [reply("Yes.", 0), reply("Hardly.", 1)],
    }  # fmt: skip
    below_deleted = reply("Gone.", 0, deleted=True)
    below_deleted["replies"] = [{**deeper, "text": "Lost?"}]
    export = read(
        tmp_path,
        tree(
            reply("So.", 3, replies=[deeper]),
            reply("No.", 1, synthetic=True, model_name="robot"),
            reply("Hm.", None),
            below_deleted,
            reply("Spam.", 2, review_result=False),
        ),
    )
    assert verdicts(export) == [
        ("submitted", {"So.": 2, "No.": 1, "Hm.": None}),
        ("submitted", {"Yes.": 1, "Hardly.": 2}),
    ]
    assert export.votes[0].note == "1 of 3 replies are synthetic"
    assert [turn["content"] for turn in export.item(export.votes[1]).prompt] == ["Why?", "So.", "Really?"]
    models = {entry.messages[0]["content"]: entry.model for entry in export.item(export.votes[0]).candidates.values()}
    assert models == {"So.": None, "No.": "robot", "Hm.": None}
    assert len(export.collected.notices) == 1
    assert "deleted messages" in export.collected.notices[0]


@pytest.mark.parametrize(
    ("state", "status"),
    [("ready_for_export", "submitted"), ("growing", "draft"), ("ranking", "draft"), ("aborted_low_grade", "refused")],
)
def test_only_a_final_tree_of_openassistant_counts(tmp_path: Path, state: str, status: str) -> None:
    export = read(tmp_path, tree(reply("So.", 0), reply("No.", 1), tree_state=state))
    assert [vote.status for vote in export.votes] == [status]


def test_openassistant_unranked_and_odd_replies(tmp_path: Path) -> None:
    export = read(
        tmp_path,
        tree(reply("So.", None), reply("No.", 0)),
        tree(reply("So.", 0)),
        tree(reply("So.", True), reply("No.", 1)),  # type: ignore[arg-type]
        tree(reply("So.", 0, role="system"), reply("No.", 1)),
        tree(reply("So.", 0), reply("", 1)),
    )
    assert verdicts(export) == [("submitted", {"So.": 1, "": 2})]
    assert export.counts["unlabelled"] == 1
    assert export.reasons == {3: "E_LABEL", 4: "E_ROLE"}


# --- UltraFeedback ---------------------------------------------------------------------------------------------------


def ultrafeedback(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    def entry(text: str, given: dict[str, Any]) -> dict[str, Any]:
        aspects = {name: {"Rating": value, "Rationale": ""} for name, value in given.items() if name != "overall"}
        return {"model": f"m{text}", "response": text, "annotations": aspects, "overall_score": given.get("overall")}

    return {"instruction": "Why?", "completions": [entry("So.", first), entry("No.", second)]}


def test_ultrafeedback_asks_a_question_per_aspect(tmp_path: Path) -> None:
    row = ultrafeedback(
        {"helpfulness": "4", "honesty": "N/A", "truthfulness": "9", "overall": 8.5},
        {"helpfulness": "N/A", "honesty": "N/A", "truthfulness": "2", "overall": 6},
    )
    export = read(tmp_path, row)
    assert [(vote.question, vote.status, export.rated(vote)) for vote in export.votes if vote.ratings] == [
        ("helpfulness", "submitted", {"So.": 4.0, "No.": None})
    ]
    invalid = {vote.question: vote.note for vote in export.votes if vote.status == "invalid"}
    assert invalid == {
        "truthfulness": 'E_LABEL: truthfulness.Rating is "9", which is not from 1 to 5',
        "overall": 'E_LABEL: truthfulness.Rating is "9", which is not from 1 to 5',
    }
    assert "no annotator" in export.collected.notices[0]


def test_ultrafeedback_does_not_believe_a_ten_that_its_aspects_deny(tmp_path: Path) -> None:
    good, bad = {"helpfulness": "5", "honesty": "5", "overall": 10}, {"helpfulness": "1", "honesty": "2", "overall": 10}
    export = read(tmp_path, ultrafeedback(good, bad))
    overall = next(vote for vote in export.votes if vote.question == "overall")
    assert export.rated(overall) == {"So.": 10.0, "No.": None}
    assert overall.note == "E_LABEL: completions[1]: overall_score 10, and its aspects have the mean 1.5; left out"


# --- HelpSteer -------------------------------------------------------------------------------------------------------


def test_helpsteer_preferences_have_a_sign_and_a_strength(tmp_path: Path) -> None:
    def row(strength: Any, **more: Any) -> dict[str, Any]:
        return {"prompt": "Why?", "response_1": "So.", "response_2": "No.", "preference_strength": strength, **more}

    raw = [{"strength": 1}, {"strength": -100}, {"strength": -3}]
    export = read(tmp_path, row(-3), row(2), row(0), row(-100), row(4), row(1, all_preferences_unprocessed=raw))
    first, second = {"So.": 1, "No.": 2}, {"So.": 2, "No.": 1}
    assert [(status, order) for status, order in verdicts(export)] == [
        ("submitted", first), ("submitted", second), ("submitted", {"So.": 1, "No.": 1}), ("skipped", None),
        ("invalid", None), ("submitted", second), ("skipped", None), ("submitted", first),
    ]  # fmt: skip
    assert [vote.strength for vote in export.votes] == [3, 2, 0, None, None, 1, None, 3]
    assert export.votes[0].scale is Scale.pairwise


def test_helpsteer_ratings_and_turns_in_one_text(tmp_path: Path) -> None:
    text = "Why?\n<extra_id_1>Assistant\nSo.\n<extra_id_1>User\nReally?"
    base = {"prompt": text, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 7}
    export = read(
        tmp_path, {**base, "response": "Yes.", "helpfulness": 4}, {**base, "response": "No.", "helpfulness": [1, 2]}
    )
    helpful = [(vote.annotator, export.rated(vote)) for vote in export.votes if vote.question == "helpfulness"]
    assert helpful == [("consolidated", {"Yes.": 4.0}), (None, {"No.": 1.0}), (None, {"No.": 2.0})]
    assert {vote.status for vote in export.votes if vote.question == "verbosity"} == {"invalid"}
    [item] = export.collected.items.values()
    assert [(turn["role"], turn["content"]) for turn in item.prompt] == [
        ("user", "Why?"), ("assistant", "So."), ("user", "Really?"),
    ]  # fmt: skip
    assert "ingest.questions" in export.collected.notices[0]


def test_helpsteer3_has_a_context(tmp_path: Path) -> None:
    row = {
        "context": [{"role": "user", "content": "Why?"}], "response1": "So.", "response2": "No.",
        "overall_preference": -2,
    }  # fmt: skip
    assert verdicts(read(tmp_path, row)) == [("submitted", {"So.": 1, "No.": 2})]


# --- OpenAI and ShareGPT ---------------------------------------------------------------------------------------------

USER, ASSISTANT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}


def test_openai_preferences_with_and_without_an_object_around_the_input(tmp_path: Path) -> None:
    outputs = {"preferred_output": [ASSISTANT], "non_preferred_output": [{**ASSISTANT, "content": "No."}]}
    export = read(
        tmp_path,
        {"input": {"messages": [USER], "tools": [], "parallel_tool_calls": True}, **outputs},
        {"input": [USER], **outputs},
        {"input": {"messages": [USER], "tools": [{"type": "function"}]}, **outputs},
        {"input": [USER, ASSISTANT], **outputs},
        {"input": [USER], **outputs, "preferred_output": "So."},
    )
    assert verdicts(export) == [("submitted", {"So.": 1, "No.": 2})] * 2
    assert export.reasons == {3: "E_SCHEMA", 4: "E_ROLE", 5: "E_SCHEMA"}


def test_openai_and_sharegpt_conversations_are_demonstrations(tmp_path: Path) -> None:
    export = read(tmp_path, {"messages": [USER, ASSISTANT]}, {"messages": [USER, {**ASSISTANT, "weight": 0}]})
    assert (export.importer, export.replies, export.reasons) == ("openai", ["So."], {2: "E_SCHEMA"})
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    odd = [{"from": "human", "value": "Why?"}, {"from": "observation", "value": "So."}]
    export = read(
        tmp_path,
        {"id": "one", "conversations": turns, "system": "Be brief."},
        {"conversations": odd},
        {"conversations": turns, "tools": "[1]"},
    )
    assert (export.importer, export.reasons) == ("sharegpt", {2: "E_ROLE", 3: "E_SCHEMA"})
    [row] = export.collected.demonstrations["auto"]
    assert (row.id, row.prompt[0]) == ("one", {"role": "system", "content": "Be brief."})


# --- LLaMA-Factory ---------------------------------------------------------------------------------------------------


def registered(tmp_path: Path, entry: dict[str, Any], *rows: dict[str, Any]) -> Export:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "rows.jsonl", **entry}}))
    return read(tmp_path, *rows)


def test_llamafactory_reads_columns_tags_and_history(tmp_path: Path) -> None:
    columns = {"prompt": "q", "query": "more", "chosen": "good", "rejected": "bad", "history": "before", "system": "s"}
    row = {"q": "Why", "more": "now?", "good": "So.", "bad": "No.", "before": [["Hi", "Hello"]], "s": "Be brief."}
    export = registered(tmp_path, {"ranking": True, "columns": columns}, row, {**row, "before": ["Hi"]})
    assert verdicts(export) == [("submitted", {"So.": 1, "No.": 2})]
    assert [turn["content"] for turn in export.item(export.votes[0]).prompt] == [
        "Be brief.", "Hi", "Hello", "Why\n\nnow?",
    ]  # fmt: skip
    assert export.reasons == {2: "E_SCHEMA"}


def test_llamafactory_thumbs_and_roles_under_other_names(tmp_path: Path) -> None:
    entry = {
        "formatting": "sharegpt", "columns": {"messages": "talk", "kto_tag": "ok", "images": "pictures"},
        "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "customer", "assistant_tag": "agent"},
    }  # fmt: skip
    talk = [{"who": "customer", "what": "Why?"}, {"who": "agent", "what": "So."}]
    export = registered(
        tmp_path, entry, {"talk": talk, "ok": False}, {"talk": talk, "ok": "yes"}, {"talk": talk[:1], "ok": True},
        {"talk": talk, "ok": True, "pictures": ["a.png"]},
    )  # fmt: skip
    assert [(vote.status, vote.scale, vote.ratings) for vote in export.votes] == [
        ("submitted", Scale.thumbs, (0.0,)), ("invalid", Scale.thumbs, None),
    ]  # fmt: skip
    assert export.reasons == {3: "E_ROLE", 4: "E_SCHEMA"}


def test_llamafactory_wants_a_registry_that_fits(tmp_path: Path) -> None:
    row = {"instruction": "Why?", "output": "So."}
    assert registered(tmp_path, {}, row).importer == "llamafactory"
    with pytest.raises(DataError, match="names no column for `response` that the file has"):
        registered(tmp_path / ".." / tmp_path.name, {"columns": {"prompt": "output"}}, row)


def test_llamafactory_version_1_explains_itself(tmp_path: Path) -> None:
    def turn(role: str, text: str, weight: float) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "value": text}], "loss_weight": weight}

    asked = turn("user", "Why?", 0.0)
    pictures = {"role": "user", "content": [{"type": "image", "value": "a.png"}]}
    export = read(
        tmp_path,
        {"messages": [asked, turn("assistant", "So.", 1.0)]},
        {"messages": [asked, turn("assistant", "Hm.", 0.0)]},
        {"messages": [pictures, turn("assistant", "So.", 1.0)]},
    )
    assert (export.importer, export.replies, export.reasons) == (
        "llamafactory",
        ["So."],
        {2: "E_SCHEMA", 3: "E_SCHEMA"},
    )


# --- Prodigy ---------------------------------------------------------------------------------------------------------


def prodigy(accept: list[str], answer: str = "accept", **more: Any) -> dict[str, Any]:
    options = [{"id": "A", "text": "So."}, {"id": "B", "text": "No."}, {"id": "tie", "text": "Equally good"}]
    return {
        "text": "Why?", "options": options, "accept": accept, "answer": answer, "_task_hash": 1, "_input_hash": 2,
        "_annotator_id": "ann", "_timestamp": 1700000000, **more,
    }  # fmt: skip


def test_prodigy_answers(tmp_path: Path) -> None:
    rows = [
        prodigy(["B"], _annotator_id="a"), prodigy(["tie"], _annotator_id="b"), prodigy([], "ignore"),
        prodigy(["A"], "reject"), prodigy([]), prodigy(["C"]), prodigy(["A", "tie"]), prodigy(["A"], "maybe"),
        prodigy(["A"], _timestamp=0),
    ]  # fmt: skip
    export = read(tmp_path, *rows)
    assert verdicts(export)[:2] == [("submitted", {"So.": 2, "No.": 1}), ("submitted", {"So.": 1, "No.": 1})]
    assert [vote.status for vote in export.votes[2:]] == [
        "skipped", "discarded", "skipped", "invalid", "invalid", "invalid", "invalid",
    ]  # fmt: skip
    assert export.votes[0].created == "2023-11-14T22:13:20+00:00"
    assert (export.votes[-1].note or "").startswith("E_TIME")


def test_prodigy_with_more_options_prefers_every_accepted_one_to_every_other(tmp_path: Path) -> None:
    options = [{"id": key, "text": key} for key in ("w", "x", "y", "z")]
    export = read(tmp_path, prodigy(["w", "z"], options=options, config={"choice_style": "multiple"}))
    orders = [export.order(vote) for vote in export.votes]
    assert sorted((min(order, key=order.get), max(order, key=order.get)) for order in orders if order) == [  # type: ignore[arg-type]
        ("w", "x"), ("w", "y"), ("z", "x"), ("z", "y"),
    ]  # fmt: skip


# --- Choosing --------------------------------------------------------------------------------------------------------


def test_an_importer_may_be_named_and_a_wrong_name_is_corrected(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}
    assert read(tmp_path, row, importer="sharegpt").replies == ["So."]
    with pytest.raises(ConfigError, match="there is no importer `sharegtp`. Did you mean `sharegpt`?"):
        read(tmp_path, row, importer="sharegtp")
    with pytest.raises(DataError, match=r"is no format that is recognised \(its fields: colour\)"):
        read(tmp_path, {"colour": "red"})
