"""What is drawn for an item of a suite belongs to the item: neither its place nor its neighbours count."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM

from pipeline.config.evaluation import SamplingConfig, SuiteConfig, SuiteKind
from pipeline.config.shared import ModelConfig
from pipeline.data.encode import encode_prompt, load_chat
from pipeline.data.rows import Message, Prompt
from pipeline.stages.items import Item
from pipeline.stages.samples import answers


def test_answers_follow_the_item_and_count_their_tokens(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    chat = load_chat(folder, ModelConfig(id="tiny"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    message = Message(role="user", content="Hello?")  # the same for all: only the ids differ
    rows = [Prompt(id=f"item-{number}", source="made", licence=None, prompt=[message]) for number in range(4)]
    items = [Item(row=row, tokens=encode_prompt([message], chat)) for row in rows]
    suite = SuiteConfig(
        name="s", kind=SuiteKind.generation, batch_size=2,
        sampling=SamplingConfig(max_new_tokens=8, temperature=1.0, seed=3),
    )  # fmt: skip
    calls: list[None] = []
    found = answers(model, chat, suite, items, lambda: calls.append(None))
    backwards = answers(model, chat, suite, items[::-1], lambda: None)
    assert [answer["id"] for answer in found] == [row.id for row in rows]
    assert found == backwards[::-1]
    assert answers(model, chat, suite, items[2:3], lambda: None) == found[2:3]
    assert len({answer["completion"] for answer in found}) == 4, "items that are drawn alike could change places unseen"
    assert all(1 <= int(answer["num_tokens"]) <= 8 for answer in found)
    assert calls, "who asks for the end is heard between two tokens"
