"""The judge on this machine: a language model whose verdict is read off its next-token probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.config.shared import ModelConfig
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.judges.protocol import Answer, Ask, Judge, JudgeContext, Question, Status
from pipeline.evaluation.judges.registry import register_judge
from pipeline.evaluation.judges.wording import BY_LETTER, BY_NUMBER, LETTERS, RATINGS, messages_for


@register_judge("local")
def local(*, min_mass: float = 0.001) -> Judge:
    """The run's base, or `model`, compares two completions: P(A) and half of P(tie), over what A, B and tie get.

    Args:
        min_mass: What the three letters must get together as the next token; below it the model has not answered.
    """
    if not 0 <= min_mass < 1:
        raise ConfigError(f"min_mass must lie in [0, 1), not {min_mass}.")

    @contextmanager
    def opened(context: JudgeContext) -> Iterator[Ask]:
        from pipeline.data.encode import encode_prompt, load_chat
        from pipeline.models.choices import choice_ids, choice_logprobs
        from pipeline.models.loading import load_base

        job, config = context.job, context.config
        model_config = job.section(ModelConfig)
        if context.dtype is None:
            raise ValueError("a local judge needs the number format of its model")
        chat = load_chat(job.base.folder, model_config)
        letters = choice_ids(chat, LETTERS)
        model = load_base(job.base, model_config, job.runtime, context.dtype)

        def ask(questions: Sequence[Question]) -> list[Answer]:
            answers: dict[int, Answer] = {}
            prompts: dict[int, list[int]] = {}
            for number, question in enumerate(questions):
                try:
                    tokens = encode_prompt(messages_for(config, question, BY_LETTER, BY_NUMBER), chat)
                except DataError as error:
                    answers[number] = Answer(score=None, status=Status.error, detail=str(error))
                    continue
                if len(tokens) >= job.base.context_length:
                    answers[number] = Answer(score=None, status=Status.error, detail="overlength")
                else:
                    prompts[number] = tokens
            rates = any(question.criterion is not None for question in questions)
            numbers = choice_ids(chat, [str(rating) for rating in RATINGS]) if rates else []
            for choices, read, compares in ((letters, read_letters, True), (numbers, read_numbers, False)):
                own = {n: p for n, p in prompts.items() if (questions[n].criterion is None) is compares}
                if not own:
                    continue
                said = choice_logprobs(model, list(own.values()), choices, config.batch_size)
                for (number, tokens), logprobs in zip(own.items(), said, strict=True):
                    answers[number] = read(logprobs, len(tokens), min_mass)
            return [answers[number] for number in range(len(questions))]

        yield ask

    return Judge(open=opened, states_probabilities=True, rates=True, loads_model=True)


def read_letters(logprobs: Sequence[float], num_tokens: int, min_mass: float) -> Answer:
    """Turn the log-probabilities of A, B and tie into a score: (P(A) + P(tie) / 2) / (P(A) + P(B) + P(tie))."""
    return _weighed(logprobs, (1.0, 0.0, 0.5), num_tokens, min_mass)


def read_numbers(logprobs: Sequence[float], num_tokens: int, min_mass: float) -> Answer:
    """Turn the log-probabilities of 1 to 5 into their mean, sum_k k p_k over sum_k p_k (arXiv:2303.16634)."""
    return _weighed(logprobs, [float(rating) for rating in RATINGS], num_tokens, min_mass)


def _weighed(logprobs: Sequence[float], values: Sequence[float], num_tokens: int, min_mass: float) -> Answer:
    shares = [math.exp(value) for value in logprobs]
    mass = sum(shares)
    if not mass > min_mass:
        detail = f"what may be answered gets {mass:.2g} together"
        return Answer(score=None, status=Status.parse_fail, detail=detail, tokens=num_tokens)
    score = sum(share * value for share, value in zip(shares, values, strict=True)) / mass
    return Answer(score=min(max(values), max(min(values), score)), tokens=num_tokens)
