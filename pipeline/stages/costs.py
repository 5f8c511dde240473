"""What answering costs: one policy, run in several ways on the same items, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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
from pipeline.evaluation.variants import TIMES_FILE, VARIANTS_FILE, compare_variants, summarise_passes
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
    done = read_partial(job)
    passes: dict[str, list[Result]] = {variant.name: [] for variant in variants}
    total = costs.passes * len(variants)
    with StopRequest() as stop:
        for number in range(costs.passes):  # in turns, so that a machine that slows down slows all of them
            if number and not time_for_another(passes, costs.max_seconds):
                job.run.notice(f"{number} of {costs.passes} passes over the items: another would end after "
                               f"evaluate.costs.max_seconds={costs.max_seconds:g}")  # fmt: skip
                break
            for place, variant in enumerate(variants, start=1):
                own = passes[variant.name]
                if own and own[0]["error"] is not None:
                    continue
                key = f"{variant.name}/{number}"
                if key not in done:
                    done[key] = {"id": key, **_run(job, suite, adapter, variant, items)}
                    append_partial(job, [done[key]])
                own.append(done[key])
                finished = number * len(variants) + place
                job.run.progress(total, finished)
                if stop.signal_number is not None and finished < total:
                    raise stop.interrupted(f"stopped after {finished} of {total} measurements, which are saved")
    return _seal(job, suite, costs, variants, items, passes)


def time_for_another(passes: Mapping[str, Sequence[Result]], max_seconds: float) -> bool:
    """Whether another pass of all variants ends in time, if it takes as long as the last one."""
    spent = sum(one["process_seconds"] for own in passes.values() for one in own)
    last = max(len(own) for own in passes.values())
    longest = sum(own[-1]["process_seconds"] for own in passes.values() if len(own) == last)
    return bool(spent + longest <= max_seconds)


def _seal(
    job: StageJob,
    suite: SuiteConfig,
    costs: CostsConfig,
    variants: Sequence[VariantConfig],
    items: Sequence[Item],
    passes: Mapping[str, Sequence[Result]],
) -> StageOutcome:
    """Write what changed, by the answers of the first pass, and the times, into files of their own."""
    measured = {name: own[0] for name, own in passes.items()}
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
        {"name": variant.name, **summarise_passes([one for one in passes[variant.name] if one["error"] is None])}
        for variant in variants
        if measured[variant.name]["error"] is None
    ]
    # Times are what this stage is for: measured again they are another result, and the page is made anew.
    write_durably(job.staging / TIMES_FILE, json.dumps(times, indent=1, sort_keys=True) + "\n")
    total = sum(float(one["seconds"]) for own in passes.values() for one in own if one["error"] is None)
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
        began = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        took = {"process_seconds": time.monotonic() - began}
        if done.returncode != 0 or not answer.is_file():
            said = " ".join(done.stderr.strip().splitlines()[-SHOWN_LINES:])[:500]
            job.run.notice(f"variant {variant.name}: not to be had here ({said})")
            return {"error": said or f"exit status {done.returncode}", "answers": [], **took}
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    job.run.notice(f"variant {variant.name}: {len(items)} items in {result['seconds']:.1f} s")
    return {"error": None, **took, **result}
