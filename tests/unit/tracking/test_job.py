"""What a stage function is given, and what it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracked_runs import Invocation

from pipeline.config.shared import RuntimeConfig, TrackingMode
from pipeline.config.stages import SFTConfig
from pipeline.tracking.job import StageJob


def test_a_job_hands_out_what_was_declared_and_nothing_else(tmp_path: Path) -> None:
    with Invocation(tmp_path, "first", TrackingMode.disabled) as invocation:
        _, dataset = invocation.stage_run("curate", "a")
        run = invocation.start("sft", "b" * 64, [dataset])
        job = StageJob(
            sections={SFTConfig: SFTConfig(seed=5)}, inputs={"dataset": [dataset], "samples": [dataset, dataset]},
            run=run, work=invocation.work, runtime=RuntimeConfig(),
        )  # fmt: skip
        assert job.section(SFTConfig).seed == 5
        with pytest.raises(KeyError, match="declared: SFTConfig"):
            job.section(RuntimeConfig)
        with pytest.raises(KeyError, match="uses_base"):
            _ = job.base
        assert job.one("dataset") is dataset
        assert job.one("policy") is None
        with pytest.raises(KeyError, match="holds 2"):
            job.one("samples")
        assert job.staging == invocation.work.staging


def test_disabled_keeps_the_record_and_nothing_else(tmp_path: Path) -> None:
    with Invocation(tmp_path, "first", TrackingMode.disabled) as invocation:
        run, policy = invocation.stage_run("sft", "b", [1, 2])
    assert run.wandb_run_id is None
    assert run.facts == {"mode": "disabled"}
    assert len(policy.file("metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "runs" / "first" / "wandb").exists()


def test_notices_go_to_the_terminal_and_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Invocation(tmp_path, "first", TrackingMode.disabled) as invocation:
        run = invocation.start("sft", "b" * 64)
        run.notice("two rows were dropped")
        run.fail(RuntimeError("no memory"))
    assert capsys.readouterr().out == "two rows were dropped\n"
    logged = (tmp_path / "runs" / "first" / "run.log").read_text().splitlines()
    assert [line[21:] for line in logged] == ["two rows were dropped", "sft ended: RuntimeError: no memory"]
