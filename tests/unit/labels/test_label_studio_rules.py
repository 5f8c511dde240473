"""Every rule of the Label Studio importer on a record that is small enough to judge by eye."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.data import SourceConfig, SourceSplit, TableName
from pipeline.data.rows import BadRowError
from pipeline.errors import ConfigError, DataError
from pipeline.labels.importers.label_studio import open_export, recognises
from pipeline.labels.importers.registry import ImportContext
from pipeline.labels.votes import Imported, Scale, Status, Vote

DATA = {"prompt": "Why?", "answer1": "Because.", "answer2": "Ask me later."}
LEFT = [{"from_name": "pw", "to_name": "pw", "type": "pairwise", "origin": "manual", "value": {"selected": "left"}}]


def answer(control: str, kind: str, value: Any, to: str = "prompt", **more: Any) -> dict[str, Any]:
    key = {"choices": "choices", "rating": "rating", "ranker": "ranker", "textarea": "text", "pairwise": "selected"}
    return {"from_name": control, "to_name": to, "type": kind, "value": {key[kind]: value}, **more}


def annotation(result: Any, **more: Any) -> dict[str, Any]:
    return {"id": 7, "completed_by": 3, "result": result, "was_cancelled": False, **more}


def task(*annotations: Any, data: Mapping[str, Any] = DATA, **more: Any) -> dict[str, Any]:
    return {"id": 1, "data": dict(data), "annotations": list(annotations), **more}


def read(record: dict[str, Any], sample: list[dict[str, Any]] | None = None, **source: Any) -> Imported:
    config = SourceConfig(table=TableName.exports, path="export.json", **source)
    context = ImportContext(
        source=config, key="data.sources[0]", name="mine/export", path=Path("export.json"), sample=sample or [record]
    )
    return open_export(context)(record)


def only(imported: Imported) -> Vote:
    assert len(imported.votes) == 1, imported.votes
    return imported.votes[0]


def preferred(vote: Vote) -> int | None:
    """Where the better candidate was shown."""
    assert vote.ranks is not None
    assert vote.positions is not None
    return None if vote.is_tie else vote.positions[vote.ranks.index(1)]


def as_cells(record: dict[str, Any]) -> dict[str, str]:
    """Write a flat record as CSV does."""
    return {
        name: "" if value is None else value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in record.items()
    }


def flat(**more: Any) -> dict[str, Any]:
    fixed = {"annotation_id": 7, "annotator": 3, "created_at": None, "updated_at": None, "lead_time": None, "id": 1}
    return {**DATA, **fixed, **more}


def test_a_vote_says_who_when_how_long_and_on_what() -> None:
    times = {"created_at": "2026-01-02T03:04:05.5Z", "updated_at": "2026-01-02T05:04:06+02:00", "lead_time": 4.5}
    imported = read(task(annotation(LEFT, **times)), split=SourceSplit.test, licence="MIT")
    vote, item = only(imported), imported.items[0]
    assert (vote.id, vote.annotator, vote.tool, vote.source) == ("7", "3", "label_studio", "mine/export")
    assert (vote.created, vote.seconds) == ("2026-01-02T03:04:06+00:00", 4.5)
    assert (vote.scale, vote.status, vote.strength, vote.gold) == (Scale.pairwise, Status.submitted, None, False)
    assert (item.protected, item.licence) == (True, "MIT")
    assert preferred(vote) == 0
    assert list(vote.candidates) == sorted(item.candidates)
    assert item.candidates[vote.candidates[vote.ranks.index(1)]].messages[0]["content"] == "Because."


def test_an_answer_without_a_word_was_judged_too() -> None:
    vote = only(read(task(annotation(LEFT), data={**DATA, "answer2": " \u200b"})))
    assert (preferred(vote), vote.status) == (0, Status.submitted)


def test_candidates_are_in_order_of_id_however_they_were_shown() -> None:
    turned = {"prompt": "Why?", "answer1": DATA["answer2"], "answer2": DATA["answer1"]}
    one, other = only(read(task(annotation(LEFT)))), only(read(task(annotation(LEFT), data=turned)))
    assert one.candidates == other.candidates
    assert (one.item, one.ranks) == (other.item, other.ranks[::-1])
    assert (preferred(one), preferred(other)) == (0, 0)


def test_an_empty_answer_of_a_pairwise_control_is_a_tie() -> None:
    vote = only(read(task(annotation([])), sample=[task(annotation(LEFT))]))
    assert (vote.ranks, vote.status) == ((1, 1), Status.submitted)
    assert only(read(task(annotation([answer("pw", "pairwise", "none")])))).is_tie


def test_an_empty_answer_of_a_choice_is_none() -> None:
    labelled = task(annotation([answer("preference", "choices", ["A is better"])]))
    vote = only(read(task(annotation([])), sample=[labelled]))
    assert (vote.ranks, vote.status, vote.note) == (None, Status.skipped, "submitted without an answer")


def test_all_empty_results_are_told() -> None:
    assert any("none of the first annotations" in notice for notice in read(task(annotation([]))).notices)
    assert not any("none of the first" in notice for notice in read(task(annotation(LEFT))).notices)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"was_cancelled": True}, Status.skipped),
        ({"reviews": [{"accepted": True}, {"accepted": False}]}, Status.refused),
        ({"reviews": [{"accepted": False}, {"accepted": True}]}, Status.submitted),
        ({"last_action": "rejected"}, Status.refused),
        ({"last_action": "submitted"}, Status.submitted),
        ({"was_cancelled": True, "last_action": "rejected"}, Status.skipped),
    ],
)
def test_what_is_skipped_or_refused_is_kept_and_does_not_count(more: dict[str, Any], status: Status) -> None:
    assert only(read(task(annotation(LEFT, **more)))).status is status


def test_names_from_before_version_one() -> None:
    old = {"id": 5, "data": DATA, "completions": [{"id": 9, "result": LEFT, "skipped": True, "created_at": 1580211764}]}
    vote = only(read(old))
    assert (vote.id, vote.status, vote.annotator) == ("9", Status.skipped, None)
    assert vote.created == "2020-01-28T11:42:44+00:00"


def test_drafts_and_predictions_are_counted_and_never_vote() -> None:
    draft = {"id": 4, "user": "ann@example.com", "created_username": "ann@example.com, 12", "result": LEFT}
    predictions = [3, {"id": 5, "model_version": "rm-v0", "result": LEFT}]
    votes = read(task(drafts=[draft], predictions=predictions)).votes
    assert [(vote.id, vote.annotator, vote.status) for vote in votes] == [
        ("draft-4", "12", Status.draft),
        ("prediction-3", None, Status.prediction),
        ("prediction-5", "rm-v0", Status.prediction),
    ]
    assert [vote.ranks is None for vote in votes] == [False, True, False]


def test_a_task_that_nobody_has_judged_is_counted() -> None:
    assert (read(task()).unlabelled, read(task()).votes) == (1, [])
    assert read(task(annotation(LEFT))).unlabelled == 0
    assert read(flat(annotation_id=None, annotator=None)).unlabelled == 1


def test_gold_and_the_origin_of_an_answer_are_kept() -> None:
    vote = only(read(task(annotation([{**LEFT[0], "origin": "prediction"}], ground_truth=True))))
    assert (vote.gold, vote.note) == (True, "origin: prediction")
    assert only(read(task(annotation([{**LEFT[0], "origin": "prediction-changed"}])))).note == (
        "origin: prediction-changed"
    )


@pytest.mark.parametrize(
    ("person", "name"),
    [(3, "3"), ({"id": 3, "email": "ann@example.com"}, "ann@example.com"), ({"id": 3}, "3"), (None, None), ({}, None)],
)
def test_an_annotator_is_a_number_or_an_address(person: Any, name: str | None) -> None:
    assert only(read(task(annotation(LEFT, completed_by=person)))).annotator == name


@pytest.mark.parametrize("taken", [-1, "soon", float("inf"), True])
def test_an_impossible_time_is_noted_and_the_vote_stays(taken: Any) -> None:
    vote = only(read(task(annotation(LEFT, lead_time=taken, updated_at="yesterday"))))
    assert (vote.status, vote.seconds, vote.created) == (Status.submitted, None, None)
    assert vote.note is not None
    assert "E_TIME: 'yesterday' is no time" in vote.note
    assert "E_TIME: a lead time" in vote.note


def test_one_bad_answer_leaves_the_others_alone() -> None:
    bad = [
        annotation([answer("pw", "pairwise", "middle")], id=1),
        annotation([{"type": "pairwise", "from_name": "pw", "value": "left"}], id=2),
        annotation([{"type": "pairwise", "from_name": "pw", "value": {"side": "left"}}], id=3),
        annotation(LEFT + LEFT, id=4),
        annotation("left", id=5),
        annotation([{"type": "brushlabels", "from_name": "pw", "value": {"rle": []}}], id=6),
    ]
    votes = {vote.id: vote for vote in read(task(annotation(LEFT), *bad)).votes}
    assert votes.pop("7").status is Status.submitted
    assert {vote.status for vote in votes.values()} == {Status.invalid}
    notes = {key: vote.note or "" for key, vote in votes.items()}
    assert notes["1"] == "E_LABEL: 'middle' of `pw` is neither left nor right"
    assert notes["2"] == "E_SCHEMA: annotations[2].result[0] is no region with a value"
    assert notes["3"] == "E_SCHEMA: annotations[3].result[0].value has no 'selected'"
    assert notes["4"] == "E_LABEL: `pw` is answered 2 times"
    assert notes["5"] == "E_SCHEMA: annotations[5].result is no list"
    assert notes["6"] == "E_LABEL: it answers with brushlabels and nothing else"


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"id": 1, "annotations": []}, "E_SCHEMA: the task has no `data` object"),
        ({"id": 1, "data": DATA, "annotations": {}}, "E_SCHEMA: `annotations` is no list"),
        ({"id": 1, "data": DATA, "annotations": [3]}, "E_SCHEMA: annotations[0] is no object"),
        (task(annotation(LEFT, was_cancelled="no")), "E_SCHEMA: annotations[0].was_cancelled is neither"),
        (task(annotation(LEFT), data={**DATA, "answer1": True}), "E_SCHEMA: answer1 is true or false, not text"),
        (task(annotation(LEFT), data={**DATA, "answer2": None}), "E_SCHEMA: the task's data have null in 'answer2'"),
        (task(annotation(LEFT), data={"prompt": "x", "answer1": "y"}), "E_SCHEMA: the task's data have no 'answer2'"),
        (task(annotation(LEFT), data={**DATA, "prompt": " \u200b"}), "E_EMPTY: prompt has no visible text"),
        (task(annotation(LEFT), data={**DATA, "prompt": "\ud800"}), "E_ENCODING: "),
    ],
)
def test_a_record_that_is_no_task_is_set_aside(record: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRowError) as caught:
        read(record, sample=[task(annotation(LEFT))])
    assert str(caught.value).startswith(told)


def test_a_multi_turn_prompt_with_a_system_turn() -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    data = {"messages": turns, "system": "Be brief.", "response_a": "So.", "response_b": "No."}
    item = read(task(annotation(LEFT), data=data)).items[0]
    assert item.prompt == [{"role": "system", "content": "Be brief."}, *turns]
    cells = as_cells({**flat(), **data, "pw": [{"selected": "left"}]})
    for name in ("prompt", "answer1", "answer2"):
        del cells[name]
    assert read(cells).items[0] == item
    with pytest.raises(BadRowError, match="E_ROLE"):
        read(task(annotation(LEFT), data={**data, "messages": turns[:2]}))


@pytest.mark.parametrize(
    ("choice", "side", "strength"),
    [("A is much better", 0, 3.0), ("B is slightly better", 1, 1.0), ("B", 1, 2.0), ("Tie", None, 0.0)],
)
def test_choices_of_a_graded_scale(choice: str, side: int | None, strength: float) -> None:
    graded = [answer("preference", "choices", ["A is much better"])]
    vote = only(
        read(
            task(annotation([answer("preference", "choices", [choice])])),
            sample=[task(annotation(graded)), task(annotation([answer("preference", "choices", [choice])]))],
        )
    )
    assert (preferred(vote), vote.strength) == (side, strength)


def test_choices_without_grades_have_no_strength() -> None:
    vote = only(read(task(annotation([answer("preference", "choices", ["Right"])]))))
    assert (preferred(vote), vote.strength, vote.question) == (1, None, "")
    both_bad = only(read(task(annotation([answer("preference", "choices", ["Both bad"])]))))
    assert (both_bad.is_tie, both_bad.note) == (True, "preference: Both bad")
    unsure = only(read(task(annotation([answer("preference", "choices", ["Not sure"])]))))
    assert (unsure.ranks, unsure.status) == (None, Status.skipped)
    named = only(read(task(annotation([answer("preference", "choices", ["answer2"])]))))
    assert preferred(named) == 1


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (["Banana"], "'Banana' of `preference` does not say which candidate is better"),
        (["A", "B"], "is not one choice"),
        (["third"], "'third' of `preference` names a candidate that is not there"),
        ([3], "is not one choice"),
    ],
)
def test_choices_that_say_nothing_are_named(choices: list[Any], told: str) -> None:
    vote = only(read(task(annotation([answer("preference", "choices", choices)]))))
    assert vote.status is Status.invalid
    assert vote.note is not None
    assert vote.note.startswith("E_LABEL: ")
    assert told in vote.note


def test_other_choices_and_texts_are_notes() -> None:
    result = [*LEFT, answer("issues", "choices", ["rude", "wrong"]), answer("why", "textarea", ["It lies."])]
    imported = read(task(annotation(result)))
    assert (only(imported).note, imported.demonstrations) == ("issues: rude | wrong; why: It lies.", [])


def test_grades_of_a_single_answer_are_no_verdict_on_two() -> None:
    result = [*LEFT, answer("grade", "choices", ["A"], to="answer1")]
    assert [vote.scale for vote in read(task(annotation(result))).votes] == [Scale.pairwise]


def test_ratings_of_both_candidates_are_one_vote_per_question() -> None:
    result = [
        answer("clear_a", "rating", 4, to="answer1"), answer("clear_b", "rating", 4, to="answer2"),
        answer("right_a", "rating", 1, to="answer1"), answer("right_b", "rating", 5, to="answer2"),
    ]  # fmt: skip
    votes = {vote.question: vote for vote in read(task(annotation(result))).votes}
    assert votes.keys() == {"clear", "right"}
    assert (votes["clear"].ratings, votes["clear"].ranks) == ((4.0, 4.0), (1, 1))
    assert preferred(votes["right"]) == 1
    assert sorted(votes["right"].ratings) == [1.0, 5.0]


CONFIG = """<View>
  <Text name="q" value="$task"/><Text name="t1" value="$x"/><Text name="t2" value="$y"/>
  <Rating name="stars1" toName="t1" maxRating="4"/><Rating name="stars2" toName="t2" maxRating="4"/>
  <Pairwise name="pw" toName="t2,t1"/>
