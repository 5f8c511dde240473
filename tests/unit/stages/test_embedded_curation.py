"""From the embedded exports to the data set: what was planted in the votes is found, and nothing else is lost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.store import Store
from pipeline.config.composition import load, register_schema
from pipeline.config.paths import configs_folder, project_folder
from pipeline.data.rows import Comparison
from pipeline.data.tables import read_table
from pipeline.graph.execution import run_nodes
from pipeline.graph.run_folder import RunFolder
from pipeline.graph.wiring import nodes_for
from pipeline.labels.votes import candidate_id, item_id
from pipeline.tracking.session import TrackingSession

HELP_DESK = project_folder() / "data" / "helpdesk"
SPLITS = ("train", "validation", "test")
SIDES = ("answer1", "answer2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact, Path]:
    """Run `+experiment=curate` on the embedded data; the labels, the data set, and the run folder."""
    return curate(tmp_path_factory.mktemp("outputs"))


def curate(outputs: Path, *overrides: str) -> tuple[Artifact, Artifact, Path]:
    register_schema()
    with initialize_config_dir(str(configs_folder()), version_base="1.3"):
        told = ["+experiment=curate", "tracking=disabled", f"runtime.outputs={outputs}", *overrides]
        loaded = load(compose("train", overrides=told), [configs_folder()])
    assert loaded.problems == []
    nodes, problems = nodes_for(loaded.config, loaded.suites, loaded.tables)
    assert problems == []
    folder = RunFolder.create(outputs, "curate", "0")
    with TrackingSession(loaded.config.tracking, outputs, folder.path, {}) as session:
        done = run_nodes(
            nodes,
            config=loaded.config,
            store=Store(outputs),
            session=session,
            base=lambda: pytest.fail("no stage here uses a model"),
            hashes=FileHashes(outputs / "hashes.json"),
            plugins={},
            folder=folder,
            say=lambda text: None,
        )
    labels, dataset = (step.artifact for step in done)
    return labels, dataset, folder.path


def planted(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((HELP_DESK / "planted_votes.json").read_text())["files"]["votes.json"][
        kind
    ]
    return found


def tasks() -> dict[int, dict[str, Any]]:
    return {task["id"]: task for task in json.loads((HELP_DESK / "votes.json").read_text(encoding="utf-8"))}


def rows(artifact: Artifact, splits: tuple[str, ...]) -> list[Comparison]:
    files = [split for split in splits if f"comparisons/{split}.parquet" in artifact.manifest.files]
    return [row for split in files for row in read_table(artifact, "comparisons", split, Comparison)]


def text(row: Comparison) -> str:
    return json.dumps(asdict(row), ensure_ascii=False)


def key(row: Comparison) -> tuple[str, frozenset[str]]:
    return item_id(row.prompt), frozenset({candidate_id(row.chosen), candidate_id(row.rejected)})


def task_key(task: dict[str, Any]) -> tuple[str, frozenset[str]]:
    prompt = [{"role": "user", "content": task["data"]["prompt"]}]
    answers = ([{"role": "assistant", "content": task["data"][side]}] for side in SIDES)
    return item_id(prompt), frozenset(candidate_id(answer) for answer in answers)


def removed(dataset: Artifact, why: str) -> list[dict[str, Any]]:
    lines = dataset.file("removed.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["why"] == why]


def test_all_planted_personal_data_is_dropped_and_nothing_else_is(made: tuple[Artifact, Artifact, Path]) -> None:
    labels, dataset, _ = made
    private = [entry["text"] for entry in planted("personal_data")]
    assert len(private) == 24
    before, after = rows(labels, ("auto", "test")), rows(dataset, SPLITS)
    holding = {row.id for row in before if any(found in text(row) for found in private)}
    assert len(holding) >= 20  # the others were decided by nobody
    assert not any(found in text(row) for row in after for found in private)
    assert {entry["id"] for entry in removed(dataset, "filtered") if entry["rule"] == "personal_data"} == holding


def test_the_planted_control_tokens_are_found_named_and_counted(
    made: tuple[Artifact, Artifact, Path], tmp_path: Path
) -> None:
    """Its votes are two against two, so that no comparison comes of it; once they decide, it is found."""
    (listed,) = (entry for entry in planted("malformed") if entry["reason"] == "E_CONTROLTOK")
    around = list(tasks().values())[listed["index"] - 20 : listed["index"] + 20]
    (task,) = (task for task in around if task["id"] == listed["task"])
    assert not any(
        "<|im_start|>" in text(row) for labels in made[:2] for row in rows(labels, ("auto", "test", *SPLITS))
    )
    for annotation in task["annotations"]:
        for region in annotation["result"]:
            region["value"] = {"selected": "right"}
    (tmp_path / "votes.json").write_text(json.dumps(around), encoding="utf-8")
    filters = "curate.filters=[{name: control_tokens}]"
    labels, dataset, _ = curate(tmp_path / "outputs", "data=exports", f"data.path={tmp_path / 'votes.json'}", filters)
    (holding,) = (row for row in rows(labels, ("auto",)) if "<|im_start|>" in text(row))
    assert key(holding) == task_key(task)
    (entry,) = removed(dataset, "filtered")
    assert (entry["id"], entry["rule"], entry["reason"]) == (holding.id, "control_tokens", "E_CONTROLTOK")
    counts = json.loads(dataset.file("counts.json").read_text(encoding="utf-8"))
    assert [found["dropped"] for found in counts["filters"]] == [{"E_CONTROLTOK": 1}]
    assert not any("<|im_start|>" in text(row) for row in rows(dataset, SPLITS))


def winner(row: Comparison, task: dict[str, Any]) -> str:
    """Return the side of a task that its comparison prefers."""
    chosen = candidate_id(row.chosen)
    answers = {side: candidate_id([{"role": "assistant", "content": task["data"][side]}]) for side in SIDES}
    return next(side for side, answer in answers.items() if answer == chosen)


def test_of_near_duplicates_with_one_verdict_one_is_kept(made: tuple[Artifact, Artifact, Path]) -> None:
    labels, dataset, _ = made
    by_id, judged = tasks(), {key(row): row for row in rows(labels, ("auto", "test"))}
    kept = {row.id for row in rows(dataset, SPLITS)}
    alike, contrary = [], []
    for entry in planted("near_duplicate"):
        both = [by_id[entry["task"]], by_id[entry["of"]]]
        found = [judged.get(task_key(task)) for task in both]
        if None not in found:
            verdicts = {winner(row, task) for row, task in zip(found, both, strict=True) if row is not None}
            (alike if len(verdicts) == 1 else contrary).append({row.id for row in found if row is not None})
    assert len(alike) >= 6
    assert [len(pair & kept) for pair in alike] == [1] * len(alike)
    # Where the votes on the two contradict each other there is nothing to leave out: it is disagreement.
    assert [len(pair & kept) for pair in contrary] == [2] * len(contrary)


def test_copies_of_a_pair_are_one_comparison_with_the_votes_of_both(made: tuple[Artifact, Artifact, Path]) -> None:
    labels, _, _ = made
    by_id, judged = tasks(), {key(row): row for row in rows(labels, ("auto", "test"))}
    seen = 0
    for entry in planted("duplicate"):
        copy, original = by_id[entry["task"]], by_id[entry["of"]]
        assert task_key(copy) == task_key(original)
        row = judged.get(task_key(copy))
        if row is not None:
            seen += 1
            voters = {
                annotation["completed_by"]
                for task in (copy, original)
                for annotation in task["annotations"]
                if not annotation["was_cancelled"]
            }
            assert row.num_votes == len(voters - {17, 18})  # who is set aside does not count
    assert seen >= 8


def test_every_row_is_accounted_for(made: tuple[Artifact, Artifact, Path]) -> None:
    labels, dataset, folder = made
    counts = json.loads(dataset.file("counts.json").read_text(encoding="utf-8"))
    for source in counts["sources"]:
        fates = {name: value for name, value in source.items() if name not in {"source", "table", "protected", "read"}}
        assert source["read"] == sum(sum(v.values()) if isinstance(v, dict) else v for v in fates.values())
    from_votes = [source for source in counts["sources"] if source["source"].startswith("labels/comparisons")]
    assert sum(source["read"] for source in from_votes) == len(rows(labels, ("auto", "test")))
    assert sum(source["accepted"] for source in from_votes) == len(rows(dataset, SPLITS))
    assert (folder / "data.html").read_bytes() == dataset.file("report.html").read_bytes()


def test_no_prompt_stands_on_two_sides_and_every_comparison_has_a_fold(made: tuple[Artifact, Artifact, Path]) -> None:
    _, dataset, _ = made
    sides: dict[str, set[str]] = {}
    folds: dict[str, set[int | None]] = {}
    for split in SPLITS:
        for row in rows(dataset, (split,)):
            sides.setdefault(item_id(row.prompt), set()).add(split)
            folds.setdefault(item_id(row.prompt), set()).add(row.fold)
    assert all(len(found) == 1 for found in sides.values())
    assert all(len(found) == 1 and found <= {0, 1, 2, 3, 4} for found in folds.values())
    assert len(set.union(*folds.values())) == 5


def test_the_stated_preference_is_right_in_24_of_25_held_out_pairs(made: tuple[Artifact, Artifact, Path]) -> None:
    """What a reward model's accuracy could at most reach on them: the utilities that the votes were drawn by are known.

    The mean share of the votes is no such bound: a majority of voters is right more often than each of them.
    """
    better: dict[tuple[str, frozenset[str]], str] = {}
    files = json.loads((HELP_DESK / "planted_votes.json").read_text(encoding="utf-8"))["files"]
    for name, truth in files.items():
        damaged = {entry["index"] for entry in truth.get("malformed", []) if entry["level"] == "record"}
        for index, task in enumerate(json.loads((HELP_DESK / name).read_text(encoding="utf-8"))):
            if index not in damaged:
                first, second = truth["tasks"][str(task["id"])]["utilities"]
                winner = task["data"][SIDES[0] if first > second else SIDES[1]]
                better[task_key(task)] = candidate_id([{"role": "assistant", "content": winner}])
    test = rows(made[1], ("test",))
    assert len(test) == 225
    assert sum(candidate_id(row.chosen) == better[key(row)] for row in test) == 216
    assert sum(row.confidence for row in test) / len(test) == pytest.approx(0.857, abs=5e-4)
