from __future__ import annotations

from typing import Any

import pytest
from help_desk import FORM, GOOD, LONG, PLAIN, generated

from pipeline.evaluation.variants import compare_variants, cost_per_1000, percentile, summarise_passes, summarise_times


def test_what_a_variant_changes_is_counted_item_by_item() -> None:
    # GOOD passes every check of the suite, PLAIN and LONG fail one.
    reference = [generated("a", GOOD), generated("b", GOOD), generated("c", PLAIN), generated("d", PLAIN)]
    swapped = [generated("a", PLAIN), generated("b", GOOD), generated("c", GOOD), generated("d", LONG)]
    worse = [generated("a", PLAIN), generated("b", LONG), generated("c", PLAIN), generated("d", PLAIN)]
    found = compare_variants({"fp32": reference, "int8": swapped, "bf16": worse, "same": reference}, FORM, 0.95)
    assert found["metric"] == "all_checks"
    # One item won and one lost: the mean does not move, and the flips show it.
    assert found["int8"]["difference"]["estimate"] == 0
    assert found["int8"]["flips"]["estimate"] == 0.5
    assert found["int8"]["changed_answers"]["estimate"] == 0.75
    assert found["bf16"]["difference"]["estimate"] == -0.5
    assert found["bf16"]["flips"]["estimate"] == found["bf16"]["changed_answers"]["estimate"] == 0.5
    assert found["same"]["flips"]["estimate"] == found["same"]["changed_answers"]["estimate"] == 0
    assert found["same"]["flips"]["high"] > 0.2  # four items rule out little
    assert "fp32" not in found


def test_times_are_summarised_by_hand_worked_numbers() -> None:
    measured = {
        "seconds": 5.0,
        "latency_seconds": [4.0, 1.0, 3.0, 2.0],
        "first_token_seconds": [0.5, 0.1, 0.3, 0.2],
        "peak_memory_bytes": 7,
        "loading_peak_bytes": 9,
        "answers": [{"num_tokens": 10}, {"num_tokens": 20}, {"num_tokens": 5}, {"num_tokens": 15}],
    }
    assert summarise_times(measured) == {
        "first_token_seconds": 0.2,
        "tokens_per_second": 10.0,
        "latency_p50": 2.0,
        "latency_p95": 4.0,
        "peak_memory_bytes": 7,
        "loading_peak_bytes": 9,
        "seconds_per_1000": 1250.0,
        "wall_seconds": 5.0,
    }
    assert cost_per_1000(1250.0, 2.88) == pytest.approx(1.0)  # 1,250 of 3,600 seconds


def test_of_several_passes_the_median_counts_and_the_range_is_kept() -> None:
    def one(seconds: float, memory: int | None) -> dict[str, Any]:
        return {
            "seconds": seconds, "latency_seconds": [seconds / 2, seconds], "first_token_seconds": [seconds / 10] * 2,
            "peak_memory_bytes": memory, "loading_peak_bytes": 9, "answers": [{"num_tokens": 6}, {"num_tokens": 6}],
        }  # fmt: skip

    found = summarise_passes([one(2.0, 70), one(8.0, 50), one(3.0, 60)])  # one pass met a busy machine
    assert (found["passes"], found["wall_seconds"], found["seconds_per_1000"]) == (3, 3.0, 1500.0)
    assert (found["tokens_per_second"], found["peak_memory_bytes"]) == (4.0, 60)
    assert found["ranges"]["seconds_per_1000"] == [1000.0, 4000.0]
    assert found["ranges"]["tokens_per_second"] == [1.5, 6.0]
    unknown = summarise_passes([one(2.0, None)])
    assert unknown["peak_memory_bytes"] is None
    assert "peak_memory_bytes" not in unknown["ranges"]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.05, 1), (0.5, 10), (0.95, 19), (0.951, 20), (1.0, 20)])
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 21)], share) == expected
