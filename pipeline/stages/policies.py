"""Where a stage that trains a policy begins, and what it seals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peft import PeftModel

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.shared import DType, ModelConfig
from pipeline.config.stages import TrainingConfig
from pipeline.models.loading import add_lora, load_base, load_policy
from pipeline.stages.course import Milestones
from pipeline.stages.training import Training, course_metrics, stage_policy
from pipeline.tracking.job import StageJob


def initial_policy(job: StageJob, config: TrainingConfig, dtype: DType) -> PeftModel:
    """Return the given policy, or the base with a new adapter."""
    base = load_base(job.base, job.section(ModelConfig), job.runtime, dtype)
    given = job.one("policy")
    policy = add_lora(base, config.lora, config.seed) if given is None else load_policy(base, given, trainable=True)
    # A sealed adapter names its base without a path, and peft asks the hub about such a name at every save.
    policy.active_peft_config.base_model_name_or_path = str(job.base.folder)
    return policy


def seal_policy(
    training: Training,
    model: PeftModel,
    milestones: Milestones,
    *,
    rows: Mapping[str, dict[str, Any]],
    metrics: Callable[[int], Mapping[str, Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Sequence[Mapping[str, Any]] = (),
) -> StageOutcome:
    """Write the policy and the facts of its training into the staging folder.

    Args:
        training: Of `begin_training`.
        model: Gets the chosen checkpoint's adapter.
        milestones: Of `train`.
        rows: What became of the rows, by split.
        metrics: Gives further final numbers, from the step of the chosen checkpoint.
        facts: Further content of ``training.json``.
        warnings: What looked wrong. They are kept in the manifest: when to warn changes no policy.
    """
    attempt, dtype = training.attempt, training.dtype.value
    step, digest = stage_policy(attempt, model, keep_best=training.config.keep_best)
    final = {"policy_step": step, **course_metrics(attempt, step), **(metrics(step) if metrics else {})}
    content = {
        **final,
        "planned_steps": milestones.num_steps,
        "rows": dict(rows),
        "validations": attempt.course.validations,
        "dtype": dtype,
        **(facts or {}),
    }
    write_durably(attempt.job.staging / "training.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    told = {"warnings": [dict(warning) for warning in warnings]} if warnings else {}
    return StageOutcome(parts={"policy": digest}, metrics={**final, **told}, resolved={"dtype": dtype})
