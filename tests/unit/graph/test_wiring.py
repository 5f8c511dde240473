from __future__ import annotations

from pathlib import Path

import fake_stages
import pytest
from fake_stages import make_config, make_suites

from pipeline.config.data import SourceConfig, TableName
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.kto import ThumbRows
from pipeline.config.ppo import NamedReward
from pipeline.config.root import Config, with_gold
from pipeline.config.tables import TableConfig
from pipeline.graph.nodes import Node
from pipeline.graph.policies import short_name
from pipeline.graph.rewards import reward_problems
from pipeline.graph.spec import STAGES
from pipeline.graph.wiring import nodes_for, skipped_stages


def config(*stages: str) -> Config:
    return make_config(Path("outputs"), Path("rows.txt"), stages)


def wire(config: Config, suites: dict[str, SuiteConfig] | None = None) -> tuple[dict[str, Node], list[str]]:
    nodes, problems = nodes_for(config, make_suites() if suites is None else suites, {}, fake_stages.STAGES)
    return {node.name: node for node in nodes}, problems


def sources(node: Node, role: str) -> list[str | None]:
    return [source.node or source.reference for source in node.inputs[role]]


def test_the_real_stages_are_wired_by_kind() -> None:
    nodes, problems = nodes_for(config("curate", "sft", "evaluate"), make_suites("a", "b"), {}, STAGES)
    assert problems == []
    wired = {node.name: node for node in nodes}
    assert list(wired) == [
        "curate",
        "sft",
        "samples-a-base",
        "samples-a-sft",
        "samples-b-base",
        "samples-b-sft",
        "report",
    ]
    assert sources(wired["sft"], "dataset") == ["curate"]
    assert sources(wired["sft"], "policy") == []  # the base
    assert sources(wired["samples-a-base"], "policy") == []
    assert sources(wired["samples-b-sft"], "policy") == ["sft"]
    assert wired["samples-a-sft"].reads["dataset"] == ("demonstrations/test",)
    assert sources(wired["report"], "samples") == list(wired)[2:6]
    assert wired["report"].params["samples"][3] == {"policy": "sft", "suite": "b"}


def test_a_default_holds_only_where_its_stage_is_in_the_chain() -> None:
    with_sft, _ = wire(config("curate", "sft", "dpo"))
    assert sources(with_sft["dpo"], "policy") == ["sft"]
    without, problems = wire(config("curate", "dpo"))
    assert problems == []
    assert sources(without["dpo"], "policy") == []


def test_evaluate_follows_every_training_and_no_mere_curation() -> None:
    assert list(wire(config("curate", "sft"))[0])[-1] == "report"
    assert list(wire(config("curate"))[0]) == ["curate"]


def test_overrides_name_stages_ids_and_paths() -> None:
    asked = config("curate", "sft", "dpo", "evaluate")
    asked.inputs.sft.policy = "sft-0123"
    asked.inputs.evaluate.policy = ["dpo", "base", "/policies/mine"]
    nodes, problems = wire(asked)
    assert problems == []
    assert sources(nodes["sft"], "policy") == ["sft-0123"]
    assert nodes["sft"].inputs["policy"][0].key == "inputs.sft.policy"
    policies = [node.params["policy_name"] for name, node in nodes.items() if name.startswith("samples")]
    assert policies == ["dpo", "base", "mine"]
    assert sources(nodes["samples-answers-mine"], "policy") == ["/policies/mine"]


