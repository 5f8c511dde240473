"""A tiny model finds scores that were planted: one number per word, votes drawn by Bradley-Terry, 20,000 test pairs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reward_jobs import make_workshop, small_config

from pipeline.artifacts.base_model import resolve_base
from pipeline.config.reward import AuditConfig, ConfidenceUse
from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, RuntimeConfig
from pipeline.data.encode import load_chat
from pipeline.data.pairs import encode_pairs
from pipeline.data.rows import Comparison, Message
from pipeline.models.loading import load_base
from pipeline.models.reward import load_reward
from pipeline.stages.audit import score_pairs
from pipeline.statistics.calibration import calibration

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

WORDS = ("password", "delivery", "refund", "account", "settings", "order", "link", "card", "noon", "page")
NUM_TEST = 20_000


def planted(count: int, seed: int) -> tuple[list[Comparison], np.ndarray, np.ndarray]:
    """Return pairs of three-word replies, both utilities, and the probability that the stated preference is true.

    A reply's utility is the sum of its words' numbers; the first reply wins with probability s(difference). There is
    one prompt, because between prompts Bradley-Terry leaves the scores' origin open.
    """
    generator, values = np.random.default_rng(seed), np.linspace(-1.5, 1.5, len(WORDS))
    rows, utilities, chances = [], [], []
    for number in range(count):
        first, second = generator.integers(0, len(WORDS), (2, 3))
        if sorted(first) == sorted(second):
            second = (second + 1) % len(WORDS)
        utility = np.array([values[first].sum(), values[second].sum()])
        chance = 1 / (1 + math.exp(utility[1] - utility[0]))
        texts = [" ".join(WORDS[index] for index in side) for side in (first, second)]
        if generator.random() >= chance:
            texts.reverse()
            utility, chance = utility[::-1], 1 - chance
        rows.append(
            Comparison(
                id=f"{seed}-{number}", source="planted", licence=None, confidence=1.0, num_votes=1,
                prompt=[Message(role="user", content="Say three words.")], fold=number % 5,
                chosen=[Message(role="assistant", content=texts[0])],
                rejected=[Message(role="assistant", content=texts[1])],
            )
        )  # fmt: skip
        utilities.append(utility)
        chances.append(chance)
    return rows, np.array(utilities), np.array(chances)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    shop = make_workshop(
        tmp_path_factory.mktemp("planted"), {"train": planted(6000, 0)[0], "validation": planted(400, 1)[0]}
    )
    config = small_config(
        lora=LoRAConfig(rank=8, alpha=16.0), optimizer=OptimizerConfig(learning_rate=3e-3), num_epochs=2,
        batch_size=64, microbatch_size=64, validate_every=None, centring_coef=0.0, confidence=ConfidenceUse.label,
        audit=AuditConfig(num_samples=4, max_new_tokens=4, max_pairs=400),
    )  # fmt: skip
    outcome, work = shop.run(config, "planted", folds=range(5))
    rows, utilities, chances = planted(NUM_TEST, 2)
    chat = load_chat(shop.base.folder, shop.model)
    base = load_base(resolve_base(shop.model, shop.outputs), shop.model, RuntimeConfig(), DType.float32)
    reward = load_reward(base, work.staging)
    scored = score_pairs(reward, encode_pairs(rows, chat, max_length=128).pairs, batch_size=256)
    return {"scored": scored, "utilities": utilities, "chances": chances, "facts": reward.facts, "outcome": outcome}


def test_the_planted_scores_are_found(found: dict[str, Any], tmp_path: Path) -> None:
    scored, utilities = found["scored"], found["utilities"]
    assert len(scored) == NUM_TEST
    scores = [*(pair.chosen for pair in scored), *(pair.rejected for pair in scored)]
    correlation = np.corrcoef(scores, [*utilities[:, 0], *utilities[:, 1]])[0, 1]
    right = np.mean([pair.right for pair in scored])
    bayes = np.mean(found["chances"] > 0.5)
    probabilities = [1 / (1 + math.exp(-pair.difference / found["facts"].temperature)) for pair in scored]
    measured = calibration(probabilities, [1.0] * NUM_TEST, [pair.id for pair in scored], draws=200)
    print(f"correlation {correlation:.4f}, accuracy {right:.4f}, Bayes {bayes:.4f}, ECE {measured.ece.estimate:.4f}")
    assert correlation > 0.98
    assert abs(right - bayes) < 0.02
    assert measured.ece.estimate is not None
    assert measured.ece.estimate < 0.03
