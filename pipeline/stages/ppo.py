"""PPO: a policy learns from rewards on its own samples, without leaving its reference too far behind."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.ppo import NO_DORA, REWARD_MODEL, PPOConfig, RolloutEngine, ValueInit, ValueModel
from pipeline.config.shared import DType, ModelConfig
from pipeline.data.encode import Chat, load_chat
from pipeline.errors import ConfigError
from pipeline.models.head import underlying_model
from pipeline.models.loading import ADAPTER_FOLDER, add_lora, load_base, load_policy
from pipeline.models.reward import RewardModel
from pipeline.models.roles import POLICY, REFERENCE, VALUE, add_role, copy_role, load_role, switch_dropout_off
from pipeline.models.value import ValueHead
from pipeline.ppo.divergence import KLController
from pipeline.ppo.loop import Loop, Scorer
from pipeline.ppo.roles import OneBackbone
from pipeline.ppo.rollout import Sampler
from pipeline.ppo.samplers import BatchSampler, ContinuousSampler
from pipeline.ppo.update import Learner
from pipeline.ppo.watch import Watchdog
from pipeline.runtime.allocator import keep_memory
from pipeline.runtime.device import choose_device
from pipeline.stages.arguments import require_one_device
from pipeline.stages.ppo_course import PPOCourse
from pipeline.stages.ppo_sealing import seal
from pipeline.stages.prompts import load_all_prompts, prompt_order
from pipeline.stages.rewards import learned_rewards, make_scorer, reads_reward_model, score_with
from pipeline.stages.training import BEFORE_EVERY_STEP, resolve_dtype
from pipeline.tracking.job import StageJob

GOLD = "gold"  # the role of the reward model that watches


def train_ppo(job: StageJob) -> StageOutcome:
    """Train with PPO and seal the policy whose gold score on held-out prompts was the best, else the last one."""
    config = job.section(PPOConfig)
    _require_one_process()
    keep_memory()
    checkpoint = job.work.checkpoints.newest(job.run.notice)
    job.run.cut(BEFORE_EVERY_STEP if checkpoint is None else checkpoint.step)
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    for notice in chat.notices:
        job.run.notice(notice)
    prompts = load_all_prompts(job, chat, config, section="ppo", num_held_out=config.monitor.num_prompts)
    if not prompts.held_out:
        _go_unwatched(job, config)
    device = choose_device(job.runtime)
    require_one_device(device)
    dtype = resolve_dtype(job, device)
    models = build_models(job, config, dtype)
    starts_values = config.value_init is ValueInit.reward_model
    roles = {REWARD_MODEL: starts_values or reads_reward_model(config.rewards), GOLD: True}
    learned = learned_rewards(job, models.model, roles, allow_failed=config.allow_failed_reward)
    switch_dropout_off(models.model)  # of every adapter that is there by now
    if starts_values:
        start_values(models, learned)
    scorer, gold = make_scorers(job, config, learned)
    learner = Learner(models, config)
    loop = Loop(
        config=config,
        models=models,
        learner=learner,
        sampler=make_sampler(config, chat),
        scorer=scorer,
        prompts=prompt_order(
            prompts.train, num_rollouts=config.num_rollouts, rollout_size=config.rollout_size, seed=config.seed
        ),
        controller=KLController(coef=config.kl_coef, target=config.kl_target, horizon=config.kl_horizon),
    )
    course = PPOCourse(
        job=job,
        loop=loop,
        held_out=prompts.held_out * config.monitor.completions_per_prompt,
        gold=gold,
        watchdog=Watchdog(warmup=config.value_warmup, in_fp32=dtype is DType.float32),
    )
    course.run(checkpoint)
    return seal(course, models, dtype, prompts)


def build_models(job: StageJob, config: PPOConfig, dtype: DType) -> OneBackbone:
    """Put policy, reference and value model on one frozen base, from the incoming artifacts, also on resume.

    Raises:
        ConfigError: The given policy is of a kind that this is not right for.
    """
    base = load_base(job.base, job.section(ModelConfig), job.runtime, dtype)
    given = job.one("policy")
    if given is None:
        model = add_lora(base, config.lora, config.seed)
    else:
        model = load_policy(base, given, trainable=True)
        if model.peft_config[POLICY].use_dora:
            raise ConfigError(f"ppo: the policy {given.id} is a DoRA adapter. {NO_DORA}")
        load_role(model, REFERENCE, given.path / ADAPTER_FOLDER)
    shares_trunk = config.value_model is ValueModel.head
    if not shares_trunk:
        add_role(model, VALUE, like=POLICY, seed=config.seed)
    model.eval()
    if config.activation_checkpointing:
        underlying_model(model).activation_checkpointing_enable()
        model.enable_input_require_grads()
    hidden_size = int(model.config.get_text_config().hidden_size)
    head = ValueHead(hidden_size).to(next(model.parameters()).device)
    return OneBackbone(
        model=model,
        value_head=head,
        reference_adapter=None if given is None else REFERENCE,
        shares_trunk=shares_trunk,
        activation_checkpointing=config.activation_checkpointing,
    )


def start_values(models: OneBackbone, learned: Mapping[str, RewardModel]) -> None:
    """Let the value model start as the reward model: what a completion would score if it ended here.

    Raises:
        ConfigError: There is no reward model, or the value model has no adapter to take its weights.
    """
    reward = learned.get(REWARD_MODEL)
    if reward is None or models.shares_trunk:
        raise ConfigError(
            "ppo.value_init=reward_model needs a wired reward model and ppo.value_model=adapter. Set "
            "ppo.value_init=zero."
        )
    copy_role(models.model, reward.adapters[0], VALUE)
    head, ours = reward.heads[0].linear, models.value_head.linear
    with torch.no_grad():
        ours.weight.copy_(head.weight / reward.facts.stds[0])
        ours.bias.copy_((head.bias - reward.facts.means[0]) / reward.facts.stds[0])


def make_scorers(job: StageJob, config: PPOConfig, learned: Mapping[str, RewardModel]) -> tuple[Scorer, Scorer | None]:
    """Return what is learned from, and the gold that watches, where there is one."""
    size, say = 4 * config.microbatch_size, job.run.notice  # without gradients more fits
    score = score_with(learned.get(REWARD_MODEL), size)
    scorer = make_scorer(config.rewards, learned=score, where="ppo.rewards", say=say)
    if not config.monitor.gold and GOLD not in learned:
        return scorer, None
    watch = score_with(learned.get(GOLD), size)
    return scorer, make_scorer(config.monitor.gold, learned=watch, where="ppo.monitor.gold", say=say)


def make_sampler(config: PPOConfig, chat: Chat) -> Sampler:
    """Return the engine that the configuration names."""
    if config.engine is RolloutEngine.continuous:
        return ContinuousSampler(chat=chat, batch_size=config.generation_batch_size)
    return BatchSampler(chat=chat, batch_size=config.generation_batch_size)


def _go_unwatched(job: StageJob, config: PPOConfig) -> None:
    """Say what is missing without validation prompts, and refuse what cannot be kept without them."""
    if config.kl_budget is not None:
        raise ConfigError(
            f"ppo.kl_budget={config.kl_budget:g}: there are no two validation prompts, and the policies that are "
            "measured on them are what it falls back to. Raise `curate.validation_fraction`, or set "
            "`ppo.kl_budget=null`."
        )
    if config.monitor.every is not None:
        job.run.notice("there are no validation prompts, so nothing watches for over-optimisation")


def _require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"The launcher set WORLD_SIZE={os.environ['WORLD_SIZE']}, and the stage ppo runs as one process. "
            "Launch it as one."
        )
