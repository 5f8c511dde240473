"""What real public votes amount to. The numbers come from the raw files by scripts that share no code with ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.ingest import IngestConfig
from pipeline.labels.aggregation import Aggregated, aggregate
from pipeline.labels.quality import assess
from pipeline.labels.votes import Vote
from pipeline.statistics.agreement import Level, krippendorff_alpha
from tests.read_exports import Export, read_export


def together(export: Export, **config: Any) -> Aggregated:
    return aggregate(export.collected.items, export.votes, IngestConfig(**config), set_aside=())


def test_pandalm(real_data: Path) -> None:
    """993 rows of text hold 861 different pairs, 24 of them with an empty side; a repeated pair's last row counts."""
    export = read_export(real_data / "pandalm/testset-v1.json")
    report = assess(export.collected.items, export.votes, IngestConfig())
    numbers = report.as_dict()
    assert report.set_aside == {}
    assert numbers["votes"]["by_status"] == {"submitted": 2583, "superseded": 396}
    assert numbers["votes"]["ties"] == 247
    (agreement,) = numbers["agreement"]
    assert (agreement["num_units"], agreement["num_votes"]) == (861, 2583)
    # krippendorff 0.9.0 and scikit-learn 1.9.1. Which side is first is arbitrary, and moves the fourth digit.
    assert agreement["alpha_nominal"] == pytest.approx(0.8615, abs=1e-3)
    assert agreement["alpha_ordinal"] == pytest.approx(0.8758, abs=1e-3)
    assert [entry["kappa"] for entry in numbers["kappa"]] == pytest.approx([0.8481, 0.8754, 0.8611], abs=1e-3)
    assert [(card.num_repeats, card.num_same) for card in report.scorecards] == [(132, 131), (132, 131), (132, 132)]
    assert len(numbers["contradictions"]) == 1
    result = together(export)
    found = {"judged": 861, "same_pair": 0, "empty": 24, "too_few_votes": 0, "undecided": 62, "comparisons": 775}
    assert result.counts["pairs"] == found
    assert sum(entry.row.confidence == 1.0 for entry in result.comparisons) == 674
    assert len(together(export, min_votes=4).comparisons) == 0  # there are three annotators


def _better_side(vote: Vote) -> int:
    """Return the verdict as the file writes it: 1 or 2 for the response of that number, 0 for a tie."""
    assert vote.ranks is not None
    assert vote.positions is not None
    return 0 if vote.is_tie else 1 + vote.positions[vote.ranks.index(1)]


def test_alpha_of_all_999_records_of_pandalm_is_0_864(real_data: Path) -> None:
    """The known figure, 0.864, is over records as they stand: with the 6 that are refused, and with repeated pairs."""
    path = real_data / "pandalm/testset-v1.json"
    votes = read_export(path).votes
    by_record: dict[str, list[int]] = {}
    for vote in votes:
        by_record.setdefault(vote.id.rpartition(".")[0], []).append(_better_side(vote))
    assert {len(labels) for labels in by_record.values()} == {3}

    def alpha(records: list[list[int]]) -> float | None:
        units = np.repeat(np.arange(len(records)), 3)
        return krippendorff_alpha(units, np.array(records, dtype=float).ravel(), Level.nominal)

    raw = json.loads(path.read_text(encoding="utf-8"))
    is_refused = [not (isinstance(row["response1"], str) and isinstance(row["response2"], str)) for row in raw]
    refused = [
        [row[f"annotator{number}"] for number in (1, 2, 3)] for row, bad in zip(raw, is_refused, strict=True) if bad
    ]
    read = list(by_record.values())
    assert (len(read), len(refused)) == (993, 6)
    assert alpha(read) == pytest.approx(0.86783, abs=5e-6)
    assert alpha(read + refused) == pytest.approx(0.86422, abs=5e-6)


def test_the_orders_of_openassistant_are_754_comparisons(real_data: Path) -> None:
    result = together(read_export(real_data / "oasst-trees/en_100_tree.jsonl"))
    assert result.counts["pairs"]["judged"] == len(result.comparisons) == 754
    assert {(entry.row.confidence, entry.row.num_votes) for entry in result.comparisons} == {(1.0, 1)}


def test_thumbs_on_one_completion_each_compare_nothing(real_data: Path) -> None:
    result = together(read_export(real_data / "llamafactory/kto_en_demo.json"))
    assert (result.counts["votes"]["single_candidate"], len(result.comparisons)) == (300, 0)
