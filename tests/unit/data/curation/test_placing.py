"""Near-duplicates, splits that keep apart what is near, folds, and what never moves."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from curating import (
    COMPARISONS,
    DEMONSTRATIONS,
    PROMPTS,
    SPLITS,
    Bench,
    changed,
    digests,
    everything,
    pair,
    place,
    prompt_in,
    text,
    told,
    versus,
)

from pipeline.config.data import NearDuplicatesConfig, SourceSplit
from pipeline.data.curation.placement import Placing
from pipeline.data.rows import Comparison, Demonstration
from pipeline.data.tables import write_table

HALVES = {"test_fraction": 0.5, "validation_fraction": 0.0}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_rows_near_in_every_field_are_one_and_the_first_stays(bench: Bench) -> None:
    ask, reply = text(1), text(2)
    rows = [
        pair(ask, reply, id="first"),
        pair(changed(ask, 3), changed(reply, 30), id="near"),  # 31 of 41 runs are shared: 0.756
        pair(changed(ask, 3), changed(reply, 10, 30), id="reply"),  # 26 of 46: 0.565
        pair(changed(ask, 3, 20), reply, id="prompt"),
        pair(text(3), text(4), id="other"),
    ]
    made = bench.curate(bench.source("a", rows), test_fraction=0.0, validation_fraction=0.0)
    assert [row.id for row in made.rows(DEMONSTRATIONS, "train")] == ["first", "reply", "prompt", "other"]
    (entry,) = made.removed
    assert {**entry, "path": ""} == {
        "id": "near", "source": "desk/a", "path": "", "line": 2, "table": "demonstrations", "why": "near_duplicate",
        "of": "first", "similarity": pytest.approx(31 / 41, abs=1e-4),
    }  # fmt: skip
    assert made.counts["duplicates"] == {"exact": 0, "near": 1}
    strict = NearDuplicatesConfig(threshold=0.8)
    assert not bench.curate(bench.source("a", rows), near_duplicates=strict).removed


def test_comparisons_must_be_near_in_both_completions(bench: Bench) -> None:
    ask, good, bad = text(1), text(2), text(3)
    rows = [
        versus(ask, good, bad, id="first"),
        versus(ask, changed(good, 3), changed(bad, 30), id="near"),
        versus(ask, bad, good, id="turned"),
        versus(ask, good, text(4), id="other"),
    ]
    made = bench.curate(bench.source("a", rows, COMPARISONS), test_fraction=0.0, validation_fraction=0.0)
    assert [row.id for row in made.rows(COMPARISONS, "train")] == ["first", "turned", "other"]
    assert made.fates() == {"near": "near_duplicate"}


def test_a_near_prompt_takes_the_split_of_the_one_that_is_placed(bench: Bench) -> None:
    train = prompt_in("train")
    test = prompt_in("test", near=train)  # 36 of 37 runs are those of the other
    first = bench.curate(bench.source("a", [pair(train, "1", id="a"), pair(test, "2", id="b")]), **HALVES)
    assert [row.id for row in first.rows(DEMONSTRATIONS, "train")] == ["a", "b"]
    second = bench.curate(bench.source("a", [pair(test, "2", id="b"), pair(train, "1", id="a")]), **HALVES)
    assert [row.id for row in second.rows(DEMONSTRATIONS, "test")] == ["b", "a"]
    alone = NearDuplicatesConfig(enabled=False)
    third = bench.curate(
        bench.source("a", [pair(train, "1", id="a"), pair(test, "2", id="b")]), near_duplicates=alone, **HALVES
    )
    assert [[row.id for row in third.rows(DEMONSTRATIONS, split)] for split in ("train", "test")] == [["a"], ["b"]]


def test_a_row_near_two_splits_is_dropped(bench: Bench) -> None:
    # Five words at either end of 60 set two prompts 0.7 apart from what lies between and 0.5 from each other.
    for seed in range(200):
        middle = text(500 + seed, 60)
        left, right = changed(middle, 0, 1, 2, 3, 4, 5), changed(middle, 54, 55, 56, 57, 58, 59)
        if (place(left) < 0.5) != (place(right) < 0.5):
            break
    rows = [pair(left, "1", id="left"), pair(right, "2", id="right"), pair(middle, "3", id="middle")]
    made = bench.curate(bench.source("a", rows), **HALVES)
    assert made.fates() == {"middle": "bridges_splits"}
    assert made.accounts[0].bridges_splits == 1
    without = bench.curate(bench.source("a", [rows[0], rows[2]]), **HALVES)
    assert without.fates() == {}


def test_new_comparisons_never_move_demonstrations(bench: Bench) -> None:
    chance = random.Random(3)
    asks = [text(number) for number in range(40)]
    demonstrations = bench.source("d", [pair(ask, text(1000 + n), id=f"d{n}") for n, ask in enumerate(asks)])
    prompts = bench.source("p", [{"id": f"p{n}", "prompt": text(200 + n)} for n in range(20)], PROMPTS)
    before = bench.curate(demonstrations, prompts, test_fraction=0.3, validation_fraction=0.2)
    near = [changed(chance.choice(asks), chance.randrange(40)) for _ in range(60)]
    holding = [f"{text(5000 + n)} {chance.choice(asks)} {text(6000 + n)}" for n in range(20)]
    more = [versus(ask, text(2000 + n), text(3000 + n)) for n, ask in enumerate([*near, *asks, *holding])]
    after = bench.curate(
        demonstrations, prompts, bench.source("c", more, COMPARISONS), test_fraction=0.3, validation_fraction=0.2
    )
    parts = {name: digest for name, digest in after.curated.parts.items() if not name.startswith("comparisons")}
    assert parts == before.curated.parts
    assert sum(after.counts["tables"]["comparisons"].values()) > 40
    sides = {row.id: split for split in SPLITS for row in after.rows(DEMONSTRATIONS, split)}
    for split in SPLITS:
        for row in after.rows(COMPARISONS, split):
            if (ask := row.prompt[0]["content"]) in asks:
                assert sides[f"d{asks.index(ask)}"] == split


def test_near_prompts_share_a_fold_and_folds_are_even(bench: Bench) -> None:
    rows = [versus(text(n), text(1000 + n), text(2000 + n), id=f"c{n}") for n in range(200)]
    rows += [versus(changed(text(n), 5), text(3000 + n), text(4000 + n), id=f"n{n}") for n in range(200)]
    # A chain: each is near to the next, the ends are not near to each other.
    links = [changed(text(9000), *range(0, 3 * step, 3)) for step in range(8)]
    rows += [versus(ask, text(5000 + n), text(6000 + n), id=f"chain{n}") for n, ask in enumerate(links)]
    made = bench.curate(bench.source("c", rows, COMPARISONS), test_fraction=0.0, validation_fraction=0.0)
    folds = {row.id: row.fold for row in made.rows(COMPARISONS, "train")}
    assert len(folds) == 408
    assert all(folds[f"c{n}"] == folds[f"n{n}"] for n in range(200))
    assert len({folds[f"chain{n}"] for n in range(8)}) == 1
    # 200 independent prompts in five folds: 40 each, with a standard deviation of 5.7.
    sizes = [sum(folds[f"c{n}"] == fold for n in range(200)) for fold in range(5)]
    assert all(17 < size < 63 for size in sizes)
    assert sum(made.counts["folds"].values()) == 408


def test_labels_are_further_sources(bench: Bench, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    common = {"source": "desk/votes", "licence": "MIT"}

    def row(name: str, ask: str) -> Comparison:
        turns = [[{"role": role, "content": said}] for role, said in
                 (("user", ask), ("assistant", "Yes."), ("assistant", "No."))]  # fmt: skip
        return Comparison(
            id=name, prompt=turns[0], chosen=turns[1], rejected=turns[2], confidence=0.75, num_votes=4, tie=0.125,
            margin=1.5, **common,
        )  # fmt: skip

    answer = [{"role": "assistant", "content": "So."}]
    told = Demonstration(id="told", prompt=[{"role": "user", "content": "Why?"}], completion=answer, **common)
    write_table(labels, "comparisons", "auto", [row("vote", "Is it?"), row("leaked", "Is that so?")])
    write_table(labels, "comparisons", "test", [row("held", "is that so")])
    write_table(labels, "demonstrations", "auto", [told])
    made = bench.curate(
        bench.source("d", [pair("A", id="a")]), labels=labels, test_fraction=0.0, validation_fraction=0.0
    )
    assert [account.source for account in made.accounts] == [
        "labels/comparisons/test", "desk/d", "labels/demonstrations/auto", "labels/comparisons/auto",
    ]  # fmt: skip
    assert [row.id for row in made.rows(DEMONSTRATIONS, "train")] == ["a", "told"]
    (vote,) = made.rows(COMPARISONS, "train")
    assert (vote.id, vote.confidence, vote.num_votes, vote.tie, vote.margin) == ("vote", 0.75, 4, 0.125, 1.5)
    assert vote.fold in range(5)
    assert made.fates() == {"leaked": "leak"}
    assert made.counts["licences"] == {"MIT": 3, "none": 1}


def test_rows_that_are_alone_are_placed_as_if_one_by_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"test_fraction": 0.2, "validation_fraction": 0.2}
    at_once = bench.curate(*everything(bench), **config)
    found = []
    find_alone = Placing._find_alone

    def find_none(placing: Placing) -> np.ndarray:
        found.append(find_alone(placing))
        return np.zeros_like(found[0])

    monkeypatch.setattr(Placing, "_find_alone", find_none)
    bench.bad = []
    one_by_one = bench.curate(*everything(bench), **config)
    assert (told(one_by_one), digests(one_by_one)) == (told(at_once), digests(at_once))
    assert 100 < found[0].sum() < len(found[0]) - 100  # else the case would show nothing


def test_protected_rows_are_kept_as_they_were_published(bench: Bench) -> None:
    ask, reply = text(1), text(2)
    rows = [pair(ask, reply, id="first"), pair(changed(ask, 3), reply, id="near")]
    made = bench.curate(bench.source("t", rows, split=SourceSplit.test))
    assert [row.id for row in made.rows(DEMONSTRATIONS, "test")] == ["first", "near"]
