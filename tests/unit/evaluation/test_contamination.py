"""Items of a suite in train rows: each rule on texts made for it, and the score without what was found, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from curating import PROMPTS, Bench, pair, text
from help_desk import EVALUATE, FORM, GOOD, PLAIN, generated, of

from pipeline.config.data import SourceSplit
from pipeline.data.rows import Message, prompt_hash
from pipeline.evaluation.contamination import TrainedRow, contamination, find_contaminated, train_rows


def asked(content: str, *before: Message) -> list[Message]:
    return [*before, Message(role="user", content=content)]


def row(name: str, prompt: str, *others: str) -> TrainedRow:
    return TrainedRow(id=name, prompt_hash=prompt_hash(asked(prompt)), texts=[prompt, *others])


def without(sample: Any) -> Any:
    """The same item without a result."""
    return replace(sample, completion="", finish_reason=None, unscored="overlength")


LONG, SHORT, TINY = text(1), text(2, 9), text(3, 5)
WORDS = LONG.split()


@pytest.mark.parametrize(
    ("item", "train", "rule"),
    [
        (LONG, row("r", f"  {LONG} "), "exact"),
        (TINY, row("r", TINY), "exact"),
        (LONG, row("r", "Hi", f"well, {' '.join(WORDS[5:18]).upper()}! so"), "ngram"),
        (LONG, row("r", "Hi", f"well {' '.join(WORDS[5:17])} so"), None),  # twelve words
        (LONG, row("r", " ".join(WORDS[:7]), " ".join(WORDS[7:14])), None),  # in two texts
        (SHORT, row("r", "Hi", f"so. {SHORT}! And"), "whole"),
        (SHORT, row("r", "Hi", f"so {' '.join(SHORT.split()[:8])} and"), None),  # eight of nine words
        (TINY, row("r", "Hi", f"so {TINY} and"), None),  # too short to say anything
        (LONG, row("r", "Hi", text(9)), None),
    ],
)
def test_each_rule_finds_what_it_says(item: str, train: TrainedRow, rule: str | None) -> None:
    found = find_contaminated({"a": asked(item), "b": asked(text(50))}, [row("first", text(70)), train])
    assert found == ({} if rule is None else {"a": {"rule": rule, "row": "r"}})


def test_how_many_items_are_worded_says_nothing() -> None:
    template = " ".join(WORDS[:20])
    train = [row("r", "Hi", f"so {template} and")]
    ten = {f"i{n:02d}": asked(f"{template} n{n}") for n in range(10)}
    assert len(find_contaminated(ten, train)) == 10
    assert find_contaminated({**ten, "i10": asked(f"{template} n10")}, train) == {}


def test_only_what_the_user_says_is_looked_for() -> None:
    reply = Message(role="assistant", content=text(8))
    item = [Message(role="user", content="Hi"), reply, Message(role="user", content="And?")]
    assert find_contaminated({"a": item}, [row("r", "Ho", text(8))]) == {}
    assert find_contaminated({"a": asked(text(8))}, [row("r", "Ho", text(8))]) != {}


def test_train_rows_of_a_data_set_and_the_score_without_what_was_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    rows = [pair(text(1), id="d1"), pair("Ask", f"so {text(2)} and", id="d2"), pair(text(5), id="d5")]
    tested = bench.source("t", [{"id": "t9", "prompt": text(9)}], PROMPTS, split=SourceSplit.test)
    folder = bench.curate(bench.source("d", rows), tested, test_fraction=0.0, validation_fraction=0.0).folder
    assert [entry.id for entry in train_rows(folder)] == [f"{t}/{d}" for t in ("demonstrations", "prompts")
                                                          for d in ("d1", "d2", "d5")]  # fmt: skip
    prompts = {"a": text(1), "b": text(2), "c": text(3), "d": text(9)}  # a and b are in train, d only in test

    def samples(policy: str, **answers: str) -> Any:
        return of(policy, "form", [generated(name, answers[name], prompt=prompts[name]) for name in prompts])

    base = samples("base", a=PLAIN, b=PLAIN, c=GOOD, d=PLAIN)
    tuned = samples("tuned", a=GOOD, b=GOOD, c=GOOD, d=PLAIN)
    (entry,) = contamination([base, tuned], {"form": FORM}, EVALUATE, folder, "the data set")
    assert (entry["items"], entry["contaminated"], entry["ids"]) == (4, 2, ["a", "b"])
    assert entry["rules"] == {"exact": 1, "ngram": 1}
    assert entry["found_in"] == {"a": "demonstrations/d1", "b": "demonstrations/d2"}
    clean = {(m["policy"], m["baseline"]): (m["metric"], m["estimate"], m["n"]) for m in entry["clean"]}
    assert clean == {
        ("base", None): ("all_checks", 0.5, 2),
        ("tuned", None): ("all_checks", 0.5, 2),  # all of the gain stood in the train rows
        ("tuned", "base"): ("all_checks", 0.0, 2),
    }
    # Each policy lacks another of the clean ones: nothing can be compared, and what was found is told all the same.
    apart = [replace(entry, rows=[without(row) if row.id == lacking else row for row in entry.rows])
             for entry, lacking in ((base, "c"), (tuned, "d"))]  # fmt: skip
    (entry,) = contamination(apart, {"form": FORM}, EVALUATE, folder, "the data set")
    assert (entry["ids"], entry["clean"]) == (["a", "b"], [])
    other = Bench(tmp_path / "other")
    other.folder.mkdir()
    unrelated = other.curate(other.source("d", [pair(text(60))]), test_fraction=0.0, validation_fraction=0.0).folder
    (entry,) = contamination([base, tuned], {"form": FORM}, EVALUATE, unrelated, "another")
    assert (entry["contaminated"], entry["ids"], entry["clean"]) == (0, [], None)
