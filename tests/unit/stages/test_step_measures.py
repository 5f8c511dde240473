"""What a training step says beside its loss: rows that nobody decided have no right answer."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.config.dpo import DPOConfig
from pipeline.config.kto import KTOConfig
from pipeline.config.reward import ConfidenceUse, RewardConfig, TieModel
from pipeline.data.thumbs import ThumbCounts
from pipeline.losses.pairs import Pairs
from pipeline.losses.unpaired import LabelWeights
from pipeline.stages import reward_trainer
from pipeline.stages.finite import StepMeter
from pipeline.stages.preference import Objective
from pipeline.stages.reward_trainer import RewardHead, RewardTrainer
from pipeline.stages.thumb_objective import ThumbObjective
from pipeline.stages.thumbs import label_weights

CONFIDENCE = torch.tensor([1.0, 0.5, 0.8, 0.5])


def test_accuracy_of_pairs_is_that_of_decided_ones() -> None:
    """The log-ratios differ by 2, -2, 0 and -1: right, nobody's, half, nobody's."""
    zeros, lengths = torch.zeros(4), torch.ones(4, dtype=torch.long)
    pairs = Pairs(
        chosen=torch.tensor([2.0, 0.0, 1.0, 0.0]), rejected=torch.tensor([0.0, 2.0, 1.0, 1.0]),
        chosen_lengths=lengths, rejected_lengths=lengths, reference_chosen=zeros, reference_rejected=zeros,
    )  # fmt: skip
    objective = Objective(config=DPOConfig())
    assert objective.measures(pairs, CONFIDENCE)["reward_accuracy"].tolist() == [1.0, 0.5]
    # Were all decided, the two that are wrong would count.
    assert objective.measures(pairs, torch.ones(4))["reward_accuracy"].tolist() == [1.0, 0.0, 0.5, 0.0]


def test_accuracy_of_thumbs_is_that_of_decided_ones() -> None:
    """Good and bad completions, of which the second and the last are neither; the baseline is 0."""
    log_ratio, label = torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.tensor([True, True, False, False])
    objective = ThumbObjective(config=KTOConfig(), weights=LabelWeights())
    measured = [
        objective.measures(log_ratio, log_ratio, torch.ones(4), label, confidence, None)["label_accuracy"].tolist()
        for confidence in (CONFIDENCE, torch.ones(4))
    ]
    assert measured == [[1.0, 0.0], [1.0, 0.0, 0.0, 1.0]]


def test_a_measure_that_no_row_of_a_step_has_is_left_out() -> None:
    """Two microbatches, of which the first has nothing decided; then one alone."""
    meter = StepMeter()
    meter.start()
    rows = {"loss": torch.tensor(0.5), "processed": 2, "supervised": 1}
    meter.add(rows=["a", "b"], **rows, extras={"accuracy": torch.zeros(0), "score": torch.tensor([1.0, 3.0])})
    assert meter.means() == {"score": 2.0}
    meter.add(rows=["c"], **rows, extras={"accuracy": torch.tensor([1.0]), "score": torch.tensor([5.0])})
    assert meter.means() == {"accuracy": 1.0, "score": 3.0}


def test_only_drift_upwards_moves_the_baseline_of_thumbs() -> None:
    """At a log-ratio of log 3 a good completion costs 1/4 against a baseline of 0, and 1/2 against log 3."""
    config = KTOConfig(beta=1.0)
    objective = ThumbObjective(config=config, weights=LabelWeights())
    log_ratio, label, sure = torch.tensor([math.log(3)]), torch.tensor([True]), torch.ones(1)
    for drift, loss in ((None, 0.25), (-5.0, 0.25), (math.log(3), 0.5)):
        assert objective.losses(log_ratio, label, sure, drift).tolist() == [pytest.approx(loss)]
    below = objective.measures(log_ratio, log_ratio, torch.ones(1), label, sure, -5.0)
    assert below["drift"].tolist() == [-5.0], "what is told is what was measured"
    assert below["label_accuracy"].tolist() == [1.0]
    above = objective.measures(log_ratio, log_ratio, torch.ones(1), label, sure, 5.0)
    assert above["label_accuracy"].tolist() == [0.0]


def test_measures_of_thumbs_by_hand() -> None:
    """Two good completions and a bad one; rewards are beta times the log-ratio, drops are per token."""
    objective = ThumbObjective(config=KTOConfig(beta=0.5), weights=LabelWeights())
    log_ratio, sums = torch.tensor([2.0, -4.0, 6.0]), torch.tensor([-10.0, -20.0, -30.0])
    measured = objective.measures(
        log_ratio, sums, torch.tensor([2, 4, 3]), torch.tensor([True, True, False]), torch.ones(3), None
    )
    wanted = {
        "reward_good": [1.0, -2.0], "reward_bad": [3.0], "log_ratio_per_token_good": [1.0, -1.0],
        "log_ratio_per_token_bad": [2.0], "logprob_good": [-10.0, -20.0], "logprob_bad": [-30.0],
        "length_good": [2.0, 4.0], "length_bad": [3.0],
    }  # fmt: skip
    assert {name: measured[name].tolist() for name in wanted} == wanted
    assert "drift" not in measured


@pytest.mark.parametrize(
    ("changes", "desirable", "undesirable"),
    [
        ({}, 2.0, 2 / 3),  # 1 good and 3 bad: each label weighs 2 of 4 in all
        ({"desirable_weight": 5.0}, 5.0, 2 / 3),
        ({"undesirable_weight": 5.0}, 2.0, 5.0),
    ],
)
def test_weights_of_labels_by_hand(changes: dict[str, float], desirable: float, undesirable: float) -> None:
    weights = label_weights(KTOConfig(**changes), ThumbCounts(good=1, bad=3))  # type: ignore[arg-type]
    assert (weights.desirable, weights.undesirable) == pytest.approx((desirable, undesirable))


PAIR = Pairs(
    chosen=torch.tensor([-6.0]), rejected=torch.tensor([-8.0]), chosen_lengths=torch.tensor([2]),
    rejected_lengths=torch.tensor([4]), reference_chosen=torch.tensor([-10.0]), reference_rejected=torch.tensor([-9.0]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "beta", "chosen", "rejected"),
    [
        ("sigmoid", 0.5, 2.0, 0.5),  # log-ratios 4 and 1
        ("sigmoid_norm", 0.5, 1.0, 0.125),  # 4 / 2 and 1 / 4
        ("simpo", 0.5, -1.5, -1.0),  # -6 / 2 and -8 / 4, without the reference
    ],
)
def test_implicit_rewards_by_hand(loss: str, beta: float, chosen: float, rejected: float) -> None:
    measured = Objective(config=DPOConfig(loss=loss, beta=beta)).measures(PAIR, torch.ones(1))
    found = [measured[name].item() for name in ("reward_chosen", "reward_rejected", "reward_margin")]
    assert found == pytest.approx([chosen, rejected, chosen - rejected])
    assert measured["log_ratio_per_token_chosen"].item() == pytest.approx(2.0)
    assert measured["log_ratio_per_token_rejected"].item() == pytest.approx(0.25)
    assert measured["reference_kl"].item() == pytest.approx(-2.5)  # minus the mean of 4 and 1


@pytest.mark.parametrize(
    ("soft", "loss"), [(True, 0.75 * math.log(4 / 3) + 0.25 * math.log(4)), (False, math.log(4 / 3))]
)
def test_labels_are_soft_where_that_is_asked_for(soft: bool, loss: float) -> None:
    """A margin of log 3 is right with probability 3/4, and so is the label."""
    config = DPOConfig(loss="sigmoid", beta=math.log(3) / 3, soft_labels=soft)
    losses = Objective(config=config).losses(PAIR, torch.tensor([0.75]), torch.zeros(1))
    assert losses.tolist() == [pytest.approx(loss)]


class Meter:
    """Keeps what a step is told."""

    def add(self, **given: Any) -> None:
        self.given = given


@pytest.mark.parametrize(
    ("use", "first", "second"),
    [
        # Differences 0 and 0: log 2 each, and centring 0.01 (r_w + r_l)^2 = 0.04 and 0.16.
        (ConfidenceUse.label, math.log(2) + 0.04, math.log(2) + 0.16),
        # Weights 2p - 1 are 1 and 0.5, their mean over the train pairs 0.8; centring is of every pair alike.
        (ConfidenceUse.weight, math.log(2) / 0.8 + 0.04, 0.5 * math.log(2) / 0.8 + 0.16),
    ],
)
def test_a_reward_step_by_hand(
    monkeypatch: pytest.MonkeyPatch, use: ConfidenceUse, first: float, second: float
) -> None:
    monkeypatch.setattr(reward_trainer, "batch_scores", lambda *_: torch.tensor([1.0, 2.0, 1.0, 2.0]))
    side = SimpleNamespace(num_supervised=1)
    pair = SimpleNamespace(id="x", num_tokens=5, chosen=side, rejected=side)
    trainer = SimpleNamespace(
        settings=RewardConfig(confidence=use, centring_coef=0.01), lower=None, mean_weight=0.8, meter=Meter(),
        data_collator=SimpleNamespace(pairs=[pair, pair]),
    )  # fmt: skip
    inputs = {
        "confidence": torch.tensor([1.0, 0.75]), "row_numbers": [0, 1],
        "tie": torch.zeros(2), "has_tie": torch.tensor([False, False]),
    }  # fmt: skip
    head = RewardHead(4, TieModel.half)
    loss = RewardTrainer.compute_loss(trainer, SimpleNamespace(reward_head=head), inputs, num_items_in_batch=8)
    assert loss.item() == pytest.approx((first + second) / 8, abs=1e-6)
    told = trainer.meter.given
    assert (told["processed"], told["supervised"], told["extras"]["score"].tolist()) == (10, 4, [1.0, 2.0])
