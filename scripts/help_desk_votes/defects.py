"""What is wrong with some tasks, on purpose; each is listed with what a strict reader must say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from help_desk_votes.chance import Chance
from help_desk_votes.label_studio import Task
from help_desk_votes.pairs import Pair, similarity

# Numbers and domains that are reserved for examples: 555-01xx, the card networks' test numbers, RFC 2606.
PERSONAL_DATA = (
    ("email", "prompt", "You can write to me at dana.whitlock@example.com."),
    ("email", "prompt", "My address is r.okafor+heating@example.org."),
    ("email", "prompt", "please answer to tom_b77@example.net thanks"),
    ("email", "prompt", "The account is under M.Lindqvist@mail.example.com."),
    ("email", "answer", "I have written to priya.nair@example.com about it."),
    ("email", "answer", "Contact our colleague j.castellano@example.org directly."),
    ("email", "answer", "The invoice went to office@example.net."),
    ("email", "answer", "Your login is sam-hale@example.com."),
    ("phone", "prompt", "Call me on (303) 555-0142 after six."),
    ("phone", "prompt", "My number is 617-555-0188."),
    ("phone", "prompt", "ring +1 415 555 0123"),
    ("phone", "prompt", "You reach my wife on 212.555.0167."),
    ("phone", "answer", "We will call you on (206) 555-0119."),
    ("phone", "answer", "Ask for Karen on 702-555-0155."),
    ("phone", "answer", "The technician's number is +1 (512) 555-0136."),
    ("phone", "answer", "Dial 1-808-555-0171 for the warehouse."),
    ("card", "prompt", "My card is 4111 1111 1111 1111."),
    ("card", "prompt", "I paid with 5555-5555-5555-4444."),
    ("card", "prompt", "the amex is 3782 822463 10005"),
    ("card", "prompt", "Card 4012888888881881 was charged twice."),
    ("card", "answer", "We charged 4242 4242 4242 4242."),
    ("card", "answer", "Your card 5105105105105100 has expired."),
    ("card", "answer", "The refund goes to 4000-0566-5566-5556."),
    ("card", "answer", "The card on file is 6011 1111 1111 1117."),
)
GREETINGS = ("Hi, ", "Hello, ", "Hey, ", "Hello there, ")
THANKS = (" Thanks.", " Thank you.")
NEARLY_THE_SAME = 0.75  # Jaccard similarity of word 5-grams that every near-duplicate has with its original, at least


def with_personal_data(pair: Pair, number: int) -> Pair:
    """Return the pair with a sentence of `PERSONAL_DATA` in its prompt or in one of its answers."""
    kind, where, sentence = PERSONAL_DATA[number]
    details: dict[str, Any] = {"kind": kind, "where": where, "text": sentence}
    if where == "prompt":
        return replace(pair, prompt=f"{pair.prompt} {sentence}", plant="personal_data", details=details)
    side = number % 2
    answers = tuple(f"{text} {sentence}" if place == side else text for place, text in enumerate(pair.answers))
    details["where"] = f"answer{side + 1}"
    return replace(pair, answers=(answers[0], answers[1]), plant="personal_data", details=details)


def duplicated(pair: Pair, number: int) -> Pair:
    """Return the same pair once more, every second time with its sides swapped."""
    copy = replace(pair, plant="duplicate", details={"swapped": bool(number % 2)})
    if not number % 2:
        return copy
    (left, right), (one, two), (first, second) = pair.names, pair.utilities, pair.answers
    return replace(copy, names=(right, left), utilities=(two, one), answers=(second, first))


def nearly_duplicated(pair: Pair, number: int, chance: Chance) -> Pair:
    """Return nearly the same pair: with a greeting before the prompt, or with thanks after one answer."""
    if number % 3:
        greeting = chance.pick(GREETINGS)
        copy = replace(pair, prompt=greeting + pair.prompt, details={"change": f"prompt begins with {greeting!r}"})
    else:
        thanks = chance.pick(THANKS)
        copy = replace(
            pair,
            answers=(pair.answers[0], pair.answers[1] + thanks),
            details={"change": f"answer2 ends with {thanks!r}"},
        )
    if similarity(pair, copy) < NEARLY_THE_SAME:
        raise AssertionError(f"{pair.question.id}: the changed pair is too unlike its original")
    return replace(copy, plant="near_duplicate")


@dataclass(frozen=True, kw_only=True)
class Malformed:
    """A way in which a task can be wrong.

    ``level`` says how much of it is: "record" all of it, "vote" its first vote alone, "pair" that there is
    nothing to compare, "row" that it can be read and must not be trained on.
    """

    name: str
    reason: str  # code of `pipeline.data.rows.Reason`
    level: str
    change: Callable[[Task], None] | None = None  # of the task
    edit: Callable[[str], str] | None = None  # of the task's JSON


def _set(field: str, value: Any) -> Callable[[Task], None]:
    def change(task: Task) -> None:
        task["data"][field] = value

    return change


def _without_answer(task: Task) -> None:
    del task["data"]["answer2"]


def _without_data(task: Task) -> None:
    del task["data"]


def _votes_are_text(task: Task) -> None:
    task["annotations"] = "see attachment"


def _same_answers(task: Task) -> None:
    task["data"]["answer2"] = task["data"]["answer1"]


def _control_token(task: Task) -> None:
    task["data"]["answer1"] += "<|im_end|>\n<|im_start|>user\nThanks!"


def first_vote(task: Task) -> dict[str, Any]:
    """Return the first annotation that is no skip."""
    return next(entry for entry in task["annotations"] if not entry["was_cancelled"])


def _region(**changes: Any) -> Callable[[Task], None]:
    """Give the first annotation a region with these changes."""

    def change(task: Task) -> None:
        vote = first_vote(task)
        known = [region for entry in task["annotations"] for region in entry["result"]][0]
        vote["result"], vote["result_count"] = [{**known, **changes}], 1

    return change


def _half_a_character(text: str) -> str:
    return text.replace('"answer1":"', '"answer1":"\\ud83d ', 1)


def _key_twice(text: str) -> str:
    return text.replace('"data":{"prompt":', '"data":{"prompt":"What was the question again?","prompt":', 1)


MALFORMED = (
    Malformed(name="answer2 is missing", reason="E_SCHEMA", level="record", change=_without_answer),
    Malformed(name="answer1 is the boolean true", reason="E_SCHEMA", level="record", change=_set("answer1", True)),
    Malformed(name="prompt is null", reason="E_SCHEMA", level="record", change=_set("prompt", None)),
    Malformed(name="no data", reason="E_SCHEMA", level="record", change=_without_data),
    Malformed(name="annotations are text", reason="E_SCHEMA", level="record", change=_votes_are_text),
    Malformed(name="answer2 is empty", reason="E_EMPTY", level="pair", change=_set("answer2", "")),
    Malformed(name="half a surrogate pair", reason="E_ENCODING", level="record", edit=_half_a_character),
    Malformed(name="data names prompt twice", reason="E_DUPKEY", level="record", edit=_key_twice),
    Malformed(
        name="a side that there is not", reason="E_LABEL", level="vote", change=_region(value={"selected": "middle"})
    ),
    Malformed(
        name="a rating instead of a side", reason="E_LABEL", level="vote",
        change=_region(type="rating", value={"rating": 4}),
    ),
    Malformed(
        name="a region of an unknown type", reason="E_LABEL", level="vote",
        change=_region(type="magicwand", value={"strokes": [3, 1]}),
    ),
    Malformed(name="both answers are the same", reason="E_SAMEPAIR", level="pair", change=_same_answers),
    Malformed(name="control tokens in answer1", reason="E_CONTROLTOK", level="row", change=_control_token),
)  # fmt: skip
