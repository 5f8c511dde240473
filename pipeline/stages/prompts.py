"""The prompts that a policy learns on: encoded, counted, and in an order that is a pure function of a seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifacts.artifact import Artifact
from pipeline.checks.registry import CheckItem
from pipeline.config.ppo import SamplingLimits, longest_prompt
from pipeline.data.encode import Chat, Dropped, EncodingCounts, encode_prompt_row
from pipeline.data.rows import Prompt
from pipeline.data.tables import part_name, read_table
from pipeline.errors import DataError
from pipeline.ppo.rollout import PromptItem
from pipeline.stages.order import training_order
from pipeline.tracking.job import StageJob

TABLE = "prompts"


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What the policy learns on, and what it is measured on."""

    train: list[PromptItem]
    held_out: list[PromptItem]
    counts: dict[str, dict[str, Any]]  # by split


def load_all_prompts(job: StageJob, chat: Chat, limits: SamplingLimits, *, section: str, num_held_out: int) -> Prompts:
    """Read and encode train and validation prompts, and say what is left of them.

    Args:
        job: Of the stage.
        chat: Tokenizer and template.
        limits: How long prompts and completions may be.
        section: The stage's own, for what is said when there is nothing to learn on.
        num_held_out: Validation prompts that are kept, at most; of fewer than two, none.

    Raises:
        DataError: No train prompt is left.
    """
    dataset = job.one("dataset")
    if dataset is None:
        raise DataError(
            f"The stage {section} got no data set. Name `curate` in `stages`, or set `inputs.{section}.dataset`."
        )
    longest = longest_prompt(limits, job.base.context_length)
    splits, counts = {}, {}
    for split in ("train", "validation"):
        splits[split], accounted = load_prompts(dataset, split, chat, longest)
        counts[split] = accounted.as_dict()
        job.run.notice(f"{split}: {counted(accounted)}")
    if not splits["train"]:
        raise DataError(
            f"No train prompt is left to learn on. Raise `{section}.max_prompt_length` ({longest} in force)."
        )
    held_out = first_by_hash(splits["validation"], num_held_out)
    return Prompts(train=splits["train"], held_out=held_out if len(held_out) > 1 else [], counts=counts)


def load_prompts(dataset: Artifact, split: str, chat: Chat, max_length: int) -> tuple[list[PromptItem], EncodingCounts]:
    """Read and encode one split of the prompts; an absent split has none."""
    counts, kept = EncodingCounts(), []
    present = part_name(TABLE, split) in dataset.manifest.parts
    for row in read_table(dataset, TABLE, split, Prompt) if present or split == "train" else []:
        encoded = encode_prompt_row(row, chat, max_length)
        counts.add(encoded)
        if not isinstance(encoded, Dropped):
            turns = [{"role": turn["role"], "content": turn["content"]} for turn in row.prompt]
            item = CheckItem(prompt=turns, reference=row.reference)
            kept.append(PromptItem(id=row.id, ids=encoded.input_ids, item=item))
    return kept, counts


def counted(counts: EncodingCounts) -> str:
    """Say it in one line."""
    dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.dropped.items())) or "none"
    return (
        f"{counts.given} prompts = {counts.encoded} encoded + {sum(counts.dropped.values())} dropped ({dropped}); "
        f"the longest has {counts.longest} tokens"
    )


def first_by_hash(prompts: Sequence[PromptItem], limit: int) -> list[PromptItem]:
    """Choose prompts by something that says nothing about them, so that a few are a fair sample."""
    return sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.id.encode("utf-8", "surrogatepass")).digest())[
        :limit
    ]


def prompt_order(
    prompts: Sequence[PromptItem], *, num_rollouts: int, rollout_size: int, seed: int
) -> Callable[[int], list[PromptItem]]:
    """Return a function from the number of a rollout to its prompts; every pass visits every prompt once."""
    order = training_order(
        [len(prompt.ids) for prompt in prompts],
        num_epochs=math.ceil(num_rollouts * rollout_size / len(prompts)),
        batch_size=rollout_size,
        seed=seed,
        group_by_length=False,
        max_steps=num_rollouts,
    )

    def prompts_of(number: int) -> list[PromptItem]:
        return [prompts[row] for row in order[number * rollout_size : (number + 1) * rollout_size]]

    return prompts_of
