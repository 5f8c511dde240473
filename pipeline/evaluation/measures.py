"""What is measured on the items of a suite, and the estimates that follow from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from pipeline.checks.registry import CheckItem, Parts, build_check
from pipeline.checks.rewards import build_reward
from pipeline.config.evaluation import EvaluateConfig, SuiteConfig, SuiteKind
from pipeline.errors import DataError
from pipeline.evaluation.joining import JoinedSuite, PolicySamples, join
from pipeline.evaluation.metric_names import (
    ALL_CHECKS,
    BITS_PER_BYTE,
    COMPLETION_TOKENS,
    FINISHED,
    NATS_PER_TOKEN,
    PARTS,
    check_names,
)
from pipeline.evaluation.paired_tests import UNTESTED, Chance, exact_test
from pipeline.evaluation.samples import GenerationSample, LikelihoodSample, ScoredSample
from pipeline.pages.numbers import WINS
from pipeline.statistics.intervals import (
    Estimate,
    bounded_mean,
    mean_interval,
    paired_difference,
    paired_proportion_difference,
    paired_ratio_difference,
    proportion_interval,
    ratio_interval,
    unit_mean,
)
from pipeline.statistics.selection import influences

Array = npt.NDArray[np.float64]
Verdict = TypeVar("Verdict", bool | Parts, float)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One metric: a value per item and policy; of a ratio of sums also a denominator per item."""

    name: str
    unit: str  # share, score, tokens, nats/token, bits/byte
    higher_is_better: bool | None  # None where neither direction is better
    values: dict[str, list[float]]  # policy -> one value per item; of a share without a denominator 0 or 1
    denominator: list[float] | None = None

    def absolute(self, policy: str, clusters: Sequence[Hashable], confidence: float) -> Estimate:
        """Return the metric's value for one policy."""
        values = self.values[policy]
        if self.denominator is not None:
            return self._bounded(ratio_interval(values, self.denominator, clusters, confidence), 0.0)
        if self.unit == "share":
            return proportion_interval([value == 1 for value in values], clusters, confidence)
        if self.unit == WINS:
            return unit_mean(values, clusters, confidence)
        return mean_interval(values, clusters, confidence)

    def difference(self, policy: str, baseline: str, clusters: Sequence[Hashable], confidence: float) -> Estimate:
        """Return the paired difference between two policies, policy minus baseline."""
        values, others = self.values[policy], self.values[baseline]
        if self.denominator is not None:
            return self._bounded(paired_ratio_difference(values, others, self.denominator, clusters, confidence), -1.0)
        if self.unit == "share":
            passed, others_passed = [value == 1 for value in values], [value == 1 for value in others]
            return paired_proportion_difference(passed, others_passed, clusters, confidence)
        if self.unit == WINS:
            return bounded_mean(np.subtract(values, others), clusters, confidence)
        return paired_difference(values, others, clusters, confidence)

    def chance(self, policy: str, baseline: str, clusters: Sequence[str]) -> Chance:
        """Return the exact test of that difference; of a ratio it is that of the numerators."""
        pairs = zip(self.values[policy], self.values[baseline], strict=True)
        yes_or_no = self.unit == "share" and self.denominator is None
        return exact_test([value - other for value, other in pairs], clusters, yes_or_no=yes_or_no)

    def value(self, policy: str) -> float:
        """Return the metric's value for one policy without an interval."""
        weights = self.denominator
        return sum(self.values[policy]) / (sum(weights) if weights else len(self.values[policy]))

    def errors(self, policies: Sequence[str], clusters: Sequence[Hashable]) -> Array:
        """Return [C, k] influences of the clusters on each policy's value, turned so that more is better."""
        columns = np.asarray([self.values[policy] for policy in policies], dtype=np.float64).T
        turned = influences(columns, self.denominator or [1.0] * len(clusters), clusters)
        return -turned if self.higher_is_better is False else turned

    def _bounded(self, value: Estimate, lowest: float) -> Estimate:
        """Cut the interval of a share where no share can lie."""
        if self.unit != "share" or value.low is None or value.high is None:
            return value
        return replace(value, low=max(value.low, lowest), high=min(value.high, 1.0))


def measure(suite: JoinedSuite) -> list[Measure]:
    """Return the suite's metrics, the primary one first.

    Raises:
        ConfigError: A check cannot be built.
        DataError: An item lacks what a check needs.
    """
    return MEASURES[suite.config.kind](suite)


