"""A judge whose mistakes are planted, for the tests of what is measured about judges. Register it by importing this.

Completions say how good they are ("quality 7"). Every draw follows from the seed and the question alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.evaluation.judges.protocol import Answer, Ask, Judge, JudgeContext, Question, Status
from pipeline.evaluation.judges.registry import register_judge

QUALITY = re.compile(r"quality (\d+)")


def draw(*parts: object) -> float:
    """Return a number in [0, 1) that only the parts decide."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def quality(text: str) -> int:
    found = QUALITY.search(text)
    return int(found.group(1)) if found else -1


def simulated_answer(
    question: Question, seed: int, accuracy: float, first_slot: float, longer: float, failure_rate: float, obeys: float
) -> Answer:
    key = question.key
    if draw(seed, "fail", key) < failure_rate:
        return Answer(score=None, status=Status.timeout)
    if question.criterion is not None:
        return Answer(score=1.0 + 0.4 * quality(question.shown[0]))
    first, second = question.shown
    if draw(seed, "obey", key) < obeys and ("choose" in first.lower()) is not ("choose" in second.lower()):
        return Answer(score=float("choose" in first.lower()))
    if draw(seed, "slot", key) < first_slot:
        return Answer(score=1.0)
    if draw(seed, "length", key) < longer and len(first) != len(second):
        return Answer(score=float(len(first) > len(second)))
    right = draw(seed, "right", key) < accuracy
    better = quality(first) > quality(second)
    return Answer(score=float(better is right))


@register_judge("simulated")
def simulated(
    *,
    seed: int = 0,
    accuracy: float = 1.0,
    first_slot: float = 0.0,
    longer: float = 0.0,
    failure_rate: float = 0.0,
    obeys: float = 0.0,
) -> Judge:
    """Planted mistakes."""

    @contextmanager
    def opened(context: JudgeContext) -> Iterator[Ask]:
        yield lambda questions: [
            simulated_answer(question, seed, accuracy, first_slot, longer, failure_rate, obeys)
            for question in questions
        ]

    return Judge(open=opened, rates=True)
