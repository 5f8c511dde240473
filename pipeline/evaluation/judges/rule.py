"""The judge that goes by rules: how many checks a completion passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.checks.registry import Check, CheckItem, build_check
from pipeline.config.evaluation import CheckConfig
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.judges.protocol import Answer, Ask, Judge, JudgeContext, Question, Status
from pipeline.evaluation.judges.registry import register_judge


@register_judge("rule")
def rule(*, checks: list[dict[str, Any]] | None = None) -> Judge:
    """The completion that passes more checks is better: those named here, else those of the suite."""
    own = None if checks is None else [_check_config(entry) for entry in checks]
    for entry in own or []:
        build_check(entry.name, entry.params)

    @contextmanager
    def opened(context: JudgeContext) -> Iterator[Ask]:
        suite = context.suite.checks if context.suite else []
        built = [build_check(entry.name, entry.params) for entry in (suite if own is None else own)]
        if not built:
            raise ConfigError(f"judge `{context.config.name}`: it has no checks. Name some in its `params.checks`.")
        yield lambda questions: [_count(question, built) for question in questions]

    return Judge(open=opened, completions=1, checks=None if own is None else tuple(own))


def _check_config(entry: dict[str, Any]) -> CheckConfig:
    unknown = sorted(set(entry) - {"name", "params"})
    if unknown or not isinstance(entry.get("name"), str) or not isinstance(entry.get("params", {}), dict):
        raise ConfigError(f"checks: {entry!r} is not a check: write {{name: NAME, params: {{...}}}}.")
    return CheckConfig(name=entry["name"], params=entry.get("params", {}))


def _count(question: Question, checks: Sequence[Check]) -> Answer:
    item = CheckItem(prompt=question.prompt, reference=question.reference)
    try:
        return Answer(score=float(sum(bool(check(question.shown[0], item)) for check in checks)))
    except DataError as error:  # a check that compares with a reference, and there is none
        return Answer(score=None, status=Status.not_applicable, detail=str(error))
