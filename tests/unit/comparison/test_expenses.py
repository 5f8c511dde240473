"""What two policies cost, how they learned and what they were made from, against values set by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compared_runs import samples_of, seal_policy, write_run

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import sha256_text
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Provenance, Store
from pipeline.comparison.building import build_comparison
from pipeline.comparison.selecting import choose
from pipeline.comparison.writing import csv_text

SFT_ROWS = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}]
ROWS = {
    "first": [
        {"step": 1, "loss": 0.75, "memory_gb": 2.0},
        {"step": 2, "loss": 0.5, "memory_gb": 3.5, "validation_loss": 0.625},
        {"step": 3, "loss": 0.25, "memory_gb": 3.0},
    ],
    "second": [{"step": 1, "loss": 0.875}],  # of a device that does not tell its memory
}


def seal(store: Store, kind: ArtifactKind, name: str, costs: dict[str, float]) -> Artifact:
    work = store.work(kind, sha256_text(name))
    (work.staging / "rows.txt").write_text(name, encoding="utf-8")
    (work.staging / "costs.json").write_text(json.dumps(costs), encoding="utf-8")
    return store.seal(
        work, kind=kind, stage=str(kind), version=1, fingerprint=sha256_text(name), parents=[], config={},
        outcome=StageOutcome(parts={}), provenance=Provenance(wall_seconds=7.0),
    )  # fmt: skip


@pytest.fixture
def ids(tmp_path: Path) -> dict[str, str]:
    """Two runs whose SFT has the same content under two fingerprints, and whose DPO does not."""
    store, ids = Store(tmp_path), {}
    dataset = seal(store, ArtifactKind.dataset, "rows", {})
    for number, (name, rows) in enumerate(ROWS.items()):
        sft = seal_policy(store, f"sft {name}", "sft", [dataset], rows=SFT_ROWS, seconds=100.25)
        dpo = seal_policy(store, f"dpo {name}", "dpo", [sft, dataset], rows=rows, tokens=50_000 + 20_000 * number,
                          seconds=40.5 + number)  # fmt: skip
        form, fit = samples_of("dpo", 0.5, seed=number)
        # 300 tokens in 2 s and 100 in 3 s; what is only scored writes none.
        written = {"tokens": 300, "wall_seconds": 2.0, "tokens_per_second": 150.0}
        slower = {"wall_seconds": 9.0} if number else {"tokens": 100, "wall_seconds": 3.0, "tokens_per_second": 33.3}
        samples = [
            *samples_of("sft", 0.5),
            replace(form, artifact=seal(store, ArtifactKind.samples, f"form {name}", written).id),
            replace(fit, artifact=seal(store, ArtifactKind.samples, f"fit {name}", slower).id),
        ]
        write_run(tmp_path, name, samples, artifacts={"dpo": dpo.id}, dataset=dataset.id)
        ids |= {f"sft {name}": sft.id, f"dpo {name}": dpo.id}
    return ids


def compared(tmp_path: Path) -> dict[str, Any]:
    return build_comparison(choose(["first", "second"], tmp_path))


def test_costs_are_those_that_the_stages_recorded(tmp_path: Path, ids: dict[str, str]) -> None:
    """All training behind a policy is its SFT and its own stage; the data set and the samples are no training."""
    comparison = compared(tmp_path)
    assert comparison["costs"] == {
        "1": {"stage_seconds": 40.5, "training_seconds": 140.75, "tokens": 50_000, "peak_memory_gb": 3.5,
              "tokens_per_second": 80.0},
        "2": {"stage_seconds": 41.5, "training_seconds": 141.75, "tokens": 70_000, "tokens_per_second": 150.0},
    }  # fmt: skip
    spread = {line["number"]: line for line in csv.DictReader(io.StringIO(csv_text(comparison)))}
    assert [spread[key]["peak_memory_gb"] for key in "12"] == ["3.5", ""]
    assert float(spread["1"]["training_seconds"]) == 140.75


def test_curves_are_those_of_the_stage_that_made_the_policy(tmp_path: Path, ids: dict[str, str]) -> None:
    comparison = compared(tmp_path)
    assert comparison["curves"] == {
        "1": {"loss": [[1, 0.75], [2, 0.5], [3, 0.25]], "validation_loss": [[2, 0.625]]},
        "2": {"loss": [[1, 0.875]]},
    }
    assert comparison["stages"] == {"1": "dpo", "2": "dpo"}


def test_lineage_tells_the_same_content_from_other_content(tmp_path: Path, ids: dict[str, str]) -> None:
    lineage = compared(tmp_path)["lineage"]
    assert lineage["different"] == {
        "sft": {"ids": {"1": ids["sft first"], "2": ids["sft second"]}, "same_content": True},
        "dpo": {"ids": {"1": ids["dpo first"], "2": ids["dpo second"]}, "same_content": False},
    }
    assert set(lineage["same"]) == {"base", "dataset"}
    assert lineage["sentence"] == "They have the same base model and the same data set."


def test_what_was_deleted_is_left_out(tmp_path: Path, ids: dict[str, str]) -> None:
    sft, dpo = (tmp_path / "artifacts" / ids[f"{stage} first"] for stage in ("sft", "dpo"))
    sft.rename(tmp_path / "sft")
    assert compared(tmp_path)["costs"]["1"]["training_seconds"] == 40.5
    dpo.rename(tmp_path / "dpo")
    comparison = compared(tmp_path)
    assert set(comparison["costs"]) == set(comparison["curves"]) == {"2"}
    assert comparison["lineage"]["same"]["dpo"] == ids["dpo second"]
