"""People as a judge: what they are shown, and that what they say comes back through the real importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from judging import answer_row, judging_job

from pipeline.config.judges import JudgeConfig
from pipeline.evaluation.judges.protocol import Status
from pipeline.evaluation.verdicts import VerdictRow, read_verdicts
from pipeline.labels.pairs import LABELING_CONFIG, read_pairs
from pipeline.stages.verdicts import judge_samples

NAMES = [f"i{number}" for number in range(12)]
# What two people say of each item: which policy's answer is better, or None for a tie. The last item has no vote.
SAID: dict[str, list[str | None]] = {
    "i0": ["tuned", "tuned"], "i1": ["base", "base"], "i2": ["tuned", "base"], "i3": [None, None],
    "i4": ["tuned", None], "i5": ["base", None], "i6": ["tuned", "tuned"], "i7": ["tuned", "tuned"],
    "i8": ["base", "base"], "i9": ["tuned", "tuned"],
}  # fmt: skip
EXPECTED = {
    "i0": 1.0,
    "i1": 0.0,
    "i2": 0.5,
    "i3": 0.5,
    "i4": 0.75,
    "i5": 0.25,
    "i6": 1.0,
    "i7": 1.0,
    "i8": 0.0,
    "i9": 1.0,
}


def samples() -> dict[str, list[Any]]:
    return {
        "tuned": [answer_row(name, f"tuned answer {name}" if name != "i10" else " ") for name in NAMES],
        "base": [answer_row(name, f"base answer {name}") for name in NAMES],
    }


def judge(folder: Path, **params: Any) -> tuple[Path, dict[str, VerdictRow]]:
    job = judging_job(folder, JudgeConfig(name="people", kind="human", params=params), samples())
    judge_samples(job)
    return job.staging, {row.id: row for row in read_verdicts(job.staging / "verdicts.jsonl")}


def annotated(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Vote as two people would in Label Studio, and export the project as it does."""
    exported = []
    for number, task in enumerate(tasks, start=1):
        data = task["data"]
        name = data["prompt"][0]["content"].removeprefix("Question ").removesuffix("?")
        annotations = []
        for person, choice in enumerate(SAID.get(name, [])):
            left = data["answer1"].split()[0]
            side = "Tie" if choice is None else "Left" if left == choice else "Right"
            annotations.append(
                {
                    "id": 100 * number + person,
                    "completed_by": person + 1,
                    "was_cancelled": False,
                    "ground_truth": False,
                    "created_at": "2026-03-02T09:00:00Z",
                    "updated_at": "2026-03-02T09:00:00Z",
                    "lead_time": 9.0,
                    "result": [
                        {
                            "id": f"r{number}{person}", "from_name": "preference", "to_name": "prompt",
                            "type": "choices", "value": {"choices": [side]},
                        }
                    ],
                }
            )  # fmt: skip
        exported.append({"id": number, "annotations": annotations, "drafts": [], "predictions": [], "data": data})
    return exported


def test_votes_on_the_written_pairs_come_back_as_verdicts(tmp_path: Path) -> None:
    written, before = judge(tmp_path / "first")
    assert {row.status for row in before.values()} == {Status.no_vote, Status.error}
    assert before["i10"].status == Status.error  # nobody can judge an empty answer
    tasks = json.loads((written / "tasks.json").read_text(encoding="utf-8"))
    assert len(tasks) == 11
    lefts = [task["data"]["answer1"].split()[0] for task in tasks]
    assert {"tuned", "base"} == set(lefts)  # sides are mixed, so that a habit of the left is no result
    export = tmp_path / "export.json"
    export.write_text(json.dumps(annotated(tasks)), encoding="utf-8")
    _, after = judge(tmp_path / "second", votes=str(export))
    assert {name: row.score for name, row in after.items() if row.status == Status.ok} == EXPECTED
    assert after["i11"].status == Status.no_vote
    assert all(row.order == "ab" for row in after.values())


def test_tasks_are_blind_and_fit_what_label_push_takes(tmp_path: Path) -> None:
    written, _ = judge(tmp_path)
    tasks = json.loads((written / "tasks.json").read_text(encoding="utf-8"))
    assert (written / "labeling.xml").read_text(encoding="utf-8") == LABELING_CONFIG
    for task in tasks:
        assert task["data"].keys() == {"id", "prompt", "answer1", "answer2"}  # nothing says whose or which side
    pushed = list(read_pairs(written / "pairs.jsonl", seed=0))
    shown = [{key: pair[key] for key in ("id", "prompt", "answer1", "answer2")} for pair in pushed]
    assert shown == [task["data"] for task in tasks]


def test_the_order_of_the_policies_does_not_change_what_people_see(tmp_path: Path) -> None:
    """A second comparison of the same texts, named the other way round, finds the same votes turned round."""
    written, _ = judge(tmp_path / "first")
    export = tmp_path / "export.json"
    tasks = json.loads((written / "tasks.json").read_text(encoding="utf-8"))
    export.write_text(json.dumps(annotated(tasks)), encoding="utf-8")
    config = JudgeConfig(name="people", kind="human", params={"votes": str(export)})
    turned = judging_job(tmp_path / "turned", config, dict(reversed(list(samples().items()))))
    judge_samples(turned)
    rows = {row.id: row.score for row in read_verdicts(turned.staging / "verdicts.jsonl") if row.status == Status.ok}
    assert rows == {name: pytest.approx(1 - score) for name, score in EXPECTED.items()}
