"""Weights and caps, and what filters leave of a source."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from curating import COMPARISONS, DEMONSTRATIONS, PROMPTS, Bench, Made, pair, text, versus

from pipeline.config.data import FilterConfig, SourceConfig, TableName
from pipeline.data.rows import Comparison
from pipeline.data.tables import rows_digest, write_table
from pipeline.errors import ConfigError

TRAIN = {"test_fraction": 0.0, "validation_fraction": 0.0}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def rows(size: int, first: int = 0) -> list[dict[str, Any]]:
    return [pair(text(n, 12), text(10_000 + n, 12), id=f"r{n}") for n in range(first, first + size)]


def train(made: Made) -> list[str]:
    return [row.id for row in made.rows(DEMONSTRATIONS, "train")]


def test_a_weight_repeats_rows_and_one_below_one_leaves_some_out(bench: Bench) -> None:
    twice = bench.source("twice", rows(40), weight=2.0)
    more = bench.source("more", rows(400, 100), weight=1.5)
    quarter = bench.source("quarter", rows(400, 1000), weight=0.25)
    made = bench.curate(twice, more, quarter, **TRAIN)
    found = train(made)
    assert len(found) == len(set(found))
    assert found[:4] == ["r0", "r0#2", "r1", "r1#2"]
    copies = sum(name.endswith("#2") for name in found) - 40
    kept = sum(int(name[1:].partition("#")[0]) >= 1000 for name in found)
    # 400 draws of 0.5 and 0.25: five standard deviations are 50 and 43.
    assert 150 < copies < 250
    assert 57 < kept < 143
    assert made.counts["mixing"] == [
        {"source": "desk/twice", "weight": 2.0, "max_rows": None, "before": 40, "after": 80},
        {"source": "desk/more", "weight": 1.5, "max_rows": None, "before": 400, "after": 400 + copies},
        {"source": "desk/quarter", "weight": 0.25, "max_rows": None, "before": 400, "after": kept},
    ]
    assert made.accounts[2].as_dict()["over_cap"] == 400 - kept == len(made.removed)
    assert set(made.fates().values()) == {"over_cap"}
    # Rows of other sources change nothing, and prompts are not repeated.
    alone = bench.curate(quarter, **TRAIN)
    assert train(alone) == [name for name in found if int(name[1:].partition("#")[0]) >= 1000]
    assert len(made.rows(PROMPTS, "train")) == 40 + 400 + kept


def test_a_cap_goes_by_hash_and_holds_for_train_rows_alone(bench: Bench) -> None:
    made = bench.curate(bench.source("a", rows(100), max_rows=30), test_fraction=0.3, validation_fraction=0.0)
    found = train(made)
    assert len(found) == 30
    assert found != [f"r{n}" for n in range(100)][:30]
    assert len(made.rows(DEMONSTRATIONS, "test")) + 30 + made.accounts[0].over_cap == 100
    turned = bench.curate(bench.source("a", rows(100)[::-1], max_rows=30), test_fraction=0.3, validation_fraction=0.0)
    assert sorted(train(turned)) == sorted(found)
    other = bench.curate(bench.source("a", rows(100), max_rows=30), seed=1, test_fraction=0.3, validation_fraction=0.0)
    assert sorted(train(other)) != sorted(found)


def test_a_cap_comes_before_a_weight(bench: Bench) -> None:
    made = bench.curate(bench.source("a", rows(1000), max_rows=400, weight=1.5), **TRAIN)
    # Capped rows have low hashes; that another hash decides on copies shows in their share.
    assert 550 < len(train(made)) < 650


def test_copies_of_comparisons_count_in_their_folds_and_licences(bench: Bench) -> None:
    own = [versus(text(n, 12), text(1000 + n, 12), text(2000 + n, 12), id=f"c{n}") for n in range(30)]
    made = bench.curate(bench.source("c", own, COMPARISONS, weight=2.0, licence="MIT"), **TRAIN)
    written = made.rows(COMPARISONS, "train")
    assert len(written) == 60
    assert made.counts["folds"] == {str(fold): n for fold, n in sorted(Counter(row.fold for row in written).items())}
    assert made.counts["licences"] == {"MIT": 60}


def test_the_weight_of_an_export_is_that_of_its_rows_among_the_labels(bench: Bench, tmp_path: Path) -> None:
    """A file of labels holds the rows of several exports, each with a cap of its own."""
    labels, turns = tmp_path / "labels", [[{"role": "assistant", "content": said}] for said in ("Yes.", "No.")]
    votes = [
        Comparison(
            id=f"{name}{number}", source=f"desk/{name}", licence=None,
            prompt=[{"role": "user", "content": text(1000 * len(name) + number, 12)}],
            chosen=turns[0], rejected=turns[1], confidence=1.0, num_votes=1,
        )
        for name in ("few", "many") for number in range(20)
    ]  # fmt: skip
    write_table(labels, "comparisons", "auto", votes)
    exports = [SourceConfig(table=TableName.exports, path="few.json", max_rows=5),
               SourceConfig(table=TableName.exports, path="many.json")]  # fmt: skip
    made = bench.curate(*exports, labels=labels, **TRAIN)
    assert Counter(row.source for row in made.rows(COMPARISONS, "train")) == {"desk/few": 5, "desk/many": 20}
    assert made.counts["mixing"] == [{"source": "desk/few", "weight": 1.0, "max_rows": 5, "before": 20, "after": 5}]


def test_the_parts_are_the_digests_of_the_rows(bench: Bench) -> None:
    made = bench.curate(bench.source("a", rows(50), weight=2.0, licence="MIT"))
    for part, digest in made.curated.parts.items():
        table, split = part.split("/")
        assert rows_digest(made.rows(TableName(table), split)) == digest
    assert sum(sum(sizes.values()) for sizes in made.counts["tables"].values()) == sum(
        len(made.rows(TableName(part.split("/")[0]), part.split("/")[1])) for part in made.curated.parts
    )


def test_filters_drop_and_change_rows_and_all_is_counted(bench: Bench) -> None:
    filters = [
        FilterConfig(name="control_tokens", params={"action": "escape"}),
        FilterConfig(name="placeholders"),
        FilterConfig(name="placeholders", tables=[PROMPTS]),
    ]
    own = [
        pair("Say <|im_end|> now", "Yes.", id="changed"),
        pair("Dear {{name}},", "Yes.", id="dropped"),
        pair("Why?", "So.", id="kept"),
        pair("Why?", "So.", id="again"),
        pair("Dear {{name}}, <|im_end|>", "Yes.", id="both"),
        pair("Behind", "the limit", id="behind"),
        pair("Dear {{name}}, also behind", "Yes.", id="also"),
    ]
    made = bench.curate(bench.source("a", own, limit=2), filters=filters, **TRAIN)
    (changed, kept) = made.rows(DEMONSTRATIONS, "train")
    assert (changed.prompt[0]["content"], kept.id) == ("Say < |im_end|> now", "kept")
    assert made.fates() == {"dropped": "filtered"}
    (entry,) = made.removed
    assert (entry["rule"], entry["line"], entry["source"]) == ("placeholders", 2, "desk/a")
    assert made.accounts[0].summary() == (
        "desk/a (demonstrations): 7 read = 2 accepted + 1 dropped by placeholders + 4 over the limit"
    )
    control, placeholders, prompts_only = made.counts["filters"]
    assert (control["kept"], control["changed"], control["dropped"]) == (3, 1, {})
    assert (placeholders["kept"], placeholders["changed"], sum(placeholders["dropped"].values())) == (2, 0, 1)
    assert (prompts_only["kept"], prompts_only["tables"]) == (0, ["prompts"])
    shown = made.curated.examples["filters"]
    assert [entry["id"] for entry in shown["placeholders"]["dropped"]] == ["dropped"]
    assert shown["control_tokens"]["changed"][0]["before"].startswith("user: Say <|im_end|> now")
    assert json.loads(json.dumps(made.curated.examples)) == made.curated.examples
    with pytest.raises(ConfigError, match=r"curate\.filters\[0\].*`placeholder`"):
        bench.curate(bench.source("a", own), filters=[FilterConfig(name="placeholder")])


def test_lengths_and_licences_are_those_of_the_rows_that_stay(bench: Bench) -> None:
    own = [pair("a" * size, "b" * 3, id=f"r{size}") for size in (1, 2, 3, 9, 100)]
    made = bench.curate(bench.source("a", own, licence="MIT"), **TRAIN)
    lengths = made.counts["lengths"]["demonstrations"]
    assert lengths["prompt"]["edges"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert lengths["prompt"]["counts"] == [1, 2, 0, 1, 0, 0, 1]
    assert (lengths["prompt"]["median"], lengths["prompt"]["max"]) == (3.0, 100)
    assert lengths["completion"] == {"edges": [2, 4], "counts": [5], "median": 3.0, "p95": 3.0, "max": 3}
    assert made.counts["licences"] == {"MIT": 5}
