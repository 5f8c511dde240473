from __future__ import annotations

import pytest

from pipeline.labels.importers.label_studio_wording import candidate_families, marked_families, read_choice, split_mark


@pytest.mark.parametrize(
    ("text", "side", "grade"),
    [
        ("left", 0, None), ("Right", 1, None), ("A", 0, None), ("b", 1, None), ("1", 0, None), ("second", 1, None),
        ("Response 2", 1, None), ("response_1", 0, None), ("Answer A is better", 0, None), ("The first one", 0, None),
        ("B wins", 1, None), ("Model B", 1, None), ("A is better than B", 0, None), ("left is better.", 0, None),
        ("A is much better", 0, 3.0), ("A is a bit better", 0, 1.0), ("Response B is slightly better", 1, 1.0),
        ("I strongly prefer B", 1, 3.0), ("slightly prefer A", 0, 1.0), ("the second response is far better", 1, 3.0),
        ("A>>B", 0, 3.0), ("A < B", 1, None), ("B > A", 1, None), ("A >>> B", 0, 4.0),
    ],
)  # fmt: skip
def test_choices_that_name_a_side(text: str, side: int, grade: float | None) -> None:
    wording = read_choice(text)
    assert wording is not None
    assert (wording.side, wording.grade, wording.tie, wording.skipped) == (side, grade, False, False)


@pytest.mark.parametrize(
    "text", ["Tie", "equal", "Both bad", "neither", "No preference", "about the same", "It is a tie"]
)
def test_choices_that_name_none(text: str) -> None:
    wording = read_choice(text)
    assert wording is not None
    assert (wording.tie, wording.side) == (True, None)


@pytest.mark.parametrize("text", ["Skip", "not sure", "Can’t decide", "n/a"])
def test_choices_that_give_no_verdict(text: str) -> None:
    wording = read_choice(text)
    assert wording is not None
    assert (wording.skipped, wording.tie, wording.side) == (True, False, None)


@pytest.mark.parametrize("text", ["", "yes", "ignores instruction", "apple", "a lot", "A and B", "better", "42", "7"])
def test_words_that_compare_nothing(text: str) -> None:
    assert read_choice(text) is None


def test_marks_stand_apart_from_words() -> None:
    assert split_mark("helpfulness_a") == ("helpfulness", 0)
    assert split_mark("pairText2") == ("pairText", 1)
    assert split_mark("answerB") == ("answer", 1)
    assert split_mark("left") == ("", 0)
    assert split_mark("data") is None
    assert split_mark("prompt") is None


def test_families_are_runs_from_the_first() -> None:
    names = ["prompt", "answer_b", "answer_a", "model_1", "model_2", "instance_id"]
    assert candidate_families(names) == [["answer_a", "answer_b"]]
    assert marked_families(names)["model"] == ["model_1", "model_2"]
    assert candidate_families(["response2", "response3"]) == []
    assert candidate_families(["response1"]) == []
    assert candidate_families(["response1", "response2", "a", "b"]) == [["response1", "response2"], ["a", "b"]]
