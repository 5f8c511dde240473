"""The audit card of a reward model: what its scores of held-out pairs are worth, and which gates it passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import rankdata

from pipeline.config.reward import AuditConfig
from pipeline.statistics.bootstrap import bootstrap_totals
from pipeline.statistics.calibration import calibration, fit_temperature
from pipeline.statistics.decisions import Decision, better, gate_entry
from pipeline.statistics.intervals import Estimate, mean_interval, paired_difference, proportion_interval

AUDIT_FILE = "audit.json"  # of a reward model
CONFIDENCE_BINS = ((0.5, 0.65), (0.65, 0.8), (0.8, 0.95), (0.95, 1.01))
CHANCE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredPair:
    """One held-out comparison with the normalised scores of both sides."""

    id: str
    source: str
    cluster: str
    confidence: float
    chosen: float
    rejected: float
    chosen_length: int  # tokens of the completion
    rejected_length: int
    prompt_length: int

    @property
    def difference(self) -> float:
        """Score of chosen less score of rejected."""
        return self.chosen - self.rejected

    @property
    def right(self) -> float:
        """1 where chosen has the higher score, 1/2 where both are equal."""
        return (float(np.sign(self.difference)) + 1) / 2

    def by_length(self, rule: str) -> float:
        """What `right` is for a rule that looks at lengths alone."""
        longer = (float(np.sign(self.chosen_length - self.rejected_length)) + 1) / 2
        return longer if rule == "longer" else 1 - longer


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Scores of a text that nobody should prefer, beside those of what people wrote or chose between."""

    usual: list[float]  # mean score of both sides of a pair
    scores: list[float]  # of the text instead of them
    clusters: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """Everything that a card is made of."""

    held_out: list[ScoredPair]
    held_out_split: str
    validation: list[ScoredPair]
    length_rule: str  # "longer" or "shorter": what is right more often on the train pairs
    unwanted: Mapping[str, Comparison]  # empty, truncated and repeated text
    differences: Mapping[str, float]  # largest change of a score under what must not change it
    tolerances: Mapping[str, float]
    samples: Mapping[str, Any]  # facts about the policy's own samples


@dataclass(frozen=True, slots=True)
class Card:
    """The card as JSON values, its gates, and the temperature that the probabilities need."""

    values: dict[str, Any]
    gates: list[dict[str, Any]]
    temperature: float


def make_card(findings: Findings, config: AuditConfig) -> Card:
    """Measure the findings and decide the gates."""
    level, pairs = config.confidence, findings.held_out
    decided = [pair for pair in pairs if pair.confidence != CHANCE]
    fitted = fit_temperature(
        [pair.difference for pair in findings.validation],
        [pair.confidence for pair in findings.validation],
        [pair.cluster for pair in findings.validation],
        level,
    )
    temperature = fitted.estimate if fitted.estimate is not None else 1.0
    calibrated = calibration(
        [float(expit(pair.difference / temperature)) for pair in pairs],
        [pair.confidence for pair in pairs],
        [pair.cluster for pair in pairs],
        confidence=level,
    )
    accuracy = _accuracy(decided, level)
    against_length = _against_length(decided, findings.length_rule, level)
    unwanted = {name: _drop(texts, level) for name, texts in findings.unwanted.items()}
    values = {
        "held_out": {"split": findings.held_out_split, "pairs": len(pairs), "ties": len(pairs) - len(decided)},
        "accuracy": asdict(accuracy),
        "agreement_with_drawn_labels": _expected_agreement(pairs, level),
        "by_source": _grouped(decided, lambda pair: pair.source, level),
        "by_confidence": _grouped(decided, _confidence_bin, level),
        "length_matched": asdict(_accuracy([pair for pair in decided if _matched(pair, config)], level)),
        "length_rule": {
            "rule": f"the {findings.length_rule} one wins",
            "accuracy": asdict(_mean([pair.by_length(findings.length_rule) for pair in decided], decided, level)),
            "difference": asdict(against_length),
        },
        "shuffled_labels": asdict(_shuffled(decided, level)),
        "calibration": {
            "temperature": asdict(fitted), "ece": asdict(calibrated.ece),
            "ece_if_calibrated": calibrated.ece_if_calibrated, "brier": asdict(calibrated.brier),
            "nll": asdict(calibrated.nll),
        },
        "reliability": [asdict(group) for group in calibrated.bins],
        "correlation": _correlations(pairs, level),
        "unwanted_text": {name: asdict(estimate) for name, estimate in unwanted.items()},
        "largest_change": dict(findings.differences),
        "policy_samples": dict(findings.samples),
    }  # fmt: skip
    gates = [
        gate_entry("accuracy", "held-out accuracy against 0.5", accuracy, better(_less(accuracy, CHANCE))),
        gate_entry("length_rule", f"held-out accuracy less that of `the {findings.length_rule} one wins`",
                against_length, better(against_length)),
        gate_entry("calibration", f"calibration error against {config.max_calibration_error:g}", calibrated.ece,
                _at_most(calibrated.ece, config.max_calibration_error)),
        *(gate_entry(f"{name}_text", f"score of usual text less that of {name} text", estimate, better(estimate))
          for name, estimate in unwanted.items()),
        *_invariance_gates(findings),
    ]  # fmt: skip
    return Card(values={**values, "gates": gates}, gates=gates, temperature=temperature)


def length_rule(pairs: Sequence[tuple[int, int, float]]) -> str:
    """Return which rule is right more often: of ``(chosen length, rejected length, confidence)``, ties left out."""
    longer = sum(np.sign(chosen - rejected) * (confidence > CHANCE) for chosen, rejected, confidence in pairs)
    return "longer" if longer >= 0 else "shorter"


