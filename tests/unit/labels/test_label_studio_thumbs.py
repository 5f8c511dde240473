"""Label Studio tasks with one completion, called good or bad by a choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.labels.importers.label_studio_wording import asks_for_thumbs, read_thumb
from pipeline.labels.votes import Scale, Status
from tests.read_exports import Export, read_export

CONFIG = """<View>
  <Text name="q" value="$question"/><Text name="a" value="$answer"/>
  <Choices name="verdict" toName="a"><Choice value="Good"/><Choice value="Bad"/><Choice value="Not sure"/></Choices>
</View>"""


def export(tmp_path: Path, *choices: str, config: str = CONFIG) -> Export:
    """Tasks with one annotation each."""
    (tmp_path / "config.xml").write_text(config)
    tasks: list[dict[str, Any]] = [
        {
            "id": number,
            "data": {"question": f"What is {number}?", "answer": f"It is {number}."},
            "annotations": [
                {
                    "id": 100 + number, "completed_by": 7, "was_cancelled": False,
                    "result": [
                        {"from_name": "verdict", "to_name": "a", "type": "choices", "value": {"choices": [choice]}}
                    ],
                }
            ],
        }
        for number, choice in enumerate(choices, start=1)
    ]  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    return read_export(tmp_path / "export.json", labeling_config=str(tmp_path / "config.xml"))


def test_a_choice_on_one_completion_is_a_thumb(tmp_path: Path) -> None:
    found = export(tmp_path, "Good", "Bad", "Not sure")
    assert [vote.scale for vote in found.votes] == [Scale.thumbs] * 3
    assert [found.rated(vote) for vote in found.votes] == [{"It is 1.": 1.0}, {"It is 2.": 0.0}, None]
    assert [vote.status for vote in found.votes] == [Status.submitted, Status.submitted, Status.skipped]


def test_a_choice_that_is_neither_is_an_invalid_vote(tmp_path: Path) -> None:
    (vote,) = export(tmp_path, "Perhaps").votes
    assert vote.status is Status.invalid
    assert "neither good nor bad" in (vote.note or "")


def test_other_choices_are_no_thumbs(tmp_path: Path) -> None:
    """A control that asks for a topic leaves the task without a candidate, as before."""
    assert asks_for_thumbs(["Good", "bad"])
    assert not asks_for_thumbs(["Good", "Science"])
    assert not asks_for_thumbs(["Skip"])
    assert [read_thumb(text) for text in ("👍", "Thumbs-down.", "fine")] == [1.0, 0.0, None]
    assert read_thumb("good ") == 1.0
