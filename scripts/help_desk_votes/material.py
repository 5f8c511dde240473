"""What pairs are made of: the help desk's prompts and the completions that were sampled for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

HELP_DESK = Path(__file__).resolve().parents[2] / "data" / "helpdesk"
CANDIDATES = HELP_DESK / "candidates.jsonl"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt of one turn."""

    id: str
    topic: str
    text: str
    reference: str
    test: bool
    answer: str | None = None  # the demonstration's, where there is one


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A completion of a question and where it comes from."""

    question: str  # its id
    policy: str  # "base", "sft" or "demonstration"
    temperature: float
    seed: int
    finish: str  # "stop", or "length" where it was cut off
    text: str

    @property
    def name(self) -> str:
        """What to call it in lists: the policy and the seed."""
        return self.policy if self.policy == "demonstration" else f"{self.policy}-{self.seed}"


def questions() -> list[Question]:
    """Return the questions in the order of the files; a test prompt with an earlier exchange is left out."""
    found = []
    for row in _rows(HELP_DESK / "demonstrations.jsonl"):
        ask, answer = (message["content"] for message in row["messages"][:2])
        found.append(_question(row, ask, answer=answer))
    found += [_question(row, row["prompt"][0]["content"]) for row in _rows(HELP_DESK / "further_prompts.jsonl")]
    found += [
        _question(row, row["prompt"][0]["content"], test=True)
        for row in _rows(HELP_DESK / "test_prompts.jsonl")
        if len(row["prompt"]) == 1
    ]
    return found


def read_samples(path: Path = CANDIDATES) -> list[Sample]:
    """Return the sampled completions in the order of the file."""
    return [
        Sample(question=row["question"], policy=policy, temperature=temperature, seed=seed, finish=finish, text=text)
        for row in _rows(path)
        for policy, temperature, seed, finish, text in row["samples"]
    ]


def write_samples(path: Path, samples: list[Sample]) -> None:
    """Write a question a line, each sample as the list of policy, temperature, seed, finish and text."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for question, group in groupby(samples, key=lambda sample: sample.question):
            lists = [[one.policy, one.temperature, one.seed, one.finish, one.text] for one in group]
            row = {"question": question, "samples": lists}
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def _question(row: dict[str, Any], text: str, *, test: bool = False, answer: str | None = None) -> Question:
    return Question(
        id=row["id"], topic=row["topic"], text=text, reference=row["reference"], test=test, answer=answer
    )  # fmt: skip


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
