"""Sources become tables, and every row that was read is somewhere in the account."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from curating import DEMONSTRATIONS, PROMPTS, Bench, Made, pair

from pipeline.config.data import SourceConfig, SourceFormat, SourceSplit, TableName
from pipeline.data.accounts import SourceAccount
from pipeline.errors import ConfigError, DataError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ids(made: Made, table: TableName = DEMONSTRATIONS) -> dict[str, list[str]]:
    return {split: [row.id for row in made.rows(table, split)] for split in ("train", "validation", "test")}


def place(prompt: str, seed: int) -> float:
    """The first 64 bits of the hash as a fraction, worked out apart from the code under test."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()[:8], "big") / 2**64


def test_the_hash_of_the_prompt_decides_the_split_and_nothing_else_does(bench: Bench) -> None:
    rows = [pair(f"Question {number}?", id=f"r{number}") for number in range(60)]
    expected: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number in range(60):
        at = place(f"Question {number}?", 3)
        expected["test" if at < 0.2 else "validation" if at < 0.5 else "train"].append(f"r{number}")
    assert all(expected.values())  # else the case would show nothing
    config = {"seed": 3, "test_fraction": 0.2, "validation_fraction": 0.3}
    assert ids(bench.curate(bench.source("a", rows), **config)) == expected
    more = bench.curate(bench.source("a", [*rows, *(pair(f"New {n}?", id=f"n{n}") for n in range(20))]), **config)
    kept = {split: [name for name in names if name.startswith("r")] for split, names in ids(more).items()}
    assert kept == expected
    assert ids(bench.curate(bench.source("a", rows), **{**config, "seed": 4})) != expected


def test_a_prompt_never_stands_on_two_sides(bench: Bench) -> None:
    rows = [pair(f"Question {number % 25}?", f"Reply {number}") for number in range(100)]
    system = [{"role": "system", "content": "Be brief."}]
    rows += [pair(system + [{"role": "user", "content": f" Question  {n}?"}], "x") for n in range(25)]  # type: ignore[arg-type]
    curated = bench.curate(bench.source("a", rows), test_fraction=0.3, validation_fraction=0.3)
    sides = [
        {row.prompt[-1]["content"].strip().replace("  ", " ") for row in curated.rows(DEMONSTRATIONS, split)}
        for split in ("train", "validation", "test")
    ]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 25


def test_exact_duplicates_are_dropped_within_a_table_and_counted(bench: Bench) -> None:
    first = bench.source("a", [pair("A"), pair(" A "), pair("A", "Other."), pair("B")])
    second = bench.source("b", [pair("B", "So.  "), pair("C")])
    prompts = bench.source("p", [{"prompt": "A"}, {"prompt": "D"}], PROMPTS)
    bench.curate(first, second, prompts, test_fraction=0.0, validation_fraction=0.0)
    assert [account.summary() for account in bench.accounts] == [
        "desk/a (demonstrations): 4 read = 3 accepted + 1 duplicates",
        "desk/b (demonstrations): 2 read = 1 accepted + 1 duplicates",
        "desk/p (prompts): 2 read = 2 accepted",
    ]


def test_one_id_names_one_content(bench: Bench) -> None:
    rows = [pair("A", id="1"), pair("B", id="1"), pair("A", id="1"), pair("A", id="2")]
    curated = bench.curate(bench.source("a", rows), test_fraction=0.0, validation_fraction=0.0)
    assert ids(curated)["train"] == ["1"]
    assert [(entry["line"], entry["reason"]) for entry in bench.bad] == [(2, "E_ID")]
    assert curated.accounts[0].duplicates == 2


def test_a_removed_row_is_named_whatever_its_id_and_texts_hold(bench: Bench) -> None:
    names = ['say "so"', "back\\slash", '","id":"x', "ümläut", "plain"]
    rows = [pair(f'Is "id":"{n}" a key, or ,"id": {n}?', f'{{"id":"{n}"}}', id=name) for n, name in enumerate(names)]
    again = [{**row, "id": f"{row['id']} again"} for row in rows]
    made = bench.curate(bench.source("a", [*rows, *again]), test_fraction=0.0, validation_fraction=0.0)
    assert [(entry["id"], entry["of"]) for entry in made.removed] == [(f"{name} again", name) for name in names]


def test_protected_prompts_are_not_trained_on(bench: Bench) -> None:
    demonstrations = bench.source("d", [pair(f"Q{n}", id=f"d{n}") for n in range(40)])
    protected = bench.source(
        "t", [{"id": f"t{n}", "prompt": f" Q{n} "} for n in range(10)], PROMPTS, split=SourceSplit.test
    )
    config = {"test_fraction": 0.3, "validation_fraction": 0.2}
    curated = bench.curate(demonstrations, protected, **config)
    in_test = {f"d{n}" for n in range(40) if place(f"Q{n}", 0) < 0.3}
    leaks = {f"d{n}" for n in range(10)} - in_test
    assert leaks
    assert in_test & {f"d{n}" for n in range(10)}  # a test row with a protected prompt is on the right side already
    account = next(account for account in curated.accounts if account.source == "desk/d")
    assert account.leaks == len(leaks)
    assert {row for rows in ids(curated).values() for row in rows} == {f"d{n}" for n in range(40)} - leaks
    assert ids(curated, PROMPTS)["test"] == [f"t{n}" for n in range(10)]
    # The order in which sources are named does not matter.
    assert ids(bench.curate(protected, demonstrations, **config)) == ids(curated)