def measure_suites(
    samples: Sequence[PolicySamples], suites: Mapping[str, SuiteConfig], evaluate: EvaluateConfig
) -> list[tuple[JoinedSuite, list[Measure]]]:
    """Join the samples and measure every suite, in the order of `suites`; raises what `join` and `measure` raise."""
    return [(suite, measure(suite)) for suite in join(samples, suites, evaluate)]


def estimates(suite: JoinedSuite, measures: Sequence[Measure], confidence: float) -> list[dict[str, Any]]:
    """Return every metric of every policy, and its difference from the baseline, the first policy."""
    baseline, *others = suite.policies
    entries = []
    for entry in measures:
        for policy in suite.policies:
            value = entry.absolute(policy, suite.clusters, confidence)
            entries.append(_entry(suite, entry, policy, None, value, UNTESTED))
        for policy in others:
            entries += differences(suite, [entry], policy, baseline, confidence)
    return entries


def differences(
    suite: JoinedSuite, measures: Sequence[Measure], policy: str, baseline: str, confidence: float
) -> list[dict[str, Any]]:
    """Return the paired difference of every metric between two policies."""
    clusters = suite.clusters
    return [
        _entry(
            suite, entry, policy, baseline, entry.difference(policy, baseline, clusters, confidence),
            entry.chance(policy, baseline, clusters),
        )
        for entry in measures
    ]  # fmt: skip


def _entry(
    suite: JoinedSuite, entry: Measure, policy: str, baseline: str | None, value: Estimate, chance: Chance
) -> dict[str, Any]:
    return {**metric_row(suite.name, entry, policy, baseline, value), **chance}


def metric_row(suite: str, entry: Measure, policy: str, baseline: str | None, value: Estimate) -> dict[str, Any]:
    """Return a row of metrics as reports and comparisons hold it."""
    return {
        "suite": suite,
        "metric": entry.name,
        "policy": policy,
        "baseline": baseline,
        "n": value.n,
        "clusters": value.clusters,
        "estimate": value.estimate,
        "low": value.low,
        "high": value.high,
        "method": value.method,
        "higher_is_better": entry.higher_is_better,
        "unit": entry.unit,
    }


def _generation(suite: JoinedSuite) -> list[Measure]:
    rows = cast(dict[str, list[GenerationSample]], suite.rows)
    checked = _checked(suite, rows)
    passed = [entry.values for entry in checked if entry.denominator is None]
    measures = []
    if passed:
        together = {policy: [float(all(item)) for item in zip(*(values[policy] for values in passed), strict=True)]
                    for policy in rows}  # fmt: skip
        measures.append(Measure(name=ALL_CHECKS, unit="share", higher_is_better=True, values=together))
    finished = {policy: [float(row.finish_reason == "stop") for row in rows[policy]] for policy in rows}
    tokens = {policy: [float(row.num_tokens) for row in rows[policy]] for policy in rows}
    return [
        *measures,
        *checked,
        *_rewarded(suite, rows),
        Measure(name=FINISHED, unit="share", higher_is_better=True, values=finished),
        *([Measure(name=COMPLETION_TOKENS, unit="tokens", higher_is_better=None, values=tokens)]
          if suite.one_tokenizer else []),
    ]  # fmt: skip


def _checked(suite: JoinedSuite, rows: dict[str, list[GenerationSample]]) -> list[Measure]:
    """Return, per check, the share of items that pass; of a check with several parts also the share of all parts."""
    measures: list[Measure] = []
    for index, config in enumerate(suite.config.checks):
        name = _names(suite)[index]
        check = build_check(config.name, config.params, where=f"suite {suite.name}: checks[{index}]")
        verdicts = {policy: [_verdict(suite, check, row) for row in rows[policy]] for policy in rows}
        passed = {policy: [float(bool(verdict)) for verdict in found] for policy, found in verdicts.items()}
        measures.append(Measure(name=name, unit="share", higher_is_better=True, values=passed))
        parts = {
            policy: [entry.passed for entry in found if isinstance(entry, Parts)] for policy, found in verdicts.items()
        }
        if all(parts.values()):
            counts = {policy: [float(sum(entry)) for entry in found] for policy, found in parts.items()}
            totals = [float(len(entry)) for entry in parts[suite.policies[0]]]
            measures.append(Measure(name=f"{name}{PARTS}", unit="share", higher_is_better=True, values=counts,
                                    denominator=totals))  # fmt: skip
    return measures


