"""The tables of a report for the tracking server: every cell is a plain value, and intervals are columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import made_report

from pipeline.stages.report_tables import log_tables
from pipeline.tracking.run import Run


class Tables:
    """Stands in for the record of a run."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, Any]]] = {}

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.found[name] = [dict(zip(columns, row, strict=True)) for row in rows]


def test_every_section_is_a_table_of_plain_values() -> None:
    report = made_report.report()
    for judge in report["judges"]:
        judge["card"].pop("cost_per_thousand", None)  # the made card has a bare number there
    around = {"estimate": -0.01, "low": -0.04, "high": 0.02, "n": 160, "method": "x"}
    report["costs"] = {
        "policy": "ppo", "suite": "house_style", "reference": "fp32",
        "variants": [
            {"name": "fp32", "error": None, "difference": None, "changed_answers": None, "flips": None},
            {"name": "int8", "error": None, "difference": around, "changed_answers": around, "flips": around},
        ],
    }  # fmt: skip
    tables = Tables()
    log_tables(cast(Run, tables), report)
    cells = [cell for rows in tables.found.values() for row in rows for cell in row.values()]
    assert all(cell is None or isinstance(cell, str | int | float | bool) for cell in cells)
    (one,) = [row for row in tables.found["win_rates"] if (row["judge"], row["policy"], row["opponent"]) ==
              ("panel", "sft", "base")]  # fmt: skip
    (held,) = [row for row in report["win_rates"] if (row["judge"], row["policy"], row["opponent"]) ==
               ("panel", "sft", "base")]  # fmt: skip
    assert (one["estimate"], one["low"], one["high"]) == (held["estimate"], held["low"], held["high"])
    assert one["consistency_low"] < one["consistency"] == held["consistency"]["estimate"] < one["consistency_high"]
    assert len(tables.found["win_rates"]) == len(report["win_rates"])
    assert [row["policy"] for row in tables.found["rankings"][:4]] == ["ppo", "dpo", "sft", "base"]
    kappa = {row["judge"]: row["estimate"] for row in tables.found["judges"] if row["measure"] == "kappa"}
    assert kappa == {"panel": 0.61, "small_llm": 0.14}
    assert [(row["variant"], row["difference"], row["difference_low"]) for row in tables.found["variants"]] == [
        ("fp32", None, None), ("int8", -0.01, -0.04),
    ]  # fmt: skip
