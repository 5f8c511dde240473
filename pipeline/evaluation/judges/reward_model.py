"""The judge that is a reward model: each completion is scored once, and of two the one with the higher score is better.

A reward model is a fair judge only of what was not trained against it or on its comparisons: `gold` has learnt from
other folds than the one that PPO maximises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.config.shared import ModelConfig
from pipeline.evaluation.judges.protocol import Answer, Ask, Judge, JudgeContext, Question, Status
from pipeline.evaluation.judges.registry import register_judge

GOLD = "gold"


@register_judge("reward_model")
def reward_model(*, artifact: str = GOLD) -> Judge:
    """The higher score wins. `gold` is what `inputs.evaluate.gold` names; else a stage, an artifact or a path."""

    @contextmanager
    def opened(context: JudgeContext) -> Iterator[Ask]:
        from pipeline.data.encode import Dropped, encode_completion, load_chat
        from pipeline.models.loading import load_base
        from pipeline.models.reward import load_reward

        job = context.job
        sealed = job.one("reward_model")
        if context.dtype is None or sealed is None:
            raise ValueError("a reward model that judges needs the number format of its base, and to be there")
        chat = load_chat(job.base.folder, job.section(ModelConfig))
        base = load_base(job.base, job.section(ModelConfig), job.runtime, context.dtype)
        scorer = load_reward(base, sealed.path)

        def ask(questions: Sequence[Question]) -> list[Answer]:
            answers: dict[int, Answer] = {}
            rows: dict[int, list[int]] = {}
            for number, question in enumerate(questions):
                encoded = encode_completion(question.messages, question.shown[0], chat)
                reason = encoded.reason if isinstance(encoded, Dropped) else None
                if not isinstance(encoded, Dropped) and len(encoded.input_ids) >= job.base.context_length:
                    reason = "overlength"
                if isinstance(encoded, Dropped) or reason is not None:
                    answers[number] = Answer(score=None, status=Status.error, detail=reason)
                else:
                    rows[number] = encoded.input_ids
            scores = scorer.score(list(rows.values()), context.config.batch_size).mean.tolist() if rows else []
            for (number, tokens), score in zip(rows.items(), scores, strict=True):
                answers[number] = Answer(score=score, tokens=len(tokens))
            return [answers[number] for number in range(len(questions))]

        yield ask

    return Judge(open=opened, completions=1, loads_model=True, reward_model=artifact)