def _rewarded(suite: JoinedSuite, rows: dict[str, list[GenerationSample]]) -> list[Measure]:
    """Return, per reward, the mean of what it gives for each item."""
    measures = []
    names = _names(suite)[len(suite.config.checks) :]
    for index, (name, config) in enumerate(zip(names, suite.config.rewards, strict=True)):
        reward = build_reward(config.name, config.params, where=f"suite {suite.name}: rewards[{index}]")
        values = {policy: [float(_verdict(suite, reward, row)) for row in rows[policy]] for policy in rows}
        measures.append(Measure(name=name, unit="score", higher_is_better=True, values=values))
    return measures


def _names(suite: JoinedSuite) -> list[str]:
    return check_names([*suite.config.checks, *suite.config.rewards])


def _verdict(suite: JoinedSuite, judge: Callable[[str, CheckItem], Verdict], row: GenerationSample) -> Verdict:
    try:
        return judge(row.completion, CheckItem(prompt=row.prompt, reference=row.reference))
    except DataError as error:
        raise DataError(f"suite {suite.name}: item {row.id!r}: {error}") from error


def _likelihood(suite: JoinedSuite) -> list[Measure]:
    rows = cast(dict[str, list[LikelihoodSample]], suite.rows)
    baseline = rows[suite.policies[0]]
    nats = {policy: [row.nats or 0.0 for row in rows[policy]] for policy in rows}  # joined rows always have nats
    bits = {policy: [value / math.log(2) for value in nats[policy]] for policy in rows}
    per_byte = Measure(
        name=BITS_PER_BYTE, unit="bits/byte", higher_is_better=False, values=bits,
        denominator=[float(row.bytes) for row in baseline],
    )  # fmt: skip
    if not _count_alike(suite):
        return [per_byte]
    per_token = Measure(
        name=NATS_PER_TOKEN, unit="nats/token", higher_is_better=False, values=nats,
        denominator=[float(row.tokens) for row in baseline],
    )  # fmt: skip
    return [per_byte, per_token]


def _count_alike(suite: JoinedSuite) -> bool:
    """Whether every policy divides each text into the same number of tokens."""
    counts = [[row.tokens for row in rows if isinstance(row, LikelihoodSample)] for rows in suite.rows.values()]
    return all(count == counts[0] for count in counts)


def notes(suite: JoinedSuite) -> list[str]:
    """Return what a reader should know about the suite's metrics."""
    if suite.config.kind is SuiteKind.likelihood and not _count_alike(suite):
        return ["The policies divide text into tokens differently: they are compared per byte, and not per token."]
    if suite.config.kind is SuiteKind.generation and not suite.one_tokenizer:
        return ["The policies have different tokenizers: the lengths of their completions in tokens are not compared."]
    return []


def _scored(suite: JoinedSuite) -> list[Measure]:
    """Return the metrics of somebody else's task, in the order of their names: `acc` comes before `acc_norm`."""
    rows = cast(dict[str, list[ScoredSample]], suite.rows)
    first = rows[suite.policies[0]][0]
    for policy in suite.policies:
        for row in rows[policy]:
            if row.scores.keys() != first.scores.keys():
                raise DataError(
                    f"suite {suite.name}: {policy} has the metrics {', '.join(sorted(row.scores))} on {row.id!r} and "
                    f"{', '.join(sorted(first.scores))} on {first.id!r}. Choose a task whose parts share their metrics."
                )
    measures = []
    for name in sorted(first.scores):
        values = {policy: [float(row.scores[name]) for row in rows[policy]] for policy in rows}
        yes_or_no = all(value in (0.0, 1.0) for scores in values.values() for value in scores)
        measures.append(
            Measure(
                name=name,
                unit="share" if yes_or_no else "score",
                higher_is_better=name not in first.lower_is_better,
                values=values,
            )
        )
    return measures


MEASURES: dict[SuiteKind, Callable[[JoinedSuite], list[Measure]]] = {
    SuiteKind.generation: _generation,
    SuiteKind.likelihood: _likelihood,
    SuiteKind.lm_eval: _scored,
}
