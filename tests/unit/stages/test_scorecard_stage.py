"""The scorecard stage on real labels: a local model and rules, measured, killed, resumed and reused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_rows import comparison
from tiny import make_tiny_model

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import resolve_base
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.manifest import ArtifactKind, Parent
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.config.data import DataConfig, SourceConfig, TableName
from pipeline.config.evaluation import CriterionConfig, EvaluateConfig, SuiteConfig, SuiteKind
from pipeline.config.judges import JudgeConfig, QualificationConfig, VotePool
from pipeline.config.paths import configs_folder
from pipeline.config.root import Config
from pipeline.config.shared import DType, ModelConfig, ModelSource, RuntimeConfig, TrackingConfig, TrackingMode
from pipeline.config.tables import load_tables
from pipeline.data.rows import Comparison
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.errors import DataError
from pipeline.evaluation.judged import NOT_APPLICABLE, SealedCard, judge_entries
from pipeline.evaluation.verdicts import read_verdicts
from pipeline.graph.chain import Wiring
from pipeline.graph.execution import Executed, run_nodes
from pipeline.graph.judging import Judging
from pipeline.graph.run_folder import RunFolder
from pipeline.graph.spec import STAGES
from pipeline.graph.wiring import nodes_for
from pipeline.labels.aggregation import comparison_id
from pipeline.labels.pair_votes import votes_on_pairs
from pipeline.labels.tables import read_items, read_votes
from pipeline.labels.verdicts import Pair
from pipeline.stages.scorecard import known_to_all, load_probes
from pipeline.tracking.session import TrackingSession

BASE = JudgeConfig(name="base", kind="local", batch_size=8)
SHORT = JudgeConfig(
    name="short", kind="rule", params={"checks": [{"name": "max_words", "params": {"limit": 6}}]}
)  # fmt: skip


def write_votes(path: Path) -> None:
    """Three people, who like short answers, on twelve pairs."""
    rows = []
    for number in range(12):
        short, long = f"Open page {number}.", f"There are many things to say about page {number}, and one more."
        first, second = (short, long) if number % 2 else (long, short)
        liked = 1 if number % 2 else 2
        rows.append(
            {
                "instruction": f"Where is page {number}?", "input": "", "response1": first, "response2": second,
                "annotator1": liked, "annotator2": liked, "annotator3": 0 if number == 3 else liked,
            }
        )  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_tiny_model(folder / "model", context_length=2048, num_layers=1, hidden_size=32)
    write_votes(folder / "votes.jsonl")
    return folder


def run(
    world: Path, outputs: Path, judges: list[JudgeConfig], rubric: tuple[CriterionConfig, ...] = ()
) -> list[Executed]:
    config = Config(
        name="judges",
        stages=["ingest"],
        model=ModelConfig(source=ModelSource.hub, id=str(world / "model"), dtype=DType.float32),
        data=DataConfig(
            name="votes",
            sources=[SourceConfig(table=TableName.exports, path=str(world / "votes.jsonl"), importer="pandalm")],
        ),
        runtime=RuntimeConfig(outputs=str(outputs), cache=str(world / "cache"), num_threads=1),
        tracking=TrackingConfig(mode=TrackingMode.disabled),
    )
    config.evaluate.qualification = QualificationConfig(votes=VotePool.all, num_pairs=12, num_probes=1)
    nodes, problems = nodes_for(config, {}, load_tables([configs_folder()]))
    wiring = Wiring(config, STAGES, ["ingest", "evaluate"], problems)
    suite = SuiteConfig(name="own", kind=SuiteKind.generation, judges=[j.name for j in judges], rubric=list(rubric))
    judging = Judging(wiring, {j.name: j for j in judges}, (), suites=[suite])
    for judge in judges:
        judging.measure(judge.name, SuiteConfig(name="votes", kind=SuiteKind.generation))
    assert problems == []
    folder = RunFolder.create(outputs, "judges", "0")
    with TrackingSession(config.tracking, outputs, folder.path, {}) as session:
        return run_nodes(
            [*nodes, *judging.nodes], config=config, store=Store(outputs), session=session,
            base=lambda model: resolve_base(model, world / "cache"), hashes=FileHashes(outputs / "hashes.json"),
            plugins={}, folder=folder, say=print,
        )  # fmt: skip


def card(executed: Executed) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(executed.artifact.file("card.json").read_text(encoding="utf-8"))
    return content


def test_rules_that_people_share_agree_with_them(world: Path, tmp_path: Path) -> None:
    (_, executed) = run(world, tmp_path, [SHORT])
    measured = card(executed)["card"]
    assert (measured["agreement"]["estimate"], measured["agreement"]["n"]) == (1.0, 12)
    assert measured["kappa"]["estimate"] == 1.0
    # 36 votes, of which one says tie: the rule agrees with 35.
    assert measured["agreement_with_one_person"]["estimate"] == pytest.approx(35 / 36)
    # 72 ordered pairs of votes on the same pair, of which 4 hold the tie once.
    assert measured["human_agreement"]["estimate"] == pytest.approx(68 / 72)
    assert measured["null_win_rate"]["n"] == 6
    assert measured["people_prefer_longer"]["estimate"] == 0.0


def held_out(folder: Path, train: list[Pair], test: list[Pair]) -> Artifact:
    """Seal a data set whose comparisons are these pairs."""
    tables = {
        split: [comparison(pair.first, pair.second, id=comparison_id(pair)) for pair in pairs]
        for split, pairs in (("train", train), ("test", test))
    }
    return seal_dataset(Store(folder), tables)


def seal_dataset(store: Store, tables: dict[str, list[Comparison]]) -> Artifact:
    """Seal a data set with these comparisons by split."""
    work, parts = store.work("curate", "c" * 64), {}
    for split, rows in tables.items():
        write_table(work.staging, "comparisons", split, rows)
        parts[part_name("comparisons", split)] = rows_digest(rows)
    return store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip


def test_a_judge_is_measured_on_votes_that_nothing_learns_from(world: Path, tmp_path: Path) -> None:
    """Of twelve pairs three are of the test split, seven are trained on, and two are in no table."""
    (ingested, _) = run(world, tmp_path, [SHORT])
    labels = ingested.artifact
    pairs = list(votes_on_pairs(read_votes(labels)))
    dataset = held_out(tmp_path / "dataset", train=pairs[3:10], test=pairs[:3])

    def asked(votes: VotePool, given: Artifact | None) -> set[str]:
        said: list[str] = []
        params = {"judge": SHORT, "qualification": QualificationConfig(votes=votes, num_pairs=12, num_probes=1)}
        inputs = {"labels": labels, "dataset": given}
        job: Any = SimpleNamespace(one=inputs.get, params=params, run=SimpleNamespace(notice=said.append))
        return {probe.id for probe in load_probes(job) if probe.votes is not None}

    everything = asked(VotePool.all, dataset)
    assert len(everything) == 12
    few = asked(VotePool.held_out, dataset)
    assert len(few) == 3
    assert few < everything
    (other_folder := tmp_path / "other").mkdir()
    others = asked(VotePool.held_out, held_out(other_folder, train=pairs[:3], test=pairs[3:10]))
    assert len(others) == 7
    assert few.isdisjoint(others)
    with pytest.raises(DataError, match="No pair with human votes is held_out"):
        asked(VotePool.held_out, None)


def learnt(store: Store, dataset: Artifact | None) -> Artifact:
    """Seal a reward model, of which only what it was made from matters here."""
    parents = [] if dataset is None else [Parent(role="dataset", id=dataset.id, kind=dataset.kind, part_digests={})]
    work = store.work("reward", "d" * 64)
    (work.staging / "head").write_text("w")
    return store.seal(
        work, kind=ArtifactKind.reward_model, stage="reward", version=1, fingerprint="d" * 64, parents=parents,
        config={}, outcome=StageOutcome(parts={}),
    )  # fmt: skip


def test_a_reward_model_is_not_asked_about_prompts_that_it_learnt_from(world: Path, tmp_path: Path) -> None:
    (ingested, _) = run(world, tmp_path, [SHORT])
    labels = ingested.artifact
    pairs = list(votes_on_pairs(read_votes(labels)))
    items = read_items(labels)
    store = Store(tmp_path / "trained")
    rows = [
        replace(
            comparison("One.", "Two.", id=f"{number:016x}"), prompt=list(items[pair.item].prompt)
        )  # other pairs of them
        for number, pair in enumerate(pairs[:7])
    ]
    dataset = seal_dataset(store, {"train": rows[:4], "validation": rows[4:6], "test": rows[6:]})

    def asked(model: Artifact | None) -> tuple[set[str], list[str]]:
        said: list[str] = []
        params = {"judge": SHORT, "qualification": QualificationConfig(votes=VotePool.all, num_pairs=12, num_probes=1)}
        inputs = {"labels": labels, "reward_model": model}
        job: Any = SimpleNamespace(one=inputs.get, params=params, run=SimpleNamespace(notice=said.append))
        return {probe.id for probe in load_probes(job) if probe.votes is not None}, said

    seen, said = asked(learnt(store, dataset))
    everything, _ = asked(None)
    assert seen == {f"votes/{comparison_id(pair)}" for pair in pairs[6:]}
    assert said[0] == "6 pairs left out: short learnt from their prompts"
    assert len(everything) == 12
    (other := tmp_path / "other").mkdir()
    for model in (learnt(Store(other), None), learnt(Store(other), dataset)):
        with pytest.raises(DataError, match="unknown which votes it has seen"):
            asked(model)


def rule(name: str, check: str, **params: Any) -> JudgeConfig:
    return JudgeConfig(name=name, kind="rule", params={"checks": [{"name": check, "params": params}]})


def test_a_panel_is_measured_by_what_most_of_its_members_say(world: Path, tmp_path: Path) -> None:
    wrong = rule("wrong", "min_words", limit=7)  # always prefers the long one
    members = [SHORT, replace(SHORT, name="short too"), wrong]
    panel = JudgeConfig(name="panel", kind="panel", members=[judge.name for judge in members])
    *_, third, executed = run(world, tmp_path, [*members, panel])
    assert card(third)["card"]["agreement"]["estimate"] == 0
    measured = card(executed)["card"]
    assert (measured["agreement"]["estimate"], measured["agreement"]["n"]) == (1.0, 12)
    assert (measured["failure_rate"]["estimate"], measured["failure_rate"]["n"]) == (0.0, 12 + 6 + 3 + 24)


def test_a_panel_is_asked_only_about_what_all_of_its_members_were_asked(world: Path, tmp_path: Path) -> None:
    labels = run(world, tmp_path, [SHORT])[0].artifact
    said: list[str] = []
    params = {"judge": SHORT, "qualification": QualificationConfig(votes=VotePool.all, num_pairs=12, num_probes=1)}
    job: Any = SimpleNamespace(one={"labels": labels}.get, params=params, run=SimpleNamespace(notice=said.append))
    probes = load_probes(job)
    some = {probe.id: 1.0 for probe in probes[:5]}
    assert known_to_all(job, probes, {"a": {probe.id: None for probe in probes}, "b": some}) == probes[:5]
    assert said[-1] == f"{len(probes) - 5} pairs left out: not every member of the panel was asked about them"
    assert known_to_all(job, probes, {}) == probes
    with pytest.raises(DataError, match="no pair in common"):
        known_to_all(job, probes, {"a": some, "b": {}})


def test_a_judge_that_goes_by_references_does_not_apply_to_votes(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = JudgeConfig(name="exact", kind="rule", params={"checks": [{"name": "exact_match"}]})
    (_, executed) = run(world, tmp_path, [exact])
    content = card(executed)
    assert (content["applies"], content["card"]) == (False, {})
    assert "exact: does not apply to the pairs that people judged" in capsys.readouterr().out
    (entry,) = judge_entries(
        {"exact": exact}, [SealedCard(judge="exact", suite=None, content=content, base=None)], EvaluateConfig(), []
    )
    assert (entry["applies"], entry["qualified"]) == (False, False)
    assert entry["reasons"] == [NOT_APPLICABLE]


@pytest.mark.slow
def test_a_local_model_is_measured_killed_and_resumed_to_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, executed = run(world, tmp_path / "whole", [BASE])
    content = card(executed)
    assert content["card"]["failure_rate"] == {**content["card"]["failure_rate"], "estimate": 0.0, "n": 12 + 6 + 3 + 24}
    assert 0 <= content["card"]["consistency"]["estimate"] <= 1
    assert content["reliability"]
    asked = content["card"]["tokens_per_thousand"]
    assert (asked["n"], asked["low"]) == (90, None)
    assert 100_000 < asked["estimate"] < 600_000  # a question is some hundred tokens
    assert "cost_per_thousand" not in content["card"]  # it costs nothing
    assert executed.artifact.manifest.base is not None

    from pipeline.models import choices

    answer, calls = choices.choice_logprobs, []

    def dying(*values: Any, **named: Any) -> Any:
        calls.append(len(values[1]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answer(*values, **named)

    monkeypatch.setattr(choices, "choice_logprobs", dying)
    with pytest.raises(BaseException, match="not finished"):
        run(world, tmp_path / "killed", [BASE])
    _, resumed = run(world, tmp_path / "killed", [BASE])
    assert "going on behind 24 items" in capsys.readouterr().out
    assert sum(calls) == 2 * (12 + 6 + 3 + 24) + 8  # both orders of every probe once, and the batch that died
    for file in ("verdicts.jsonl", "card.json"):
        assert resumed.artifact.file(file).read_bytes() == executed.artifact.file(file).read_bytes()


@pytest.mark.slow
def test_ratings_of_voted_completions_are_sealed_beside_the_verdicts(world: Path, tmp_path: Path) -> None:
    clear = CriterionConfig(name="clear", description="Is it clear?")
    _, plain = run(world, tmp_path / "plain", [BASE])
    _, executed = run(world, tmp_path / "rated", [BASE], (clear,))
    assert executed.artifact.manifest.fingerprint != plain.artifact.manifest.fingerprint
    assert executed.artifact.file("verdicts.jsonl").read_bytes() == plain.artifact.file("verdicts.jsonl").read_bytes()
    assert executed.artifact.manifest.parts.keys() == {"verdicts", "card", "ratings"}
    assert plain.artifact.manifest.parts.keys() == {"verdicts", "card"}
    rows = read_verdicts(executed.artifact.file("ratings.jsonl"))
    assert len(rows) == 24  # both sides of twelve pairs
    assert all(row.criterion == "clear" and row.score is not None and 1 <= row.score <= 5 for row in rows)
    measured = card(executed)["card"]
    assert (measured["rating_agreement/clear"]["n"], measured["rating_end_share/clear"]["n"]) == (12, 24)
    content, asked = card(executed), EvaluateConfig()
    sealed = SealedCard(judge="base", suite=None, content=content, base=None)
    (entry,) = judge_entries({"base": BASE}, [sealed], asked, [])
    assert [(one["criterion"], one["qualified"]) for one in entry["ratings"]] == [("clear", False)]
    assert "12 pairs on which most people prefer one side, fewer than 30" in entry["ratings"][0]["reasons"]


@pytest.mark.slow
def test_a_judge_with_a_model_of_its_own_is_told_from_the_run_s(world: Path, tmp_path: Path) -> None:
    make_tiny_model(world / "other", context_length=2048, num_layers=1, hidden_size=32, seed=1)
    own = ModelConfig(source=ModelSource.hub, id=str(world / "other"), dtype=DType.float32)
    _, first, second = run(world, tmp_path, [BASE, replace(BASE, name="other", model=own)])
    assert card(first) != card(second)
    bases = [(executed.artifact.manifest.base or {}).get("digest") for executed in (first, second)]
    assert bases[0] != bases[1]
    done = run(world, tmp_path, [BASE, replace(BASE, name="other", model=own)])
    assert all(executed.reused for executed in done)
