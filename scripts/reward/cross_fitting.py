"""Every pair is scored by a reward model that has seen no pair of its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scipy.special import expit

from pipeline.config.reward import NUM_FOLDS
from pipeline.evaluation.reward_card import CHANCE, ScoredPair, length_rule
from pipeline.models.lower_layers import LowerLayers
from pipeline.statistics.calibration import calibration
from pipeline.statistics.decisions import better
from pipeline.statistics.intervals import Estimate, mean_interval, paired_difference, proportion_interval
from pipeline.statistics.power import minimum_detectable
from reward.runs import compose, held_out_pairs, make_dataset, train_and_score


def run(
    name: str, data: Path, output: Path, folds: Sequence[int], changes: Sequence[str], lower: LowerLayers | None
) -> dict[str, Any]:
    """Train one reward model for each fold that is held out, and pool what they say of it."""
    output = output / name
    dataset, config = make_dataset(name, data, output), compose(changes)
    by_fold = {fold: held_out_pairs(dataset, fold, config) for fold in range(NUM_FOLDS)}
    scored: list[ScoredPair] = []
    by_length: list[float] = []  # of the rule that is better on the train folds
    temperatures: list[float] = []
    for fold in folds:
        others = [other for other in range(NUM_FOLDS) if other != fold]
        found, temperature = train_and_score(dataset, others, by_fold[fold], output, f"fold-{fold}", config, lower)
        rule = length_rule(
            [
                (pair.chosen.num_supervised, pair.rejected.num_supervised, pair.confidence)
                for other in others
                for pair in by_fold[other]
            ]
        )
        scored += found
        by_length += [pair.by_length(rule) for pair in found]
        temperatures += [temperature] * len(found)
        decided = [pair for pair in found if pair.confidence != CHANCE]
        right = sum(pair.right for pair in decided) / len(decided)
        print(f"fold {fold}: accuracy {right:.3f} on {len(decided)} pairs", flush=True)
    return summarise(scored, by_length, temperatures)


def summarise(
    scored: Sequence[ScoredPair], by_length: Sequence[float], temperatures: Sequence[float]
) -> dict[str, Any]:
    """Return accuracy, the length rule's and the difference, calibration, and what could have been found."""
    rows = [(pair, rule) for pair, rule in zip(scored, by_length, strict=True) if pair.confidence != CHANCE]
    clusters = [pair.cluster for pair, _ in rows]
    accuracy = _share([pair.right for pair, _ in rows], clusters)
    difference = paired_difference([pair.right for pair, _ in rows], [rule for _, rule in rows], clusters)
    probabilities = [float(expit(p.difference / t)) for p, t in zip(scored, temperatures, strict=True)]
    calibrated = calibration(probabilities, [p.confidence for p in scored], [p.cluster for p in scored])
    return {
        "pairs": len(scored),
        "ties": len(scored) - len(rows),
        "accuracy": asdict(accuracy),
        "length_rule": asdict(_share([rule for _, rule in rows], clusters)),
        "better_than_length": {
            **asdict(difference), "outcome": better(difference), "minimum_detectable": minimum_detectable(difference)
        },
        "ece": asdict(calibrated.ece),
        "nll": asdict(calibrated.nll),
    }  # fmt: skip


def _share(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    if all(value in (0.0, 1.0) for value in values):
        return proportion_interval([bool(value) for value in values], clusters)
    return mean_interval(values, clusters)
