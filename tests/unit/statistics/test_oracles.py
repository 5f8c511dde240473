"""Every formula that an independent library also has, beside it, on random data.

The table is the list of what is checked so. Each row also holds a near miss, a form that people confuse with the
right one: it must differ, or the row proves nothing. What no library has is worked by hand in the file of its module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import choix
import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, cohen_kappa_score, log_loss
from statsmodels.discrete.discrete_model import Logit
from statsmodels.regression.linear_model import OLS, WLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from pipeline.statistics.agreement import Level, cohen_kappas
from pipeline.statistics.bradley_terry import bradley_terry
from pipeline.statistics.calibration import calibration, fit_temperature
from pipeline.statistics.concordance import concordance
from pipeline.statistics.intervals import Estimate, mean_interval, paired_difference, ratio_interval, wilson
from pipeline.statistics.logistic import fit_logistic
from pipeline.statistics.power import items_needed
from pipeline.statistics.significance import holm, mcnemar_p, sign_flip_p


@dataclass(frozen=True, slots=True)
class Data:
    """Random numbers that all rows share."""

    a: np.ndarray  # [60] scores
    b: np.ndarray  # [60] scores of the same items
    clusters: np.ndarray  # [60] of 15
    first: np.ndarray  # [60] verdicts of 0, 1, 2
    second: np.ndarray  # [60]
    margins: np.ndarray  # [60]
    outcomes: np.ndarray  # [60] of 0 and 1
    p_values: np.ndarray  # [8]


def draw(seed: int) -> Data:
    generator = np.random.default_rng(seed)
    clusters = generator.integers(0, 15, 60)
    shared = generator.normal(size=15)[clusters]
    margins = generator.normal(size=60)
    first = generator.integers(0, 3, 60)
    return Data(
        a=generator.normal(size=60) + shared + 0.2,
        b=generator.normal(size=60) + shared,
        clusters=clusters,
        first=first,
        second=np.where(generator.random(60) < 0.6, first, generator.integers(0, 3, 60)),
        margins=margins,
        outcomes=(generator.random(60) < 1 / (1 + np.exp(-margins / 1.7))).astype(float),
        p_values=generator.random(8) ** 8,
    )


def limits(value: Estimate) -> list[float]:
    assert value.low is not None
    assert value.high is not None
    return [value.low, value.high]


def number(value: Estimate) -> list[float]:
    assert value.estimate is not None
    return [value.estimate]


def clustered(values: np.ndarray, groups: np.ndarray) -> list[float]:
    fit = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    return list(fit.conf_int(0.05)[0])


def tokens(data: Data) -> np.ndarray:
    return np.asarray(10 + data.margins**2)


def weighted(numerator: np.ndarray, denominator: np.ndarray, groups: np.ndarray) -> list[float]:
    """A ratio of sums is the weighted mean of y/x with weights x; its sandwich is the linearised variance."""
    model = WLS(numerator / denominator, np.ones(len(numerator)), weights=denominator)
    return list(model.fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True).conf_int(0.05)[0])


def agreement(data: Data, level: Level) -> list[float]:
    verdicts = data.first.tolist(), data.second.tolist()
    return number(concordance(*verdicts, range(60), categories=[0, 1, 2], level=level, draws=50).kappa)


def pairwise_kappa(data: Data) -> list[float]:
    (entry,) = cohen_kappas(np.tile(np.arange(60), 2), np.repeat([0, 1], 60), np.concatenate([data.first, data.second]))
    assert entry.kappa is not None
    return [entry.kappa]


def games(data: Data) -> tuple[list[int], list[int]]:
    """Winners and losers among four; nobody meets himself."""
    return data.first.tolist(), (data.first + 1 + data.second).clip(max=3).tolist()


def ours_bradley_terry(data: Data, deviation: float) -> list[float]:
    winners, losers = games(data)
    return list(bradley_terry(winners, losers, [1] * 60, [0] * 60, num_nodes=4, prior_deviation=deviation))


def ratio_test(data: Data) -> list[float]:
    result = scipy_stats.permutation_test(
        (data.a[:12] - data.b[:12],), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    return [float(result.pvalue)]


def probabilities(data: Data) -> np.ndarray:
    return 1 / (1 + np.exp(-data.margins))


def logistic(data: Data, precision: float) -> list[float]:
    design = np.column_stack([data.a, data.b])
    return list(fit_logistic(design, data.outcomes, np.ones((1, 60)), np.full(2, precision))[0])


def penalised(data: Data) -> list[float]:
    design = np.column_stack([data.a, data.b])
    fit = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(design, data.outcomes)
    return list(fit.coef_[0])


Form = Callable[[Data], list[float]]

# name: ours, the library's, a near miss
PAIRS: dict[str, tuple[Form, Form, Form]] = {
    "Wilson / statsmodels proportion_confint": (
        lambda data: limits(wilson(int(data.outcomes.sum()), 60)),
        lambda data: list(proportion_confint(int(data.outcomes.sum()), 60, method="wilson")),
        lambda data: list(proportion_confint(int(data.outcomes.sum()), 60, method="normal")),
    ),
    "clustered mean / statsmodels OLS": (
        lambda data: limits(mean_interval(data.a.tolist(), data.clusters.tolist())),
        lambda data: clustered(data.a, data.clusters),
        lambda data: clustered(data.a, np.arange(60)),
    ),
    "paired difference / statsmodels OLS": (
        lambda data: limits(paired_difference(data.a.tolist(), data.b.tolist(), data.clusters.tolist())),
        lambda data: clustered(data.a - data.b, data.clusters),
        lambda data: clustered(np.concatenate([data.a, -data.b]) * 2, np.arange(120)),  # unpaired
    ),
    "ratio / statsmodels WLS": (
        lambda data: limits(ratio_interval(data.a, tokens(data), data.clusters.tolist())),
        lambda data: weighted(data.a, tokens(data), data.clusters),
        lambda data: weighted(data.a, np.ones(60), data.clusters),
    ),
    "sign flips / scipy permutation_test": (
        lambda data: [float(sign_flip_p((data.a - data.b)[:12].tolist(), range(12)) or 0)],
        ratio_test,
        lambda data: [float(scipy_stats.wilcoxon(data.a[:12], data.b[:12]).pvalue)],
    ),
    "McNemar / statsmodels mcnemar": (
        lambda data: [mcnemar_p(int(data.outcomes[:40].sum()), int((1 - data.outcomes[20:]).sum()) // 2)],
        lambda data: [
            float(
                mcnemar(
                    [[0, int(data.outcomes[:40].sum())], [int((1 - data.outcomes[20:]).sum()) // 2, 0]], exact=True
                ).pvalue
            )
        ],
        lambda data: [
            float(
                mcnemar(
                    [[0, int(data.outcomes[:40].sum())], [int((1 - data.outcomes[20:]).sum()) // 2, 0]], exact=False
                ).pvalue
            )
        ],
    ),
    "Holm / statsmodels multipletests": (
        lambda data: list(holm({str(rank): float(p) for rank, p in enumerate(data.p_values)}).values()),
        lambda data: list(multipletests(data.p_values, method="holm")[1]),
        lambda data: list(multipletests(data.p_values, method="bonferroni")[1]),
    ),
    "items needed / statsmodels NormalIndPower": (
        lambda data: [float(items_needed(0.3 * math.sqrt(data.a.var()), float(data.a.var())))],
        # One sample is two of which the second is endless.
        lambda data: [float(math.ceil(NormalIndPower(ddof=0).solve_power(0.3, alpha=0.05, power=0.8, ratio=0)))],
        lambda data: [float(math.ceil(NormalIndPower(ddof=0).solve_power(0.3, alpha=0.05, power=0.8, ratio=1)))],
    ),
    "kappa / scikit-learn cohen_kappa_score": (
        lambda data: agreement(data, Level.nominal),
        lambda data: [float(cohen_kappa_score(data.first, data.second))],
        lambda data: [float(cohen_kappa_score(data.first, data.second, weights="linear"))],
    ),
    "kappa of annotators / scikit-learn cohen_kappa_score": (
        pairwise_kappa,
        lambda data: [float(cohen_kappa_score(data.first, data.second))],
        lambda data: [float((data.first == data.second).mean())],
    ),
    "weighted kappa / scikit-learn cohen_kappa_score": (
        lambda data: agreement(data, Level.ordinal),
        lambda data: [float(cohen_kappa_score(data.first, data.second, weights="quadratic"))],
        lambda data: [float(cohen_kappa_score(data.first, data.second, weights="linear"))],
    ),
    "Brier / scikit-learn brier_score_loss": (
        lambda data: number(calibration(probabilities(data), data.outcomes, range(60), draws=50).brier),
        lambda data: [float(brier_score_loss(data.outcomes, probabilities(data)))],
        lambda data: [float(np.abs(data.outcomes - probabilities(data)).mean())],
    ),
    "NLL / scikit-learn log_loss": (
        lambda data: number(calibration(probabilities(data), data.outcomes, range(60), draws=50).nll),
        lambda data: [float(log_loss(data.outcomes, probabilities(data)))],
        lambda data: [float(log_loss(data.outcomes, probabilities(data))) / math.log(2)],  # bits
    ),
    "temperature / statsmodels Logit": (
        lambda data: number(fit_temperature(data.margins, data.outcomes, range(60))),
        lambda data: [1 / float(Logit(data.outcomes, data.margins[:, None]).fit(disp=0).params[0])],
        lambda data: [float(Logit(data.outcomes, data.margins[:, None]).fit(disp=0).params[0])],
    ),
    "logistic regression / scikit-learn LogisticRegression": (
        lambda data: logistic(data, 0.7),
        penalised,
        lambda data: logistic(data, 1e-9),
    ),
    "Bradley-Terry / choix opt_pairwise": (
        lambda data: ours_bradley_terry(data, 1.5),
        # Its penalty is alpha |s|^2, ours |s|^2 / (2 * 1.5^2).
        lambda data: list(choix.opt_pairwise(4, list(zip(*games(data), strict=True)), alpha=1 / 4.5)),
        lambda data: list(choix.opt_pairwise(4, list(zip(*games(data), strict=True)), alpha=1 / 2.25)),
    ),
}
ROUGHLY = {"Bradley-Terry / choix opt_pairwise": 1e-4, "logistic regression / scikit-learn LogisticRegression": 1e-5}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PAIRS)
def test_against_the_library(name: str, seed: int) -> None:
    ours, library, near_miss = PAIRS[name]
    data = draw(seed)
    expected = library(data)
    tolerance = ROUGHLY.get(name, 1e-8)  # that to which the library itself converges
    assert ours(data) == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert near_miss(data) != pytest.approx(expected, rel=1e-3, abs=1e-3)
