"""The judge that is several: what most of its members say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.evaluation.judges.protocol import Answer, Ask, Judge, JudgeContext, Question, Status
from pipeline.evaluation.judges.registry import register_judge


@register_judge("panel")
def panel() -> Judge:
    """Most of `members` decide; where neither side has more than half of them it is a tie. All must have answered."""

    @contextmanager
    def opened(context: JudgeContext) -> Iterator[Ask]:
        yield lambda questions: [_count(question, context) for question in questions]

    return Judge(open=opened, order_sensitive=False)


def _count(question: Question, context: JudgeContext) -> Answer:
    scores = {name: said.get(question.id) for name, said in context.members.items()}
    silent = sorted(name for name, score in scores.items() if score is None)
    if silent:
        return Answer(score=None, status=Status.error, detail=f"no verdict of {', '.join(silent)}")
    said = [score for score in scores.values() if score is not None]
    for_first, for_second = sum(score > 0.5 for score in said), sum(score < 0.5 for score in said)
    if 2 * max(for_first, for_second) <= len(said):
        return Answer(score=0.5)
    return Answer(score=1.0 if for_first > for_second else 0.0)
