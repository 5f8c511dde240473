"""What a labelled completion costs in training and validation, what is measured beside it, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config.kto import KTOConfig, ThumbLoss
from pipeline.data.encode import Encoded
from pipeline.data.thumbs import Thumb
from pipeline.losses.unpaired import LabelWeights, unpaired_loss
from pipeline.models.scoring import score
from pipeline.stages.watchdogs import LOSS, Sight, length_drift

GOOD, BAD, DROP = "reward_good", "reward_bad", "log_ratio_per_token_good"
WATCHED = (GOOD, BAD, DROP, LOSS)


@dataclass(frozen=True, kw_only=True)
class ThumbObjective:
    """`kto.loss` with its parameters."""

    config: KTOConfig
    weights: LabelWeights

    def losses(self, log_ratio: Tensor, label: Tensor, confidence: Tensor, drift: float | None) -> Tensor:
        """Return the loss of each completion, ``[B]``; ``drift`` is the mean log-ratio of unrelated ones."""
        return unpaired_loss(
            log_ratio,
            label,
            beta=self.config.beta,
            baseline=max(drift or 0.0, 0.0),
            weights=self.weights,
            confidence=confidence if self.config.soft_labels else None,
        )

    def measures(
        self,
        log_ratio: Tensor,
        sums: Tensor,
        lengths: Tensor,
        label: Tensor,
        confidence: Tensor,
        drift: float | None,
    ) -> dict[str, Tensor]:
        """Return what is logged beside the loss, a value for each row that has one.

        ``reward_*`` is ``beta`` times the log-ratio to the reference. ``label_accuracy`` counts a good completion above
        the baseline and a bad one below it, at the baseline half; one that nobody decided (``confidence`` one half) not
        at all. ``drift`` estimates in nats per completion how far the policy has moved on completions that answer
        other prompts; the baseline is what of it is above 0.
        """
        baseline = max(drift or 0.0, 0.0)
        side = torch.where(label, 1.0, -1.0)
        measures = {"label_accuracy": (torch.sign((log_ratio - baseline) * side)[confidence > 0.5] + 1) / 2}
        if drift is not None:
            measures["drift"] = torch.full_like(log_ratio, drift)
        for name, rows in (("good", label), ("bad", ~label)):
            measures |= {
                f"reward_{name}": self.config.beta * log_ratio[rows],
                f"log_ratio_per_token_{name}": log_ratio[rows] / lengths[rows],
                f"logprob_{name}": sums[rows],
                f"length_{name}": lengths[rows].to(sums),
            }
        return {name: values.detach() for name, values in measures.items()}


def validate(
    model: torch.nn.Module, objective: ThumbObjective, thumbs: Sequence[Thumb], reference: Tensor, batch_size: int
) -> dict[str, float]:
    """Measure the loss and everything beside it on validation rows; ``reference`` is ``[N, 2]``."""
    own = _nats(model, [thumb.own for thumb in thumbs], batch_size)
    drift = None
    if objective.config.loss is ThumbLoss.kto:
        unrelated = _nats(model, [thumb.mismatched for thumb in thumbs], batch_size)
        drift = (unrelated - reference[:, 1].double()).mean().item()
    label = torch.tensor([thumb.label for thumb in thumbs])
    confidence = torch.tensor([thumb.confidence for thumb in thumbs], dtype=torch.float64)
    lengths = torch.tensor([thumb.own.num_supervised for thumb in thumbs])
    log_ratio = own - reference[:, 0].double()
    measured = {"loss": objective.losses(log_ratio, label, confidence, drift).mean().item()}
    for name, values in objective.measures(log_ratio, own, lengths, label, confidence, drift).items():
        if values.numel():
            measured[name] = values.double().mean().item()
    return measured


def _nats(model: torch.nn.Module, rows: Sequence[Encoded], batch_size: int) -> Tensor:
    return torch.tensor([row.nats for row in score(model, rows, batch_size)], dtype=torch.float64)


def warnings(sight: Sight, objective: ThumbObjective) -> dict[str, str]:
    """Return what looks wrong, by the watchdog's name."""
    watch, found = objective.config.watch, {}
    drop = -sight.means.get(DROP, 0.0)
    if watch.chosen_drop is not None and drop > watch.chosen_drop:
        found["good_falls"] = (
            f"the good completions are {drop:.2f} nats per token less likely than under the reference (more than "
            f"kto.watch.chosen_drop={watch.chosen_drop:g}): the policy unlearns the bad ones and these with them. "
            "Lower `kto.optimizer.learning_rate` or `kto.undesirable_weight`, raise `kto.beta`, or take "
            "`kto.loss=apo_zero_unpaired`, in which nothing but the label moves a completion."
        )
    margin = sight.means.get(GOOD, 0.0) - sight.means.get(BAD, 0.0)
    if watch.max_margin is not None and margin > watch.max_margin:
        found["margin_explodes"] = (
            f"the implicit rewards of good and bad completions are {margin:.1f} apart (more than kto.watch.max_margin="
            f"{watch.max_margin:g}): the train rows are being learned by heart. Lower `kto.num_epochs` or "
            "`kto.optimizer.learning_rate`."
        )
    # Rewards are looked at, not the loss: where labels weigh differently every batch begins at another loss.
    looks = watch.stuck_after is not None and {GOOD, BAD} <= sight.means.keys() and sight.done >= watch.stuck_after
    if looks and abs(margin) < watch.stuck_tolerance:
        found["stuck_at_the_reference"] = (
            f"after {sight.done:.0%} of the run the implicit rewards of good and bad completions are {margin:.4f} "
            f"apart (less than kto.watch.stuck_tolerance={watch.stuck_tolerance:g}): the policy tells them apart no "
            "better than before. Raise `kto.optimizer.learning_rate` or `kto.beta`, and look at the agreement of the "
            "votes in the data's page."
        )
    return found | length_drift(sight, watch, "kto", "Raise `kto.beta`")
