"""PPO: a policy learns from rewards on its own samples, without leaving its reference too far behind."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from typing import Any

from pipeline.artifacts.checkpoints import Checkpoint
from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.ppo import PPOConfig, RolloutEngine, ValueModel
from pipeline.config.shared import DType, ModelConfig
from pipeline.data.encode import Chat, load_chat
from pipeline.errors import ConfigError, DataError
from pipeline.models.head import underlying_model
from pipeline.models.loading import ADAPTER_FOLDER, adapter_digest, add_lora, load_base, load_policy, save_adapter
from pipeline.models.roles import POLICY, REFERENCE, VALUE, add_role, load_role, switch_dropout_off
from pipeline.models.value import ValueHead
from pipeline.ppo.divergence import KLController
from pipeline.ppo.loop import Loop, Row, Scorer
from pipeline.ppo.measuring import measure
from pipeline.ppo.monitor import Monitor
from pipeline.ppo.roles import OneBackbone
from pipeline.ppo.rollout import PromptItem, Sampler
from pipeline.ppo.samplers import BatchSampler, ContinuousSampler
from pipeline.ppo.update import Learner
from pipeline.ppo.watch import Watchdog
from pipeline.runtime.allocator import keep_memory
from pipeline.runtime.device import choose_device
from pipeline.runtime.memory import peak_memory_bytes
from pipeline.runtime.seeds import seed_everything
from pipeline.runtime.signals import StopRequest
from pipeline.stages.arguments import require_one_device
from pipeline.stages.ppo_checkpoints import VALUE_FILE, load_weights, restore, save
from pipeline.stages.prompts import counted, first_by_hash, load_prompts, prompt_order
from pipeline.stages.rewards import make_scorer
from pipeline.stages.training import BEFORE_EVERY_STEP, resolve_dtype
from pipeline.tracking.job import StageJob

MONITOR_FILE = "monitor.json"


def train_ppo(job: StageJob) -> StageOutcome:
    """Train with PPO and seal the policy whose gold score on held-out prompts was the best, else the last one."""
    config = job.section(PPOConfig)
    _require_one_process()
    keep_memory()
    checkpoint = job.work.checkpoints.newest(job.run.notice)
    job.run.cut(BEFORE_EVERY_STEP if checkpoint is None else checkpoint.step)
    chat = load_chat(job.base.folder, job.section(ModelConfig))
    prompts = load_all_prompts(job, chat, config)
    device = choose_device(job.runtime)
    require_one_device(device)
    dtype = resolve_dtype(job, device)
    models = build_models(job, config, dtype)
    scorer = make_scorer(config.rewards, learned=None, where="ppo.rewards")
    gold = make_scorer(config.monitor.gold, learned=None, where="ppo.monitor.gold") if config.monitor.gold else None
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
    course = Course(job=job, loop=loop, held_out=prompts.held_out, gold=gold)
    course.run(checkpoint)
    return finish(course, models, dtype, prompts)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What the policy learns on, and what it is watched on."""

    train: list[PromptItem]
    held_out: list[PromptItem]
    counts: dict[str, dict[str, Any]]  # by split


def load_all_prompts(job: StageJob, chat: Chat, config: PPOConfig) -> Prompts:
    """Read and encode train and validation prompts, and say what is left of them.

    Raises:
        DataError: No train prompt is left.
    """
    dataset = job.one("dataset")
    if dataset is None:
        raise DataError("The stage ppo got no data set. Name `curate` in `stages`, or set `inputs.ppo.dataset`.")
    for notice in chat.notices:
        job.run.notice(notice)
    longest = min(config.max_prompt_length, job.base.context_length - config.max_new_tokens)
    splits, counts = {}, {}
    for split in ("train", "validation"):
        splits[split], accounted = load_prompts(dataset, split, chat, longest)
        counts[split] = accounted.as_dict()
        job.run.notice(f"{split}: {counted(accounted)}")
    if not splits["train"]:
        raise DataError(f"No train prompt is left to learn on. Raise `ppo.max_prompt_length` ({longest} in force).")
    if len(splits["validation"]) < 2 and config.monitor.every is not None:
        job.run.notice("there are no validation prompts, so nothing watches for over-optimisation")
    held_out = first_by_hash(splits["validation"], config.monitor.num_prompts)
    return Prompts(train=splits["train"], held_out=held_out if len(held_out) > 1 else [], counts=counts)


