"""What a preference loss is computed from in training and validation, and what is measured beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config.dpo import DPOConfig, loss_settings
from pipeline.config.preference import LOSSES, loss_terms
from pipeline.data.pairs import Pair
from pipeline.losses.pairs import Pairs
from pipeline.losses.preference import preference_loss
from pipeline.models.logprobs import supervised_logprobs
from pipeline.models.scoring import score


def policy_pairs(model: torch.nn.Module, batch: Mapping[str, Any], reference: Tensor | None) -> Pairs:
    """Score a batch of `pairs.PairCollator` with the policy.

    Args:
        model: The policy.
        batch: ``B`` chosen rows over ``B`` rejected rows.
        reference: ``[B, 2]`` sums of the reference, or None where the loss has none.
    """
    return _pairs(summed_logprobs(model, batch), batch["completion_mask"].sum(dim=1), reference)


def summed_logprobs(model: torch.nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Return the log-probability of each row's completion, in nats: one number for each row of the batch."""
    scored = supervised_logprobs(model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    num_rows = batch["input_ids"].shape[0]
    sums = torch.zeros(num_rows, dtype=scored.logprobs.dtype, device=scored.logprobs.device)
    return sums.index_add(0, scored.row, scored.logprobs)


def _pairs(sums: Tensor, lengths: Tensor, reference: Tensor | None) -> Pairs:
    chosen, rejected = sums.chunk(2)
    chosen_lengths, rejected_lengths = lengths.chunk(2)
    return Pairs(
        chosen=chosen,
        rejected=rejected,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
        reference_chosen=None if reference is None else reference[:, 0].to(sums),
        reference_rejected=None if reference is None else reference[:, 1].to(sums),
    )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """`dpo.loss` with its parameters."""

    config: DPOConfig

    @property
    def terms(self) -> dict[str, float]:
        """Weight of each loss."""
        return loss_terms(self.config.loss)

    def losses(self, pairs: Pairs, confidence: Tensor, tie: Tensor) -> Tensor:
        """Return the loss of each pair, ``[B]``."""
        return preference_loss(
            pairs,
            self.terms,
            beta=self.config.beta,
            settings=loss_settings(self.config),
            confidence=confidence if self.config.soft_labels else None,
            tie=tie if self.config.soft_labels else None,
        )

    def measures(self, pairs: Pairs, confidence: Tensor) -> dict[str, Tensor]:
        """Return what is logged beside the loss, a value for each pair that has one.

        ``reward_*`` is the implicit reward: ``beta`` times the log-ratio to the reference (per token for the losses
        that average over tokens; without a reference, ``beta`` times the mean log-probability), with the ``beta`` of
        the first term that compares completions. ``reward_accuracy`` counts an equal reward as half; a pair that
        nobody decided (``confidence`` one half) has none. ``reference_kl``
        estimates ``KL(reference || policy)`` in nats per completion from the mean of ``-log_ratio``, which is exact in
        expectation for completions that the reference wrote; others shift it.
        """
        chosen, rejected = self._rewards(pairs)
        measures = {
            "reward_chosen": chosen,
            "reward_rejected": rejected,
            "reward_margin": chosen - rejected,
            "reward_accuracy": (torch.sign(chosen - rejected)[confidence > 0.5] + 1) / 2,
            "logprob_chosen": pairs.chosen,
            "logprob_rejected": pairs.rejected,
            "length_chosen": pairs.chosen_lengths.float(),
            "length_rejected": pairs.rejected_lengths.float(),
        }
        if pairs.reference_chosen is not None:
            measures["log_ratio_per_token_chosen"] = pairs.chosen_log_ratio / pairs.chosen_lengths
            measures["log_ratio_per_token_rejected"] = pairs.rejected_log_ratio / pairs.rejected_lengths
            measures["reference_kl"] = -(pairs.chosen_log_ratio + pairs.rejected_log_ratio) / 2
        return {name: value.detach() for name, value in measures.items()}

    def _rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        facts = next(LOSSES[name] for name in self.terms if LOSSES[name].is_pairwise)
        beta = self.config.beta if self.config.beta is not None else facts.beta or 1.0
        chosen, rejected = pairs.chosen, pairs.rejected
        if facts.uses_reference:
            chosen, rejected = pairs.chosen_log_ratio, pairs.rejected_log_ratio
        if facts.per_token:
            chosen, rejected = chosen / pairs.chosen_lengths, rejected / pairs.rejected_lengths
        return beta * chosen, beta * rejected


def validate(
    model: torch.nn.Module, objective: Objective, pairs: Sequence[Pair], reference: Tensor | None, batch_size: int
) -> dict[str, float]:
    """Measure the loss and everything beside it on validation pairs."""
    sides = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scores = score(model, sides, 2 * batch_size)
    sums = torch.tensor([row.nats for row in scores], dtype=torch.float64)
    scored = _pairs(sums, torch.tensor([row.tokens for row in scores]), reference)
    confidence = torch.tensor([pair.confidence for pair in pairs], dtype=torch.float64)
    tie = torch.tensor([pair.tie or 0.0 for pair in pairs], dtype=torch.float64)
    measured = {"loss": objective.losses(scored, confidence, tie).mean().item()}
    for name, values in objective.measures(scored, confidence).items():
        if values.numel():
            measured[name] = values.double().mean().item()
    return measured
