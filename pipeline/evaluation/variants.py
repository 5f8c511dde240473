"""Ways to run one policy, compared on the same items: what they change, and what they take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, cast

from pipeline.config.evaluation import EvaluateConfig, SuiteConfig
from pipeline.evaluation.joining import PolicySamples, join
from pipeline.evaluation.measures import measure
from pipeline.evaluation.samples import GenerationSample, Sample
from pipeline.statistics.intervals import Estimate, proportion_interval

VARIANTS_FILE, TIMES_FILE = "variants.json", "times.json"


def compare_variants(rows: Mapping[str, Sequence[Sample]], suite: SuiteConfig, confidence: float) -> dict[str, Any]:
    """Compare every variant with the first, item by item, through the suite's own checks.

    Args:
        rows: Samples of the same items, by variant; the reference first.
        suite: Its first metric is what is compared.
        confidence: Of the intervals.

    Returns:
        Under ``metric`` the name of what was compared; by variant ``difference`` (variant minus reference), the share
        of ``changed_answers`` (another text) and of ``flips`` (another result); None for the reference.
    """
    reference = next(iter(rows))
    samples = [
        PolicySamples(policy=name, suite=suite.name, artifact=name, rows=entries) for name, entries in rows.items()
    ]
    joined = join(samples, {suite.name: suite}, EvaluateConfig(baseline=reference, confidence=confidence))[0]
    primary = measure(joined)[0]
    kept = cast(dict[str, list[GenerationSample]], joined.rows)
    found: dict[str, Any] = {"metric": primary.name}
    for name in joined.policies[1:]:
        texts = [a.completion != b.completion for a, b in zip(kept[name], kept[reference], strict=True)]
        values = [a != b for a, b in zip(primary.values[name], primary.values[reference], strict=True)]
        found[name] = {
            "difference": _entry(primary.difference(name, reference, joined.clusters, confidence)),
            "changed_answers": _entry(proportion_interval(texts, joined.clusters, confidence)),
            "flips": _entry(proportion_interval(values, joined.clusters, confidence)),
        }
    return found


def summarise_passes(passes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the medians of what one variant took over its passes, and under ``ranges`` the least and the most.

    Args:
        passes: As `summarise_times` takes them; at least one.
    """
    found = [summarise_times(entry) for entry in passes]
    known = {name: [value for one in found if (value := one[name]) is not None] for name in found[0]}
    return {
        **{name: median(values) if values else None for name, values in known.items()},
        "ranges": {name: [min(values), max(values)] for name, values in known.items() if values},
        "passes": len(passes),
    }


def summarise_times(measured: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what one pass of a variant took, from the times of its items in seconds."""
    latency, seconds = sorted(measured["latency_seconds"]), float(measured["seconds"])
    tokens = sum(int(answer["num_tokens"]) for answer in measured["answers"])
    return {
        "first_token_seconds": round(percentile(sorted(measured["first_token_seconds"]), 0.5), 4),
        "tokens_per_second": round(tokens / seconds, 2),
        "latency_p50": round(percentile(latency, 0.5), 4),
        "latency_p95": round(percentile(latency, 0.95), 4),
        "peak_memory_bytes": measured["peak_memory_bytes"],  # of answering; None where it was not told from loading
        "loading_peak_bytes": measured["loading_peak_bytes"],
        "seconds_per_1000": round(1000 * seconds / len(latency), 2),
        "wall_seconds": round(seconds, 3),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def cost_per_1000(seconds_per_1000: float, price_per_hour: float) -> float:
    """Return what a thousand answers cost on a machine that is paid by the hour."""
    return seconds_per_1000 / 3600 * price_per_hour


def _entry(value: Estimate) -> dict[str, Any]:
    return {
        "estimate": value.estimate, "low": value.low, "high": value.high, "n": value.n, "method": value.method,
    }  # fmt: skip
