"""The written utility: how good an answer is by the house rules and the fact sheet, as one number.

=====================  =======  ========================================================================
part                   points   of what
=====================  =======  ========================================================================
right fact             +3       contains the reference (`contains_reference`)
on the subject         +2       times the share of the words of the right sentence that the answer has
invented               -0.8     for each number, name, address or path beyond the sheet, four at most
next step              +1.5     exactly one, in the last line (`exactly_one_next_step`)
answer first           +1       no greeting, apology or question before it (`answer_first`)
at most 60 words       +1       (`max_words`)
cut off                -1       broken off at the token limit
length                 -0.02    for each word above 30
=====================  =======  ========================================================================

Two answers whose utilities differ by less than `EQUAL` are equally good: the true verdict on them is a tie.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from help_desk_votes.material import HELP_DESK, Question, Sample
from pipeline.checks.fact_sheet import WORD, FactSheet, phrase_word
from pipeline.checks.facts import unsupported
from pipeline.checks.registry import CheckItem, build_check
from pipeline.checks.style import words

EQUAL = 0.25
RIGHT_FACT, ON_SUBJECT, INVENTED, NEXT_STEP, ANSWER_FIRST, SHORT, CUT_OFF, EACH_WORD = 3, 2, -0.8, 1.5, 1, 1, -1, -0.02
MOST_INVENTED, MAX_WORDS, FREE_WORDS = 4, 60, 30
SHORTEST_CONTENT_WORD = 4  # letters; shorter words say little about the subject


class Utility:
    """Judges answers by the help desk's rules."""

    def __init__(self, fact_sheet: Path = HELP_DESK / "fact_sheet.yaml") -> None:
        self._sheet = FactSheet.load(fact_sheet)
        content = yaml.safe_load(fact_sheet.read_text(encoding="utf-8"))
        self._sentences = [*content["contact"], *(fact for facts in content["topics"].values() for fact in facts)]
        self._topics: dict[str, list[str]] = content["topics"]
        self._known: dict[tuple[Question, Sample], float] = {}
        self._right = build_check("contains_reference", {})
        self._plain = [
            (build_check("exactly_one_next_step", {"marker": "Next step:"}), NEXT_STEP),
            (build_check("answer_first", {}), ANSWER_FIRST),
            (build_check("max_words", {"limit": MAX_WORDS}), SHORT),
        ]

    def __call__(self, question: Question, sample: Sample) -> float:
        """Return the utility of an answer, to two decimals."""
        key = (question, sample)
        if key not in self._known:
            self._known[key] = self._judge(question, sample)
        return self._known[key]

    def _judge(self, question: Question, sample: Sample) -> float:
        item = CheckItem([{"role": "user", "content": question.text}], question.reference)
        text = sample.text
        points = RIGHT_FACT * self._right(text, item)
        points += ON_SUBJECT * self._share_of_right_sentence(question, text)
        points += INVENTED * min(len(set(unsupported(text, item, self._sheet))), MOST_INVENTED)
        points += sum(worth * check(text, item) for check, worth in self._plain)
        points += CUT_OFF * (sample.finish == "length")
        points += EACH_WORD * max(0, len(words(text)) - FREE_WORDS)
        return round(points, 2)

    def _share_of_right_sentence(self, question: Question, text: str) -> float:
        """Return which share of the content words of a sentence with the reference the text has, of the best one."""
        said = _content_words(text)
        right = self._sentences_with(question)
        return max((len(said & wanted) / len(wanted) for wanted in map(_content_words, right) if wanted), default=0.0)

    def _sentences_with(self, question: Question) -> list[str]:
        item: Any = CheckItem([], question.reference)
        near = [fact for fact in self._topics[question.topic] if self._right(fact, item)]
        return near or [fact for fact in self._sentences if self._right(fact, item)]


def _content_words(text: str) -> set[str]:
    found = {phrase_word(match[0]) for match in WORD.finditer(text)}
    return {word for word in found if len(word) >= SHORTEST_CONTENT_WORD}
