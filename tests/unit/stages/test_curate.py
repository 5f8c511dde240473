"""The stage `curate` as it runs: real job, sealed data set, the same bytes each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.store import Artifact, Store
from pipeline.config.data import CurateConfig, DataConfig, SourceConfig, SourceSplit, TableName
from pipeline.config.paths import project_folder
from pipeline.config.shared import RuntimeConfig, TrackingConfig, TrackingMode
from pipeline.data.rows import Demonstration, Prompt
from pipeline.data.tables import read_table, rows_digest
from pipeline.errors import DataError
from pipeline.stages.curate import curate
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

FINGERPRINT = "c" * 64


def seal(outputs: Path, data: DataConfig, config: CurateConfig) -> Artifact:
    """Run the stage as a job does and seal what it wrote."""
    store = Store(outputs)
    work = store.work("curate", FINGERPRINT)
    tracking = TrackingConfig(mode=TrackingMode.disabled)
    with TrackingSession(tracking, outputs, outputs / "runs" / "test", {}) as session:
        run = session.start(stage="curate", name="curate", fingerprint=FINGERPRINT, work=work, inputs={})
        job = StageJob(
            sections={DataConfig: data, CurateConfig: config},
            inputs={},
            run=run,
            work=work,
            runtime=RuntimeConfig(outputs=str(outputs)),
        )
        outcome = curate(job)
    return store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint=FINGERPRINT, parents=[], config={},
        outcome=outcome,
    )  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    rows: list[Any] = [{"id": f"d{n}", "prompt": f"Question {n}?", "completion": f"Reply {n}."} for n in range(60)]
    lines = [json.dumps(row) for row in rows]
    lines.insert(7, '{"id": "bad", "prompt": "a", "prompt": "b"}')
    (tmp_path / "demonstrations.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "tests.jsonl").write_text('{"id": "t", "prompt": "Question 3?"}\n', encoding="utf-8")
    return DataConfig(
        name="desk",
        sources=[
            SourceConfig(table=TableName.demonstrations, path=str(tmp_path / "demonstrations.jsonl"), licence="MIT"),
            SourceConfig(table=TableName.prompts, path=str(tmp_path / "tests.jsonl"), split=SourceSplit.test),
        ],
    )


def test_a_data_set_is_sealed_with_its_counts_and_its_quarantine(
    tmp_path: Path, data: DataConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = seal(tmp_path / "outputs", data, CurateConfig())
    counts = json.loads(artifact.file("counts.json").read_text(encoding="utf-8"))
    assert artifact.manifest.metrics == counts
    account = counts["sources"][1]
    assert account["source"] == "desk/demonstrations"
    assert account["quarantined"] == {"E_DUPKEY": 1}
    assert account["read"] == 61 == account["accepted"] + account["leaks"] + 1
    (entry,) = map(json.loads, artifact.file("quarantine.jsonl").read_text(encoding="utf-8").splitlines())
    assert (entry["line"], entry["reason"]) == (8, "E_DUPKEY")
    assert Path(entry["path"]).read_bytes()[entry["offset"] :].startswith(b'{"id": "bad"')

    sizes = counts["tables"]["demonstrations"]
    assert sum(sizes.values()) == account["accepted"]
    expected = {f"demonstrations/{split}" for split, size in sizes.items() if size}
    expected |= {f"prompts/{split}" for split in ("train", "validation") if sizes[split]} | {"prompts/test"}
    assert artifact.manifest.parts.keys() == expected
    rows = read_table(artifact, "demonstrations", "train", Demonstration)
    assert artifact.manifest.parts["demonstrations/train"] == rows_digest(rows)
    assert {row.licence for row in rows} == {"MIT"}
    assert [row.id for row in read_table(artifact, "prompts", "test", Prompt)] == ["t"]
    printed = capsys.readouterr()
    assert "61 read = " in printed.out + printed.err


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, data: DataConfig) -> None:
    first, second = (seal(tmp_path / name, data, CurateConfig()) for name in ("one", "two"))
    assert first.id == second.id
    assert first.manifest.files == second.manifest.files
    other = seal(tmp_path / "three", data, CurateConfig(seed=1))
    assert other.manifest.parts != first.manifest.parts


def test_a_run_that_stops_shows_its_bad_rows(tmp_path: Path, data: DataConfig) -> None:
    with pytest.raises(DataError, match=r"demonstrations\.jsonl:8  E_DUPKEY"):
        seal(tmp_path / "outputs", data, CurateConfig(max_quarantined_fraction=0.0))
    (kept,) = (tmp_path / "outputs" / "work").rglob("quarantine.jsonl")
    assert json.loads(kept.read_text(encoding="utf-8"))["line"] == 8


def test_the_embedded_data_is_clean(tmp_path: Path) -> None:
    folder = project_folder() / "data" / "helpdesk"
    sources = [
        SourceConfig(table=TableName.demonstrations, path=str(folder / "demonstrations.jsonl")),
        SourceConfig(table=TableName.prompts, path=str(folder / "test_prompts.jsonl"), split=SourceSplit.test),
    ]
    artifact = seal(tmp_path / "outputs", DataConfig(name="helpdesk", sources=sources), CurateConfig())
    for account in artifact.manifest.metrics["sources"]:
        assert account["accepted"] == account["read"] > 0
