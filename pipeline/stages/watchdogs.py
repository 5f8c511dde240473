"""Watchdogs of a preference run: each names what looks wrong, the likely cause and the key to change.

They end nothing and change no policy. What they look at is kept in the course, so that a resumed run tells the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.config.dpo import DPOConfig, WatchConfig
from pipeline.config.evaluation import SamplingConfig
from pipeline.config.preference import LOG_2_LOSSES, loss_terms, uses_reference
from pipeline.data.chat import Chat
from pipeline.models.generation import generate
from pipeline.stages.course import Course
from pipeline.stages.finite import StepMeter
from pipeline.tracking.run import Run

SAMPLED = "sampled_tokens"  # of the validation measures: mean length of what the policy writes
CHOSEN, MARGIN, LOSS = "log_ratio_per_token_chosen", "reward_margin", "loss"
LOGPROB, LENGTH = "logprob_chosen", "length_chosen"  # of the validation measures, per completion
NUM_KEPT = 4  # completions of each validation that are kept to be read
WATCHED = (CHOSEN, MARGIN, LOSS)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a watchdog sees after an optimizer step."""

    means: Mapping[str, float]  # over the last steps, empty until there are as many as the window
    done: float  # share of the run
    length_before: float | None  # tokens that the policy wrote before training, and now; None where not measured
    length_now: float | None
    chosen_lost: float | None = None  # nats per token of the chosen validation completions, since before training


def warnings(sight: Sight, config: DPOConfig) -> dict[str, str]:
    """Return what looks wrong, by the watchdog's name."""
    watch, found, margin = config.watch, {}, sight.means.get(MARGIN, 0.0)
    if uses_reference(config.loss):
        drop, before = -sight.means.get(CHOSEN, 0.0), "under the reference"
    else:
        drop, before = sight.chosen_lost or 0.0, "before training, on the validation pairs"
    if watch.chosen_drop is not None and drop > watch.chosen_drop:
        found["chosen_falls"] = (
            f"the chosen completions are {drop:.2f} nats per token less likely than {before} (more than "
            f"dpo.watch.chosen_drop={watch.chosen_drop:g}). The loss only sees the difference, so both can fall, and "
            "what rises is neither. Lower `dpo.optimizer.learning_rate`, raise `dpo.beta`, or anchor the chosen "
            "completions: `dpo.loss={sigmoid: 1, sft: 0.2}` or `dpo.loss=apo_zero`."
        )
    if watch.max_margin is not None and margin > watch.max_margin:
        found["margin_explodes"] = (
            f"the implicit rewards of chosen and rejected are {margin:.1f} apart (more than dpo.watch.max_margin="
            f"{watch.max_margin:g}): the train pairs are being learned by heart. "
            "Lower `dpo.num_epochs` or `dpo.optimizer.learning_rate`, or bound the margin with `dpo.loss=ipo_sum` or "
            "`dpo.loss=cdpo`."
        )
    found |= _stuck(sight, config)
    return found | length_drift(
        sight, watch, "dpo", "Average over tokens with `dpo.loss=sigmoid_norm`, raise `dpo.beta`"
    )


def length_drift(sight: Sight, watch: WatchConfig, section: str, remedy: str) -> dict[str, str]:
    """Return the warning that what the policy itself writes has become longer or shorter."""
    if watch.length_ratio is None or not sight.length_before or sight.length_now is None:
        return {}
    ratio = sight.length_now / sight.length_before
    if 1 / watch.length_ratio <= ratio <= watch.length_ratio:
        return {}
    return {
        "length_drifts": (
            f"the policy's own completions have {sight.length_now:.0f} tokens, {ratio:.2f} times as many as before "
            f"training (beyond {section}.watch.length_ratio={watch.length_ratio:g}): it learns that "
            f"{'longer' if ratio > 1 else 'shorter'} is better. {remedy}, or look whether the votes prefer length."
        )
    }


