"""The gold judge: a second node of the stage `reward`, on other folds, where somebody asks for one."""

from __future__ import annotations

import pytest

from pipeline.config.data import SourceConfig, TableName
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.config.reward import RewardConfig, TieModel, reward_problems
from pipeline.config.root import Config, settle_folds, with_gold
from pipeline.config.shared import LoRAConfig
from pipeline.graph.nodes import Node
from pipeline.graph.wiring import nodes_for

SUITE = SuiteConfig(name="a", kind=SuiteKind.likelihood, table=TableName.demonstrations)


def wired(gold: str | None, *stages: str) -> tuple[dict[str, Node], list[str]]:
    config = Config(stages=list(stages))
    config.data.sources = [SourceConfig(table=TableName.demonstrations, path="rows.jsonl")]
    config.inputs.evaluate.gold = gold
    config.stages = with_gold(config.stages, config.inputs)
    settle_folds(config)
    nodes, problems = nodes_for(config, {"a": SUITE}, {})
    return {node.name: node for node in nodes}, problems


def test_it_is_there_only_where_it_is_asked_for() -> None:
    nodes, problems = wired(None, "curate", "sft", "reward", "evaluate")
    assert not problems
    assert "gold" not in nodes
    nodes, problems = wired("gold", "curate", "sft", "reward", "evaluate")
    assert not problems
    assert list(nodes)[:4] == ["curate", "sft", "reward", "gold"]
    assert [source.node for source in nodes["gold"].inputs["policy"]] == ["sft"]
    assert [source.node for source in nodes["report"].inputs["reward_models"]] == ["reward", "gold"]


def test_both_learn_from_their_own_folds_and_say_so_in_their_identity() -> None:
    nodes, _ = wired("gold", "curate", "reward", "evaluate")
    assert nodes["reward"].params == nodes["reward"].identity == {"folds": [0, 1, 2]}
    assert nodes["gold"].params == nodes["gold"].identity == {"folds": [3, 4]}
    assert nodes["gold"].spec.entry == nodes["reward"].spec.entry


def test_without_a_gold_judge_no_vote_lies_idle() -> None:
    nodes, _ = wired(None, "curate", "reward", "evaluate")
    assert nodes["reward"].identity == {"folds": [0, 1, 2, 3, 4]}
    config = Config(stages=["curate", "dpo"])
    config.dpo.folds = [1]  # what is named stays
    settle_folds(config)
    assert (config.dpo.folds, config.reward.folds) == ([1], [0, 1, 2, 3, 4])
    judged = Config(stages=["curate", "dpo", "evaluate"])
    judged.inputs.evaluate.gold = "gold-0123"  # trained before, on the folds of a gold judge
    settle_folds(judged)
    assert judged.dpo.folds == judged.reward.folds == [0, 1, 2]


def test_it_comes_before_the_stage_that_may_consume_it() -> None:
    inputs = Config().inputs
    inputs.evaluate.gold = "gold"
    assert with_gold(["curate", "sft", "reward", "ppo", "evaluate"], inputs) == [
        "curate", "sft", "reward", "gold", "ppo", "evaluate",
    ]  # fmt: skip
    assert with_gold(["gold", "evaluate"], inputs) == ["gold", "evaluate"]
    inputs.evaluate.gold = "reward-0123"  # an artifact that exists trains nothing
    assert with_gold(["curate", "evaluate"], inputs) == ["curate", "evaluate"]


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (RewardConfig(folds=[]), "reward.folds=[]"),
        (RewardConfig(folds=[1, 1]), "reward.folds=[1, 1]"),
        (RewardConfig(folds=[5]), "reward.folds=[5]"),
        (RewardConfig(folds=[0, 1, 2], gold_folds=[2, 3]), "other folds than `reward.folds`"),
        (RewardConfig(lora=LoRAConfig(dropout=0.1)), "reward.lora.dropout"),
        (RewardConfig(use_margin=True, ties=TieModel.davidson), "reward.use_margin"),
    ],
)
def test_what_cannot_be_is_told_by_its_key(reward: RewardConfig, told: str) -> None:
    assert any(told in problem for problem in reward_problems(reward, gold=True))
    assert list(reward_problems(RewardConfig(folds=[0, 1, 2]), gold=True)) == []
