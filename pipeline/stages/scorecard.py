"""The scorecard of a judge: what it says about pairs that people judged, and about pairs that try to fool it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from pipeline.artifacts.ancestry import ancestry
from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.data import TableName
from pipeline.config.evaluation import CriterionConfig, SuiteConfig
from pipeline.config.judges import JudgeConfig, QualificationConfig, VotePool
from pipeline.data.rows import Comparison, Message
from pipeline.data.tables import read_table
from pipeline.errors import DataError
from pipeline.evaluation.judges.protocol import Answer, Question, Scores
from pipeline.evaluation.judges.registry import build_judge
from pipeline.evaluation.outcomes import outcomes_of
from pipeline.evaluation.probes import Probe, attacks, probe_questions, vote_probes
from pipeline.evaluation.rated_votes import questions_of_ratings, rating_measures
from pipeline.evaluation.scorecards import score_judge
from pipeline.evaluation.verdicts import VERDICTS_FILE, VerdictRow, verdict_row, write_verdicts
from pipeline.labels.aggregation import comparison_id
from pipeline.labels.pair_votes import votes_on_pairs
from pipeline.labels.tables import read_items, read_votes
from pipeline.stages.verdicts import ask_all, judge_context, member_scores, write_costs
from pipeline.tracking.job import StageJob

CARD_FILE, RATINGS_FILE = "card.json", "ratings.jsonl"
Prompt = tuple[tuple[str, str], ...]  # role and text of each turn


def measure_judge(job: StageJob) -> StageOutcome:
    """Ask a judge about probes and seal what it said with the scorecard that follows from it.

    Raises:
        DataError: There is no pair that people judged among those that were asked for.
    """
    config: JudgeConfig = job.params["judge"]
    suite: SuiteConfig = job.params["suite"]
    judge = build_judge(config)
    members = member_scores(job)
    probes = known_to_all(job, load_probes(job), members)
    if not judge.answers_anything:
        probes = [probe for probe in probes if probe.votes is not None]
    questions = probe_questions(probes, judge)
    rubric: list[CriterionConfig] = job.params["rubric"]
    ratings = questions_of_ratings(probes, rubric)
    every = [*(question for asked in questions.values() for question in asked), *ratings]
    distinct = {question.key: question for question in every}
    started = time.perf_counter()
    context = judge_context(job, suite if judge.checks is None else None, members)
    answers, num_asked = ask_all(job, context, list(distinct.values()))
    rows = [row for probe in probes for row in probe_rows(probe, questions[probe.id], answers)]
    write_verdicts(job.staging / VERDICTS_FILE, rows)
    files = {"verdicts": VERDICTS_FILE, "card": CARD_FILE}
    if ratings:
        files["ratings"] = RATINGS_FILE
        write_verdicts(job.staging / RATINGS_FILE, rating_rows(probes, rubric, answers))
    outcomes = {outcome.id: outcome for outcome in outcomes_of([([], rows)], [])}
    scorecard = score_judge(judge, probes, outcomes)
    if scorecard.applies:
        scorecard.card.update(rating_measures(probes, rubric, answers))
        scorecard.card.update(price_per_thousand(list(answers.values())))
    else:
        job.run.notice(f"  {config.name}: does not apply to the pairs that people judged: {rows[0].detail}")
    text = json.dumps(scorecard.as_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_durably(job.staging / CARD_FILE, text)
    write_costs(job, list(answers.values()), num_asked, time.perf_counter() - started)
    for name, value in scorecard.card.items():
        job.run.notice(f"  {config.name}: {name} {_shown(value)}")
    return StageOutcome(
        parts={name: sha256_file(job.staging / file) for name, file in files.items()},
        metrics={name: value["estimate"] for name, value in scorecard.card.items()},
    )


def known_to_all(job: StageJob, probes: list[Probe], members: Mapping[str, Scores]) -> list[Probe]:
    """Return the probes that every member of a panel was asked about; a reward model is not asked about what it learnt.

    Raises:
        DataError: There is no pair with votes among them.
    """
    known = [probe for probe in probes if all(probe.id in said for said in members.values())]
    if len(known) < len(probes):
        job.run.notice(
            f"{len(probes) - len(known):,} pairs left out: not every member of the panel was asked about them"
        )
    if not any(probe.votes is not None for probe in known):
        raise DataError(
            f"The members of the judge `{job.params['judge'].name}` have no pair in common, so it cannot be "
            "measured. Set evaluate.qualification.votes=held_out or a larger num_pairs, or leave the judge out."
        )
    return known


def price_per_thousand(answers: Sequence[Answer]) -> dict[str, dict[str, float | int | None]]:
    """Return what a thousand questions take: tokens, and money where the endpoint has prices; none of it is time."""
    totals = {
        "tokens_per_thousand": float(sum(answer.tokens for answer in answers)),
        "cost_per_thousand": sum(answer.cost for answer in answers),
    }
    return {
        name: {"estimate": 1000 * total / len(answers), "low": None, "high": None, "n": len(answers)}
        for name, total in totals.items()
        if total and answers
    }


def load_probes(job: StageJob) -> list[Probe]:
    """Return the pairs that people judged and the attacks made of them.

    Raises:
        DataError: There is none.
    """
    asked: QualificationConfig = job.params["qualification"]
    labels = job.one("labels")
    if labels is None:
        raise DataError("A judge is measured against human votes, and there are none. Set `inputs.evaluate.labels`.")
    items, votes = read_items(labels), votes_on_pairs(read_votes(labels))
    pool = list(votes.values())
    if asked.votes is VotePool.held_out:
        dataset = job.one("dataset")
        rows = [] if dataset is None else read_table(dataset, TableName.comparisons.value, "test", Comparison)
        held_out = {row.id for row in rows}
        pool = [entry for entry in pool if items[entry.pair.item].protected or comparison_id(entry.pair) in held_out]
    elif (model := job.one("reward_model")) is not None:
        learnt = prompts_learnt_from(model)
        fair = [entry for entry in pool if as_key(items[entry.pair.item].prompt) not in learnt]
        job.run.notice(
            f"{len(pool) - len(fair):,} pairs left out: {job.params['judge'].name} learnt from their prompts"
        )
        pool = fair
    pairs = vote_probes(items, pool, asked.num_pairs)
    job.run.notice(f"{len(votes):,} pairs with votes, {len(pool):,} of them {asked.votes}, {len(pairs):,} asked about")
    if not pairs:
        raise DataError(
            f"No pair with human votes is {asked.votes}, so the judge `{job.params['judge'].name}` cannot be measured. "
            "Set evaluate.qualification.votes=all, or leave the judge out."
        )
    return [*pairs, *attacks(pairs, asked.num_probes)]


def prompts_learnt_from(reward_model: Artifact) -> set[Prompt]:
    """Return the prompts of the comparisons that a reward model was trained or tuned on, by what their turns say.

    Raises:
        DataError: The data set that it was trained on does not lie beside it.
    """
    consumed = [parent for parent in reward_model.manifest.parents if parent.kind is ArtifactKind.dataset]
    found = {artifact.id: artifact for artifact in ancestry([reward_model])}
    missing = [parent.id for parent in consumed if parent.id not in found]
    if missing or not consumed:
        raise DataError(
            f"{reward_model.path}: the data set {' and '.join(missing) or '(none is named)'} that it was trained on is "
            "not there, so it is unknown which votes it has seen. Set evaluate.qualification.votes=held_out."
        )
    return {
        as_key(row.prompt)
        for parent in consumed
        for split in ("train", "validation")
        for row in read_table(found[parent.id], TableName.comparisons.value, split, Comparison)
    }


def as_key(prompt: Sequence[Message]) -> Prompt:
    """Return the turns of a prompt as something that sets can hold."""
    return tuple((turn["role"], turn["content"]) for turn in prompt)


def probe_rows(probe: Probe, questions: Sequence[Question], answers: Mapping[str, Answer]) -> list[VerdictRow]:
    """Return the rows of a probe: one per order, or the comparison of two scores."""
    if questions[0].order is not None:
        return [verdict_row(question, answers[question.key], probe.cluster) for question in questions]
    first, second = (answers[question.key] for question in questions)
    bad = next((answer for answer in (first, second) if answer.score is None), None)
    score = None
    if bad is None and first.score is not None and second.score is not None:
        score = 0.5 if first.score == second.score else float(first.score > second.score)
    return [
        VerdictRow(
            id=probe.id, cluster=probe.cluster, order="ab", score=score,
            status=bad.status if bad else "ok", detail=bad.detail if bad else None,
        )
    ]  # fmt: skip


def rating_rows(
    probes: Sequence[Probe], rubric: Sequence[CriterionConfig], answers: Mapping[str, Answer]
) -> list[VerdictRow]:
    """Return one row per rated completion and criterion, however many pairs it stands in."""
    rows = {
        question.key: verdict_row(question, answers[question.key], probe.cluster)
        for probe in probes
        for question in questions_of_ratings([probe], rubric)
    }
    return list(rows.values())


def _shown(value: Mapping[str, float | None]) -> str:
    def number(name: str) -> str:
        return "-" if value[name] is None else f"{value[name]:.3f}"

    return f"{number('estimate')} [{number('low')}, {number('high')}], n {value['n']}"
