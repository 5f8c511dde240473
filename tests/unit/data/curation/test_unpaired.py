"""Completions with a label pass curation as every other row does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from curating import DEMONSTRATIONS, PROMPTS, SPLITS, UNPAIRED, Bench, Made, changed, pair, prompt_in, text

from pipeline.config.data import SourceConfig, SourceSplit, TableName
from pipeline.config.root import Config
from pipeline.config.validation import problems_in
from pipeline.data.filters.texts import all_texts, learned_replies, with_texts
from pipeline.data.rows import Message, Unpaired
from pipeline.data.tables import write_table

TRAIN = {"test_fraction": 0.0, "validation_fraction": 0.0}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def thumb(name: str, ask: str, reply: str = "So.", label: bool = True, **more: Any) -> Unpaired:
    return Unpaired(
        id=name, source="desk/votes", licence="MIT", prompt=[Message(role="user", content=ask)],
        completion=[Message(role="assistant", content=reply)], label=label, confidence=0.75, num_votes=4, **more,
    )  # fmt: skip


def curate(bench: Bench, rows: list[Unpaired], *sources: SourceConfig, side: str = "auto", **config: Any) -> Made:
    labels = bench.folder / "labels"
    write_table(labels, "unpaired", side, rows)
    own = sources or (bench.source("d", [pair("A", id="a")]),)
    return bench.curate(*own, labels=labels, **config)


def test_rows_keep_label_confidence_and_votes(bench: Bench) -> None:
    rows = [thumb("up", "Is it?", topic="sums"), thumb("down", "Is it not?", "No.", label=False)]
    made = curate(bench, rows, **TRAIN)
    assert made.rows(UNPAIRED, "train") == rows
    assert made.counts["tables"]["unpaired"] == {"train": 2, "validation": 0, "test": 0}
    assert [account.source for account in made.accounts] == ["desk/d", "labels/unpaired/auto"]


def test_a_completion_has_one_label(bench: Bench) -> None:
    """The same completion again is a duplicate whatever its label; nearly the same is a near-duplicate."""
    ask, reply = text(1), text(2)
    rows = [
        thumb("first", ask, reply),
        thumb("contrary", ask, f"  {reply}\n", label=False),
        thumb("near", ask, changed(reply, 3), label=False),
        thumb("other", ask, text(3), label=False),
    ]
    made = curate(bench, rows, **TRAIN)
    assert [row.id for row in made.rows(UNPAIRED, "train")] == ["first", "other"]
    assert made.fates() == {"contrary": "duplicate", "near": "near_duplicate"}


def test_a_prompt_never_stands_on_two_sides(bench: Bench) -> None:
    """Every row takes the split of its prompt's hash, and that of a demonstration with a near prompt before."""
    train, test = prompt_in("train"), prompt_in("test")
    near = prompt_in("test", near=train)  # by itself it would be tested on
    rows = [thumb("a", train), thumb("b", train, "No."), thumb("c", test), thumb("d", near, "Perhaps.")]
    made = curate(bench, rows, bench.source("d", [pair(train, "1", id="x")]), test_fraction=0.5,
                  validation_fraction=0.0)  # fmt: skip
    where = {row.id: split for split in SPLITS for row in made.rows(UNPAIRED, split)}
    assert where == {"a": "train", "b": "train", "c": "test", "d": "train"}
    assert [row.id for row in made.rows(DEMONSTRATIONS, "train")] == ["x"]


def test_thumbs_on_evaluation_prompts_are_leaks(bench: Bench) -> None:
    ask = text(1)
    suite = bench.source("t", [{"id": "held", "prompt": ask}], PROMPTS, split=SourceSplit.test)
    rows = [thumb("same", ask), thumb("holds", "Tell", f"well {ask}"), thumb("free", text(5))]
    made = curate(bench, rows, suite, bench.source("d", [pair("A", id="a")]), **TRAIN)
    assert [row.id for row in made.rows(UNPAIRED, "train")] == ["free"]
    assert made.fates() == {"same": "leak", "holds": "leak"}


def test_protected_thumbs_are_for_testing_only(bench: Bench) -> None:
    made = curate(bench, [thumb("held", text(1))], side="test", **TRAIN)
    assert [row.id for row in made.rows(UNPAIRED, "test")] == ["held"]


def test_filters_see_the_texts_of_a_row(bench: Bench) -> None:
    """A key in a completion is dropped; only a good completion is what training makes likelier."""
    row = thumb("a", "Ask", "Reply", label=False)
    assert all_texts(row) == ["Ask", "Reply"]
    assert learned_replies(row) == []
    assert learned_replies(thumb("b", "Ask", "Reply")) == ["Reply"]
    assert with_texts(row, str.upper).completion[0]["content"] == "REPLY"
    secret = thumb("secret", "Which key?", "AKIA" + "Q7RZ2M4K8WX3NVTB", label=False)
    made = curate(bench, [secret, thumb("sound", "And now?")], **TRAIN)
    assert made.fates() == {"secret": "filtered"}


def test_thumbs_are_read_as_votes_and_not_as_a_source() -> None:
    config = Config(stages=["curate"])
    config.data.sources = [SourceConfig(table=TableName.unpaired, path="votes.jsonl")]
    assert any("thumbs are votes. Write `table: exports`" in problem for problem in problems_in(config))
