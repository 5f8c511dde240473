"""Failure signatures: what a row of the record should never say, what usually causes it, and the key to turn.

The thresholds here are the ones that docs/ppo.md prints; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Row = Mapping[str, float | int]

CONSTANT = 1e-6  # a standard deviation up to this is that of equal scores
TOLD_APART = 0.05  # share of a rollout; with less a group of 64 has three completions or fewer to learn from


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way in which a run goes wrong."""

    name: str
    metric: str
    threshold: float
    sees: Callable[[Row, float], bool]  # (row, threshold)
    message: str  # formatted with the row's metrics and `threshold`
    needs: tuple[str, ...] = ()  # metrics without which a row says nothing
    after: int | None = None  # rollouts since the value warm-up before which it says nothing; None: from the first on
    patience: int = 1  # rollouts in a row
    in_fp32: bool | None = None  # whether it is for runs in fp32 or for all others; None: for both


SIGNATURES: tuple[Signature, ...] = (
    Signature(
        name="first_ratio",
        metric="first_ratio_gap",
        threshold=1e-3,
        sees=lambda row, limit: row["first_ratio_gap"] > limit,
        message=(
            "the probability ratio was off 1 by {first_ratio_gap:.3g} before any update (at most {threshold:g} is "
            "rounding): the forward pass that scores is not the one that trains. Look for dropout, another "
            "`ppo.temperature`, or a merged adapter."
        ),
    ),
    Signature(
        name="negative_kl",
        metric="kl",
        threshold=-1.0,
        sees=lambda row, limit: row["kl"] < limit,
        message=(
            "the mean KL to the reference is {kl:.2f} nats, below {threshold:g}: completions are not drawn from the "
            "distribution that is scored. Look at the engine (`ppo.engine`) and its sampling parameters."
        ),
    ),
    Signature(
        name="kl_stays_zero",
        metric="kl",
        threshold=1e-7,
        sees=lambda row, limit: abs(row["kl"]) <= limit and row["policy_grad_norm"] == 0.0,
        message=(
            "the policy does not move: KL {kl:.1g} and no gradient. Every advantage is equal, or the adapter gets no "
            "gradient. Look at `reward_*`: do the rewards tell completions apart?"
        ),
        needs=("policy_grad_norm",),
        patience=3,
    ),
    Signature(
        name="kl_zero_despite_gradient",
        metric="kl",
        threshold=0.0,
        sees=lambda row, limit: abs(row["kl"]) <= limit and row["policy_grad_norm"] > 0.0,
        message=(
            "the KL is {kl:.1g} to the last digit after updates with a gradient of {policy_grad_norm:.3g}: what learns "
            "is not what samples, or its steps are lost in rounding. Look at which adapter acts and which parameters "
            "the optimizer holds; raise `ppo.optimizer.learning_rate` or set `model.dtype=float32`."
        ),
        needs=("policy_grad_norm",),
        patience=3,
    ),
    Signature(
        name="reference_drift",
        metric="reference_drift",
        threshold=0.0,
        sees=lambda row, limit: row["reference_drift"] > limit,
        message=(
            "the reference gives the same tokens other log-probabilities than at the start, by up to "
            "{reference_drift:.2g} nats: something trains it, or the base beneath it. The KL means nothing from here "
            "on. Go on from a checkpoint before, on `runtime.device=cpu`, where they are equal to the last bit."
        ),
    ),
    Signature(
        name="mismatch",
        metric="mismatch_mean",
        threshold=0.1,
        sees=lambda row, limit: row["mismatch_mean"] > limit,
        message=(
            "engine and policy differ by {mismatch_mean:.3f} nats per token on average (more than {threshold:g}). "
            "`ppo.importance_cap` corrects for it; `model.dtype=float32` or `ppo.engine=hf` removes it."
        ),
        in_fp32=False,
    ),
    Signature(
        name="mismatch_in_fp32",
        metric="mismatch_mean",
        threshold=1e-4,
        sees=lambda row, limit: row["mismatch_mean"] > limit,
        message=(
            "engine and policy differ by {mismatch_mean:.2g} nats per token on average in fp32, where {threshold:g} is "
            "beyond rounding: they do not compute the same model. Set `ppo.engine=hf`; look at sampling parameters, "
            "positions and the adapter that acts."
        ),
        in_fp32=True,
    ),
    Signature(
        name="value_model_useless",
        metric="explained_variance",
        threshold=0.0,
        sees=lambda row, limit: row["explained_variance"] < limit,
        message=(
            "the value model explains less than nothing of the returns ({explained_variance:.2f}). Raise "
            "`ppo.value_learning_rate` or `ppo.value_warmup`; with `ppo.value_init=reward_model` the scales may differ."
        ),
        # The head has warmed up; two more rollouts let it follow a policy that has begun to move, and three in a row
        # are no accident. Seven rollouts with the default warm-up of two: presets make eight.
        after=2,
        patience=3,
    ),
    Signature(
        name="clipping",
        metric="clip_fraction",
        threshold=0.3,
        sees=lambda row, limit: row["clip_fraction"] > limit,
        message=(
            "{clip_fraction:.0%} of the tokens were clipped (more than {threshold:.0%}): updates are too large. Lower "
            "`ppo.optimizer.learning_rate` or `ppo.ppo_epochs`."
        ),
        patience=3,
    ),
    Signature(
        name="never_ends",
        metric="finished_rate",
        threshold=0.5,
        sees=lambda row, limit: row["finished_rate"] < limit,
        message=(
            "only {finished_rate:.0%} of the completions end by themselves (fewer than {threshold:.0%}). Raise "
            "`ppo.max_new_tokens`, or `ppo.missing_eos_penalty` if the policy once knew how to stop."
        ),
        patience=3,
    ),
    Signature(
        name="entropy_collapse",
        metric="entropy",
        threshold=0.1,
        sees=lambda row, limit: row["entropy"] < limit,
        message=(
            "the policy is nearly deterministic: {entropy:.3f} nats per token (below {threshold:g}). Raise "
            "`ppo.kl_coef` or lower `ppo.optimizer.learning_rate`."
        ),
        patience=3,
    ),
    Signature(
        name="degenerate_text",
        metric="monitor_distinct_2_share",
        threshold=0.5,
        sees=lambda row, limit: row["monitor_distinct_2_share"] < limit,
        message=(
            "the held-out completions repeat themselves: different pairs of neighbouring tokens are "
            "{monitor_distinct_2_share:.0%} of what they were before training (less than {threshold:.0%}). Read them; "
            "raise `ppo.kl_coef`, or mend the reward that likes this."
        ),
    ),
    Signature(
        name="constant_score",
        metric="score_std",
        threshold=CONSTANT,
        sees=lambda row, limit: row["score_std"] <= limit,
        message=(
            "every completion got the same score, so there is nothing to learn. Look at `ppo.rewards`: does the policy "
            "pass them some of the time?"
        ),
        patience=3,
    ),
    Signature(
        name="rewards_say_nothing",
        metric="told_apart",
        threshold=TOLD_APART,
        sees=lambda row, limit: row["told_apart"] < limit and row["score_std"] > CONSTANT,
        message=(
            "the reward that says most gave one and the same value to all but {told_apart:.1%} of the completions "
            "(fewer than {threshold:.0%}), so there is next to nothing to learn from; what moves the score is "
            "`ppo.missing_eos_penalty` or chance. Take a better policy or easier prompts, raise `ppo.rollout_size`, or "
            "name a reward in `ppo.rewards` that is passed in part."
        ),
        needs=("score_std",),
        patience=3,
    ),
    Signature(
        name="members_part",
        metric="reward_spread",
        threshold=1.5,
        sees=lambda row, limit: row["reward_spread"] > limit * row["first_reward_spread"],
        message=(
            "the members of the reward model are {reward_spread:.2f} standard deviations apart about what the policy "
            "writes, {first_reward_spread:.2f} in the first rollout (more than {threshold:g} times that): it has left "
            "what they learned from, where a score can be wrong. Raise `ppo.kl_coef` or set `ppo.kl_budget`."
        ),
        patience=3,
    ),
    Signature(
        name="skipped",
        metric="skipped_steps",
        threshold=0.0,
        sees=lambda row, limit: row["skipped_steps"] > limit,
        message=(
            "{skipped_steps} optimizer steps were skipped because a loss or gradient was not finite. Lower the "
            "learning rates or set `model.dtype=float32`."
        ),
    ),
    Signature(
        name="ratio_too_far",
        metric="skipped_ratio_steps",
        threshold=0.0,
        sees=lambda row, limit: row["skipped_ratio_steps"] > limit,
        message=(
            "{skipped_ratio_steps} optimizer steps were skipped because the policy had gone so far within one rollout "
            "that its samples say nothing about it (a mean ratio above 10). Lower `ppo.optimizer.learning_rate` or "
            "`ppo.ppo_epochs`, or set `ppo.update_kl_target`."
        ),
    ),
)
