"""What is sealed of measured costs: answers and times are the content, what the stage took is not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.costs import CostsConfig, VariantConfig
from pipeline.config.data import TableName
from pipeline.config.evaluation import SuiteConfig, SuiteKind
from pipeline.data.rows import Message, Prompt
from pipeline.stages.costs import _seal, time_for_another
from pipeline.stages.items import Item
from pipeline.tracking.job import StageJob

SUITE = SuiteConfig(name="answers", kind=SuiteKind.generation, table=TableName.prompts)
ITEMS = [
    Item(
        row=Prompt(id=f"i{k}", source="made", licence=None, prompt=[Message(role="user", content=f"Q{k}?")]), tokens=[]
    )
    for k in range(2)
]


def seal(folder: Path, seconds: float) -> tuple[StageOutcome, Path]:
    """Seal two variants that answer alike, each in so many seconds."""
    folder.mkdir()
    answers = [{"completion": "Yes.", "finish_reason": "stop", "num_tokens": 2} for _ in ITEMS]
    passes: dict[str, list[dict[str, Any]]] = {
        name: [{
            "error": None, "answers": answers, "seconds": seconds, "latency_seconds": [seconds / 2] * 2,
            "first_token_seconds": [seconds / 4] * 2, "peak_memory_bytes": 1,
            "loading_peak_bytes": 2,
        }]
        for name in ("one", "two")
    }  # fmt: skip
    variants = [VariantConfig(name=name) for name in passes]
    job = SimpleNamespace(staging=folder, params={"confidence": 0.95, "policy_name": "base"})
    return _seal(cast(StageJob, job), SUITE, CostsConfig(variants=variants), variants, ITEMS, passes), folder


def test_other_times_are_another_result_although_the_answers_are_the_same(tmp_path: Path) -> None:
    (first, one), (same, again), (slower, other) = (
        seal(tmp_path / name, seconds) for name, seconds in (("first", 4.0), ("same", 4.0), ("slower", 8.0))
    )
    assert (one / "variants.json").read_bytes() == (other / "variants.json").read_bytes()
    assert first.parts == same.parts
    assert first.parts.keys() == {"costs"}
    assert first.parts["costs"] != slower.parts["costs"]
    assert [entry["seconds_per_1000"] for entry in json.loads((one / "times.json").read_text())] == [2000.0] * 2
    assert [entry["seconds_per_1000"] for entry in json.loads((other / "times.json").read_text())] == [4000.0] * 2
    assert json.loads((again / "costs.json").read_text()) == {"wall_seconds": 8.0}


def test_passes_end_where_another_one_would_take_too_long() -> None:
    def spent(*seconds: float) -> dict[str, list[dict[str, Any]]]:
        return {"one": [{"process_seconds": value} for value in seconds], "two": [{"process_seconds": 1.0}]}

    assert time_for_another(spent(9.0), max_seconds=20.0)  # 10 s so far, and as many again
    assert not time_for_another(spent(9.0), max_seconds=19.9)
    # `two` could not be run and is not tried again: 10 + 4 s so far, and a third pass takes 4.
    assert time_for_another(spent(9.0, 4.0), max_seconds=18.0)
    assert not time_for_another(spent(9.0, 4.0), max_seconds=17.9)
