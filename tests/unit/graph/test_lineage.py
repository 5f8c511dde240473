"""Which folders are invocations."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts.store import Store
from pipeline.graph.lineage import run_folders, run_folders_below


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_what_the_tracking_client_writes_into_a_run_is_no_run(tmp_path: Path) -> None:
    runs = tmp_path / "wandb" / "outputs" / "runs"  # a home of that name hides nothing
    touch(runs / "b_sft_0" / "artifacts.json")
    touch(runs / "a_sft_sweep" / "a_sft_sweep_0" / "config.yaml")
    for client in ("run-20261128_170311-abc", "offline-run-20261128_170311-def"):
        touch(runs / "b_sft_0" / "wandb" / client / "files" / "config.yaml")
    expected = [runs / "a_sft_sweep" / "a_sft_sweep_0", runs / "b_sft_0"]
    assert run_folders(Store(runs.parent)) == run_folders_below(runs) == expected
    assert run_folders_below(tmp_path) == []
    assert run_folders(Store(tmp_path)) == []
