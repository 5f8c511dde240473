"""No row that is trained on holds an evaluation prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from curating import (
    COMPARISONS,
    DEMONSTRATIONS,
    HALVES,
    PROMPTS,
    Bench,
    Made,
    changed,
    pair,
    place,
    prompt_in,
    text,
    versus,
)

from pipeline.config.data import DecontaminationConfig, NearDuplicatesConfig, SourceConfig, SourceSplit

TRAIN = {"test_fraction": 0.0, "validation_fraction": 0.0}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def removed(made: Made) -> dict[str, tuple[str, str]]:
    """The rule by which each leak was found, and the evaluation row that it holds."""
    assert all(entry["why"] == "leak" for entry in made.removed)
    return {entry["id"]: (entry["rule"], entry["of"]) for entry in made.removed}


def protected(bench: Bench, **prompts: str) -> SourceConfig:
    rows = [{"id": name, "prompt": prompt} for name, prompt in prompts.items()]
    return bench.source("t", rows, PROMPTS, split=SourceSplit.test)


def test_each_rule_finds_what_it_says(bench: Bench) -> None:
    long, short, tiny = text(1), text(2, 9), text(3, 7)
    words = long.split()
    tests = protected(bench, long=long, short=short, tiny=tiny)
    rows = [
        pair(f"  {tiny.upper()}?!", id="exact"),
        pair(changed(long, 20), id="near"),
        pair("Ask", f"well {' '.join(words[5:18])} so", id="thirteen"),
        pair("Tell", f"well {' '.join(words[5:17])} so", id="twelve"),
        pair("Ask", f"so. {short}! And", id="whole"),
        pair("Ask", f"so {' '.join(short.split()[:8])} and", id="part"),
        pair(f"Ask {tiny} now", id="holds tiny"),
        pair(" ".join(words[:7]), " ".join(words[7:13]), id="across fields"),
    ]
    made = bench.curate(bench.source("d", rows), tests, **TRAIN)
    assert removed(made) == {
        "exact": ("exact", "tiny"),
        "near": ("near", "long"),
        "thirteen": ("ngram", "long"),
        "whole": ("ngram", "short"),
    }
    assert made.counts["leaks"] == {"exact": 1, "near": 1, "ngram": 2, "whole": 0}
    assert made.accounts[1].leaks == 4
    assert [entry["evaluation_id"] for entry in made.curated.examples["leaks"]] == ["tiny", "long", "long", "short"]
    looser = DecontaminationConfig(ngram=14)
    assert "thirteen" not in removed(bench.curate(bench.source("d", rows), tests, decontamination=looser, **TRAIN))
    by_hash = DecontaminationConfig(ngram=None)
    assert removed(bench.curate(bench.source("d", rows), tests, decontamination=by_hash, **TRAIN)).keys() == {
        "exact", "near",
    }  # fmt: skip
    near = NearDuplicatesConfig(enabled=False)
    made = bench.curate(bench.source("d", rows), tests, decontamination=by_hash, near_duplicates=near, **TRAIN)
    assert removed(made).keys() == {"exact"}
    off = DecontaminationConfig(enabled=False)
    assert not bench.curate(bench.source("d", rows), tests, decontamination=off, **TRAIN).removed


def test_prompts_of_eight_to_twelve_words_are_looked_for_as_a_whole(bench: Bench) -> None:
    sizes = (7, 8, 11, 12, 13)
    tests = protected(bench, **{f"t{size}": text(size, size) for size in sizes})
    rows = [pair(f"Ask {size}", f"well {text(size, size)} so", id=f"d{size}") for size in sizes]
    assert removed(bench.curate(bench.source("d", rows), tests, **TRAIN)) == {
        f"d{size}": ("ngram", f"t{size}") for size in sizes if size >= 8
    }


def test_how_prompts_are_all_worded_is_no_leak(bench: Bench) -> None:
    frame = text(1, 20)
    rows = [pair("Ask", f"{frame} {text(50)}", id="d"), pair("Tell", text(51))]
    few = protected(bench, **{f"t{n}": f"{frame} {text(100 + n)}" for n in range(10)})
    assert removed(bench.curate(bench.source("d", rows), few, **TRAIN)) == {"d": ("ngram", "t0")}
    many = protected(bench, **{f"t{n}": f"{frame} {text(100 + n)}" for n in range(11)})
    assert removed(bench.curate(bench.source("d", rows), many, **TRAIN)) == {}


def test_earlier_replies_in_an_evaluation_prompt_are_not_looked_for(bench: Bench) -> None:
    reply, ask = text(1), text(2)
    turns = [("user", "Hello"), ("assistant", reply), ("user", ask)]
    row = {"id": "t", "prompt": [{"role": role, "content": content} for role, content in turns]}
    tests = bench.source("t", [row], PROMPTS, split=SourceSplit.test)
    rows = [pair("Ask", reply, id="reply"), pair("Tell", ask, id="ask")]
    assert removed(bench.curate(bench.source("d", rows), tests, **TRAIN)) == {"ask": ("ngram", "t")}


def test_a_prompt_of_the_test_split_stands_in_no_row_that_is_trained_on(bench: Bench) -> None:
    asked, train = prompt_in("test"), prompt_in("train")
    other = next(t for n in range(99) if (t := prompt_in("train", near=f"{asked} {text(n, 30)}")))
    rows = [
        pair(asked, id="test"),
        pair(train, f"You may ask: {asked}", id="completion"),
        pair(other, "So.", id="prompt"),
        pair(train, f"{text(60)} {' '.join(asked.split()[:39])}", id="part"),
    ]
    made = bench.curate(bench.source("d", rows), **HALVES)
    assert removed(made) == {"completion": ("whole", "test"), "prompt": ("whole", "test")}
    assert [row.id for row in made.rows(DEMONSTRATIONS, "test")] == ["test"]


def test_rows_to_validate_on_hold_no_prompt_of_the_test_split_either(bench: Bench) -> None:
    prompts = [text(200_000 + number) for number in range(50)]
    asked = next(prompt for prompt in prompts if place(prompt) < 0.3)
    holder = next(prompt for prompt in prompts if 0.3 <= place(prompt) < 0.7)
    rows = [pair(asked, id="test"), pair(holder, f"You may ask: {asked}", id="validation"), pair(text(1), id="other")]
    made = bench.curate(bench.source("d", rows), test_fraction=0.3, validation_fraction=0.4)
    assert removed(made) == {"validation": ("whole", "test")}


def test_of_two_tables_the_later_one_gives_way(bench: Bench) -> None:
    asked, train = prompt_in("test"), prompt_in("train")
    demonstrations = bench.source("d", [pair(train, f"You may ask: {asked}", id="d")])
    comparisons = bench.source("c", [versus(asked, id="c"), versus(text(7), text(8), text(9), id="c2")], COMPARISONS)
    made = bench.curate(demonstrations, comparisons, **HALVES)
    assert removed(made) == {"c": ("whole", "d")}
    assert [row.id for row in made.rows(DEMONSTRATIONS, "train")] == ["d"]


def test_instructions_of_pandalm_leak_from_self_instruct(bench: Bench, real_data: Path) -> None:
    """166 of 170 instructions are there letter by letter, 169 up to white space; the 170th is blank."""
    file, tests = real_data / "pandalm/testset-v1.json", real_data / "self-instruct/user_oriented_instructions.jsonl"
    instructions = {entry["instruction"] for entry in json.loads(file.read_text(encoding="utf-8"))}
    held = {json.loads(line)["instruction"] for line in tests.read_text(encoding="utf-8").splitlines()}
    assert (len(instructions), len(instructions & held)) == (170, 166)
    columns = {"prompt": "instruction"}
    made = bench.curate(
        bench.source("own", [{"prompt": text(1)}], PROMPTS),
        bench.source("i", [{"prompt": instruction} for instruction in sorted(instructions)], PROMPTS),
        SourceConfig(table=PROMPTS, path=str(tests), columns=columns, split=SourceSplit.test),
        **TRAIN,
    )
    account = next(account for account in made.accounts if account.source == "desk/i")
    assert (account.read, account.leaks, account.num_quarantined) == (170, 169, 1)
    assert made.counts["leaks"] == {"exact": 169, "near": 0, "ngram": 0, "whole": 0}


@pytest.mark.slow
def test_gsm8k_does_not_leak(bench: Bench, real_data: Path) -> None:
    """No question stands twice: what is found are a dozen with the same story and other numbers."""
    lines = (real_data / "gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    train = bench.source("d", [pair(row["question"], row["answer"]) for row in rows[:6000]])
    tests = bench.source("t", [{"prompt": row["question"]} for row in rows[6000:]], PROMPTS, split=SourceSplit.test)
    made = bench.curate(train, tests, **TRAIN)
    assert made.counts["leaks"]["exact"] == 0
    assert sum(made.counts["leaks"].values()) < 30


def test_rows_that_guard_remove_leaks_and_go_into_no_table(bench: Bench) -> None:
    long = text(1)
    guard = bench.source("g", [{"id": "d0", "prompt": long}], PROMPTS, split=SourceSplit.guard)
    rows = [pair(long, id="leaks"), pair(text(2), id="d0"), pair(text(3), id="other")]
    made = bench.curate(bench.source("d", rows), guard, **TRAIN)
    assert removed(made) == {"leaks": ("exact", "d0")}
    assert {row.id for row in made.rows(DEMONSTRATIONS, "train")} == {"d0", "other"}  # the guard takes no id
    assert made.rows(PROMPTS, "test") == []
    assert len(made.rows(PROMPTS, "train")) == 2  # of the demonstrations, as if there were no guard
    first, second = made.accounts
    assert (first.source, first.guards, first.accepted, second.leaks, second.accepted) == ("desk/g", 1, 0, 1, 2)
    assert sum(made.counts["lengths"]["demonstrations"]["prompt"]["counts"]) == 2
    without = bench.curate(bench.source("d", rows), **TRAIN)
    assert len(without.rows(DEMONSTRATIONS, "train")) == 3


def test_a_guard_takes_no_test_row_away(bench: Bench) -> None:
    tests = protected(bench, own=text(1), other=text(2))
    guard = bench.source("g", [{"prompt": text(1)}, {"prompt": text(1)}], PROMPTS, split=SourceSplit.guard)
    made = bench.curate(guard, tests, bench.source("d", [pair(text(9), id="kept")]), **TRAIN)
    assert {row.id for row in made.rows(PROMPTS, "test")} == {"own", "other"}
    assert made.removed == []
    assert [account.guards for account in made.accounts] == [0, 2, 0]
