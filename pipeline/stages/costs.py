"""What answering costs: one policy, run in several ways on the same items, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from pipeline.artifacts.artifact import COSTS_FILE
from pipeline.artifacts.base_model import PROJECT_ROOT
from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file, sha256_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.costs import CostsConfig, VariantConfig
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.shared import ModelConfig
from pipeline.data.encode import load_chat
from pipeline.errors import ModelError
from pipeline.evaluation.variants import TIMES_FILE, VARIANTS_FILE, compare_variants, summarise_times
from pipeline.models.cost_probe import probe_job
from pipeline.models.loading import ADAPTER_FOLDER
from pipeline.runtime.signals import StopRequest
from pipeline.stages.items import Item, Result, encoder, load_items, sample_row
from pipeline.stages.partial import append_partial, read_partial
from pipeline.tracking.job import StageJob

SHOWN_LINES = 3  # of what a process that failed has said


def measure_costs(job: StageJob) -> StageOutcome:
    """Answer the suite's first items in every way and seal what changed, with the times beside it.

    Answers are part of the content and times are not: the same variants give the same bytes, on a machine that is as
    fast or not.

    Raises:
        ModelError: The first variant, which the others are compared with, cannot be run.
    """
    suite, costs = cast(SuiteConfig, job.params["suite"]), cast(CostsConfig, job.params["costs"])
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    items = [
        item for item in load_items(job, suite, encoder(suite, chat, job.base.context_length)) if not item.unscored
    ]
    policy = job.one("policy")
    adapter = job.adapter if policy is None else policy.path / ADAPTER_FOLDER
    variants = [variant for variant in costs.variants if adapter is not None or variant.int8 or not variant.merged]
    measured = read_partial(job)
    with StopRequest() as stop:
        for number, variant in enumerate(variants, start=1):
            if variant.name not in measured:
                measured[variant.name] = {"id": variant.name, **_run(job, suite, adapter, variant, items)}
                append_partial(job, [measured[variant.name]])
            job.run.progress(len(variants), number)
            if stop.signal_number is not None and number < len(variants):
                raise stop.interrupted(f"stopped after variant {number} of {len(variants)}, which is saved")
    return _seal(job, suite, costs, variants, items, measured)


def _seal(
    job: StageJob,
    suite: SuiteConfig,
    costs: CostsConfig,
    variants: Sequence[VariantConfig],
    items: Sequence[Item],
    measured: dict[str, Result],
) -> StageOutcome:
    """Write what changed, and the times, into files of their own."""
    reference = measured[variants[0].name]
    if reference["error"] is not None:
        raise ModelError(f"The variant {variants[0].name!r}, the reference of the others, fails: {reference['error']}")
    rows = {
        variant.name: [
            sample_row(suite, item, answer)
            for item, answer in zip(items, measured[variant.name]["answers"], strict=True)
        ]
        for variant in variants
        if measured[variant.name]["error"] is None
    }
    compared = compare_variants(rows, suite, job.params["confidence"])
    described = [
        {
            **{key: str(value) if key == "dtype" else value for key, value in asdict(variant).items()},
            "items": len(items),
            "error": measured[variant.name]["error"],
            **compared.get(variant.name, {"difference": None, "changed_answers": None, "flips": None}),
        }
        for variant in variants
    ]
    content = {
        "suite": suite.name,
        "policy": job.params["policy_name"],
        "reference": variants[0].name,
        "metric": compared["metric"],
        "variants": described,
    }
    write_durably(job.staging / VARIANTS_FILE, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")
    times: list[dict[str, Any]] = [
        {"name": variant.name, **summarise_times(measured[variant.name])}
        for variant in variants
        if measured[variant.name]["error"] is None
    ]
    # Times are what this stage is for: measured again they are another result, and the page is made anew.
    write_durably(job.staging / TIMES_FILE, json.dumps(times, indent=1, sort_keys=True) + "\n")
    total = sum(float(measured[entry["name"]]["seconds"]) for entry in times)
    write_durably(job.staging / COSTS_FILE, json.dumps({"wall_seconds": round(total, 3)}) + "\n")
    failed = sum(entry["error"] is not None for entry in described)
    return StageOutcome(
        parts={"costs": sha256_json([sha256_file(job.staging / name) for name in (VARIANTS_FILE, TIMES_FILE)])},
        metrics={"items": len(items), "variants": len(variants), "failed": failed},
    )


def _run(
    job: StageJob, suite: SuiteConfig, adapter: Path | None, variant: VariantConfig, items: Sequence[Item]
) -> dict[str, Any]:
    """Measure one variant in a process of its own; one that fails says so and ends nothing."""
    asked = probe_job(
        job.base, job.section(ModelConfig), job.runtime, adapter, variant, suite.sampling,
        [item.tokens for item in items], [item.row.id for item in items],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "job.json"), Path(folder, "result.json")
        question.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", "pipeline.models.cost_probe", str(question), str(answer)]
        path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0 or not answer.is_file():
            said = " ".join(done.stderr.strip().splitlines()[-SHOWN_LINES:])[:500]
            job.run.notice(f"variant {variant.name}: not to be had here ({said})")
            return {"error": said or f"exit status {done.returncode}", "answers": []}
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    job.run.notice(f"variant {variant.name}: {len(items)} items in {result['seconds']:.1f} s")
    return {"error": None, **result}
