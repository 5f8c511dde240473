"""How likely a model finds each of a few next tokens: a verdict without sampling and without parsing text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.data.chat import Chat
from pipeline.errors import ModelError
from pipeline.models.head import backbone, output_head
from pipeline.models.logprobs import completion_logprobs, compute_context


def choice_ids(chat: Chat, texts: Sequence[str]) -> list[int]:
    """Return the one token of each text.

    Raises:
        ModelError: A text is several tokens, or two texts are the same one.
    """
    ids = [chat.tokens(text).ids for text in texts]
    if any(len(tokens) != 1 for tokens in ids) or len({tokens[0] for tokens in ids}) < len(texts):
        raise ModelError(f"This model's tokenizer has no token of its own for each of {', '.join(texts)}.")
    return [tokens[0] for tokens in ids]


@torch.no_grad()
def choice_logprobs(
    model: nn.Module, prompts: Sequence[Sequence[int]], choices: Sequence[int], batch_size: int
) -> list[list[float]]:
    """Return the log-probability in nats of each choice as the next token of each prompt.

    Only the state of a prompt's last token meets the output head. Rows of similar length share a batch; what else is in
    it moves a result by rounding only.
    """
    order = sorted(range(len(prompts)), key=lambda number: (-len(prompts[number]), number))
    results: dict[int, list[float]] = {}
    head = output_head(model)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        lengths = torch.tensor([len(prompts[number]) for number in numbers], device=head.weight.device)
        ids = nn.utils.rnn.pad_sequence([torch.tensor(prompts[number]) for number in numbers], batch_first=True)
        ids = ids.to(head.weight.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        with compute_context(model):
            hidden = backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        states = hidden[torch.arange(len(numbers), device=ids.device), lengths - 1]
        logprobs = completion_logprobs(
            states.repeat_interleave(len(choices), dim=0),
            head.weight,
            torch.tensor(list(choices) * len(numbers), device=ids.device),
            bias=head.bias,
            scale=head.scale,
            softcap=head.softcap,
        )
        for number, row in zip(numbers, logprobs.view(len(numbers), len(choices)).tolist(), strict=True):
            results[number] = row
    return [results[number] for number in range(len(prompts))]
