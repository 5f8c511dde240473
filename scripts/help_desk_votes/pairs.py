"""Which two answers are compared: pairs of the same question, most of them of the fine-tuned policy's own answers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from help_desk_votes.chance import Chance
from help_desk_votes.material import Question, Sample
from help_desk_votes.utility import EQUAL
from pipeline.checks.fact_sheet import EMAIL
from pipeline.data.rows import normalise

WIDEST_OF = 3  # of so many pairs of samples the one that differs most is taken ...
AT_RANDOM = 0.25  # ... but in this share of cases any pair is
MOST_ALIKE = 0.6  # Jaccard similarity of word 5-grams that two pairs of one question may have
NGRAM = 5
MOST_USES = 2  # of an answer
MANY_DIGITS = re.compile(r"(?:\d[\s().-]{0,2}){7,}")  # a phone or card number
OUR_DOMAIN = "@hearthlog.example"

Judge = Callable[[Question, Sample], float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers as a task shows them."""

    question: Question
    kind: str  # the policies on both sides, such as "base-sft"
    names: tuple[str, str]  # of the samples on the left and on the right
    utilities: tuple[float, float]
    prompt: str
    answers: tuple[str, str]
    plant: str = "none"  # what is wrong with the task, see `defects`
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """How much better the left answer is."""
        return self.utilities[0] - self.utilities[1]

    @property
    def better(self) -> str:
        """The true verdict."""
        if abs(self.gap) < EQUAL:
            return "tie"
        return "left" if self.gap > 0 else "right"


def draw_pairs(
    questions: Sequence[Question], samples: Iterable[Sample], judge: Judge, wanted: dict[str, int], chance: Chance
) -> list[Pair]:
    """Draw so many pairs of every kind, spread over the questions.

    Args:
        questions: Those that may be used.
        samples: Of these questions and others.
        judge: Gives the utility of an answer.
        wanted: How many pairs of the kinds "sft-sft", "base-sft" and "demonstration-sft".
        chance: Decides.

    Raises:
        SystemExit: There are too few samples.
    """
    by_question: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        by_question[sample.question][sample.policy].append(sample)
    for question in questions:
        if question.answer is not None:
            by_question[question.id]["demonstration"] = [_demonstration(question, question.answer)]
    drawn: dict[str, list[Pair]] = defaultdict(list)
    for kind, number in wanted.items():
        found = 0
        for question in [*chance.shuffled(questions), *chance.shuffled(questions)]:
            if found == number:
                break
            pair = _draw(question, by_question[question.id], kind, drawn[question.id], judge, chance)
            if pair is not None:
                drawn[question.id].append(pair)
                found += 1
        if found < number:
            raise SystemExit(f"only {found} of {number} pairs {kind} can be drawn; sample more completions")
    return [pair for pairs in drawn.values() for pair in pairs]


def _draw(
    question: Question,
    samples: dict[str, list[Sample]],
    kind: str,
    before: list[Pair],
    judge: Judge,
    chance: Chance,
) -> Pair | None:
    """Return a pair of a question that is unlike the ones before it, or None."""
    first, second = kind.split("-")
    uses = Counter(name for pair in before for name in pair.names)
    choices = [
        (one, two)
        for one, two in _choices(samples, first, second)
        if normalise(one.text) != normalise(two.text)
        and max(uses[one.name], uses[two.name]) < MOST_USES
        and not any({one.name, two.name} == set(pair.names) for pair in before)
        and all(sample.text and not looks_personal(sample.text) for sample in (one, two))
    ]
    if not choices:
        return None
    shown = [chance.pick(choices) for _ in range(1 if chance.happens(AT_RANDOM) else WIDEST_OF)]
    left, right = max(shown, key=lambda pair: abs(judge(question, pair[0]) - judge(question, pair[1])))
    if chance.happens(0.5):
        left, right = right, left
    pair = Pair(
        question=question,
        kind=kind,
        names=(left.name, right.name),
        utilities=(judge(question, left), judge(question, right)),
        prompt=question.text,
        answers=(left.text, right.text),
    )
    return None if any(similarity(pair, other) > MOST_ALIKE for other in before) else pair


def _choices(samples: dict[str, list[Sample]], first: str, second: str) -> list[tuple[Sample, Sample]]:
    if first == second:
        return list(combinations(samples[first], 2))
    return [(one, two) for one in samples[first] for two in samples[second]]


def looks_personal(text: str) -> bool:
    """Whether a policy made up an address or a number of somebody: all personal data in the votes are planted ones."""
    strange = any(not match[0].endswith(OUR_DOMAIN) for match in EMAIL.finditer(text))
    return strange or MANY_DIGITS.search(text) is not None


def _demonstration(question: Question, answer: str) -> Sample:
    return Sample(
        question=question.id, policy="demonstration", temperature=0.0, seed=0, finish="stop", text=answer
    )  # fmt: skip


def similarity(one: Pair, two: Pair) -> float:
    """Return the Jaccard similarity of the word 5-grams of two pairs, prompt and answers together."""
    first, second = _ngrams(one), _ngrams(two)
    return len(first & second) / len(first | second)


def _ngrams(pair: Pair) -> set[tuple[str, ...]]:
    words = " ".join([pair.prompt, *sorted(pair.answers)]).lower().split()
    return {tuple(words[start : start + NGRAM]) for start in range(max(1, len(words) - NGRAM + 1))}
