"""Five simulated annotators of known accuracy vote on hh-rlhf's labels: what each way of joining them teaches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.artifact import Artifact
from pipeline.data.rows import Comparison
from pipeline.evaluation.reward_card import ScoredPair
from pipeline.models.lower_layers import LowerLayers
from pipeline.statistics.dawid_skene import dawid_skene
from pipeline.statistics.intervals import mean_interval, paired_difference, proportion_interval
from reward.runs import compose, held_out_pairs, make_dataset, rewrite, train_and_score

ACCURACIES = (0.95, 0.85, 0.6, 0.55, 0.5)
SEED = 7
DAWID_SKENE, SHARE = "dawid_skene", "share"  # how votes are joined: the posterior, or the share of the votes
# What a reward model learns from: how the votes are joined, and what the stage does with that confidence. The first two
# differ in how they join, the last two in whether labels are soft.
ARMS = {
    "dawid_skene": (DAWID_SKENE, "reward.confidence=label"),
    "vote_share": (SHARE, "reward.confidence=label"),
    "majority": (SHARE, "reward.confidence=ignore"),
}


def run(
    name: str, data: Path, output: Path, folds: Sequence[int], changes: Sequence[str], lower: LowerLayers | None
) -> dict[str, Any]:
    """Train one reward model for each way of joining votes and held-out fold; the folds' likelihoods are pooled."""
    original = make_dataset("hh", data, output / "hh")
    output = output / name
    found: dict[str, list[ScoredPair]] = {arm: [] for arm in ARMS}
    nats: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for fold in folds:
        others = [other for other in range(5) if other != fold]
        for arm, (method, use) in ARMS.items():
            config = compose([*changes, use])
            pairs = held_out_pairs(original, fold, config)  # with their original labels
            dataset = vote(original, output, method)
            scored, _ = train_and_score(dataset, others, pairs, output, f"{arm}-{fold}", config, lower)
            found[arm] += scored
            nats[arm] += [float(np.logaddexp(0.0, -pair.difference)) for pair in scored]
            print(f"{arm}, fold {fold}: {np.mean(nats[arm]):.4f} nats so far", flush=True)
    clusters = [pair.cluster for pair in found["majority"]]
    return {
        "pairs": len(clusters),
        "nats": {arm: asdict(mean_interval(nats[arm], clusters)) for arm in ARMS},
        "accuracy": {
            arm: asdict(proportion_interval([pair.right > 0.5 for pair in found[arm]], clusters)) for arm in ARMS
        },
        # Nats per pair that the first of the two saves over the second.
        "saved": {
            f"{better}_over_{worse}": asdict(paired_difference(nats[worse], nats[better], clusters))
            for better, worse in itertools.combinations(ARMS, 2)
        },
    }  # fmt: skip


def vote(original: Artifact, output: Path, method: str) -> Artifact:
    """Return the data set with the labels that the votes make; the votes are the same for every method."""

    def change(rows: Sequence[Comparison]) -> list[Comparison]:
        right = joined(simulated(len(rows)), method)
        return [_turned(row, chance) for row, chance in zip(rows, right, strict=True)]

    return rewrite(original, output / method, change)


def simulated(num_pairs: int) -> np.ndarray:
    """Return ``[pairs, annotators]`` bool: whether each annotator names the side that the original label names."""
    return np.random.default_rng(SEED).random((num_pairs, len(ACCURACIES))) < np.asarray(ACCURACIES)


def joined(named: np.ndarray, method: str) -> np.ndarray:
    """Return ``[pairs]``, the probability that the original label is right as the votes tell it."""
    if method == SHARE:
        return np.asarray(named.mean(axis=1))
    units, annotators = np.indices(named.shape)
    # Which side stands first says nothing, so it is drawn: else a prior of "first is better" would know the answer.
    turned = np.random.default_rng(SEED + 1).random(len(named)) < 0.5
    labels = (named ^ turned[:, None]).astype(int)
    fit = dawid_skene(units.ravel(), annotators.ravel(), labels.ravel(), num_classes=2, symmetric=True)
    print(f"accuracies found: {np.round(fit.accuracy, 3).tolist()}, planted: {list(ACCURACIES)}", flush=True)
    return np.where(turned, fit.posterior[:, 0], fit.posterior[:, 1])


def _turned(row: Comparison, right: float) -> Comparison:
    """Return the comparison with the side first that the votes prefer, and how sure they are."""
    right = float(right)
    if right >= 0.5:
        return replace(row, confidence=right, num_votes=len(ACCURACIES))
    return replace(row, chosen=row.rejected, rejected=row.chosen, confidence=1 - right, num_votes=len(ACCURACIES))
