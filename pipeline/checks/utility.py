"""The written utility of a help desk's answer: how good it is by house rules and a fact sheet, as one number.

=====================  =======  ========================================================================
part                   points   of what
=====================  =======  ========================================================================
right fact             +3       contains the reference (`contains_reference`)
on the subject         +2       times the share of the words of the right sentence that the answer has
invented               -0.8     for each number, name, address or path beyond the sheet, four at most
next step              +1.5     exactly one, in the last line (`exactly_one_next_step`)
answer first           +1       no greeting, apology or question before it (`answer_first`)
at most 60 words       +1       (`max_words`)
length                 -0.02    for each word above 30
=====================  =======  ========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.checks.fact_sheet import WORD, FactSheet, phrase_word
from pipeline.checks.facts import unsupported
from pipeline.checks.registry import CheckItem, build_check
from pipeline.checks.rewards import Reward, register_reward
from pipeline.checks.style import words

RIGHT_FACT, ON_SUBJECT, INVENTED, NEXT_STEP, ANSWER_FIRST, SHORT, EACH_WORD = 3, 2, -0.8, 1.5, 1, 1, -0.02
MOST_INVENTED, MAX_WORDS, FREE_WORDS = 4, 60, 30
MOST, LEAST = RIGHT_FACT + ON_SUBJECT + NEXT_STEP + ANSWER_FIRST + SHORT, INVENTED * MOST_INVENTED
SHORTEST_CONTENT_WORD = 4  # letters; shorter words say little about the subject


@register_reward("written_utility")
def written_utility(*, fact_sheet: Path) -> Reward:
    """How good an answer is by house rules and a fact sheet, from 0 (all invented) to 1 (nothing is missing).

    Args:
        fact_sheet: A YAML file with the keys `topics`, `contact` and `menu_paths`.
    """
    utility = WrittenUtility(fact_sheet)

    def reward(completion: str, item: CheckItem) -> float:
        return min(max((utility.points(completion, item) - LEAST) / (MOST - LEAST), 0.0), 1.0)

    return reward


class WrittenUtility:
    """Counts the points of answers."""

    def __init__(self, fact_sheet: Path) -> None:
        self._sheet = FactSheet.load(fact_sheet)
        content = yaml.safe_load(fact_sheet.read_text(encoding="utf-8"))
        self._topics: dict[str, list[str]] = content["topics"]
        self._sentences = [*content.get("contact", []), *(fact for facts in self._topics.values() for fact in facts)]
        self._right = build_check("contains_reference", {})
        self._plain = [
            (build_check("exactly_one_next_step", {"marker": "Next step:"}), NEXT_STEP),
            (build_check("answer_first", {}), ANSWER_FIRST),
            (build_check("max_words", {"limit": MAX_WORDS}), SHORT),
        ]

    def points(self, completion: str, item: CheckItem, topic: str | None = None) -> float:
        """Return what the parts of the table above add up to.

        Args:
            completion: The answer.
            item: The question, with the phrase that a right answer contains.
            topic: Of the fact sheet, in which the right sentence is looked for first; None looks in all of it.

        Raises:
            DataError: The item has no reference.
        """
        found = RIGHT_FACT * float(bool(self._right(completion, item)))
        found += ON_SUBJECT * self._share_of_right_sentence(completion, item, topic)
        found += INVENTED * min(len(set(unsupported(completion, item, self._sheet))), MOST_INVENTED)
        found += sum(worth * bool(check(completion, item)) for check, worth in self._plain)
        return found + EACH_WORD * max(0, len(words(completion)) - FREE_WORDS)

    def _share_of_right_sentence(self, completion: str, item: CheckItem, topic: str | None) -> float:
        """Return which share of the content words of a sentence with the reference the text has, of the best one."""
        said = _content_words(completion)
        right = self._right_sentences(item, self._topics.get(topic or "", []))
        right = right or self._right_sentences(item, self._sentences)
        return max((len(said & wanted) / len(wanted) for wanted in map(_content_words, right) if wanted), default=0.0)

    def _right_sentences(self, item: CheckItem, sentences: Sequence[str]) -> list[str]:
        return [sentence for sentence in sentences if self._right(sentence, item)]


def _content_words(text: str) -> set[str]:
    found = {phrase_word(match[0]) for match in WORD.finditer(text)}
    return {word for word in found if len(word) >= SHORTEST_CONTENT_WORD}
