"""What a preference loss is computed from: how likely the policy and the reference find the two completions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """``B`` pairs. All tensors are ``[B]``; log-probabilities are in nats, summed over a completion's tokens."""

    chosen: Tensor
    rejected: Tensor
    chosen_lengths: Tensor  # supervised tokens
    rejected_lengths: Tensor
    reference_chosen: Tensor | None = None  # None for a loss that has no reference
    reference_rejected: Tensor | None = None

    def swapped(self) -> Pairs:
        """Return the same pairs with the opposite preference."""
        return Pairs(
            chosen=self.rejected,
            rejected=self.chosen,
            chosen_lengths=self.rejected_lengths,
            rejected_lengths=self.chosen_lengths,
            reference_chosen=self.reference_rejected,
            reference_rejected=self.reference_chosen,
        )

    @property
    def chosen_log_ratio(self) -> Tensor:
        """``log pi(y_w | x) - log ref(y_w | x)``."""
        return self.chosen - _required(self.reference_chosen)

    @property
    def rejected_log_ratio(self) -> Tensor:
        """``log pi(y_l | x) - log ref(y_l | x)``."""
        return self.rejected - _required(self.reference_rejected)

    @property
    def log_ratio(self) -> Tensor:
        """The chosen log-ratio less the rejected one; ``beta`` times it is DPO's implicit reward margin."""
        return self.chosen_log_ratio - self.rejected_log_ratio

    @property
    def mean_log_ratio(self) -> Tensor:
        """The same with each log-ratio divided by the tokens of its completion."""
        return self.chosen_log_ratio / self.chosen_lengths - self.rejected_log_ratio / self.rejected_lengths


def _required(reference: Tensor | None) -> Tensor:
    if reference is None:
        raise ValueError("this loss compares the policy with a reference, and the pairs bring no reference")
    return reference