@pytest.mark.parametrize(
    ("stages", "inputs", "expected"),
    [
        ((), {}, "stages: none is named"),
        (("curate", "sftt"), {}, "there is no stage 'sftt'. Stages: curate, sft, dpo, evaluate"),
        (("curate", "samples"), {}, "there is no stage 'samples'"),
        (("curate", "sft", "sft"), {}, "'sft' is named twice"),
        (("curate", "evaluate", "sft"), {}, "'evaluate' comes last"),
        (("sft",), {}, "inputs.sft.dataset: 'sft' needs a dataset. Name the stage 'curate' before it"),
        (("sft", "curate"), {}, "inputs.sft.dataset: 'sft' needs a dataset"),
        (("evaluate",), {}, "inputs.evaluate.dataset: 'evaluate' needs a dataset"),
        (("curate", "sft"), {"sft.policy": "dpo"}, "inputs.sft.policy=dpo: 'dpo' does not run before 'sft'"),
        (("curate", "sft"), {"sft.policy": "curate"}, "'curate' makes a dataset, and a policy is needed"),
        (("curate", "sft"), {"evaluate.policy": ["sft", "base", "sft"]}, "two of them are called 'sft'"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(
    stages: tuple[str, ...], inputs: dict[str, str | list[str]], expected: str
) -> None:
    asked = config(*stages)
    for key, value in inputs.items():
        stage, _, role = key.partition(".")
        setattr(getattr(asked.inputs, stage), role, value)
    problems = wire(asked)[1]
    assert any(expected in problem for problem in problems), problems


def test_a_baseline_that_is_not_evaluated_is_refused_and_one_that_nobody_named_is_found() -> None:
    asked = config("curate", "sft")
    asked.inputs.evaluate.policy = ["sft"]
    assert wire(asked)[1] == []
    asked.evaluate.baseline = "base"
    (problem,) = wire(asked)[1]
    assert "evaluate.baseline=base: it is not among the policies" in problem


def test_problems_are_collected() -> None:
    asked = config("sft", "typo")
    asked.force = ["dpo"]
    asked.evaluate.baseline = "gold"
    problems = wire(asked, {})[1]
    keys = {problem.split(":")[0].split("=")[0] for problem in problems}
    assert keys == {
        "stages",
        "force",
        "inputs.sft.dataset",
        "inputs.evaluate.dataset",
        "evaluate.baseline",
        "evaluate.suites",
    }


def test_an_input_that_is_given_needs_no_stage() -> None:
    asked = config("sft")
    asked.inputs.sft.dataset = asked.inputs.evaluate.dataset = "curate-0123"
    nodes, problems = wire(asked)
    assert problems == []
    assert sources(nodes["sft"], "dataset") == ["curate-0123"]


def test_the_smaller_limit_holds() -> None:
    asked = config("curate", "evaluate")
    suites = make_suites("few", "many", "all")
    suites["few"].limit, suites["many"].limit = 3, 100
    asked.evaluate.limit = 10
    nodes, _ = wire(asked, suites)
    limits = [node.params["suite"].limit for name, node in nodes.items() if name.startswith("samples")]
    assert limits == [3, 10, 10]
    asked.evaluate.limit = None
    nodes, _ = wire(asked, suites)
    assert [node.params["suite"].limit for name, node in nodes.items() if name.startswith("samples")] == [3, 100, None]
    assert suites["many"].limit == 100  # the configuration itself stays as it was


def test_names_of_nodes_are_plain_path_components() -> None:
    asked = config("curate", "evaluate")
    asked.inputs.evaluate.policy = ["base", "/a/../..", "weird name/.."]
    nodes, _ = wire(asked)
    assert all("/" not in name and not name.startswith(".") for name in nodes)


def with_exports(*stages: str) -> Config:
    changed = config(*stages)
    changed.data.sources.append(SourceConfig(table=TableName.exports, path="votes.json", importer="pandalm"))
    return changed


def test_votes_reach_the_data_set() -> None:
    nodes, problems = nodes_for(with_exports("ingest", "curate"), {}, {}, STAGES)
    assert problems == []
    assert [node.name for node in nodes] == ["ingest", "curate"]
    assert sources(nodes[1], "labels") == ["ingest"]


def test_ingest_is_left_out_where_there_is_nothing_to_ingest() -> None:
    without = config("ingest", "curate")
    nodes, problems = nodes_for(without, {}, {}, STAGES)
    assert problems == []
    assert [node.name for node in nodes] == ["curate"]
    assert sources(nodes[0], "labels") == []
    assert list(skipped_stages(without)) == ["ingest"]
    assert skipped_stages(with_exports("ingest", "curate")) == {}


def test_votes_that_nothing_would_read_are_a_mistake() -> None:
    _, problems = nodes_for(with_exports("curate"), {}, {}, STAGES)
    assert problems == ["stages: data.sources[1] is an annotation export. Name 'ingest' before 'curate'."]
    given = with_exports("curate")
    given.inputs.curate.labels = "ingest-0123"
    nodes, problems = nodes_for(given, {}, {}, STAGES)
    assert problems == []
    assert sources(nodes[0], "labels") == ["ingest-0123"]


def test_ingest_sees_the_declared_tables_that_its_sources_may_be_read_as() -> None:
    tables = {"pandalm": TableConfig(name="pandalm"), "other": TableConfig(name="other")}
    named, _ = nodes_for(with_exports("ingest"), {}, tables, STAGES)
    assert list(named[0].params["tables"]) == ["pandalm"]
    sniffed = with_exports("ingest")
    sniffed.data.sources[-1].importer = "auto"
    assert list(nodes_for(sniffed, {}, tables, STAGES)[0][0].params["tables"]) == ["pandalm", "other"]


def test_a_suite_with_its_own_prompts_needs_no_data_set(tmp_path: Path) -> None:
    own = tmp_path / "mine.jsonl"
    own.write_text('{"prompt": "Hi"}\n')
    suites = make_suites("mine")
    suites["mine"].prompts = str(own)
    nodes, problems = wire(config("evaluate"), suites)
    assert problems == []
    assert sources(nodes["samples-mine-base"], "dataset") == []
    assert nodes["samples-mine-base"].files == {"suite.prompts": str(own)}
    both = {**suites, **make_suites("other")}
    _, problems = wire(config("evaluate"), both)
    assert [line.split(":")[0] for line in problems] == ["inputs.evaluate.dataset"]
    wired, problems = wire(config("curate", "evaluate"), both)
    assert problems == []
    assert sources(wired["samples-mine-base"], "dataset") == []
    assert sources(wired["samples-other-base"], "dataset") == ["curate"]


def wire_dpo(**changes: object) -> tuple[dict[str, Node], list[str]]:
    asked = config("curate", "sft", "dpo", "evaluate")
    for key, value in changes.items():
        setattr(asked.dpo, key, value)
    nodes, problems = nodes_for(asked, make_suites("a"), {}, STAGES)
    return {node.name: node for node in nodes}, problems


def test_dpo_brings_the_log_probabilities_of_the_policy_it_starts_from() -> None:
    wired, problems = wire_dpo()
    assert problems == []
    assert list(wired)[:4] == ["curate", "sft", "reference_logprobs", "dpo"]
    for name in ("reference_logprobs", "dpo"):
        assert sources(wired[name], "policy") == ["sft"]
        assert sources(wired[name], "dataset") == ["curate"]
    assert sources(wired["dpo"], "reference") == ["reference_logprobs"]
    assert "samples-a-dpo" in wired
    assert wired["report"].params["sealed"] == sources(wired["report"], "policies") == ["sft", "dpo"]


def test_a_sweep_over_beta_or_the_loss_scores_the_reference_once() -> None:
    first, _ = wire_dpo(beta=0.1)
    second, _ = wire_dpo(beta=0.5, loss={"ipo_sum": 1.0, "sft": 0.1})
    assert first["reference_logprobs"].identity == second["reference_logprobs"].identity
    other, _ = wire_dpo(folds=[3])
    assert other["reference_logprobs"].identity != first["reference_logprobs"].identity


def test_a_loss_without_reference_brings_none() -> None:
    wired, problems = wire_dpo(loss="simpo")
    assert problems == []
    assert "reference_logprobs" not in wired
    assert sources(wired["dpo"], "reference") == []


def test_a_named_reference_takes_the_place_of_the_computed_one() -> None:
    asked = config("curate", "dpo", "evaluate")
    asked.inputs.dpo.reference = "reference_logprobs-abc"
    nodes, problems = nodes_for(asked, make_suites("a"), {}, STAGES)
    wired = {node.name: node for node in nodes}
    assert problems == []
    assert "reference_logprobs" not in wired
    assert sources(wired["dpo"], "reference") == ["reference_logprobs-abc"]
    assert sources(wired["dpo"], "policy") == []  # the base, because no fine-tuned policy is in the chain


def wire_kto(**changes: object) -> dict[str, Node]:
    asked = config("curate", "sft", "kto", "evaluate")
    for key, value in changes.items():
        setattr(asked.kto, key, value)
    nodes, problems = nodes_for(asked, make_suites("a"), {}, STAGES)
    assert problems == []
    return {node.name: node for node in nodes}


def test_kto_brings_the_log_probabilities_of_the_policy_it_starts_from() -> None:
    wired = wire_kto()
    assert list(wired)[:4] == ["curate", "sft", "thumb_logprobs", "kto"]
    for name in ("thumb_logprobs", "kto"):
        assert sources(wired[name], "policy") == ["sft"]
    assert sources(wired["kto"], "reference") == ["thumb_logprobs"]
    assert wired["report"].params["sealed"] == sources(wired["report"], "policies") == ["sft", "kto"]
    swept = wire_kto(beta=0.5, desirable_weight=2.0, seed=3)
    assert swept["thumb_logprobs"].identity == wired["thumb_logprobs"].identity


@pytest.mark.parametrize(
    ("rows", "tables", "required"),
    [
        ("unpaired", {"unpaired"}, ("unpaired/train",)),
        ("comparisons", {"comparisons"}, ("comparisons/train",)),
        ("both", {"unpaired", "comparisons"}, ("unpaired/train", "comparisons/train")),
        ("auto", {"unpaired", "comparisons"}, ()),
    ],
)
def test_kto_reads_the_tables_that_its_rows_come_from(rows: str, tables: set[str], required: tuple[str, ...]) -> None:
    wired = wire_kto(rows=ThumbRows(rows))
    for name in ("thumb_logprobs", "kto"):
        node = wired[name]
        assert {part.partition("/")[0] for part in node.reads["dataset"]} == tables
        assert node.required["dataset"] == required
        assert bool(node.preferred) is (rows == "auto")


def test_dpo_and_kto_are_branches_of_one_run() -> None:
    nodes, problems = nodes_for(config("curate", "sft", "dpo", "kto", "evaluate"), make_suites("a"), {}, STAGES)
    assert problems == []
    assert {"reference_logprobs", "thumb_logprobs"} <= {node.name for node in nodes}


@pytest.mark.parametrize("rewards", [[], [NamedReward(name="numeric_answer")]])
def test_grpo_takes_the_prompts_and_the_reward_model_as_ppo_does(rewards: list[NamedReward]) -> None:
    asked = config("curate", "sft", "reward", "grpo", "evaluate")
    asked.data.sources.append(SourceConfig(table=TableName.comparisons, path="pairs.jsonl"))
    asked.grpo.rewards = rewards
    nodes, problems = nodes_for(asked, make_suites("a"), {}, STAGES)
    wired = {node.name: node for node in nodes}
    assert problems == []
    assert list(reward_problems(asked, nodes)) == []
    assert sources(wired["grpo"], "policy") == ["sft"]
    assert sources(wired["grpo"], "reward_model") == ["reward"]
    assert wired["grpo"].reads["dataset"] == ("prompts/train", "prompts/validation")
    assert "gold" not in wired["grpo"].inputs
    alone = config("curate", "sft", "reward", "grpo", "evaluate")
    assert set(skipped_stages(alone)) == {"reward"}
    without, _ = nodes_for(alone, make_suites("a"), {}, STAGES)
    assert any("grpo.rewards: none is named" in problem for problem in reward_problems(alone, without))


@pytest.mark.parametrize(
    ("gold", "told"), [([], False), (["numeric_answer"], True), (["numeric_answer", "reward_model"], False)]
)
def test_a_reward_model_that_shall_watch_is_among_what_watches(gold: list[str], told: bool) -> None:
    asked = config("curate", "sft", "ppo", "evaluate")
    asked.data.sources.append(SourceConfig(table=TableName.comparisons, path="pairs.jsonl"))
    asked.ppo.rewards = [NamedReward(name="numeric_answer")]
    asked.ppo.monitor.gold = [NamedReward(name=name) for name in gold]
    asked.inputs.ppo.gold = "gold"
    asked.stages = with_gold(asked.stages, asked.inputs)
    nodes, problems = nodes_for(asked, make_suites("a"), {}, STAGES)
    assert problems == []
    found = list(reward_problems(asked, nodes))
    assert bool(found) is told
    assert all("inputs.ppo.gold: ppo.monitor.gold names numeric_answer" in problem for problem in found)


def test_an_artifact_has_a_short_name_in_reports() -> None:
    assert short_name("sft-892c956ecb6fe91e-7c6f90f8174a9bad") == "sft-7c6f90f8"
    assert short_name("sft") == "sft"
    assert short_name("my-own-folder") == "my-own-folder"
