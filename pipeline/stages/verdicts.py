"""Verdicts: what one judge says about the completions of one policy, or about those of two side by side."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.judges import JudgeConfig
from pipeline.evaluation.judges.protocol import Answer, JudgeContext, Question, Scores, Status
from pipeline.evaluation.judges.registry import build_judge
from pipeline.evaluation.outcomes import outcomes_of
from pipeline.evaluation.samples import SAMPLES_FILE, GenerationSample, read_samples
from pipeline.evaluation.verdicts import (
    VERDICTS_FILE,
    VerdictRow,
    questions_about,
    rating_questions,
    read_verdicts,
    verdict_row,
    write_verdicts,
)
from pipeline.runtime.signals import StopRequest
from pipeline.stages.partial import append_partial, read_partial
from pipeline.tracking.job import StageJob


def judge_samples(job: StageJob) -> StageOutcome:
    """Ask a judge about every item of a suite and seal what it says, with everything that it did not say counted."""
    config: JudgeConfig = job.params["judge"]
    suite: SuiteConfig = job.params["suite"]
    judge = build_judge(config)
    samples = [read_samples(artifact.file(SAMPLES_FILE), GenerationSample) for artifact in job.inputs["samples"]]
    rubric = job.params.get("rubric")
    asked = questions_about(samples, judge) if rubric is None else rating_questions(samples[0], rubric)
    started = time.perf_counter()
    context = judge_context(job, suite, member_scores(job))
    if judge.announce is not None and rubric is None:
        judge.announce(context, asked.questions)
    answers, num_asked = ask_all(job, context, asked.questions)
    rows = [
        *asked.settled,
        *(verdict_row(question, answers[question.key], asked.clusters[question.id]) for question in asked.questions),
    ]
    write_verdicts(job.staging / VERDICTS_FILE, rows)
    counts = Counter(str(answer.status) for answer in answers.values())
    metrics = {
        "questions": len(asked.questions),
        "identical": len({row.id for row in asked.settled}),
        "no_completion": asked.missing,
        **dict(sorted(counts.items())),
    }
    said = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items())) or "nothing to ask"
    job.run.notice(f"{config.name} on {suite.name}: {len(asked.questions):,} questions = {said}")
    write_costs(job, answers.values(), num_asked, time.perf_counter() - started)
    return StageOutcome(parts={"verdicts": sha256_file(job.staging / VERDICTS_FILE)}, metrics=metrics)


def judge_context(job: StageJob, suite: SuiteConfig | None, members: dict[str, Scores]) -> JudgeContext:
    """Return what a judge is opened with."""
    dtype = None
    if job.base_model is not None:
        from pipeline.runtime.device import choose_device
        from pipeline.stages.training import resolve_dtype

        dtype = resolve_dtype(job, choose_device(job.runtime))
    return JudgeContext(config=job.params["judge"], job=job, suite=suite, dtype=dtype, members=members)


def ask_all(job: StageJob, context: JudgeContext, questions: list[Question]) -> tuple[dict[str, Answer], int]:
    """Ask every question once, in batches that the questions alone decide, and keep each batch as it is answered.

    Returns:
        The answers by the key of their question, and how many of them this attempt asked for.

    Raises:
        Interrupted: A signal asked to stop; what was answered is kept.
    """
    size = context.config.batch_size
    batches = [questions[start : start + size] for start in range(0, len(questions), size)]
    done = {key: _answer(kept) for key, kept in read_partial(job).items()}
    open_batches = [batch for batch in batches if not all(question.key in done for question in batch)]
    if not open_batches:
        return done, 0
    with build_judge(context.config).open(context) as ask, StopRequest() as stop:
        for number, batch in enumerate(open_batches, start=1):
            said = dict(zip((question.key for question in batch), ask(batch), strict=True))
            append_partial(job, [_kept(key, answer) for key, answer in said.items()])
            done |= said
            job.run.progress(len(open_batches), number)
            if stop.signal_number is not None and number < len(open_batches):
                raise stop.interrupted(f"stopped after {len(done):,} of {len(questions):,} verdicts, which are saved")
    return done, sum(len(batch) for batch in open_batches)


def member_scores(job: StageJob) -> dict[str, Scores]:
    """Return what the members of a panel say of each item, from the verdicts that the node consumes."""
    rows: dict[str, list[tuple[list[str], list[VerdictRow]]]] = {}
    for entry, artifact in zip(job.params.get("members", []), job.inputs.get("members", []), strict=True):
        verdicts = read_verdicts(artifact.file(VERDICTS_FILE))
        rows.setdefault(entry["judge"], []).append((entry.get("policies", []), verdicts))
    group = job.params.get("policies", [])
    return {judge: {outcome.id: outcome.win for outcome in outcomes_of(found, group)} for judge, found in rows.items()}


def write_costs(job: StageJob, answers: Collection[Answer], num_asked: int, seconds: float) -> None:
    """Write what judging took, which is no part of what was judged; seconds are those of the questions asked now."""
    total = sum(answer.cost for answer in answers)
    costs = {
        "wall_seconds": round(seconds, 3),
        "questions": num_asked,
        "tokens": sum(answer.tokens for answer in answers),
        "cost": round(total, 6),
        "cost_per_thousand": round(1000 * total / len(answers), 6) if answers else None,
    }
    write_durably(job.staging / "costs.json", json.dumps(costs, indent=1, sort_keys=True) + "\n")


def _kept(key: str, answer: Answer) -> dict[str, Any]:
    return {
        "id": key,
        "score": answer.score,
        "status": answer.status,
        "detail": answer.detail,
        "tokens": answer.tokens,
        "cost": answer.cost,
    }


def _answer(kept: dict[str, Any]) -> Answer:
    return Answer(
        score=kept["score"],
        status=Status(kept["status"]),
        detail=kept["detail"],
        tokens=int(kept["tokens"]),
        cost=float(kept["cost"]),
    )
