"""What the audit of a reward model scores: held-out pairs, the policy's samples, and texts nobody should prefer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from pipeline.config.evaluation import SamplingConfig
from pipeline.config.reward import RewardConfig
from pipeline.config.shared import DType
from pipeline.data.encode import Chat
from pipeline.data.pairs import Pair, PairCounts, encode_pairs
from pipeline.data.rows import Comparison as ComparisonRow
from pipeline.data.tables import part_name, read_table
from pipeline.evaluation.reward_card import Card, Comparison, Findings, ScoredPair, length_rule, make_card
from pipeline.models.generation import generate
from pipeline.models.loading import ADAPTER_FOLDER
from pipeline.models.reward import RewardModel, ScoreHead, last_scores
from pipeline.models.roles import POLICY, enter_role, load_role
from pipeline.stages.pairs import PairRows
from pipeline.tracking.job import StageJob

NUM_PROMPTS = 64  # held-out prompts that get texts nobody should prefer
NUM_INVARIANT = 16  # rows that are scored again in other company
REPEATED_TOKENS, REPEATS = 8, 8
FLAT = 1e-6  # a standard deviation below it is that of equal scores
# Standard deviations by which rounding may move a score: reduced formats are this coarse.
TOLERANCES = {DType.float32: 1e-3, DType.bfloat16: 0.25, DType.float16: 0.05}


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A reward model with its final facts, its card, and what became of the held-out comparisons."""

    reward: RewardModel
    card: Card
    counts: PairCounts


def audit(
    job: StageJob, reward: RewardModel, rows: PairRows, config: RewardConfig, dtype: DType, reloaded: float
) -> Audited:
    """Fix mean and spread of the scores on the starting policy's samples, then measure and decide.

    Args:
        job: Its inputs are the data set and the policy that the samples are drawn from, if any.
        reward: Freshly loaded; its means are 0, its standard deviations and its temperature 1.
        rows: What it was trained on.
        config: Of the stage.
        dtype: Number format of the backbone, which decides how far rounding may move a score.
        reloaded: Largest change of a raw score by saving and loading.
    """
    samples = _normalise(job, reward, rows, config)
    split, held_out, counts = _held_out(job, rows, config)
    batch_size = 2 * config.microbatch_size
    scored = score_pairs(reward, held_out, batch_size)
    lengths = [(p.chosen.num_supervised, p.rejected.num_supervised, p.confidence) for p in rows.train]
    differences = {
        "reload": reloaded,
        "padding": _padding_change(reward, held_out, rows.chat),
        "batch": _batch_change(reward, held_out, batch_size),
    }
    findings = Findings(
        held_out=scored,
        held_out_split=split,
        validation=score_pairs(reward, rows.validation[: config.audit.max_pairs], batch_size),
        length_rule=length_rule(lengths),
        unwanted=_unwanted(reward, held_out, scored, batch_size),
        differences=differences,
        tolerances={"reload": 0.0, "padding": TOLERANCES[dtype], "batch": TOLERANCES[dtype]},
        samples=samples,
    )
    card = make_card(findings, config.audit)
    reward.facts = replace(reward.facts, temperature=card.temperature)
    return Audited(reward=reward, card=card, counts=counts)


def score_pairs(reward: RewardModel, pairs: Sequence[Pair], batch_size: int) -> list[ScoredPair]:
    """Score both sides of every pair."""
    if not pairs:
        return []
    rows = [pair.chosen.input_ids for pair in pairs] + [pair.rejected.input_ids for pair in pairs]
    chosen, rejected = reward.score(rows, batch_size).mean.chunk(2)
    return [scored_pair(*scored) for scored in zip(pairs, chosen.tolist(), rejected.tolist(), strict=True)]


def scored_pair(pair: Pair, chosen: float, rejected: float) -> ScoredPair:
    """Return what the card asks of a pair, with the scores of its sides."""
    return ScoredPair(
        id=pair.id, source=pair.source, cluster=pair.cluster, confidence=pair.confidence, chosen=chosen,
        rejected=rejected, chosen_length=pair.chosen.num_supervised, rejected_length=pair.rejected.num_supervised,
        prompt_length=len(prompt_ids(pair)),
    )  # fmt: skip


def prompt_ids(pair: Pair) -> list[int]:
    """Return the tokens before the first reply that was judged."""
    return pair.chosen.input_ids[: pair.chosen.completion_mask.index(True)]


