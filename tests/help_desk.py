"""A small help desk whose numbers can be counted by hand, for the tests of reports and pages."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.data import TableName
from pipeline.config.evaluation import CheckConfig, EvaluateConfig, SuiteConfig, SuiteKind
from pipeline.evaluation.joining import PolicySamples
from pipeline.evaluation.samples import GenerationSample, LikelihoodSample, Sample

FORM = SuiteConfig(
    name="form",
    description="Does the answer keep the house style?",
    kind=SuiteKind.generation,
    table=TableName.prompts,
    checks=[
        CheckConfig(name="max_words", params={"limit": 6}),
        CheckConfig(name="regex", params={"pattern": "Next step:"}),
    ],
)
FIT = SuiteConfig(name="fit", kind=SuiteKind.likelihood, table=TableName.demonstrations)
SUITES = {"form": FORM, "fit": FIT}
EVALUATE = EvaluateConfig(baseline="base", suites=["form", "fit"], num_examples=4)


def generated(
    identifier: str,
    completion: str,
    *,
    cluster: str | None = None,
    finish_reason: str | None = "stop",
    unscored: str | None = None,
    prompt: str = "How do I reset the hub?",
) -> GenerationSample:
    return GenerationSample(
        id=identifier,
        cluster=cluster or identifier,
        prompt=[{"role": "user", "content": prompt}],
        reference=None,
        topic="setup",
        completion=completion,
        finish_reason=finish_reason,
        num_tokens=len(completion.split()),
        unscored=unscored,
    )


def scored(
    identifier: str,
    nats: float | None,
    *,
    tokens: int = 2,
    num_bytes: int = 8,
    cluster: str | None = None,
    unscored: str | None = None,
) -> LikelihoodSample:
    return LikelihoodSample(
        id=identifier,
        cluster=cluster or identifier,
        prompt=[{"role": "user", "content": "How do I reset the hub?"}],
        reference=None,
        topic="setup",
        completion=[{"role": "assistant", "content": "Hold it."}],
        nats=nats,
        tokens=tokens,
        bytes=num_bytes,
        unscored=unscored,
    )


def of(policy: str, suite: str, rows: Sequence[Sample]) -> PolicySamples:
    return PolicySamples(policy=policy, suite=suite, artifact=f"samples-{suite}-{policy}", rows=rows)


GOOD, LONG, PLAIN = "Hold it. Next step: wait.", "one two three four five six seven Next step: eight", "Hold it."


def help_desk() -> list[PolicySamples]:
    """Four items; of `form`, base passes all checks on one and tuned on three."""
    return [
        of("base", "form", [generated("a", PLAIN), generated("b", LONG, finish_reason="length"), generated("c", GOOD),
                            generated("d", PLAIN)]),
        of("tuned", "form", [generated("a", GOOD), generated("b", GOOD), generated("c", GOOD), generated("d", PLAIN)]),
        of("base", "fit", [scored("a", 4.0), scored("b", 2.0, tokens=4), scored("c", 3.0), scored("d", 3.0)]),
        of("tuned", "fit", [scored("a", 2.0), scored("b", 1.0, tokens=4), scored("c", 2.0), scored("d", 2.5)]),
    ]  # fmt: skip