</View>"""


def config_file(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "config.xml"
    path.write_text(text, encoding="utf-8")
    return {"labeling_config": str(path)}


@pytest.mark.parametrize(
    ("stars", "told"),
    [
        (5, "5 of `stars1` is more than 4 stars"),
        (3.5, "3.5 of `stars1` is no whole number of stars"),
        ("4/5", "'4/5' of `stars1` is no whole number"),
        (-1, "-1 of `stars1` is no whole number"),
        (True, "True of `stars1` is no whole number"),
    ],
)
def test_stars_outside_their_scale_are_invalid(stars: Any, told: str, tmp_path: Path) -> None:
    data = {"task": "Why?", "x": "Because.", "y": "Later."}
    result = [answer("stars1", "rating", stars, to="t1"), *LEFT]
    votes = read(task(annotation(result), data=data), **config_file(tmp_path, CONFIG)).votes
    assert {vote.question: vote.status for vote in votes} == {"stars": Status.invalid, "pw": Status.submitted}
    assert any(vote.note is not None and f"E_LABEL: {told}" in vote.note for vote in votes)
    fine = read(task(annotation([answer("stars1", "rating", 4, to="t1")]), data=data), **config_file(tmp_path, CONFIG))
    rated = next(vote for vote in fine.votes if vote.scale is Scale.rating)
    assert sorted(rated.ratings, key=str) == [4.0, None]


def test_the_configuration_says_which_side_is_left(tmp_path: Path) -> None:
    data = {"task": "Why?", "x": "Because.", "y": "Later."}
    imported = read(task(annotation(LEFT), data=data), **config_file(tmp_path, CONFIG))
    vote = only(imported)
    better = imported.items[0].candidates[vote.candidates[vote.ranks.index(1)]]
    assert better.messages[0]["content"] == "Later."  # t2 stands first in toName


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><View/>', "declares a DOCTYPE"),
        ("<View>", "is not XML"),
        ("<View><Text name='a' value='$a'/></View>", "has none of the controls"),
        ("<View>" + " " * (1 << 20), "more than 1,048,576 bytes"),
    ],
)
def test_a_configuration_that_is_none_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.sources\[0\]\.labeling_config") as caught:
        read(task(annotation(LEFT)), **config_file(tmp_path, text))
    assert told in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(task(annotation(LEFT)), labeling_config=str(tmp_path / "missing.xml"))


RANKED = {"prompt": "Why?", "items": [{"id": "x", "body": "X"}, {"id": "y", "body": "Y"}, {"id": "z", "text": "Z"}]}


def ranked(value: Any) -> dict[str, Any]:
    return answer("rank", "ranker", value, to="answers")


def ranks_by_name(imported: Imported) -> dict[str, int | None]:
    vote, item = only(imported), imported.items[0]
    assert vote.ranks is not None
    texts = [item.candidates[name].messages[0]["content"] for name in vote.candidates]
    return dict(zip(texts, vote.ranks, strict=True))


def test_an_order_may_leave_candidates_out() -> None:
    imported = read(task(annotation([ranked({"rank": ["z", "x"]})]), data=RANKED))
    assert ranks_by_name(imported) == {"Z": 1, "X": 2, "Y": None}


def test_buckets_need_a_known_order() -> None:
    value = {"warm": ["x"], "cold": ["y", "z"], "_": []}
    record = task(annotation([ranked(value)]), data=RANKED)
    vote = only(read(record))
    assert vote.status is Status.invalid
    assert "cold, warm have no known order" in (vote.note or "")
    assert ranks_by_name(read(record, columns={"buckets": "cold, warm"})) == {"Y": 1, "Z": 1, "X": 2}
    good = task(annotation([ranked({"bad": ["x"], "good": ["y"], "_": ["z"]})]), data=RANKED)
    assert ranks_by_name(read(good)) == {"Y": 1, "X": 2, "Z": None}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"rank": ["x", "w"]}, "ranks 'w', which is not listed"),
        ({"rank": ["x", "x"]}, "ranks a candidate twice"),
        ({"rank": "x"}, "holds no lists"),
    ],
)
def test_orders_of_what_is_not_there_are_invalid(value: Any, told: str) -> None:
    vote = only(read(task(annotation([ranked(value)]), data=RANKED)))
    assert vote.status is Status.invalid
    assert told in (vote.note or "")


def test_texts_become_demonstrations_where_nothing_is_judged() -> None:
    data = {"prompt": "Why?"}
    imported = read(task(annotation([answer("reply", "textarea", ["One.", "Two."])]), data=data))
    assert [row.completion[0]["content"] for row in imported.demonstrations] == ["One.", "Two."]
    assert [row.id for row in imported.demonstrations] == ["mine/export:7/0", "mine/export:7/1"]
    assert imported.votes == []
    for result, more, status in (
        ([answer("reply", "textarea", ["x"])], {"was_cancelled": True}, Status.skipped),
        ([answer("reply", "textarea", ["x"])], {"last_action": "rejected"}, Status.refused),
        ([answer("reply", "textarea", [" "])], {}, Status.invalid),
        ([answer("reply", "textarea", [4])], {}, Status.invalid),
        ([], {}, Status.skipped),
    ):
        imported = read(task(annotation(result, **more), data=data))
        assert (imported.demonstrations, only(imported).status) == ([], status)
        assert only(imported).candidates == ()


def test_a_better_answer_beside_a_verdict_is_a_demonstration_where_named() -> None:
    record = task(annotation([*LEFT, answer("better", "textarea", ["This one."])]))
    imported = read(record, columns={"completion": "better"})
    assert [row.completion[0]["content"] for row in imported.demonstrations] == ["This one."]
    assert preferred(only(imported)) == 0


def chat(*turns: tuple[str, str], **more: Any) -> list[dict[str, Any]]:
    return [
        {"from_name": "chat", "to_name": "chat", "type": "chatmessage", "origin": "manual",
         "value": {"chatmessage": {"role": role, "content": text, "createdAt": 1761626717856, **more}}}
        for role, text in turns
    ]  # fmt: skip


def test_a_chat_is_a_demonstration_and_its_stars_a_rating() -> None:
    turns = (("user", "hi"), ("assistant", "Hello!"), ("user", "Why?"), ("assistant", "So."))
    stars = answer("rating", "rating", 4, to="chat")
    imported = read(task(annotation([*chat(*turns, tool_calls=None), stars]), data={"chat": [], "scenario": "x"}))
    row, vote = imported.demonstrations[0], only(imported)
    assert [turn["content"] for turn in [*row.prompt, *row.completion]] == ["hi", "Hello!", "Why?", "So."]
    assert (vote.scale, vote.ratings, len(vote.candidates)) == (Scale.rating, (4.0,), 1)
    unfinished = read(task(annotation(chat(*turns[:3])), data={"chat": []}))
    assert (unfinished.demonstrations, only(unfinished).status) == ([], Status.invalid)
    called = read(task(annotation(chat(*turns, tool_calls=[{"id": 1}])), data={"chat": []}))
    assert called.demonstrations == []
    assert "tool_calls" in (only(called).note or "")
    flattened = flat(chat=[{"role": role, "content": text, "createdAt": 1} for role, text in turns])
    for name in DATA:
        del flattened[name]
    assert read(flattened).demonstrations[0].completion == row.completion


@pytest.mark.parametrize("write", [dict, as_cells], ids=["JSON_MIN", "CSV"])
def test_flat_records_undo_every_flattening(write: Any) -> None:
    vote = only(read(write(flat(pw=[{"selected": "right"}], lead_time=2.5, updated_at="2026-01-01T00:00:00Z"))))
    assert (preferred(vote), vote.annotator, vote.id) == (1, "3", "7")
    assert (vote.seconds, vote.created) == (2.5, "2026-01-01T00:00:00+00:00")
    assert preferred(only(read(write(flat(preference="Left"))))) == 0
    tie = only(read(write(flat(pw=None)), sample=[write(flat(pw=[{"selected": "left"}]))]))
    assert tie.is_tie
    late = only(read(write(flat(pw=[{"selected": "right"}])), sample=[write(flat(pw=None))]))
    assert preferred(late) == 1  # although none of the first records shows that `pw` is a control
    texts = {name: value for name, value in flat().items() if not name.startswith("answer")}
    two = read(write({**texts, "reply": {"text": ["One.", "Two."]}}), columns={"completion": "reply"})
    assert [row.completion[0]["content"] for row in two.demonstrations] == ["One.", "Two."]
    marked = read(write({**texts, "reply": '["not", 1, "list"]'}), columns={"completion": "reply"})
    assert marked.demonstrations[0].completion[0]["content"] == '["not", 1, "list"]'
    broken = only(read(write(flat(pw="left!")), sample=[write(flat(pw=[{"selected": "left"}]))]))
    assert broken.status is Status.invalid
    assert "'left!'" in (broken.note or "") or '"left!"' in (broken.note or "")


def test_names_that_data_and_control_share(tmp_path: Path) -> None:
    xml = """<View><Text name="o" value="$prompt"/><Text name="x" value="$answer1"/><Text name="y" value="$answer2"/>
    <Pairwise name="answer1" toName="x,y"/></View>"""
    cells = as_cells({**flat(answer1=[{"selected": "right"}]), "_data_answer1": "Because."})
    imported = read(cells, **config_file(tmp_path, xml))
    assert preferred(only(imported)) == 1
    assert {c.messages[0]["content"] for c in imported.items[0].candidates.values()} == {"Because.", "Ask me later."}
    with pytest.raises(DataError, match="JSON_MIN has overwritten the task's answer1"):
        read(flat(answer1=[{"selected": "right"}]), **config_file(tmp_path, xml))


@pytest.mark.parametrize(
    ("columns", "error", "told"),
    [
        ({"promt": "prompt"}, ConfigError, "columns.promt: there is no such field. Did you mean `prompt`"),
        ({"prompt": "promt"}, DataError, "no 'promt' among its data. Did you mean `prompt`"),
        ({"verdict": "pq"}, DataError, "no 'pq' among its controls"),
        ({"first": "answer1", "third": "answer2"}, ConfigError, "`third` is given without `second`"),
        ({"first": "answer1", "second": "answer2", "items": "prompt"}, ConfigError, "Keep one"),
    ],
)
def test_columns_are_checked(columns: dict[str, str], error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        read(task(annotation(LEFT)), columns=columns)
    assert told in str(caught.value)


def test_what_is_not_clear_is_asked_for() -> None:
    unknown = {"prompt": "x", "alpha": "y", "omega": "z"}
    with pytest.raises(DataError, match=r"what the candidates are; .* `data\.sources\[0\]\.columns`"):
        read(task(annotation(LEFT), data=unknown))
    told = read(task(annotation(LEFT), data=unknown), columns={"first": "omega", "second": "alpha"})
    assert only(told).status is Status.submitted
    two = {**DATA, "response1": "a", "response2": "b"}
    with pytest.raises(DataError, match="what the candidates are"):
        read(task(annotation(LEFT), data=two))


def test_exports_of_other_tools_are_not_recognised() -> None:
    mine, other = task(annotation(LEFT)), {"id": 1, "prompt": "x", "chosen": "y", "rejected": "z"}
    assert recognises([mine, mine, other], Path("x.json"))
    assert not recognises([mine, other, other], Path("x.json"))
    assert not recognises([{"data": "text", "annotations": []}], Path("x.json"))
    assert recognises([flat()], Path("x.json"))
    assert not recognises([{name: value for name, value in flat().items() if name != "annotator"}], Path("x.json"))
