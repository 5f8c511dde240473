"""Judges in a chain: every pair of policies once, nothing judged again, and the same bytes after a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fake_stages
import judged_stages
import pytest
from judged_stages import STAGES, run_judged
from simulated_judge import quality

from pipeline.artifacts.artifact import Artifact
from pipeline.config.evaluation import CheckConfig, CriterionConfig, SuiteKind
from pipeline.config.judges import JudgeConfig
from pipeline.config.root import Config
from pipeline.config.sweep import ObjectiveConfig
from pipeline.errors import PipelineError
from pipeline.graph.execution import Executed
from pipeline.graph.nodes import Node
from pipeline.graph.objectives import objective_values
from pipeline.graph.spec import STAGES as REAL
from pipeline.graph.wiring import nodes_for

PLANTED = JudgeConfig(name="planted", kind="simulated", params={"seed": 3}, batch_size=8)
RULES = JudgeConfig(
    name="rules", kind="rule", params={"checks": [{"name": "regex", "params": {"pattern": "quality [5-9]"}}]}
)
PANEL = JudgeConfig(name="panel", kind="panel", members=["planted", "rules", "second"])
SECOND = JudgeConfig(name="second", kind="simulated", params={"seed": 4, "accuracy": 0.8})
JUDGES = {judge.name: judge for judge in (PLANTED, RULES, SECOND, PANEL)}


def config(folder: Path, *stages: str, judges: tuple[str, ...] = ("planted",)) -> Config:
    made = fake_stages.make_config(folder / "outputs", fake_stages.write_source(folder / "rows.txt"), stages)
    made.evaluate.judges = list(judges)
    return made


def kept_of(done: Sequence[Executed]) -> list[Artifact]:
    return [step.artifact for step in done if step.node.spec.name == "verdicts"]


def costs_of(artifact: Artifact) -> dict[str, float]:
    costs: dict[str, float] = json.loads((artifact.path / "costs.json").read_text())
    return costs


def test_every_pair_of_policies_is_a_node_and_the_baseline_is_the_opponent(tmp_path: Path) -> None:
    asked = config(tmp_path, "curate", "sft", "dpo", "evaluate", judges=("planted", "rules"))
    nodes, problems = nodes_for(asked, fake_stages.make_suites(), {}, STAGES, JUDGES)
    assert problems == []
    assert [node.name for node in nodes if node.spec.name == "verdicts"] == [
        "verdicts-planted-answers-sft-base",
        "verdicts-planted-answers-dpo-base",
        "verdicts-planted-answers-dpo-sft",
        "verdicts-rules-answers-base",  # a judge of single completions is asked once per policy, not once per pair
        "verdicts-rules-answers-sft",
        "verdicts-rules-answers-dpo",
    ]


@pytest.mark.slow
def test_members_of_a_panel_are_asked_although_nobody_named_them(tmp_path: Path) -> None:
    asked = config(tmp_path, "curate", "sft", "evaluate", judges=("panel",))
    lines: list[str] = []
    done, folder = run_judged(asked, JUDGES, lines)
    names = [step.node.name for step in done if step.node.spec.name == "verdicts"]
    assert names[-1] == "verdicts-panel-answers-sft-base"
    assert len(names) == 5  # two that compare, one that scores two policies, and the panel
    report = json.loads((folder.path / "report.json").read_text())
    rates = {entry["judge"]: entry for entry in report["win_rates"]}
    assert rates.keys() == {"planted", "rules", "second", "panel"}
    assert all((entry["policy"], entry["opponent"], entry["n"]) == ("sft", "base", 40) for entry in rates.values())
    assert [judge["qualified"] for judge in report["judges"]] == [False] * 4
    assert "no human votes" in report["judges"][0]["reasons"][0]
    questions = [costs_of(artifact)["questions"] for artifact in kept_of(done)]
    # In both orders, once per policy, in both orders, once per pair; four of forty pairs say the same.
    assert dict(zip(names, questions, strict=True)) == {
        "verdicts-planted-answers-sft-base": 72, "verdicts-rules-answers-base": 40, "verdicts-rules-answers-sft": 40,
        "verdicts-second-answers-sft-base": 72, "verdicts-panel-answers-sft-base": 36,
    }  # fmt: skip
    page = (folder.path / "report.html").read_text()
    assert page.count("for 1,000 questions, here") == 3  # a panel is asked nothing
    assert "questions" not in (folder.path / "report.json").read_text()


@pytest.mark.slow
def test_a_rubric_is_rated_once_per_policy_and_reported_with_its_difference(tmp_path: Path) -> None:
    suites = fake_stages.make_suites()
    suites["answers"].rubric = [CriterionConfig(name="helpful", description="Does it help?")]
    asked = config(tmp_path, "curate", "sft", "evaluate", judges=("planted", "rules"))
    done, folder = run_judged(asked, JUDGES, [], suites)
    names = [step.node.name for step in done if step.node.name.startswith("ratings")]
    assert names == ["ratings-planted-answers-base", "ratings-planted-answers-sft"]  # rules give no ratings
    report = json.loads((folder.path / "report.json").read_text())
    found = {(e["policy"], e["baseline"]): e for e in report["metrics"] if e["metric"] == "helpful/planted"}
    means = {}
    for step in done:
        if step.node.name.startswith("samples"):
            rows = [json.loads(line) for line in step.artifact.file("samples.jsonl").read_text().splitlines()]
            means[step.node.params["policy_name"]] = sum(1 + 0.4 * quality(row["completion"]) for row in rows) / 40
    assert found["base", None]["estimate"] == pytest.approx(means["base"])
    assert found["sft", "base"]["estimate"] == pytest.approx(means["sft"] - means["base"])
    assert (found["sft", "base"]["n"], found["sft", "base"]["unit"]) == (40, "rating")


def test_a_judge_is_measured_by_every_criterion_that_it_rates_by(tmp_path: Path) -> None:
    helpful = CriterionConfig(name="helpful", description="Does it help?")
    kind = CriterionConfig(name="kind", description="Is it kind?")

    def cards(*rubrics: list[CriterionConfig]) -> tuple[dict[str, Node], list[str]]:
        (suite,) = fake_stages.make_suites().values()
        suites = {f"s{k}": replace(suite, name=f"s{k}", rubric=rubric) for k, rubric in enumerate(rubrics)}
        asked = config(tmp_path, "curate", "sft", "evaluate", judges=("planted", "rules"))
        asked.inputs.evaluate.labels = "ingest-0123"
        asked.evaluate.suites = list(suites)
        nodes, problems = nodes_for(asked, suites, {}, STAGES, JUDGES)
        return {node.name: node for node in nodes if node.spec.name == "scorecard"}, problems

    found, problems = cards([helpful], [helpful, kind])
    assert problems == []
    assert found["scorecard-planted"].params["rubric"] == [helpful, kind]
    assert found["scorecard-rules"].params["rubric"] == []  # rules give no ratings
    without, _ = cards([], [])
    # Without a rubric nothing of it is in the fingerprint, so that such a judge is not asked again.
    assert without["scorecard-planted"].identity.keys() == {"judge", "pairs"}
    assert found["scorecard-rules"].identity == without["scorecard-rules"].identity
    assert found["scorecard-planted"].identity["rubric"] == [helpful, kind]
    _, problems = cards([helpful], [replace(helpful, description="Would you thank for it?")])
    told = "judge `planted`: the suites `s0` and `s1` describe the criterion `helpful` differently"
    assert [problem[: len(told)] for problem in problems] == [told]


@pytest.mark.slow
def test_every_metric_of_a_report_may_be_an_objective_and_is_found(tmp_path: Path) -> None:
    suites = fake_stages.make_suites()
    suites["answers"].rubric = [CriterionConfig(name="helpful", description="Does it help?")]
    suites["answers"].checks = [CheckConfig(name="regex", params={"pattern": text}) for text in ("5", "quality [5-9]")]
    suites["answers"].rewards = [CheckConfig(name="contains_share", params={"phrases": ["quality 7", "item"]})]
    asked = config(tmp_path, "curate", "sft", "evaluate", judges=("panel",))
    done, folder = run_judged(asked, JUDGES, [], suites)
    report = json.loads((folder.path / "report.json").read_text())
    rows = {(row["metric"], row["policy"], row["baseline"]): row["estimate"] for row in report["metrics"]}
    names = {metric for metric, _, _ in rows}
    assert {"regex_2", "contains_share", "win_rate/panel", "win_rate/rules", "helpful/second"} < names
    own = {(name, policy): value for (name, policy, baseline), value in rows.items() if baseline is None}
    own |= {(name, "sft"): rows[name, "sft", "base"] for name in names if name.startswith("win_rate/")}
    assert len(own) == 2 * len(names) - 4  # nobody beats himself in the eyes of four judges
    asked.objective = [ObjectiveConfig(metric=f"answers/{name}/{policy}") for name, policy in own]
    asked.objective += [ObjectiveConfig(metric=f"answers/{name}") for name in names]
    assert nodes_for(asked, suites, {}, STAGES, JUDGES)[1] == []
    found = [entry["value"] for entry in objective_values(asked, {step.node.name: step.artifact for step in done})]
    assert found == [*own.values(), *(own[name, "sft"] for name in names)]


def test_a_panel_hears_its_members_also_where_it_is_named_before_them(tmp_path: Path) -> None:
    for judges in (("panel",), ("panel", "planted"), ("rules", "panel", "planted")):
        asked = config(tmp_path, "curate", "sft", "evaluate", judges=judges)
        nodes, problems = nodes_for(asked, fake_stages.make_suites(), {}, STAGES, JUDGES)
        assert problems == []
        (panel,) = [node for node in nodes if node.name.startswith("verdicts-panel")]
        heard = [source.label.partition("-")[0] for source in panel.inputs["members"]]
        assert heard == ["planted", "rules", "rules", "second"]  # rules are asked once per policy


def test_a_panel_is_not_asked_where_a_member_has_nothing_to_count(tmp_path: Path) -> None:
    """Alone such a judge is left out; of a panel it would be missing in silence."""
    counting = JudgeConfig(name="counting", kind="rule")
    judges = {**JUDGES, "counting": counting, "panel": replace(PANEL, members=["planted", "counting", "second"])}
    suites = fake_stages.make_suites()
    suites["answers"].checks = []
    for named, expected in (
        (("counting", "planted"), []),
        (("panel",), ["judge `panel`: its member `counting` counts"]),
    ):
        _, problems = nodes_for(config(tmp_path, "curate", "sft", "evaluate", judges=named), suites, {}, STAGES, judges)
        assert [problem[: len(begin)] for problem, begin in zip(problems, expected, strict=True)] == expected
    suites["answers"].checks = [CheckConfig(name="regex", params={"pattern": "5"})]
    asked = config(tmp_path, "curate", "sft", "evaluate", judges=("panel",))
    assert nodes_for(asked, suites, {}, STAGES, judges)[1] == []


@pytest.mark.slow
def test_a_second_chain_judges_nothing_again(tmp_path: Path) -> None:
    lines: list[str] = []
    run_judged(config(tmp_path, "curate", "sft", "evaluate"), JUDGES, lines)
    lines.clear()
    done, folder = run_judged(config(tmp_path, "curate", "sft", "dpo", "evaluate"), JUDGES, lines)
    judged = {step.node.name: step.reused for step in done if step.node.spec.name == "verdicts"}
    assert judged == {
        "verdicts-planted-answers-sft-base": True,
        "verdicts-planted-answers-dpo-base": False,
        "verdicts-planted-answers-dpo-sft": False,
    }
    # Three policies stand on one scale, where two had a win rate.
    (ranking,) = json.loads((folder.path / "report.json").read_text())["rankings"]
    assert {entry["policy"] for entry in ranking["policies"]} == {"base", "sft", "dpo"}
    assert (ranking["judge"], ranking["n"]) == ("planted", 3 * 40)
    done, _ = run_judged(config(tmp_path, "curate", "sft", "dpo", "evaluate"), JUDGES, lines)
    assert all(step.reused for step in done)


@pytest.mark.slow
def test_what_a_judge_is_asked_decides_whether_it_is_asked_again(tmp_path: Path) -> None:
    def reused(judge: JudgeConfig) -> bool:
        done, _ = run_judged(config(tmp_path, "curate", "sft", "evaluate"), {"planted": judge}, [])
        return next(step.reused for step in done if step.node.spec.name == "verdicts")

    assert not reused(PLANTED)
    assert reused(JudgeConfig(**{**vars(PLANTED), "description": "said otherwise"}))
    assert not reused(JudgeConfig(**{**vars(PLANTED), "question": "Which is shorter?"}))
    assert not reused(JudgeConfig(**{**vars(PLANTED), "params": {"seed": 5}}))


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = config(tmp_path, "curate", "sft", "evaluate")
    done, folder = run_judged(asked, JUDGES, [])
    expected = (folder.path / "report.json").read_bytes()
    verdicts = next(step.artifact for step in done if step.node.spec.name == "verdicts")
    whole = verdicts.file("verdicts.jsonl").read_bytes()

    asked_before: list[str] = []
    answer, failing = judged_stages.simulated_judge.simulated_answer, True

    def dying(question, *values):  # type: ignore[no-untyped-def]
        if failing and len(asked_before) == 30:
            raise KeyboardInterrupt
        asked_before.append(question.key)
        return answer(question, *values)

    monkeypatch.setattr("simulated_judge.simulated_answer", dying)
    (tmp_path / "again").mkdir()
    again = config(tmp_path / "again", "curate", "sft", "evaluate")
    with pytest.raises(PipelineError):
        run_judged(again, JUDGES, [])
    assert len(asked_before) == 30
    failing = False
    done, folder = run_judged(again, JUDGES, [])
    resumed = next(step.artifact for step in done if step.node.spec.name == "verdicts")
    assert resumed.file("verdicts.jsonl").read_bytes() == whole
    assert json.loads(expected)["win_rates"] == json.loads((folder.path / "report.json").read_bytes())["win_rates"]
    # Four items are answered alike. The batch that died is asked again, and none of those before it.
    assert len(asked_before) == 2 * 36 + 30 % 8
    assert "going on behind 24 items" in capsys.readouterr().out


def test_a_reward_model_judges_where_one_of_other_folds_is_asked_for(tmp_path: Path) -> None:
    gold = {"gold": JudgeConfig(name="gold", kind="reward_model")}
    asked = config(tmp_path, "curate", "reward", "evaluate", judges=("gold",))
    asked.inputs.evaluate.labels = "ingest-0123"
    _, problems = nodes_for(asked, fake_stages.make_suites(), {}, REAL, gold)
    assert sum("inputs.evaluate.gold=gold" in problem for problem in problems) == 1  # once, for two policies and a card
    asked = config(tmp_path, "curate", "reward", "gold", "evaluate", judges=("gold",))
    asked.inputs.evaluate.gold = "gold"
    nodes, problems = nodes_for(asked, fake_stages.make_suites(), {}, REAL, gold)
    assert problems == []
    (node,) = [node for node in nodes if node.spec.name == "verdicts"]
    assert [source.node for source in node.inputs["reward_model"]] == ["gold"]
    assert node.spec.uses_base
    asked.inputs.evaluate.gold = "gold-0123"
    nodes, problems = nodes_for(asked, fake_stages.make_suites(), {}, REAL, gold)
    assert problems == []
    (node,) = [node for node in nodes if node.spec.name == "verdicts"]
    assert [source.reference for source in node.inputs["reward_model"]] == ["gold-0123"]


def test_a_suite_without_completions_has_nothing_to_judge(tmp_path: Path) -> None:
    suites = fake_stages.make_suites()
    suites["answers"].kind = SuiteKind.likelihood
    nodes, problems = nodes_for(config(tmp_path, "curate", "evaluate"), suites, {}, STAGES, JUDGES)
    assert problems == []
    assert not [node for node in nodes if node.spec.name == "verdicts"]
    suites["answers"].kind = SuiteKind.generation
    counting = {"rules": JudgeConfig(name="rules", kind="rule")}  # the suite's own checks, of which it has none
    asked = config(tmp_path, "curate", "evaluate", judges=("rules",))
    nodes, problems = nodes_for(asked, suites, {}, STAGES, counting)
    assert problems == []
    assert not [node for node in nodes if node.spec.name == "verdicts"]
    suites["answers"].kind, suites["answers"].judges = SuiteKind.likelihood, ["planted"]
    _, problems = nodes_for(config(tmp_path, "curate", "evaluate"), suites, {}, STAGES, JUDGES)
    assert any("judges compare completions" in problem for problem in problems)


def test_the_interface_of_peoples_votes_counts_by_its_content_as_the_votes_do(tmp_path: Path) -> None:
    def judged(folder: str) -> tuple[dict[str, object], list[str]]:
        (tmp_path / folder).mkdir()
        files = {"votes": tmp_path / folder / "export.json", "labeling_config": tmp_path / folder / "interface.xml"}
        for path in files.values():
            path.write_text("[]")
        people = JudgeConfig(name="people", kind="human", params={key: str(path) for key, path in files.items()})
        asked = config(tmp_path, "curate", "sft", "evaluate", judges=("people",))
        nodes, problems = nodes_for(asked, fake_stages.make_suites(), {}, STAGES, {"people": people})
        assert problems == []
        (node,) = [node for node in nodes if node.spec.name == "verdicts"]
        return node.identity, [Path(path).name for path in node.files.values()]

    first, files = judged("first")
    assert files == ["export.json", "interface.xml"]
    assert judged("second")[0] == first