def _normalise(job: StageJob, reward: RewardModel, rows: PairRows, config: RewardConfig) -> dict[str, Any]:
    """Put mean and standard deviation of the scores of the starting policy's own samples into the facts."""
    firsts = {pair.cluster: pair for pair in reversed(rows.train)}
    by_hash = [firsts[cluster] for cluster in sorted(firsts)]  # a fair sample; few prompts are asked several times
    chosen = [by_hash[number % len(by_hash)] for number in range(config.audit.num_samples)]
    keys = [f"{pair.id}/{number // len(by_hash)}" for number, pair in enumerate(chosen)]
    prompts = [prompt_ids(pair) for pair in chosen]
    policy = job.one("policy")
    if policy is not None:
        load_role(reward.model, POLICY, policy.path / ADAPTER_FOLDER)
    sampling = SamplingConfig(max_new_tokens=config.audit.max_new_tokens, temperature=1.0, seed=config.seed)
    with enter_role(reward.model, POLICY if policy is not None else None):
        written = generate(reward.model, rows.chat, prompts, sampling, 4 * config.microbatch_size, keys)
    rows_written = [[*prompt, *completion.ids] for prompt, completion in zip(prompts, written, strict=True)]
    scores = reward.score(rows_written, 2 * config.microbatch_size)
    means = scores.members.double().mean(dim=1).tolist()
    stds = scores.members.double().std(dim=1).tolist()
    if min(stds) < FLAT:
        job.run.notice("every sample of the starting policy has the same score; the scores are left as they are")
        stds = [1.0 for _ in stds]
    reward.facts = replace(reward.facts, means=tuple(means), stds=tuple(stds))
    normalised = [(row - mean) / std for row, mean, std in zip(scores.members, means, stds, strict=True)]
    cut = sum(completion.finish_reason == "length" for completion in written)
    return {
        "n": len(written),
        "raw_mean": means,
        "raw_std": stds,
        "cut_off": cut / len(written),
        "mean_tokens": sum(completion.num_tokens for completion in written) / len(written),
        "spread_between_members": float(torch.stack(normalised).std(dim=0, correction=0).mean()),
    }


def _held_out(job: StageJob, rows: PairRows, config: RewardConfig) -> tuple[str, list[Pair], PairCounts]:
    """Return the test pairs, or where there are none the validation pairs, which have chosen the checkpoint."""
    dataset = job.one("dataset")
    if dataset is None or part_name("comparisons", "test") not in dataset.manifest.parts:
        job.run.notice("there are no test comparisons, so the audit looks at the validation pairs, which flatter")
        return "validation", rows.validation[: config.audit.max_pairs], rows.counts["validation"]
    table = read_table(dataset, "comparisons", "test", ComparisonRow)
    encoded = encode_pairs(table, rows.chat, max_length=config.max_length)
    job.run.notice(f"test: {encoded.counts}")
    by_id = sorted(encoded.pairs, key=lambda pair: (pair.cluster, pair.id))
    return "test", by_id[: config.audit.max_pairs], encoded.counts


def _unwanted(
    reward: RewardModel, pairs: Sequence[Pair], scored: Sequence[ScoredPair], batch_size: int
) -> dict[str, Comparison]:
    """Score, in place of each pair's sides, nothing at all, half of the chosen side, and its beginning repeated."""
    shown, usual = list(pairs[:NUM_PROMPTS]), [(pair.chosen + pair.rejected) / 2 for pair in scored[:NUM_PROMPTS]]
    if not shown:
        return {}
    texts: dict[str, list[list[int]]] = {"empty": [], "truncated": [], "repeated": []}
    for pair in shown:
        start = prompt_ids(pair)
        reply = pair.chosen.input_ids[len(start) :][: -len(reward.facts.tail_ids)]
        texts["empty"].append(start)
        texts["truncated"].append([*start, *reply[: len(reply) // 2]])
        texts["repeated"].append([*start, *reply[:REPEATED_TOKENS] * REPEATS])
    clusters = [pair.cluster for pair in shown]
    return {
        name: Comparison(usual=usual, scores=reward.score(rows, batch_size).mean.tolist(), clusters=clusters)
        for name, rows in texts.items()
    }


def _batch_change(reward: RewardModel, pairs: Sequence[Pair], batch_size: int) -> float:
    """Return how far scoring rows one by one moves them."""
    rows = [pair.chosen.input_ids for pair in pairs[:NUM_INVARIANT]]
    if not rows:
        return 0.0
    return float((reward.score(rows, batch_size).mean - reward.score(rows, 1).mean).abs().max())


def _padding_change(reward: RewardModel, pairs: Sequence[Pair], chat: Chat) -> float:
    """Return how far padding on the left, instead of on the right, moves scores of any member, normalised."""
    rows = [pair.chosen.input_ids for pair in pairs[:NUM_INVARIANT]]
    if not rows:
        return 0.0
    changes = []
    for adapter, head, std in zip(reward.adapters, reward.heads, reward.facts.stds, strict=True):
        with enter_role(reward.model, adapter):
            left, right = (_padded_scores(reward.model, head, rows, chat.pad_id, side) for side in ("left", "right"))
        changes.append(float((left - right).abs().max()) / std)
    return max(changes)


@torch.no_grad()
def _padded_scores(model: PeftModel, head: ScoreHead, rows: Sequence[list[int]], pad_id: int, side: str) -> Tensor:
    """Raw scores of one batch, with three more places than the longest row has."""
    length = max(len(row) for row in rows) + 3
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), length), dtype=torch.bool)
    for number, row in enumerate(rows):
        place = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), True
    last = torch.tensor([length - 1 if side == "left" else len(row) - 1 for row in rows])
    device = next(model.parameters()).device
    return last_scores(model, head, ids.to(device), mask.to(device), last.to(device))
