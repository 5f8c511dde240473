"""Reward models: a LoRA adapter and an fp32 score head on a language model's backbone, read at the last token.

The last token is always the same one: the tail, which a conversation ends with in training, is put behind every row
that is scored, whatever the policy stopped with. Where it stands is carried as an index and never found by padding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.artifacts.durable import write_durably
from pipeline.artifacts.hashing import sha256_json
from pipeline.errors import ModelError
from pipeline.models.head import backbone, underlying_model
from pipeline.models.loading import ADAPTER_FOLDER, adapter_digest, load_adapter
from pipeline.models.logprobs import compute_context
from pipeline.models.lower_layers import LowerLayers
from pipeline.models.packing import packed_states
from pipeline.models.roles import enter_role, load_role
from pipeline.models.value import ValueHead

FACTS_NAME, HEAD_NAME = "reward.json", "head.safetensors"
TIE = "tie"  # of a head's file: the one number of a model of ties
MEMBERS_FOLDER = "members"  # of an ensemble: members/<k>/adapter and members/<k>/head.safetensors


class ScoreHead(ValueHead):
    """The same map as a value's, read from the state of the last token; it starts with equal scores for everything."""


@dataclass(frozen=True, kw_only=True)
class RewardFacts:
    """``reward.json``: what must be known beside the weights to score as in training."""

    tail_ids: tuple[int, ...]  # every scored row ends with them
    stop_ids: tuple[int, ...]  # one of them at the end of a row is what the policy stopped with
    means: tuple[float, ...]  # of each member's raw scores of the starting policy's samples
    stds: tuple[float, ...]
    temperature: float  # P(first is better) = logistic((score_1 - score_2) / temperature)
    folds: tuple[int, ...]  # of the comparisons that it has learnt from
    format_version: int = 1

    @property
    def num_members(self) -> int:
        """Adapters that score together."""
        return len(self.means)

    @classmethod
    def read(cls, folder: Path) -> RewardFacts:
        """Read them strictly.

        Raises:
            ModelError: The file is missing, or holds other keys than these.
        """
        path = folder / FACTS_NAME
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if values.keys() != {item.name for item in fields(cls)}:
                raise ValueError(f"its keys are {sorted(values)}")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} does not describe a reward model: {error}.") from error
        arrays: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**arrays)

    def write(self, folder: Path) -> None:
        """Write them as JSON; the same facts give the same bytes."""
        write_durably(folder / FACTS_NAME, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True, slots=True)
class RewardScores:
    """Scores of ``N`` rows by ``K`` members, each in units of its own standard deviation: fp32 ``[K, N]``."""

    members: Tensor

    @property
    def mean(self) -> Tensor:
        """``[N]``: what the members say together."""
        return self.members.mean(dim=0)

    @property
    def spread(self) -> Tensor:
        """``[N]`` standard deviation between members; zero where there is one."""
        return self.members.std(dim=0, correction=0)


class RewardModel:
    """One reward model, or an ensemble, on a backbone that it may share with other adapters."""

    def __init__(
        self, model: PeftModel, adapters: Sequence[str], heads: Sequence[ScoreHead], facts: RewardFacts
    ) -> None:
        """`adapters` are peft's names, in the order of `heads`; all of them are frozen."""
        self.model, self.adapters, self.heads, self.facts = model, list(adapters), list(heads), facts

    def score(self, rows: Sequence[Sequence[int]], batch_size: int = 16) -> RewardScores:
        """Score conversations.

        Args:
            rows: Token ids of a prompt and a completion, with or without the token that the policy stopped with.
            batch_size: Rows of similar length that are scored together; it moves a score by rounding only.

        Returns:
            Normalised scores, in the order of the rows.
        """
        facts = self.facts
        tailed = [with_tail(row, stop_ids=facts.stop_ids, tail_ids=facts.tail_ids) for row in rows]
        scored = []
        for adapter, head, mean, std in zip(self.adapters, self.heads, facts.means, facts.stds, strict=True):
            with enter_role(self.model, adapter):
                scored.append((raw_scores(self.model, head, tailed, batch_size) - mean) / std)
        return RewardScores(torch.stack(scored))


def with_tail(ids: Sequence[int], *, stop_ids: Sequence[int], tail_ids: Sequence[int]) -> list[int]:
    """Return a row that ends with the tail, as every row of training does.

    A stop token at the end is taken off, and the beginning of a tail of several tokens that stands before it.
    """
    row = list(ids)
    if row and row[-1] in stop_ids:
        row.pop()
        begun = list(tail_ids[:-1])
        if begun and row[-len(begun) :] == begun:
            del row[-len(begun) :]
    return [*row, *tail_ids]


