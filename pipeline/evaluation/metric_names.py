"""The names of metrics, apart from what measures them: a gate is checked against them before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline.checks.registry import has_parts
from pipeline.config.evaluation import CheckConfig, SuiteConfig, SuiteKind
from pipeline.config.gates import WIN_RATE

ALL_CHECKS, FINISHED, COMPLETION_TOKENS = "all_checks", "finished", "completion_tokens"
PARTS = "_parts"  # behind a check's name: the share of all that it asks, over all items
NATS_PER_TOKEN, BITS_PER_BYTE = "nats_per_token", "bits_per_byte"
WITHOUT_COMPLETIONS = {SuiteKind.likelihood: [BITS_PER_BYTE, NATS_PER_TOKEN]}


def check_names(checks: Sequence[CheckConfig]) -> list[str]:
    """Return one name per check or reward; those that occur several times are numbered from 1."""
    total, seen, names = Counter(check.name for check in checks), Counter[str](), []
    for check in checks:
        seen[check.name] += 1
        names.append(f"{check.name}_{seen[check.name]}" if total[check.name] > 1 else check.name)
    return names


def metric_names(suite: SuiteConfig, judges: Sequence[str], raters: Sequence[str]) -> list[str] | None:
    """Return the metrics of a suite in which one direction is better; None where only running it can tell.

    Args:
        suite: The suite.
        judges: That compare its completions, or score them one by one.
        raters: That rate its completions by its criteria.

    Raises:
        ConfigError: There is no check of such a name.
    """
    if suite.kind != SuiteKind.generation:
        return WITHOUT_COMPLETIONS.get(suite.kind)
    names = check_names([*suite.checks, *suite.rewards])
    whole = [ALL_CHECKS] if suite.checks else []
    parts = [
        f"{name}{PARTS}"
        for index, (name, check) in enumerate(zip(names, suite.checks, strict=False))
        if has_parts(check.name, where=f"suite {suite.name}: checks[{index}]")
    ]
    rated = [f"{criterion.name}/{rater}" for criterion in suite.rubric for rater in raters]
    return [*whole, *names, *parts, FINISHED, *(WIN_RATE + judge for judge in judges), *rated]


def reported_names(suite: SuiteConfig, judges: Sequence[str], raters: Sequence[str]) -> list[str] | None:
    """Return every metric of a suite, also those of which nobody can say whether more is better."""
    names = metric_names(suite, judges, raters)
    return [*names, COMPLETION_TOKENS] if names and suite.kind is SuiteKind.generation else names
