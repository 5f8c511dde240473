"""Engines that sample completions from the policy as it is now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.config.evaluation import SamplingConfig
from pipeline.data.chat import Chat
from pipeline.errors import ModelError
from pipeline.models.generation import Completion, generate
from pipeline.ppo.rollout import PromptItem

PAGE_SIZE = 64  # tokens of one row that a block of the continuous engine's cache holds


@dataclass(frozen=True, kw_only=True)
class BatchSampler:
    """Batches of similar length that finished rows leave; every completion has a random stream of its own."""

    chat: Chat
    batch_size: int

    def sample(
        self, model: nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        """Sample one completion for each prompt."""
        return generate(
            model, self.chat, [prompt.ids for prompt in prompts], sampling, self.batch_size, keys, with_logprobs=True
        )


@dataclass(frozen=True, kw_only=True)
class ContinuousSampler:
    """Continuous batching of transformers. Its random numbers depend on everything in the call, not on each key alone.

    A manager is made for each call, since blocks that share a prefix would survive a change of the adapter. Its cache
    is as large as the longest rows of a batch can need: left to itself it takes most of the memory that is free.
    """

    chat: Chat
    batch_size: int  # completions that are written at a time

    def sample(
        self, model: nn.Module, prompts: Sequence[PromptItem], sampling: SamplingConfig, keys: Sequence[str]
    ) -> list[Completion]:
        """Sample one completion for each prompt."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        digest = hashlib.sha256(f"{sampling.seed}/{'/'.join(keys)}".encode("utf-8", "surrogatepass")).digest()
        generation = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens, do_sample=sampling.temperature > 0,
            temperature=sampling.temperature or None, top_k=sampling.top_k, top_p=sampling.top_p,
            repetition_penalty=1.0, eos_token_id=list(self.chat.stop_ids), pad_token_id=self.chat.pad_id,
        )  # fmt: skip
        longest = max(len(prompt.ids) for prompt in prompts) + sampling.max_new_tokens
        rows = min(self.batch_size, len(prompts))
        engine = ContinuousBatchingConfig(
            return_logprobs=True, seed=int.from_bytes(digest[:4], "big"), page_size=PAGE_SIZE,
            num_blocks=rows * -(-longest // PAGE_SIZE), max_requests_per_batch=rows, max_batch_tokens=rows + longest,
        )  # fmt: skip
        outputs = model.generate_batch(  # type: ignore[operator]  # an nn.Module that may be wrapped by PEFT
            [prompt.ids for prompt in prompts], generation_config=generation, continuous_batching_config=engine
        )
        broken = [output.error for output in outputs.values() if output.error]
        if broken or len(outputs) != len(prompts):
            raise ModelError(
                f"Continuous batching returned {len(outputs) - len(broken)} of {len(prompts)} completions"
                f"{': ' + broken[0] if broken else ''}. Set `ppo.engine=hf`, or lower `ppo.generation_batch_size`."
            )
        return [self._completion(outputs[key]) for key in sorted(outputs, key=_number)]

    def _completion(self, output: object) -> Completion:
        ids, logprobs = list(output.generated_tokens), list(output.logprobs)  # type: ignore[attr-defined]
        stopped = bool(ids) and ids[-1] in self.chat.stop_ids
        text = self.chat.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        return Completion(ids=ids, text=str(text), finish_reason="stop" if stopped else "length", logprobs=logprobs)


def _number(key: str) -> int:
    return int(key.rsplit("_", 1)[-1])