def last_scores(
    model: nn.Module, head: ScoreHead, input_ids: Tensor, attention_mask: Tensor, last_index: Tensor
) -> Tensor:
    """Raw scores of a batch with the adapter that acts; gradients reach adapter and head.

    Args:
        model: A causal language model of transformers in a PEFT wrapper. Its output head is not computed.
        head: Reads the score.
        input_ids: ``[B, L]`` int64, padded on either side.
        attention_mask: ``[B, L]`` bool, True on real tokens.
        last_index: ``[B]`` int64, the place of each row's last token.

    Returns:
        ``[B]`` fp32.
    """
    position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
    with compute_context(model):
        hidden = backbone(model)(
            input_ids=input_ids, attention_mask=attention_mask.long(), position_ids=position_ids, use_cache=False
        ).last_hidden_state
    rows = torch.arange(len(last_index), device=hidden.device)
    return cast("Tensor", head(hidden[rows, last_index]))


def packed_scores(
    model: nn.Module,
    head: ScoreHead,
    input_ids: Tensor,
    position_ids: Tensor,
    segments: Tensor,
    last_index: Tensor,
    lower: LowerLayers | None = None,
) -> Tensor:
    """Raw scores of both sides of ``B`` packed pairs (`models.packing`): what `last_scores` gives, to rounding.

    Returns:
        ``[2B]`` fp32: the chosen sides and then the rejected ones, as in ``last_index``.
    """
    states = packed_states(model, input_ids, position_ids, segments, lower)
    rows = torch.arange(len(input_ids), device=states.device).repeat(2)
    return cast("Tensor", head(states[rows, last_index]))


@torch.no_grad()
def raw_scores(model: nn.Module, head: ScoreHead, rows: Sequence[Sequence[int]], batch_size: int) -> Tensor:
    """Return ``[N]`` fp32 raw scores, on the CPU, of token rows that already end with the tail, in their order."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number))
    scores = torch.empty(len(rows), dtype=torch.float32)
    try:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            lengths = torch.tensor([len(rows[number]) for number in numbers])
            ids = torch.zeros((len(numbers), int(lengths.max())), dtype=torch.int64)
            for place, number in enumerate(numbers):
                ids[place, : len(rows[number])] = torch.tensor(rows[number])
            mask = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
            batch = last_scores(model, head, ids.to(device), mask.to(device), (lengths - 1).to(device))
            scores[torch.tensor(numbers)] = batch.cpu()
    finally:
        model.train(was_training)
    return scores


def member_folders(folder: Path, num_members: int) -> list[Path]:
    """Return where the adapter and the head of each member lie: an ensemble has a folder for each."""
    return [folder] if num_members == 1 else [folder / MEMBERS_FOLDER / str(number) for number in range(num_members)]


def save_head(head: ScoreHead, folder: Path, tie: Tensor | None = None) -> None:
    """Write ``weight [1, H]`` and ``bias [1]``; the same weights give the same bytes.

    A model of ties also writes ``tie []``: Davidson's ``nu``, or Rao and Kupper's threshold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.linear.state_dict().items()}
    if tie is not None:
        tensors[TIE] = tie.detach().float().cpu()
    save_file(tensors, folder / HEAD_NAME, {"format": "pt"})


def load_head(folder: Path, hidden_size: int) -> ScoreHead:
    """Read a score head.

    Raises:
        ModelError: It has other tensors, or is that of a model of another width.
    """
    tensors = load_file(folder / HEAD_NAME)
    tensors.pop(TIE, None)  # no score depends on it
    head = ScoreHead(hidden_size)
    expected = {"weight": (1, hidden_size), "bias": (1,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise ModelError(f"{folder / HEAD_NAME} holds {found} and not fp32 {expected}: it is of another base model.")
    head.linear.load_state_dict(tensors)
    return head.requires_grad_(False)


def load_reward(model: PreTrainedModel | PeftModel, folder: Path, *, name: str = "reward") -> RewardModel:
    """Put the members of a sealed reward model on a backbone, beside the adapters that it has.

    Args:
        model: The base, or a base that already carries adapters; which of them acts, and what trains, stays as it is.
        folder: Of the artifact.
        name: The adapters are called ``<name>_0``, ``<name>_1``...: choose another for a second reward model.

    Returns:
        The reward model; its ``model`` is the backbone with all adapters.
    """
    facts = RewardFacts.read(folder)
    folders = member_folders(folder, facts.num_members)
    adapters = [f"{name}_{number}" for number in range(facts.num_members)]
    heads = []
    for adapter, member in zip(adapters, folders, strict=True):
        if isinstance(model, PeftModel):
            load_role(model, adapter, member / ADAPTER_FOLDER)
        else:
            model = load_adapter(model, member / ADAPTER_FOLDER, name=adapter)
        head = load_head(member, underlying_model(model).config.get_text_config().hidden_size)
        heads.append(head.to(next(model.parameters()).device))
    return RewardModel(cast("PeftModel", model), adapters, heads, facts)


def reward_digest(folder: Path) -> str:
    """Return the digest of what a reward model computes: adapters, heads and facts."""
    facts = RewardFacts.read(folder)
    members = []
    for member in member_folders(folder, facts.num_members):
        head = load_file(member / HEAD_NAME)
        values = hashlib.sha256(b"".join(head[name].numpy().tobytes() for name in sorted(head))).hexdigest()
        members.append({"adapter": adapter_digest(member / ADAPTER_FOLDER), "head": values})
    return sha256_json({"members": members, "facts": asdict(facts)})
