"""GRPO and RLOO: a policy learns which of its own completions of a prompt were better than the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import torch
import trl
from peft import PeftModel
from torch import Tensor

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.grpo import GroupAlgorithm, GRPOConfig, training_config
from pipeline.config.ppo import REWARD_MODEL
from pipeline.config.shared import ModelConfig
from pipeline.data.encode import Encoded, load_chat
from pipeline.models.loading import ADAPTER_FOLDER, weights_as_they_are
from pipeline.models.roles import enter_role, load_role, switch_dropout_off
from pipeline.models.scoring import score
from pipeline.ppo.loop import Scores
from pipeline.ppo.rollout import PromptItem, Rollout
from pipeline.ppo.samplers import BatchSampler
from pipeline.ppo.watch import nothing_to_learn
from pipeline.stages.arguments import TRL_REFERENCE, align_special_tokens, switch_telemetry_off
from pipeline.stages.finite import StepMeter
from pipeline.stages.group_rollouts import GroupSampler, sampled
from pipeline.stages.policies import initial_policy, seal_policy
from pipeline.stages.prompts import load_all_prompts, prompt_order
from pipeline.stages.rewards import learned_rewards, make_scorer, reads_reward_model, score_with
from pipeline.stages.training import begin_training, train
from pipeline.stages.watchdogs import NUM_KEPT
from pipeline.tracking.job import StageJob
from pipeline.tracking.run import Run

SECTION = "grpo"


class GroupTrainer:
    """What our trainers of both algorithms share: rollouts are sampled and scored as in PPO, the rest is TRL's.

    Of TRL only ``_generate`` is replaced, which has no public hook in both: its own samples from what the model's
    generation settings leave open, in training mode, and passes decoded text on.
    """

    meter: StepMeter
    rollouts: GroupSampler
    state: Any
    model: Any
    accelerator: Any
    current_gradient_accumulation_steps: int
    _metrics: dict[str, dict[str, list[float]]]
    loss_is_whole: bool  # whether TRL's loss of a microbatch is that of a whole step

    def sample_groups(self, prompts: Sequence[str]) -> Rollout:
        """Sample a rollout; the trainer's rows are places in the order of prompts."""
        return self.rollouts.sample(self.accelerator.unwrap_model(self.model), prompts, self.state.global_step)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return TRL's loss, and note what the step's row of metrics is made of."""
        loss: Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        real = inputs["completion_mask"].sum()
        rollout, measures = self.rollouts.take()
        told = {ours: self._metrics["train"][theirs] for ours, theirs in TOLD.items() if self._metrics["train"][theirs]}
        self.meter.add(
            loss=loss / (self.current_gradient_accumulation_steps if self.loss_is_whole else 1),
            rows=[] if rollout is None else list(dict.fromkeys(prompt.id for prompt in rollout.prompts)),
            processed=int(real + inputs["prompt_mask"].sum()),
            supervised=int(real),
            extras={**measures, **{name: torch.tensor([values[-1]]) for name, values in told.items()}},
        )
        return loss


# Our names of what TRL measures. The first is k3 of the loss in GRPO and k1 of the score in RLOO, both per token.
TOLD = {"kl_per_token": "kl", "entropy": "entropy", "groups_without_spread": "frac_reward_zero_std"}


class GRPOTrainer(GroupTrainer, trl.GRPOTrainer):  # type: ignore[misc]  # untyped upstream
    """TRL's GRPO on our rollouts."""

    loss_is_whole = False

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        rollout = self.sample_groups(prompts)
        return (*sampled(rollout)[:2], None, sampled(rollout)[2], None, {}, None, [])


class RLOOTrainer(GroupTrainer, trl.RLOOTrainer):  # type: ignore[misc]  # untyped upstream
    """TRL's RLOO on our rollouts."""

    loss_is_whole = True

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        return sampled(self.sample_groups(prompts))


def train_grpo(job: StageJob) -> StageOutcome:
    """Train with GRPO or RLOO and seal the policy of the last rollout.

    Every rollout is one optimizer step, so that the policy that learns is the one that sampled. The reference is the
    given policy before training, or the base.
    """
    config = job.section(GRPOConfig)
    training = begin_training(job, training_config(config), section=SECTION)
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    prompts = load_all_prompts(job, chat, config, section=SECTION, num_held_out=config.num_prompts)
    model = initial_policy(job, training.config, training.dtype)
    given = job.one("policy")
    reference = None if given is None else TRL_REFERENCE
    roles = {REWARD_MODEL: reads_reward_model(config.rewards)}
    learned = learned_rewards(job, model, roles, allow_failed=config.allow_failed_reward)
    scorer = make_scorer(
        config.rewards,
        learned=score_with(learned.get(REWARD_MODEL), 4 * config.microbatch_size),
        where="grpo.rewards",
        say=job.run.notice,
    )
    order = group_order(prompts.train, config)
    engine = BatchSampler(chat=chat, batch_size=config.generation_batch_size)
    rollouts = GroupSampler(config=config, chat=chat, prompts=order, scorer=scorer, sampler=engine)

    def make(arguments: dict[str, Any], meter: StepMeter) -> GRPOTrainer | RLOOTrainer:
        trainer = make_trainer(model, rollouts, arguments, meter)
        if given is not None:
            load_role(model, TRL_REFERENCE, given.path / ADAPTER_FOLDER)
        switch_dropout_off(model)  # of the reference as well, and of what TRL has made
        for adapter in model.peft_config.values():  # sealed ones name their base without a path: see initial_policy
            adapter.base_model_name_or_path = str(job.base.folder)
        return trainer

    milestones = train(
        training,
        make,
        num_rows=config.num_rollouts * config.rollout_size,
        has_validation=bool(prompts.held_out),
        measure=lambda policy: measure_policy(policy, rollouts, prompts.held_out, reference, job.run),
    )
    course = training.attempt.course
    measured = dict(zip((step for step, _ in course.validations), course.details, strict=True))
    names = ("score", "kl", "completion_tokens", "finished_rate")
    return seal_policy(
        training,
        model,
        milestones,
        rows=prompts.counts,
        metrics=lambda step: {
            "episodes": milestones.num_steps * config.rollout_size,
            **{f"validation_{name}_start": measured.get(0, {}).get(name) for name in names},
            **{f"validation_{name}": measured.get(step, {}).get(name) for name in names},
        },
        facts={"measures": [{"step": step, **values} for step, values in measured.items()]},
    )