def test_prompts_are_those_of_the_demonstrations_where_no_source_gives_any(bench: Bench) -> None:
    rows = [pair("A", "1 #### 1", id="a1"), pair("A", "one #### 1", id="a2"), pair("B", "2 #### 2", id="b")]
    source = bench.source("d", rows, reference_after="####")
    curated = bench.curate(source, test_fraction=0.0, validation_fraction=0.0)
    found = [(row.id, row.reference, row.prompt) for row in curated.rows(PROMPTS, "train")]
    assert found == [("a1", "1", [{"role": "user", "content": "A"}]), ("b", "2", [{"role": "user", "content": "B"}])]
    assert curated.counts["prompts_from_demonstrations"] == {"taken": 2, "repeated": 1}
    own = bench.source("p", [{"id": "p", "prompt": "C"}], PROMPTS)
    curated = bench.curate(source, own, test_fraction=0.0, validation_fraction=0.0)
    assert ids(curated, PROMPTS)["train"] == ["p"]


def test_protected_prompts_are_the_whole_test_split_of_prompts(bench: Bench) -> None:
    demonstrations = bench.source("d", [pair(f"Q{n}", id=f"d{n}") for n in range(30)])
    protected = bench.source("t", [{"id": "t", "prompt": "P"}], PROMPTS, split=SourceSplit.test)
    curated = bench.curate(demonstrations, protected, test_fraction=0.3)
    assert ids(curated, PROMPTS)["test"] == ["t"]
    assert ids(curated)["test"]
    assert ids(curated, PROMPTS)["train"] == ids(curated)["train"]


def test_the_limit_keeps_the_first_accepted_rows(bench: Bench) -> None:
    rows = ["{bad", pair("A", id="a"), pair("A", id="a"), pair("B", id="b"), pair("C", id="c"), "{bad"]
    curated = bench.curate(bench.source("a", rows, limit=2), test_fraction=0.0, validation_fraction=0.0)
    assert ids(curated)["train"] == ["a", "b"]
    assert bench.accounts[0].summary() == (
        "desk/a (demonstrations): 6 read = 2 accepted + 1 E_JSON + 1 duplicates + 2 over the limit"
    )


def test_too_many_bad_rows_stop_the_run_and_the_first_five_are_named(bench: Bench) -> None:
    rows = [pair(f"Q{n}") for n in range(94)] + ["{bad"] * 6
    source = bench.source("a", rows)
    with pytest.raises(DataError) as caught:
        bench.curate(source, max_quarantined_fraction=0.05)
    message = str(caught.value)
    assert "6 of 100 rows" in message
    assert [f"a.jsonl:{line}  E_JSON" in message for line in (95, 99, 100)] == [True, True, False]
    assert len(bench.bad) == 6  # all were handed over before the run stopped
    assert bench.curate(source, max_quarantined_fraction=0.06).accounts[0].accepted == 94
    assert len(bench.bad) == 12  # of a run that goes on each is told once, too


def test_an_account_that_does_not_add_up_is_an_error() -> None:
    account = SourceAccount(source="s", path="p", table="prompts", protected=False, read=5, accepted=3, duplicates=2)
    account.close()
    account.leaks = 1
    with pytest.raises(DataError, match="5 rows were read and 6 are accounted for"):
        account.close()


@pytest.mark.parametrize("content", ["\n \n", "[]"])
def test_a_file_without_rows_is_refused(bench: Bench, content: str) -> None:
    source = bench.source("a", [content], format=SourceFormat.json if content == "[]" else SourceFormat.jsonl)
    with pytest.raises(DataError, match="holds no rows"):
        bench.curate(source)


def test_a_table_of_which_nothing_is_left_is_named(bench: Bench) -> None:
    with pytest.raises(DataError, match="No row is left in demonstrations"):
        bench.curate(bench.source("a", ["{bad"]))


def test_a_missing_file_says_what_was_tried(bench: Bench) -> None:
    with pytest.raises(DataError, match=r"data\.sources\[0\]\.path: there is no nowhere/rows\.jsonl .* were tried"):
        bench.curate(SourceConfig(table=PROMPTS, path="nowhere/rows.jsonl"))


def test_configurations_that_make_no_sense_are_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"data\.sources is empty"):
        bench.curate()
    source = bench.source("a", [pair("A")])
    with pytest.raises(ConfigError, match="nothing to train on"):
        bench.curate(source, test_fraction=0.5, validation_fraction=0.5)
    with pytest.raises(ConfigError, match=r"data\.sources\[0\]\.table: exports .* `ingest`"):
        bench.curate(SourceConfig(table=TableName.exports, path="x"))