def build_models(job: StageJob, config: PPOConfig, dtype: DType) -> OneBackbone:
    """Put policy, reference and value model on one frozen base, from the incoming artifacts, also on resume."""
    base = load_base(job.base, job.section(ModelConfig), job.runtime, dtype)
    given = job.one("policy")
    if given is None:
        model = add_lora(base, config.lora, config.seed)
    else:
        model = load_policy(base, given, trainable=True)
        load_role(model, REFERENCE, given.path / ADAPTER_FOLDER)
    shares_trunk = config.value_model is ValueModel.head
    if not shares_trunk:
        add_role(model, VALUE, like=POLICY, seed=config.seed)
    switch_dropout_off(model)
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


def make_sampler(config: PPOConfig, chat: Chat) -> Sampler:
    """Return the engine that the configuration names."""
    if config.engine is RolloutEngine.continuous:
        return ContinuousSampler(chat=chat)
    return BatchSampler(chat=chat, batch_size=config.generation_batch_size)


@dataclass(kw_only=True)
class Course:
    """A run from wherever it stands to its end: iterations, measurements, checkpoints, reasons to stop."""

    job: StageJob
    loop: Loop
    held_out: list[PromptItem]
    gold: Scorer | None
    watchdog: Watchdog = field(default_factory=Watchdog)
    finished: str | None = None  # why nothing is left to train

    def __post_init__(self) -> None:
        monitor = self.loop.config.monitor
        self.monitor = Monitor(
            margin=monitor.margin, confidence=monitor.confidence, kl_budget=self.loop.config.kl_budget
        )

    def run(self, checkpoint: Checkpoint | None) -> None:
        """Train to the end.

        Raises:
            Interrupted: A signal asked for the end. The last rollout is saved.
            TrainingDivergedError: Too many optimizer steps in a row were not finite.
        """
        step = 0 if checkpoint is None else self._resume(checkpoint)
        total = self.loop.config.num_rollouts
        with StopRequest() as stop:
            if checkpoint is None:
                row = self._measure(0)
                if row:
                    self.job.run.log(row, 0)
                self._save(0)
            while self.finished is None:
                row = self._iterate(step)
                step += 1
                self.job.run.log(row, step)
                self.job.run.progress(total, step)
                every = self.loop.config.save_every
                stopped = stop.signal_number is not None and self.finished is None
                if self.finished or stopped or step % every == 0 or self._is_due(step):
                    self._save(step)
                if stopped and stop.signal_number is not None:
                    raise stop.interrupted(
                        f"Stopped by {signal.Signals(stop.signal_number).name} after rollout {step} of {total}, which "
                        "is saved. The same command goes on from there."
                    )

    def _iterate(self, number: int) -> Row:
        """Make one rollout and learn from it; returns its row of the record."""
        config = self.loop.config
        # Whatever draws from the global generators (a plugin's reward) draws the same after a resume.
        seed_everything((config.seed + 100_003 * (number + 1)) % 2**32)
        row = self.loop.iterate(number)
        for warning in self.watchdog.warnings(row, number):
            self.job.run.notice(f"rollout {number + 1}: {warning}")
        if self._is_due(number + 1):
            row |= self._measure(number + 1)
        if number + 1 == config.num_rollouts:
            self.finished = "the last rollout is done"
        if config.kl_budget is not None and row["kl"] > config.kl_budget:
            self.finished = (
                f"the KL to the reference, {row['kl']:.2f} nats, is beyond ppo.kl_budget={config.kl_budget:g}"
            )
        if self.monitor.fired is not None and config.monitor.stop:
            self.finished = "the gold score fell while the score rose"
        if self.finished and number + 1 < config.num_rollouts:
            self.job.run.notice(f"rollout {number + 1}: training ends, because {self.finished}")
            if not self._is_due(number + 1):
                row |= self._measure(number + 1)
        row["memory_gb"] = peak_memory_bytes(self.loop.models.value_head.linear.weight.device.type) / 1e9
        return row

    def _is_due(self, step: int) -> bool:
        config = self.loop.config
        every = config.monitor.every
        return bool(self.held_out) and every is not None and (step % every == 0 or step == config.num_rollouts)

    def _measure(self, step: int) -> Row:
        """Let the policy answer the held-out prompts and compare."""
        if not self.held_out or self.loop.config.monitor.every is None:
            return {}
        measurement = measure(self.loop, self.held_out, self.gold, step)
        found = self.monitor.add(measurement)
        if found is not None:
            self.job.run.notice(
                f"rollout {step}: over-optimisation. Since rollout {found.best_step} the score rose by "
                f"{found.proxy_change:.3f} and the gold score fell by {-found.gold_change:.3f} "
                f"(interval {found.low:.3f} to {found.high:.3f}, {found.n} prompts). Raise `ppo.kl_coef`, set "
                "`ppo.kl_budget`, or mend the rewards."
            )
        return dict(measurement.row())

    def _save(self, step: int) -> None:
        config, folder = self.loop.config, self.job.work.checkpoints
        facts = {
            "kl_coef": self.loop.controller.coef,
            "skipped_in_a_row": self.loop.learner.skipped_in_a_row,
            "monitor": self.monitor.facts(),
            "streaks": self.watchdog.streaks,
            "told": self.watchdog.told,
            "finished": self.finished,
        }
        save(folder, self.loop.learner, step, facts)
        chosen, _ = self.monitor.chosen_step(rollback=config.monitor.rollback, last_step=step)
        folder.rotate(config.keep_checkpoints, {chosen})

    def _resume(self, checkpoint: Checkpoint) -> int:
        facts = checkpoint.facts
        restore(checkpoint, self.loop.learner)
        self.loop.controller.coef = facts["kl_coef"]
        self.loop.learner.skipped_in_a_row = facts["skipped_in_a_row"]
        self.monitor.restore(facts["monitor"])
        self.watchdog.streaks, self.watchdog.told = dict(facts["streaks"]), list(facts["told"])
        self.finished = facts["finished"]
        self.job.run.notice(f"going on from the checkpoint of rollout {checkpoint.step}")
        return checkpoint.step