def make_trainer(
    model: PeftModel, rollouts: GroupSampler, arguments: Mapping[str, Any], meter: StepMeter
) -> GRPOTrainer | RLOOTrainer:
    """Build the trainer of the algorithm over all prompts of the run, in their order.

    TRL copies the policy as reference; the copy is taken away again, because it is made of the policy as it is now:
    a stage loads the incoming one under the same name, and without one TRL takes the bare base.
    """
    config = rollouts.config
    switch_telemetry_off()
    align_special_tokens(model, rollouts.chat.tokenizer)
    shared = {
        **arguments,
        "num_generations": config.group_size,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "beta": config.kl_coef,
        "num_iterations": 1,
        "shuffle_dataset": False,
        "disable_dropout": True,
    }
    given = {
        "model": model,
        "reward_funcs": rollouts.reward,
        "train_dataset": datasets.Dataset.from_dict({"prompt": [str(place) for place in range(len(rollouts.prompts))]}),
        "processing_class": rollouts.chat.tokenizer,
    }
    trainer: GRPOTrainer | RLOOTrainer
    with weights_as_they_are(model):
        if config.algorithm is GroupAlgorithm.grpo:
            scaled = "group" if config.scale_scores else "none"
            trainer = GRPOTrainer(args=trl.GRPOConfig(**shared, loss_type="dapo", scale_rewards=scaled), **given)
        else:
            trainer = RLOOTrainer(args=trl.RLOOConfig(**shared, normalize_advantages=config.scale_scores), **given)
    if TRL_REFERENCE in model.peft_config:
        model.delete_adapter(TRL_REFERENCE)
    trainer.meter, trainer.rollouts = meter, rollouts
    return trainer


def group_order(prompts: Sequence[PromptItem], config: GRPOConfig) -> list[PromptItem]:
    """Return the prompts of all rollouts one after the other, each once: a group's completions share one."""
    groups = config.rollout_size // config.group_size
    of: Callable[[int], list[PromptItem]] = prompt_order(
        prompts, num_rollouts=config.num_rollouts, rollout_size=groups, seed=config.seed
    )
    return [prompt for number in range(config.num_rollouts) for prompt in of(number)]


def measure_policy(
    policy: PeftModel, rollouts: GroupSampler, held_out: Sequence[PromptItem], reference: str | None, run: Run
) -> dict[str, float]:
    """Answer held-out prompts, score the answers and keep the first; the random streams are the same at every step.

    ``score`` is the bare sum of the rewards, neither clipped nor with a penalty for a missing end, and ``loss`` its
    negative. ``kl`` is k1 against the reference in nats per completion, at the temperature of sampling: at another one
    the completions are no samples of what is scored, and their mean is no divergence.
    """
    rollout = rollouts.answer(policy, held_out, [f"held-out/{number}" for number in range(len(held_out))])
    scores: Scores = rollouts.scorer(rollout)
    run.written(rollout.texts(scores.total.tolist(), NUM_KEPT))
    if warning := nothing_to_learn(scores.total, SECTION):
        run.alert(f"{run.name}: rewards", warning)
    rows = [
        Encoded(
            id=prompt.id,
            input_ids=[*prompt.ids, *completion.ids],
            completion_mask=[False] * len(prompt.ids) + [True] * len(completion.ids),
        )
        for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True)
    ]
    size, temperature = rollouts.config.microbatch_size, rollouts.config.temperature
    own = [row.nats for row in score(policy, rows, size, temperature=temperature)]
    with enter_role(policy, reference) as frozen:
        others = [row.nats for row in score(frozen, rows, size, temperature=temperature)]
    lengths = [completion.num_tokens for completion in rollout.completions]
    mean_score = float(scores.total.mean())
    return {
        "loss": -mean_score,
        "score": mean_score,
        **{f"reward_{name}": float(values.double().mean()) for name, values in scores.by_name.items()},
        "kl": sum(a - b for a, b in zip(own, others, strict=True)) / len(rows),
        "completion_tokens": sum(lengths) / len(lengths),
        "finished_rate": rollout.finish_reasons.count("stop") / len(rows),
    }
