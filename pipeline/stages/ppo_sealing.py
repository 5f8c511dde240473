"""The end of a PPO run: which policy is delivered, what was won, and whether the numbers can show it."""

from __future__ import annotations

import json
from typing import Any

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_json
from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.shared import DType
from pipeline.models.loading import ADAPTER_FOLDER, adapter_digest, save_adapter
from pipeline.ppo.monitor import MONITOR_FILE
from pipeline.ppo.roles import OneBackbone
from pipeline.ppo.signatures import TOLD_APART
from pipeline.stages.ppo_checkpoints import VALUE_FILE, load_weights
from pipeline.stages.ppo_course import PPOCourse
from pipeline.stages.prompts import Prompts
from pipeline.statistics.decisions import Decision, better, gate_entry, not_worse

UNTRAINED = "the policy delivered is the one that came in, so"


def seal(course: PPOCourse, models: OneBackbone, dtype: DType, prompts: Prompts) -> StageOutcome:
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
    gates = decide_gates(course, step)
    for gate in gates:
        text = f"{gate['outcome']} {gate['name']}: {gate['reason']}"
        if gate["outcome"] == Decision.FAIL:
            job.run.alert(f"{job.run.name}: {gate['name']}", text)
        else:
            job.run.notice(text)
    seen = {
        "measurements": [
            {"step": m.step, **m.row(), "by_length": m.by_length(), "n": len(m.proxy)} for m in monitor.measurements
        ],
        "gold": [entry.name for entry in config.monitor.gold],
        "fired": monitor.facts()["fired"],
        "chosen_step": step,
        "reason": reason,
        "kl_budget": config.kl_budget,
        "gates": gates,
    }
    write_durably(job.staging / MONITOR_FILE, json.dumps(seen, indent=1, sort_keys=True) + "\n")
    metrics: dict[str, float | int] = {"rollouts": last, "episodes": last * config.rollout_size, "policy_step": step}
    by_step = {measurement.step: measurement for measurement in monitor.measurements}
    if by_step:
        metrics |= {f"{name}_start": value for name, value in by_step[0].row().items()}
    if step in by_step:
        metrics |= dict(by_step[step].row()) | changes(course, step)
    training = {**metrics, "finished": course.finished, "prompts": prompts.counts, "dtype": dtype.value}
    write_durably(job.staging / "training.json", json.dumps(training, indent=1, sort_keys=True) + "\n")
    parts = {"policy": adapter_digest(job.staging / ADAPTER_FOLDER), "monitor": sha256_json(seen)}
    return StageOutcome(parts=parts, metrics=metrics, resolved={"dtype": dtype.value}, gates=gates)


def changes(course: PPOCourse, step: int) -> dict[str, float]:
    """Return how the held-out scores changed until a measured step, with the limits of their intervals."""
    metrics: dict[str, float] = {}
    for name, change in course.monitor.changes(step).items():
        if change.estimate is not None and change.low is not None and change.high is not None:
            values = {"change": change.estimate, "change_low": change.low, "change_high": change.high}
            metrics |= {f"monitor_{name}_{key}": value for key, value in values.items()}
    return metrics


def decide_gates(course: PPOCourse, step: int) -> list[dict[str, Any]]:
    """Decide what the run shows: that the rewards could teach, that the score rose, and that the gold did not fall.

    The last two compare the delivered policy with the incoming one on the held-out prompts, completion by completion.
    A step that was chosen for its gold on these prompts looks better on them than it is: suites of test prompts say
    what it is worth.
    """
    config, monitor = course.loop.config, course.monitor
    share = sum(course.told_apart) / len(course.told_apart)
    episodes = len(course.told_apart) * config.rollout_size
    reason = (
        f"the reward that says most told {share:.1%} of {episodes} sampled completions from the rest, and fewer than "
        f"{TOLD_APART:.0%} are next to nothing to learn from"
    )
    gates = [_plain("rewards_tell_apart", share >= TOLD_APART, reason, share, episodes)]
    if not any(measurement.step == step for measurement in monitor.measurements):
        return gates
    margin, level = config.monitor.margin, config.monitor.confidence
    for name, change in monitor.changes(step).items():
        is_gold = name == "gold"
        what = f"held-out gold may fall by {margin:g}" if is_gold else "held-out score, against no rise"
        if step == 0:
            said = f"{UNTRAINED} {'its gold is what it was' if is_gold else 'nothing was won'}"
            gates.append(_plain(f"{name}_{'holds' if is_gold else 'rises'}", is_gold, said, 0.0, change.n))
            continue
        outcome = not_worse(change, margin) if is_gold else better(change)
        items = f"completions of {change.clusters} prompts"
        gates.append(
            gate_entry(
                f"{name}_{'holds' if is_gold else 'rises'}", what, change, outcome, items=items, confidence=level
            )
        )
    return gates


def _plain(name: str, passed: bool, reason: str, estimate: float, n: int) -> dict[str, Any]:
    """Return a gate that no interval decides."""
    return {
        "name": name, "outcome": (Decision.PASS if passed else Decision.FAIL).value, "estimate": estimate, "low": None,
        "high": None, "n": n, "minimum_detectable": None, "reason": reason,
    }  # fmt: skip
