"""A PPO run from wherever it stands to its end: iterations, measurements, checkpoints and reasons to stop."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from pipeline.artifacts.checkpoints import Checkpoint
from pipeline.ppo.loop import Loop, Row, Scorer
from pipeline.ppo.measuring import ReferenceProbe, measure
from pipeline.ppo.monitor import Monitor
from pipeline.ppo.rollout import PromptItem, Rollout
from pipeline.ppo.watch import Watchdog, nothing_to_learn
from pipeline.runtime.memory import peak_memory_bytes
from pipeline.runtime.seeds import seed_everything
from pipeline.runtime.signals import StopRequest
from pipeline.stages.ppo_checkpoints import restore, save
from pipeline.stages.watchdogs import NUM_KEPT
from pipeline.tracking.job import StageJob

NUM_PROBED = 4  # held-out prompts by which the reference is seen to stay


@dataclass(kw_only=True)
class PPOCourse:
    """A run from wherever it stands to its end: iterations, measurements, checkpoints, reasons to stop."""

    job: StageJob
    loop: Loop
    held_out: list[PromptItem]
    gold: Scorer | None
    watchdog: Watchdog
    told_apart: list[float] = field(default_factory=list)  # by rollout, see `pipeline.ppo.loop.told_apart`
    finished: str | None = None  # why nothing is left to train

    def __post_init__(self) -> None:
        monitor = self.loop.config.monitor
        self.monitor = Monitor(
            margin=monitor.margin, confidence=monitor.confidence, kl_budget=self.loop.config.kl_budget
        )
        self.probe = ReferenceProbe.of(self.loop, self.held_out[:NUM_PROBED]) if self.held_out else None

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
        self.told_apart.append(row["told_apart"])
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
        for warning in self.watchdog.warnings(row, number):
            self.job.run.alert(f"{self.job.run.name}: watchdog", f"rollout {number + 1}: {warning}")
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
        measurement = measure(self.loop, self.held_out, self.gold, step, self._keep)
        if step == 0 and (warning := nothing_to_learn(torch.tensor(measurement.proxy), "ppo")):
            self.job.run.alert(f"{self.job.run.name}: rewards", f"before training {warning}")
        found = self.monitor.add(measurement)
        if found is not None:
            self.job.run.alert(
                f"{self.job.run.name}: over-optimisation",
                f"rollout {step}: over-optimisation. Since rollout {found.best_step} the score rose by "
                f"{found.proxy_change:.3f} and the gold score fell by {-found.gold_change:.3f} "
                f"(interval {found.low:.3f} to {found.high:.3f}, {found.n} completions). Raise `ppo.kl_coef`, set "
                "`ppo.kl_budget`, or mend the rewards.",
            )
        row: Row = dict(measurement.row())
        # Of what it was: how much of it is normal depends on how long and how many the completions are.
        row["monitor_distinct_2_share"] = measurement.distinct_2 / self.monitor.measurements[0].distinct_2
        if self.probe is not None:
            row["reference_drift"] = self.probe.drift(self.loop)
        return row

    def _keep(self, rollout: Rollout, scores: Sequence[float]) -> None:
        """Keep the first completions to be read."""
        self.job.run.written(rollout.texts(scores, NUM_KEPT))

    def _save(self, step: int) -> None:
        config, folder = self.loop.config, self.job.work.checkpoints
        facts = {
            "kl_coef": self.loop.controller.coef,
            "skipped_in_a_row": self.loop.learner.skipped_in_a_row,
            "monitor": self.monitor.facts(),
            "streaks": self.watchdog.streaks,
            "told": self.watchdog.told,
            "first_spread": self.watchdog.first_spread,
            "told_apart": self.told_apart,
            "finished": self.finished,
        }
        save(folder, self.loop.learner, step, facts)
        chosen, _ = self.monitor.chosen_step(rollback=config.monitor.rollback, last_step=step)
        # The budget may be left before the next measurement; the last policy inside it is then the one to seal.
        folder.rotate(config.keep_checkpoints, {chosen, *(m.step for m in self.monitor.inside[-1:])})

    def _resume(self, checkpoint: Checkpoint) -> int:
        facts = checkpoint.facts
        restore(checkpoint, self.loop.learner)
        self.loop.controller.coef = facts["kl_coef"]
        self.loop.learner.skipped_in_a_row = facts["skipped_in_a_row"]
        self.monitor.restore(facts["monitor"])
        self.watchdog.streaks, self.watchdog.told = dict(facts["streaks"]), list(facts["told"])
        self.watchdog.first_spread = facts["first_spread"]
        self.told_apart, self.finished = list(facts["told_apart"]), facts["finished"]
        self.job.run.notice(f"going on from the checkpoint of rollout {checkpoint.step}")
        return checkpoint.step
