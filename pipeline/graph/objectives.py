"""The numbers that a run is judged by, read from what it has sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifacts.artifact import METRICS_FILE, Artifact
from pipeline.config.root import Config
from pipeline.config.sweep import ObjectiveConfig, objective_place
from pipeline.errors import ConfigError
from pipeline.evaluation.summary import read_report
from pipeline.tracking.record import Record, decode_row

KEPT_STEP = ("policy_step", "best_step")  # where a manifest says at which step the sealed adapter was taken


def objective_values(config: Config, made: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return `{name, direction, value}` of each objective of the configuration.

    Args:
        config: Names the objectives.
        made: Node -> its artifact, of the run that has ended.

    Raises:
        ConfigError: A metric does not exist in what the run made; the message lists those that do.
    """
    return [_value(entry, config.stages, made) for entry in config.objective]


def _value(entry: ObjectiveConfig, stages: Sequence[str], made: Mapping[str, Artifact]) -> dict[str, Any]:
    stage, metric = objective_place(entry.metric, list(stages))
    if stage is not None:
        if stage not in made:
            raise ConfigError(f"objective: `{stage}` did not run. These did: {', '.join(made)}.")
        name, value = f"{stage}/{metric}", _training_value(made[stage], metric)
    else:
        report = next(artifact for artifact in made.values() if artifact.kind == "report")
        name, value = _report_value(read_report(report.file("report.json")), metric)
    return {"name": name, "direction": str(entry.direction), "value": value}


def training_series(rows: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[int, float]]:
    """Return the steps and values of the rows that have a metric, in order."""
    return [(int(row["step"]), float(decode_row(row)[metric])) for row in rows if metric in row]


def _training_value(artifact: Artifact, metric: str) -> float:
    """Return the metric of the sealed adapter: by its manifest, else at the step that was kept, else the last."""
    stated = artifact.manifest.metrics
    if isinstance(stated.get(metric), int | float):
        return float(stated[metric])
    rows = list(Record(artifact.file(METRICS_FILE)).rows()) if METRICS_FILE in artifact.manifest.files else []
    series = training_series(rows, metric)
    if not series:
        numbers = [name for name, value in stated.items() if isinstance(value, int | float)]
        known = sorted({*numbers, *(name for row in rows for name in row)} - {"step"})
        raise ConfigError(f"objective: {artifact.manifest.stage} has no metric `{metric}`. It has: {', '.join(known)}.")
    kept = next((int(stated[key]) for key in KEPT_STEP if key in stated), -1)
    return dict(series).get(kept, series[-1][1])


def _report_value(report: Mapping[str, Any], metric: str) -> tuple[str, float]:
    suite, newest = metric.partition("/")[0], report["policies"][-1]
    entries = {f"{suite}/{entry['metric']}/{entry['policy']}": entry for entry in _of_suite(report, suite)}
    name = metric if metric in entries else f"{metric}/{newest}"  # a metric's own name may have slashes
    if name not in entries or entries[name]["estimate"] is None:
        known = sorted(key for key, entry in entries.items() if entry["estimate"] is not None)
        raise ConfigError(f"objective: the report has no value of `{name}`. It has: {', '.join(known)}.")
    return name, float(entries[name]["estimate"])


def _of_suite(report: Mapping[str, Any], suite: str) -> list[Mapping[str, Any]]:
    """Return the metrics of a suite, last those that count where there are several of one name and policy.

    A win rate is always against somebody, here the first; every other metric also stands for itself.
    """
    entries = [entry for entry in report["metrics"] if entry["suite"] == suite]
    return sorted(reversed(entries), key=lambda entry: entry["baseline"] is None)
