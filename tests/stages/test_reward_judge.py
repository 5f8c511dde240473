"""A trained reward model as a judge: its scores are those of the reward model, and it prefers what people preferred."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from judging import Recorder, answer_row, seal_samples
from reward_jobs import Workshop, comparisons, make_workshop, small_config

from pipeline.artifacts.artifact import Artifact
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.judges import JudgeConfig
from pipeline.config.shared import DType, ModelConfig, RuntimeConfig
from pipeline.data.chat import load_chat
from pipeline.data.encode import encode_prompt
from pipeline.evaluation.judges.registry import build_judge
from pipeline.evaluation.outcomes import outcomes_of
from pipeline.evaluation.samples import GenerationSample
from pipeline.evaluation.verdicts import VerdictRow, read_verdicts
from pipeline.models.loading import load_base
from pipeline.models.reward import load_reward
from pipeline.stages.verdicts import judge_samples
from pipeline.tracking.job import StageJob
from pipeline.tracking.run import Run

GOLD = JudgeConfig(name="gold", kind="reward_model", batch_size=5)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def reward(workshop: Workshop) -> Artifact:
    outcome, work = workshop.run(small_config(num_epochs=4), "gold")
    return workshop.seal(work, outcome, name="gold")


def rows(side: str) -> list[GenerationSample]:
    return [
        answer_row(row.id, getattr(row, side)[0]["content"], prompt=[dict(turn) for turn in row.prompt])
        for row in comparisons(12, first=100)
    ]


def judged(workshop: Workshop, reward: Artifact, side: str, folder: Path) -> list[VerdictRow]:
    job = StageJob(
        sections={ModelConfig: workshop.model},
        inputs={"samples": [seal_samples(workshop.store, folder, side, rows(side))], "reward_model": [reward]},
        run=cast(Run, Recorder()),
        work=workshop.store.work("verdicts", workshop.fingerprint(side)),
        runtime=RuntimeConfig(outputs=str(workshop.outputs), num_threads=1),
        base_model=workshop.base,
        params={"judge": GOLD, "suite": SuiteConfig(name="s", kind=SuiteKind.generation), "policies": [side]},
    )
    judge_samples(job)
    return read_verdicts(job.staging / "verdicts.jsonl")


def test_it_scores_each_completion_once_as_the_reward_model_does(
    workshop: Workshop, reward: Artifact, tmp_path: Path
) -> None:
    assert build_judge(GOLD).completions == 1
    chosen, rejected = (judged(workshop, reward, side, tmp_path) for side in ("chosen", "rejected"))
    chat = load_chat(workshop.base.folder, workshop.model)
    base = load_base(workshop.base, workshop.model, RuntimeConfig(num_threads=1), DType.float32)
    expected = load_reward(base, reward.path).score(
        [
            [*encode_prompt(row.prompt, chat), *chat.tokens(row.completion).ids, chat.stop_ids[0]]  # type: ignore[arg-type]
            for row in sorted(rows("chosen"), key=lambda row: row.id)
        ]
    )
    assert [row.score for row in chosen] == pytest.approx(expected.mean.tolist(), abs=1e-4)
    outcomes = outcomes_of([(["chosen"], chosen), (["rejected"], rejected)], ["chosen", "rejected"])
    wins = [outcome.win for outcome in outcomes if outcome.win is not None]
    assert len(wins) == 12
    assert sum(wins) > 9  # it has learnt that the reply which names the asked word is better