def _mean(values: Sequence[float], pairs: Sequence[ScoredPair], level: float) -> Estimate:
    return mean_interval(values, [pair.cluster for pair in pairs], level)


def _accuracy(pairs: Sequence[ScoredPair], level: float) -> Estimate:
    """Share of pairs whose chosen side scores higher; a proportion unless some scores are equal."""
    right = [pair.right for pair in pairs]
    if all(value in (0.0, 1.0) for value in right):
        return proportion_interval([bool(value) for value in right], [pair.cluster for pair in pairs], level)
    return _mean(right, pairs, level)


def _expected_agreement(pairs: Sequence[ScoredPair], level: float) -> dict[str, Any]:
    """How often a label is met that is drawn by the pair's confidence, and how often any model could meet one.

    Where confidence is a share of votes that is agreement with one voter, and says nothing of how often the side that
    most of them prefer is the better one.
    """
    values = [pair.confidence * pair.right + (1 - pair.confidence) * (1 - pair.right) for pair in pairs]
    best = [max(pair.confidence, 1 - pair.confidence) for pair in pairs]
    return {"expected": asdict(_mean(values, pairs, level)), "at_best": float(np.mean(best)) if best else None}


def _against_length(pairs: Sequence[ScoredPair], rule: str, level: float) -> Estimate:
    clusters = [pair.cluster for pair in pairs]
    return paired_difference([pair.right for pair in pairs], [pair.by_length(rule) for pair in pairs], clusters, level)


def _grouped(pairs: Sequence[ScoredPair], key: Callable[[ScoredPair], str], level: float) -> dict[str, Any]:
    groups: dict[str, list[ScoredPair]] = {}
    for pair in pairs:
        groups.setdefault(key(pair), []).append(pair)
    return {name: asdict(_accuracy(groups[name], level)) for name in sorted(groups)}


def _confidence_bin(pair: ScoredPair) -> str:
    low, high = next(bounds for bounds in CONFIDENCE_BINS if pair.confidence < bounds[1])
    return f"{low:g} to {min(high, 1):g}"


def _matched(pair: ScoredPair, config: AuditConfig) -> bool:
    longer = max(pair.chosen_length, pair.rejected_length)
    return abs(pair.chosen_length - pair.rejected_length) <= config.length_matched * longer


def _shuffled(pairs: Sequence[ScoredPair], level: float) -> Estimate:
    """Accuracy after a coin has decided for each pair which side is called chosen: 1/2, or the measuring is wrong."""
    turned = np.random.default_rng(0).random(len(pairs)) < CHANCE
    values = [1 - pair.right if turn else pair.right for pair, turn in zip(pairs, turned, strict=True)]
    return _mean(values, pairs, level)


def _correlations(pairs: Sequence[ScoredPair], level: float) -> dict[str, Any]:
    """Rank correlations of scores with lengths, and with how far into the conversation the reply stands."""
    clusters = [pair.cluster for pair in pairs]
    both = [*clusters, *clusters]
    scores = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    lengths = [*(pair.chosen_length for pair in pairs), *(pair.rejected_length for pair in pairs)]
    prompts = [pair.prompt_length for pair in pairs] * 2
    differences = [pair.difference for pair in pairs]
    longer_by = [pair.chosen_length - pair.rejected_length for pair in pairs]
    return {
        "score_and_length": asdict(rank_correlation(scores, lengths, both, level)),
        "differences_of_score_and_length": asdict(rank_correlation(differences, longer_by, clusters, level)),
        "score_and_position": asdict(rank_correlation(scores, prompts, both, level)),
    }


def rank_correlation(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], confidence: float = 0.95
) -> Estimate:
    """Spearman's rank correlation with a cluster bootstrap interval; the ranks are not drawn again."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return Estimate.unknown(None, len(first), len(set(clusters)), "too few different values")
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    columns = np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
    return bootstrap_totals(_pearson, columns, clusters, method="Spearman's rank correlation", confidence=confidence)


def _pearson(totals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    n, x, y, xx, yy, xy = totals.T
    variance = (xx - x * x / n) * (yy - y * y / n)
    return np.asarray((xy - x * y / n) / np.sqrt(np.maximum(variance, 1e-300)))


def _drop(texts: Comparison, level: float) -> Estimate:
    return paired_difference(texts.usual, texts.scores, texts.clusters, level)


def _less(estimate: Estimate, value: float) -> Estimate:
    """Shift an estimate and its interval."""
    if estimate.estimate is None or estimate.low is None or estimate.high is None:
        return estimate
    return replace(estimate, estimate=estimate.estimate - value, low=estimate.low - value, high=estimate.high - value)


def _at_most(estimate: Estimate, limit: float) -> Decision:
    if estimate.low is None or estimate.high is None:
        return Decision.INCONCLUSIVE
    if estimate.high <= limit:
        return Decision.PASS
    return Decision.FAIL if estimate.low > limit else Decision.INCONCLUSIVE


def _invariance_gates(findings: Findings) -> list[dict[str, Any]]:
    """A score must not depend on padding, on its neighbours in a batch, or on having been saved and loaded."""
    gates = []
    for name, difference in findings.differences.items():
        limit = findings.tolerances[name]
        outcome = Decision.PASS if difference <= limit else Decision.FAIL
        gates.append(
            {"name": name, "outcome": outcome.value, "estimate": difference, "low": None, "high": None,
             "n": len(findings.held_out), "minimum_detectable": None,
             "reason": f"largest change of a score: {difference:.2g}, allowed {limit:.2g} standard deviations"}
        )  # fmt: skip
    return gates
