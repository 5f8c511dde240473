from __future__ import annotations

from pathlib import Path

import pytest
from fake_stages import make_config, make_suites
from tiny import make_tiny_model
from transformers import AutoTokenizer

from pipeline.artifacts.base_model import BaseModel
from pipeline.artifacts.hashing import FileHashes
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.commands.plan_prompts import print_prompts
from pipeline.config.ppo import NamedReward
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig
from pipeline.data.rows import Message, Prompt
from pipeline.data.tables import part_name, rows_digest, write_table
from pipeline.graph.resolution import Resolution
from pipeline.graph.spec import STAGES
from pipeline.graph.wiring import nodes_for


def planned(tmp_path: Path, stage: str) -> tuple[Config, Resolution]:
    """Return the configuration of one stage over five prompts, one of them too long, and what resolves it."""
    config = make_config(tmp_path / "outputs", tmp_path / "rows.txt", (stage,))
    store, folder = Store(tmp_path / "outputs"), make_tiny_model(tmp_path / "model")
    work = store.work("curate", "c" * 64)
    rows = []
    for number in range(5):
        question = "Why? " * (1 + 100 * (number == 3))
        rows.append(
            Prompt(id=f"p{number}", source="made", licence=None, prompt=[Message(role="user", content=question)])
        )
    write_table(work.staging, "prompts", "train", rows)
    dataset = store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint="c" * 64, parents=[], config={},
        outcome=StageOutcome(parts={part_name("prompts", "train"): rows_digest(rows)}),
    )  # fmt: skip
    getattr(config.inputs, stage).dataset = config.inputs.evaluate.dataset = dataset.id
    config.model = ModelConfig(id=str(folder))
    base = BaseModel(
        name="tiny", folder=folder, digest="d", tokenizer_digest="t", chat_template="", context_length=100,
        vocab_size=512, hidden_size=64, architecture="Llama", source="",
    )  # fmt: skip
    resolution = Resolution(config=config, store=store, hashes=FileHashes(tmp_path / "h.json"), base=lambda _: base)
    return config, resolution


@pytest.mark.slow
def test_prompts_episodes_and_steps_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, resolution = planned(tmp_path, "ppo")
    ppo = config.ppo
    ppo.num_rollouts, ppo.rollout_size, ppo.minibatch_size, ppo.microbatch_size, ppo.ppo_epochs = 6, 8, 4, 2, 3
    ppo.max_prompt_length, ppo.max_new_tokens = 90, 16
    ppo.rewards = [NamedReward(name="max_words", params={"limit": 9})]
    nodes, problems = nodes_for(config, make_suites(), {}, STAGES)
    assert problems == []
    resolution.require_references(nodes)
    print_prompts(nodes[0], resolution)
    lines = capsys.readouterr().out.splitlines()
    turns = [{"role": "user", "content": "Why? "}]
    tokenizer = AutoTokenizer.from_pretrained(config.model.id)
    length = len(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, add_generation_prompt=True))
    assert ["ppo", "train", "5", "4", str(4 * length), str(length)] in [line.split() for line in lines]
    assert "ppo: dropped of train: 1 overlength" in lines
    # 6 x 8 = 48 episodes over 4 prompts; 6 rollouts x 3 epochs x 2 minibatches = 36 steps.
    course = "ppo: 48 episodes of at most 16 tokens in 6 rollouts, each prompt about 12.0 times; at most 36 optimizer "
    assert f"{course}steps of 4 episodes; scored by max_words" in lines
    assert any(line.startswith("ppo: time unknown for 48 episodes") for line in lines)

    ppo.max_prompt_length = 1
    print_prompts(nodes[0], resolution)
    assert "ppo: no train prompt is left; raise ppo.max_prompt_length" in capsys.readouterr().out


def test_groups_are_counted_for_grpo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, resolution = planned(tmp_path, "grpo")
    grpo = config.grpo
    grpo.num_rollouts, grpo.rollout_size, grpo.group_size, grpo.max_prompt_length, grpo.max_new_tokens = 6, 8, 4, 90, 16
    grpo.rewards = [NamedReward(name="max_words", params={"limit": 9})]
    nodes, problems = nodes_for(config, make_suites(), {}, STAGES)
    assert problems == []
    resolution.require_references(nodes)
    print_prompts(nodes[0], resolution)
    course = "grpo: 48 episodes of at most 16 tokens in groups of 4, in 6 rollouts, each prompt about 12.0 times; "
    assert f"{course}at most 6 optimizer steps of 8 episodes; scored by max_words" in capsys.readouterr().out