def finish(course: Course, models: OneBackbone, dtype: DType, prompts: Prompts) -> StageOutcome:
    """Write the chosen policy, its value model and what the monitor saw into the staging folder."""
    job, config, monitor = course.job, course.loop.config, course.monitor
    last = job.work.checkpoints.steps()[-1]
    step, reason = monitor.chosen_step(rollback=config.monitor.rollback, last_step=last)
    job.run.notice(f"the policy is that of rollout {step} of {last}: {reason}")
    chosen = job.work.checkpoints.step(step)
    load_weights(chosen, course.loop.learner)
    save_adapter(models.model, job.staging / ADAPTER_FOLDER)
    (job.staging / "value").mkdir()
    write_durably(job.staging / "value" / VALUE_FILE, (chosen.path / VALUE_FILE).read_bytes())
    seen = {
        "measurements": [
            {"step": m.step, **m.row(), "by_length": m.by_length(), "n": len(m.proxy)} for m in monitor.measurements
        ],
        "gold": [entry.name for entry in config.monitor.gold],
        "fired": monitor.facts()["fired"],
        "chosen_step": step,
        "reason": reason,
        "kl_budget": config.kl_budget,
    }
    write_durably(job.staging / MONITOR_FILE, json.dumps(seen, indent=1, sort_keys=True) + "\n")
    metrics: dict[str, float | int] = {"rollouts": last, "episodes": last * config.rollout_size, "policy_step": step}
    by_step = {measurement.step: measurement for measurement in monitor.measurements}
    if by_step:
        metrics |= {f"{name}_start": value for name, value in by_step[0].row().items()}
    if step in by_step:
        metrics |= dict(by_step[step].row())
    training = {**metrics, "finished": course.finished, "prompts": prompts.counts, "dtype": dtype.value}
    write_durably(job.staging / "training.json", json.dumps(training, indent=1, sort_keys=True) + "\n")
    parts = {"policy": adapter_digest(job.staging / ADAPTER_FOLDER), "monitor": sha256_json(seen)}
    return StageOutcome(parts=parts, metrics=metrics, resolved={"dtype": dtype.value})


def _require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"The launcher set WORLD_SIZE={os.environ['WORLD_SIZE']}, and the stage ppo runs as one process. "
            "Launch it as one."
        )
