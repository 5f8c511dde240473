"""A task of lm-evaluation-harness on a policy, sealed item by item like our own suites.

lm-eval runs as it would by itself, on our model: its requests, its few-shot examples, its filters and metrics. What is
sealed are its scores per item, so that intervals, pairing and the report are the same as everywhere.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_file
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.evaluation import SuiteConfig
from pipeline.config.paths import find_file
from pipeline.config.shared import ModelConfig
from pipeline.config.suggestions import near_miss
from pipeline.data.encode import load_chat
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.samples import SAMPLES_FILE, ScoredSample, write_samples
from pipeline.runtime.device import choose_device
from pipeline.runtime.memory import peak_memory_bytes
from pipeline.stages.samples import foreign_policy, load_evaluated
from pipeline.stages.training import resolve_dtype
from pipeline.tracking.job import StageJob

NO_FILTER = "none"  # what lm-eval calls a metric without a filter of its own


def run_benchmark(job: StageJob) -> StageOutcome:
    """Run the suite's task on a policy. An interrupted run begins again: lm-eval keeps nothing on the way.

    Raises:
        ConfigError: lm-eval is not installed, or knows no such task.
        DataError: The task's data is not there, or it scores nothing item by item.
    """
    suite = cast(SuiteConfig, job.params["suite"])
    tasks = _tasks(suite)
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    device = choose_device(job.runtime)
    dtype = resolve_dtype(job, device)
    model = load_evaluated(job, dtype)
    started = time.perf_counter()
    results = evaluate_task(
        model.eval(), chat.tokenizer, suite, tasks, device=str(device), max_length=job.base.context_length
    )
    seconds = time.perf_counter() - started
    rows = scored_samples(results, suite)
    write_samples(job.staging / SAMPLES_FILE, rows)
    costs = {
        "wall_seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory_bytes(device.type),
        "device": str(device),
        "batch_size": suite.batch_size,
    }
    write_durably(job.staging / "costs.json", json.dumps(costs, indent=1, sort_keys=True) + "\n")
    versions = {name: str(version) for name, version in sorted(results["versions"].items())}
    job.run.notice(f"{suite.name}: {len(rows)} items of {', '.join(f'{n} {v}' for n, v in versions.items())} (lm-eval)")
    return StageOutcome(
        parts={"samples": sha256_file(job.staging / SAMPLES_FILE), "tokenizer": job.base.tokenizer_digest},
        metrics={"items": len(rows), "unscored": 0},
        resolved={"dtype": dtype.value, **foreign_policy(job)},
    )


def evaluate_task(
    model: Any, tokenizer: Any, suite: SuiteConfig, tasks: Any, *, device: str, max_length: int
) -> dict[str, Any]:
    """Let lm-eval run the suite's task with its own defaults, seeds included, and return what it returns.

    Raises:
        DataError: The task's data cannot be loaded, or the task wants to run code of the model.
    """
    import datasets
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    with _quiet():
        wrapped = HFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=suite.batch_size, device=device, max_length=max_length
        )
        try:
            results = lm_eval.simple_evaluate(
                wrapped, tasks=[suite.task], task_manager=tasks, num_fewshot=suite.num_fewshot, limit=suite.limit,
                apply_chat_template=suite.chat_template, log_samples=True, bootstrap_iters=0,
            )  # fmt: skip
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            offline = " The hub is off limits here: HF_HUB_OFFLINE is set." if datasets.config.HF_HUB_OFFLINE else ""
            raise DataError(
                f"suite {suite.name}: lm-eval cannot run the task {suite.task}: {error}.{offline} Its data must be in "
                "the cache of `datasets`, or in files beside a task of one's own (`task_folder`)."
            ) from error
    _require_data_inside(results["configs"], suite)
    return cast(dict[str, Any], results)


def scored_samples(results: Mapping[str, Any], suite: SuiteConfig) -> list[ScoredSample]:
    """Return one sample per item of every task: its scores, with the filter in a metric's name where there is one.

    Raises:
        DataError: No metric has a number for each item, as of one that exists only for all items together.
    """
    samples: list[ScoredSample] = []
    for task, entries in sorted(results["samples"].items()):
        by_item: dict[int, list[Mapping[str, Any]]] = {}
        for entry in entries:
            by_item.setdefault(int(entry["doc_id"]), []).append(entry)
        better = results["higher_is_better"].get(task, {})
        for number, found in sorted(by_item.items()):
            scores = {name: score for entry in found for name, score in _scores(entry)}
            if not scores:
                listed = ", ".join(found[0]["metrics"])
                raise DataError(
                    f"suite {suite.name}: {task} scores no single item ({listed} exists only for all together), "
                    "so policies cannot be compared item by item. Choose a task with such a metric, as acc."
                )
            lower = [name for name in scores if better.get(name.split("/")[0]) is False]
            samples.append(_sample(task, number, found[0], scores, lower))
    if not samples:
        raise DataError(f"suite {suite.name}: the task {suite.task} has no items.")
    return samples


def _scores(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers that one filter gives an item."""
    suffix = "" if entry["filter"] == NO_FILTER else f"/{entry['filter']}"
    for metric in entry["metrics"]:
        value = entry[metric]
        if isinstance(value, bool | int | float) and math.isfinite(value):
            yield f"{metric}{suffix}", float(value)


def _sample(
    task: str, number: int, entry: Mapping[str, Any], scores: dict[str, float], lower: list[str]
) -> ScoredSample:
    context = str(entry["arguments"][0][0])
    answer: Any = entry["filtered_resps"]
    while isinstance(answer, list | tuple) and answer and not isinstance(answer[0], float | bool):
        answer = answer[0]
    return ScoredSample(
        id=f"{task}/{number:07d}",
        cluster=str(entry["doc_hash"]),
        prompt=[{"role": "user", "content": context}],
        reference=str(entry["target"]),
        topic=task,
        completion=answer if isinstance(answer, str) else "",
        scores=dict(sorted(scores.items())),
        lower_is_better=sorted(lower),
    )


def _tasks(suite: SuiteConfig) -> Any:
    """Return lm-eval's list of tasks, which has the suite's.

    Raises:
        ConfigError: lm-eval is not installed, or knows no such task.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"suite {suite.name}: its kind lm_eval needs lm-eval: pip install finetune-pipeline[lm-eval]"
        ) from error
    folder = None if suite.task_folder is None else str(find_file(suite.task_folder).resolve())
    with _quiet():
        tasks = TaskManager(include_path=folder, include_defaults=folder is None)
    if suite.task not in tasks.all_tasks:
        where = f"{suite.task_folder} defines" if folder else "lm-eval has"
        raise ConfigError(
            f"suite {suite.name}: {where} no task `{suite.task}`.{near_miss(str(suite.task), tasks.all_tasks)}"
        )
    return tasks


def _require_data_inside(configs: Mapping[str, Any], suite: SuiteConfig) -> None:
    """Refuse data files outside of the task's folder: a change of theirs would not be seen."""
    if suite.task_folder is None:
        return
    folder = find_file(suite.task_folder).resolve()
    for config in configs.values():
        named = (config.get("dataset_kwargs") or {}).get("data_files", [])
        groups: Sequence[Any] = list(named.values()) if isinstance(named, dict) else [named]
        files = [file for group in groups for file in (group if isinstance(group, list) else [group])]
        for file in files:
            if not Path(file).resolve().is_relative_to(folder):
                raise DataError(
                    f"suite {suite.name}: its task reads {file}, outside of {suite.task_folder}. Put the file there: "
                    "only what lies in that folder is known to be the same when results are used again."
                )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval from writing about what is as it should be, such as a model that is loaded already."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