def _stuck(sight: Sight, config: DPOConfig) -> dict[str, str]:
    watch, loss, terms = config.watch, sight.means.get(LOSS), loss_terms(config.loss)
    if watch.stuck_after is None or loss is None or sight.done < watch.stuck_after or set(terms) - LOG_2_LOSSES:
        return {}
    weight = sum(terms.values())
    start = weight * math.log(2)
    if abs(loss - start) > weight * watch.stuck_tolerance:
        return {}
    return {
        "stuck_at_log_2": (
            f"after {sight.done:.0%} of the run the loss is {loss:.4f}, still that of a policy which tells no chosen "
            f"from a rejected completion ({weight:g} log 2 = {start:.4f}). The steps are too small, or the labels say "
            "little: raise `dpo.optimizer.learning_rate` or `dpo.beta`, and look at the agreement of the votes in the "
            "data's page."
        )
    }


def written_length(
    policy: torch.nn.Module, chat: Chat, prompts: Sequence[list[int]], watch: WatchConfig, run: Run
) -> dict[str, float]:
    """Let the policy answer validation prompts greedily, keep the first answers, and return their mean length."""
    if watch.length_ratio is None or not prompts:
        return {}
    sampling = SamplingConfig(max_new_tokens=watch.max_new_tokens)
    written = generate(policy, chat, list(prompts), sampling, len(prompts))
    run.written(
        [
            {"prompt": chat.tokenizer.decode(ids, skip_special_tokens=True), "completion": completion.text}
            for ids, completion in zip(prompts[:NUM_KEPT], written[:NUM_KEPT], strict=True)
        ]
    )
    return {SAMPLED: sum(completion.num_tokens for completion in written) / len(written)}


def learned_measures(course: Course) -> dict[int, dict[str, float]]:
    """Return what each validation measured, by step.

    How long the policy writes is left out: it depends on how the watchdog looks, which is no part of what is learned.
    """
    measured = zip((step for step, _ in course.validations), course.details, strict=True)
    return {step: {name: value for name, value in values.items() if name != SAMPLED} for step, values in measured}


class Watchdogs(TrainerCallback):  # type: ignore[misc]  # untyped upstream
    """Looks after every optimizer step and tells each finding once."""

    def __init__(
        self,
        meter: StepMeter,
        course: Course,
        run: Run,
        watch: WatchConfig,
        names: Sequence[str],
        look: Callable[[Sight], Mapping[str, str]],
    ) -> None:
        """`course` remembers the last steps and what was told.

        Args:
            meter: Of the step.
            course: Of the run.
            run: Is told.
            watch: Thresholds.
            names: Measures whose mean over the last steps is looked at.
            look: Returns what looks wrong, by the watchdog's name.
        """
        self.meter, self.course, self.run = meter, course, run
        self.watch, self.names, self.look = watch, names, look

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take in the step and tell what is new."""
        window = min(self.watch.window, max(1, state.max_steps // 4))  # a short run is looked at, too
        step = {LOSS: torch.stack(self.meter.losses).sum().item(), **self.meter.means()}
        for name in self.names:
            if math.isfinite(step.get(name, math.nan)):
                self.course.recent[name] = [*self.course.recent.get(name, []), step[name]][-window:]
        full = {name: fmean(values) for name, values in self.course.recent.items() if len(values) == window}
        lengths = [measured.get(SAMPLED) for measured in self.course.details]
        sight = Sight(
            means=full,
            done=state.global_step / max(state.max_steps, 1),
            length_before=lengths[0] if lengths else None,
            length_now=lengths[-1] if lengths else None,
            chosen_lost=_chosen_lost(self.course.details),
        )
        told = {warning["name"] for warning in self.course.warnings}
        for name, message in self.look(sight).items():
            if name not in told:
                self.course.warnings.append({"name": name, "step": state.global_step, "message": message})
                text = f"step {state.global_step}: watchdog {name}: {message}"
                self.run.alert(f"{self.run.name}: {name}", text)


def _chosen_lost(validations: Sequence[Mapping[str, float]]) -> float | None:
    """Nats per token that the chosen validation completions have lost since the first validation, before training."""
    if not validations or LOGPROB not in validations[0]:
        return None
    first, last = validations[0], validations[-1]
    return (first[LOGPROB] - last[LOGPROB]) / last[LENGTH]
