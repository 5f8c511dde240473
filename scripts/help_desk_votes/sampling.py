"""Completions from the base and from a fine-tuned policy, through the project's own loading and generation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from help_desk_votes.material import Question, Sample

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """How often a policy answers a question: once for each temperature, with the place as the seed."""

    policy: str
    train: tuple[float, ...]
    test: tuple[float, ...]
    max_new_tokens: int
    every: int = 1  # only every second, third … question


# The longest demonstration has 47 words and about 80 tokens. The base would go on much longer.
PLANS = (
    Plan(policy="base", train=(0.8,), test=(0.8,), max_new_tokens=96, every=2),
    Plan(policy="sft", train=(0.6, 0.8, 1.0, 0.8), test=(0.6, 0.8, 1.0), max_new_tokens=112),
)


def draw(asked: list[Question], policy_folder: Path, batch_size: int, keep: Callable[[list[Sample]], None]) -> None:
    """Let both policies answer.

    Args:
        asked: Questions of one turn.
        policy_folder: A sealed policy artifact.
        batch_size: Prompts decoded together.
        keep: Called after every round with all samples so far, in the order of the questions.
    """
    from pipeline.artifacts.artifact import Artifact
    from pipeline.artifacts.base_model import cache_folder, resolve_base
    from pipeline.artifacts.manifest import ArtifactKind
    from pipeline.config.shared import RuntimeConfig
    from pipeline.data.encode import load_chat
    from pipeline.models.loading import load_base, load_policy
    from pipeline.runtime.device import choose_device, probe_dtype

    runtime, config = RuntimeConfig(), _embedded_model()
    artifact = Artifact.open(policy_folder, expect=ArtifactKind.policy)
    base = resolve_base(config, cache_folder(runtime))
    chat = load_chat(base.folder, config)
    dtype = probe_dtype(choose_device(runtime)).dtype
    model: Any = load_base(base, config, runtime, dtype)
    print(f"base {base.digest}, policy {artifact.id}, {dtype.value}", flush=True)
    samples: list[Sample] = []
    place = {question.id: number for number, question in enumerate(asked)}
    for plan in PLANS:  # the base first: the adapter then goes on top of it
        if plan.policy == "sft":
            model = load_policy(model, artifact).merge_and_unload()  # an adapter of its own halves the speed
        for seed in range(max(len(plan.train), len(plan.test))):
            samples += _round(model, chat, asked[:: plan.every], plan, seed, batch_size)
            keep(sorted(samples, key=lambda sample: (place[sample.question], sample.policy, sample.seed)))


def _round(model: Any, chat: Any, asked: list[Question], plan: Plan, seed: int, batch_size: int) -> list[Sample]:
    """Return one completion for every question that is to have one with this seed."""
    from pipeline.config.evaluation import SamplingConfig
    from pipeline.data.encode import encode_prompt
    from pipeline.data.rows import Message
    from pipeline.models.generation import generate

    started, samples = time.perf_counter(), []
    for temperature in sorted(set(plan.train + plan.test)):
        chosen = [question for question in asked if _temperature(plan, question, seed) == temperature]
        if not chosen:
            continue
        tokens = [encode_prompt([Message(role="user", content=question.text)], chat) for question in chosen]
        sampling = SamplingConfig(max_new_tokens=plan.max_new_tokens, temperature=temperature, seed=seed)
        drawn = generate(model, chat, tokens, sampling, batch_size, [question.id for question in chosen])
        samples += [
            Sample(
                question=question.id,
                policy=plan.policy,
                temperature=temperature,
                seed=seed,
                finish=completion.finish_reason,
                text=completion.text.strip(),
            )
            for question, completion in zip(chosen, drawn, strict=True)
        ]
    print(f"{plan.policy} seed {seed}: {len(samples)} in {time.perf_counter() - started:.0f} s", flush=True)
    return samples


def _temperature(plan: Plan, question: Question, seed: int) -> float | None:
    temperatures = plan.test if question.test else plan.train
    return temperatures[seed] if seed < len(temperatures) else None


def _embedded_model() -> Any:
    """Return the embedded model's configuration as every run has it, its system prompt included."""
    from omegaconf import OmegaConf

    from pipeline.config.shared import ModelConfig

    preset = OmegaConf.load(ROOT / "configs" / "model" / "smollm2.yaml").model
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), preset))
