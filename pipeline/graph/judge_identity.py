"""What a node of a judge depends on: its configuration, the files that it goes by, and the code that it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.evaluation import SuiteConfig
from pipeline.config.judges import JudgeConfig
from pipeline.config.paths import find_file
from pipeline.evaluation.judges.protocol import Judge
from pipeline.evaluation.judges.registry import files_read, is_from_plugin
from pipeline.graph.fingerprint import result_config
from pipeline.graph.spec import SAMPLING_LIBRARIES, StageSpec

LOCATIONS = ("source", "id", "revision", "chat_template")  # of a judge's model: its digests stand for them


def identity_of(judge: JudgeConfig) -> dict[str, Any]:
    """Return what of a judge's configuration its verdicts depend on; files count by what they hold."""
    files = set(files_read(judge))
    located = {key for key, value in judge.params.items() if isinstance(value, str | Path) and _is_one(value, files)}
    params = {key: value for key, value in judge.params.items() if key not in located}
    model = None if judge.model is None else {
        key: value for key, value in vars(judge.model).items() if key not in LOCATIONS
    }  # fmt: skip
    return {
        "kind": judge.kind,
        "params": params,
        "members": list(judge.members),
        "question": judge.question,
        "seed": judge.seed,
        "batch_size": judge.batch_size,
        "model": model,
        "endpoint": None if judge.endpoint is None else result_config(judge.endpoint),
    }


def _is_one(value: str | Path, files: Collection[Path]) -> bool:
    return bool(files) and find_file(str(value)).resolve() in files


def files_of(judge: JudgeConfig) -> dict[str, str]:
    """Return the files that a judge goes by, whose contents are part of what it says."""
    return {f"judge file {number}": str(path) for number, path in enumerate(files_read(judge))}


def stage_of(spec: StageSpec, config: JudgeConfig, judge: Judge) -> StageSpec:
    """Return the stage as this judge runs it: what it loads, and whose code."""
    loads = judge.loads_model
    return replace(
        spec,
        uses_base=loads,
        libraries=(*spec.libraries, *SAMPLING_LIBRARIES) if loads else spec.libraries,
        runs_checks=judge.checks is None or bool(judge.checks) or is_from_plugin(config),
    )


def with_checks(suite: SuiteConfig, judge: Judge) -> dict[str, SuiteConfig]:
    """Return the suite with the checks that the judge goes by, whose files and plugins are part of its verdicts."""
    return {suite.name: suite if judge.checks is None else replace(suite, checks=list(judge.checks))}


def checks_identity(suite: SuiteConfig, judge: Judge) -> dict[str, Any]:
    """Return what of the suite a judge goes by that names no checks of its own."""
    return {"checks": suite.checks} if judge.checks is None else {}


def member_label(params: Mapping[str, Any]) -> str:
    """Return how a panel names what one of its members says."""
    return "-".join([params["judge"], *params.get("policies", [params.get("suite") or ""])])
