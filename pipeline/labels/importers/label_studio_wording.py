"""What a choice says in words: which side is better and how clearly, that neither is, or that one is good or bad."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SIDES = {
    "left": 0, "right": 1, "first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "sixth": 5,
    "one": 0, "two": 1, "three": 2, "four": 3, "a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5,
    "1": 0, "2": 1, "3": 2, "4": 3, "5": 4, "6": 5,
}  # fmt: skip
CANDIDATE_STEMS = (
    "response", "answer", "completion", "output", "option", "candidate", "reply", "text", "pairtext", "generation",
    "assistant", "result", "summary",
)  # fmt: skip
VERDICTS = (  # names of controls that ask which is better
    "preference", "overall_preference", "verdict", "winner", "better", "choice", "comparison", "vote",
)  # fmt: skip
# How clearly one is better. A word for it makes the choice one of a graded scale; without any there is no strength.
GRADES = {
    "negligibly": 1.0, "marginally": 1.0, "slightly": 1.0, "somewhat": 1.0, "a little": 1.0, "a bit": 1.0,
    "clearly": 3.0, "considerably": 3.0, "significantly": 3.0, "strongly": 3.0, "much": 3.0, "far": 3.0, "a lot": 3.0,
}  # fmt: skip
PLAIN_GRADE = 2.0
_TIES = {
    "tie", "tied", "draw", "equal", "equally good", "equally bad", "equal quality", "same", "the same",
    "about the same", "both", "both good", "both bad", "both are good", "both are bad", "both are equal", "both equal",
    "both equally good", "both equally bad", "neither", "neither is better", "neither is good", "no preference",
    "no difference", "similar", "similar quality", "they are equal", "they are the same", "indifferent", "none",
    "a=b", "a = b",
}  # fmt: skip
_NO_VERDICT = {
    "skip", "skipped", "unsure", "not sure", "cannot decide", "can't decide", "cannot say", "can't say", "don't know",
    "n/a", "not applicable", "cannot judge", "can't judge", "unclear",
}  # fmt: skip

_THUMBS = {
    **dict.fromkeys(
        ("good", "thumbs up", "thumb up", "up", "like", "yes", "accept", "accepted", "desirable", "correct", "👍"), 1.0
    ),
    **dict.fromkeys(
        ("bad", "thumbs down", "thumb down", "down", "dislike", "no", "reject", "rejected", "undesirable", "incorrect",
         "👎"), 0.0
    ),
}  # fmt: skip

_GRADE = "|".join(sorted(GRADES, key=len, reverse=True))
_STEM = "|".join((*CANDIDATE_STEMS, "model", "side", "item"))
_SIDE = "|".join(sorted(SIDES, key=len, reverse=True))
_NAMED = rf"(?:the )?(?:(?:{_STEM})[ _-]?)?(?P<side>{_SIDE})(?:[ _-]?(?:{_STEM}|one))?"
_OTHER = rf"(?:the )?(?:(?:{_STEM})[ _-]?)?(?:{_SIDE}|other)(?:[ _-]?(?:{_STEM}|one))?"
_PREFERRED = re.compile(
    rf"(?:i )?(?:(?P<before>{_GRADE}) )?(?:(?:prefer|choose) )?{_NAMED}(?: is| was)?(?: (?P<grade>{_GRADE}))?"
    rf"(?: (?:better|best|preferred|preferable|wins|won|stronger))?(?: (?:than|over|to) {_OTHER})?"
)
_ARROW = re.compile(r"(?P<left>[a-f1-6]) ?(?P<sign>>{1,3}|<{1,3}) ?(?P<right>[a-f1-6])")
_MARK = re.compile(
    r"(?P<stem>.*?)[ _-]?(?P<mark>left|right|first|second|third|fourth|fifth|sixth|[1-6]|[a-f])", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What a choice says."""

    side: int | None = None  # of the better candidate, from 0
    tie: bool = False
    skipped: bool = False
    grade: float | None = None  # 1 slightly, 2 where no word says how clearly, 3 much


def read_choice(text: str) -> Wording | None:
    """Return what a choice says, or None if its words are no verdict on two candidates."""
    words = _words(text)
    if words in _TIES or re.fullmatch(r"(?:it is )?(?:a|an) (?:tie|draw|equal)", words):
        return Wording(tie=True)
    if words in _NO_VERDICT:
        return Wording(skipped=True)
    if arrow := _ARROW.fullmatch(words):
        better = arrow["left"] if arrow["sign"].startswith(">") else arrow["right"]
        grade = PLAIN_GRADE + len(arrow["sign"]) - 1 if len(arrow["sign"]) > 1 else None
        return Wording(side=SIDES[better], grade=grade)
    if found := _PREFERRED.fullmatch(words):
        grade_word = found["before"] or found["grade"]
        return Wording(side=SIDES[found["side"]], grade=GRADES[grade_word] if grade_word else None)
    return None


def read_thumb(text: str) -> float | None:
    """Return 1 where a choice calls one completion good, 0 where bad, and None if its words are neither."""
    return _THUMBS.get(_words(text).replace("_", " ").replace("-", " "))


def asks_for_thumbs(choices: Iterable[str]) -> bool:
    """Whether every choice calls one completion good or bad, or passes over it."""
    kinds = [(read_thumb(choice), read_choice(choice)) for choice in choices]
    known = all(thumb is not None or (wording is not None and wording.skipped) for thumb, wording in kinds)
    return known and any(thumb is not None for thumb, _ in kinds)


def _words(text: str) -> str:
    return " ".join(text.casefold().replace("’", "'").strip(" .!:").split())


def split_mark(name: str) -> tuple[str, int] | None:
    """Cut a name into what it is about and which candidate it belongs to: ``helpfulness_a`` is (helpfulness, 0)."""
    found = _MARK.fullmatch(name)
    if found is None:
        return None
    stem, mark = found["stem"], found["mark"]
    # A letter is a mark only where it stands apart: "data" is not the first "dat".
    if len(mark) == 1 and stem and mark.islower() and name[len(stem)] not in " _-":
        return None
    return stem, SIDES[mark.lower()]


def candidate_families(names: Iterable[str]) -> list[list[str]]:
    """Return every run of names that look like the candidates of one task, each in order."""
    return [family for stem, family in marked_families(names).items() if stem in ("", *CANDIDATE_STEMS)]


def marked_families(names: Iterable[str]) -> dict[str, list[str]]:
    """Return every run of names that differ in their marks only, in order, by what they share."""
    stems: dict[str, dict[int, str]] = {}
    for name in names:
        if cut := split_mark(name):
            stems.setdefault(cut[0].casefold(), {})[cut[1]] = name
    return {
        stem: [family[index] for index in sorted(family)]
        for stem, family in stems.items()
        if len(family) > 1 and sorted(family) == list(range(len(family)))
    }
