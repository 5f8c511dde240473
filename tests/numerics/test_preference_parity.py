"""Our preference losses against TRL's own, run on the same log-probabilities; and what TRL leaves out."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
from torch import Tensor

from pipeline.losses.pairs import Pairs
from pipeline.losses.preference import preference_loss

PAIRS, LENGTH = 6, 9


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per-token log-probabilities ``[2B, L - 1]``, the mask ``[2B, L]`` and reference sums, in TRL's layout."""
    generator = torch.Generator().manual_seed(11)
    mask = torch.zeros(2 * PAIRS, LENGTH, dtype=torch.long)
    for row in range(2 * PAIRS):
        start, stop = 1 + row % 3, 4 + (5 * row) % 6
        mask[row, start : max(stop, start + 1)] = 1
    logprobs = -2 * torch.rand(2 * PAIRS, LENGTH - 1, generator=generator) * mask[:, 1:]
    reference = logprobs.sum(1) + torch.randn(2 * PAIRS, generator=generator)
    return logprobs, mask, reference[:PAIRS], reference[PAIRS:]


def trl_loss(loss_type: str, beta: float, label_smoothing: float) -> float:
    """Call TRL's loss itself; only the model's forward pass and the processes around it are stood in for."""
    logprobs, mask, reference_chosen, reference_rejected = batch()
    same = lambda value: value  # noqa: E731
    outputs = SimpleNamespace(
        log_probs=logprobs,
        entropy=torch.zeros_like(logprobs),
        mean_logits=torch.zeros_like(logprobs),
        is_top1=torch.zeros_like(logprobs, dtype=torch.bool),
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same),
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl",
        loss_types=[loss_type], loss_weights=[1.0], beta=beta, label_smoothing=label_smoothing, use_weighting=False,
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
        "ref_chosen_logps": reference_chosen, "ref_rejected_logps": reference_rejected,
    }  # fmt: skip
    loss: Any = trl.DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
    return float(loss)


def our_pairs() -> Pairs:
    logprobs, mask, reference_chosen, reference_rejected = batch()
    sums, lengths = logprobs.sum(1), mask.sum(1)
    return Pairs(
        chosen=sums[:PAIRS],
        rejected=sums[PAIRS:],
        chosen_lengths=lengths[:PAIRS],
        rejected_lengths=lengths[PAIRS:],
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "beta", "label_smoothing"),
    [
        ("sigmoid", "sigmoid", 0.1, 0.0),
        ("hinge", "hinge", 0.3, 0.0),
        ("ipo_mean", "ipo", 2.5, 0.0),  # TRL's ipo is the averaged one
        ("robust", "robust", 0.1, 0.2),
        ("exo_pair", "exo_pair", 0.1, 0.05),
        ("nca_pair", "nca_pair", 0.1, 0.0),
        ("bco_pair", "bco_pair", 0.1, 0.0),
        ("sppo_hard", "sppo_hard", 0.1, 0.0),
        ("apo_zero", "apo_zero", 0.1, 0.0),
        ("apo_down", "apo_down", 0.1, 0.0),
        ("sigmoid_norm", "sigmoid_norm", 5.0, 0.0),
    ],
)
def test_a_loss_that_trl_has_is_trls(ours: str, theirs: str, beta: float, label_smoothing: float) -> None:
    found = preference_loss(our_pairs(), {ours: 1.0}, beta=beta, settings={"label_smoothing": label_smoothing})
    expected = trl_loss(theirs, beta, label_smoothing)
    assert found.mean().item() == pytest.approx(expected, rel=1e-5)
    other = preference_loss(our_pairs(), {ours: 1.0}, beta=1.01 * beta, settings={"label_smoothing": label_smoothing})
    assert other.mean().item() != pytest.approx(expected, rel=1e-5), "a beta that is 1 % off would pass"


def test_trl_ignores_label_smoothing_in_its_sigmoid_loss_and_ours_does_not() -> None:
    assert trl_loss("sigmoid", 0.1, 0.3) == trl_loss("sigmoid", 0.1, 0.0)
    smoothed = preference_loss(our_pairs(), {"cdpo": 1.0}, beta=0.1, settings={"label_smoothing": 0.3}).mean().item()
    assert smoothed != pytest.approx(trl_loss("sigmoid", 0.1, 0.3), rel=1e-3)


def test_summed_and_averaged_ipo_are_different_losses() -> None:
    summed = preference_loss(our_pairs(), {"ipo_sum": 1.0}, beta=0.5).mean().item()
    assert summed != pytest.approx(trl_loss("ipo", 0.5, 0.0), rel=1e-2)
