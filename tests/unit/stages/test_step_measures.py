"""What a training step says beside its loss: rows that nobody decided have no right answer."""

from __future__ import annotations

import torch

from pipeline.config.dpo import DPOConfig
from pipeline.config.kto import KTOConfig
from pipeline.losses.pairs import Pairs
from pipeline.losses.unpaired import LabelWeights
from pipeline.stages.finite import StepMeter
from pipeline.stages.preference import Objective
from pipeline.stages.thumb_objective import ThumbObjective

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
