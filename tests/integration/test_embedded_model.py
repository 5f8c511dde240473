"""The embedded base model, converted from its real file: safe under two processes, intact, and sane in its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from pipeline.artifacts.base_model import BaseModel, embedded_file, resolve_base
from pipeline.config.evaluation import SamplingConfig
from pipeline.config.shared import DType, ModelConfig, RuntimeConfig
from pipeline.data.encode import encode_completion, encode_prompt, load_chat
from pipeline.data.rows import Message
from pipeline.errors import ModelError
from pipeline.models.generation import generate
from pipeline.models.loading import load_base
from pipeline.models.scoring import score

ROOT = Path(__file__).resolve().parents[2]
MODEL = ModelConfig(id="SmolLM2-135M-Instruct", system_prompt="You are a helpful assistant.")
QUESTIONS = ["What is the capital of France?", "Say hello.", "List three colours.", "How many days has a week?"]

try:
    embedded_file()
except ModelError as error:
    pytestmark = [pytest.mark.integration, pytest.mark.skip(reason=str(error))]
else:
    pytestmark = pytest.mark.integration

RESOLVE = (
    "import sys\nfrom pathlib import Path\nfrom pipeline.artifacts.base_model import resolve_base\n"
    "from pipeline.config.shared import ModelConfig\n"
    "base = resolve_base(ModelConfig(id='SmolLM2-135M-Instruct'), Path(sys.argv[1]))\n"
    "assert 'torch' not in sys.modules\nprint('folder', base.folder.name)\n"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def base(cache: Path) -> BaseModel:
    """Asked for by two processes at once, of which one converts and the other waits."""
    command = [sys.executable, "-c", RESOLVE, str(cache)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    racing = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=900)[0] for process in racing]
    assert [process.returncode for process in racing] == [0, 0]
    assert sum("Converting" in answer for answer in answers) == 1
    assert len({answer.splitlines()[-1] for answer in answers}) == 1
    return resolve_base(MODEL, cache, notice=pytest.fail)


def test_the_folder_is_complete_and_loads_in_plain_transformers(base: BaseModel) -> None:
    assert sorted(path.name for path in base.folder.parent.iterdir()) == [base.folder.name, f"{base.folder.name}.lock"]
    config = json.loads((base.folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (base.vocab_size, base.hidden_size, base.context_length) == (49152, 576, 8192)
    model, report = AutoModelForCausalLM.from_pretrained(base.folder, output_loading_info=True)
    assert not any(report.values())
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008


def test_digits_are_split_before_white_space(base: BaseModel) -> None:
    """As the model was trained: the blank lines before a list number are one token."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base.folder)
    assert tokenizer.tokenize("a\n\n10 b") == ["a", "ĊĊ", "1", "0", "Ġb"]


def test_it_answers_and_a_batch_answers_as_plain_transformers_does(base: BaseModel) -> None:
    chat = load_chat(base.folder, MODEL)
    model = load_base(base, MODEL, RuntimeConfig(), DType.float32)
    prompts = [encode_prompt([Message(role="user", content=text)], chat) for text in QUESTIONS]
    drawn = generate(model, chat, prompts, SamplingConfig(max_new_tokens=24), batch_size=4)
    assert "Paris" in drawn[0].text
    for prompt, one in zip(prompts, drawn, strict=True):
        plain = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), do_sample=False,
            max_new_tokens=24, top_k=None, eos_token_id=list(chat.stop_ids), pad_token_id=chat.pad_id,
        )  # fmt: skip
        assert plain[0, len(prompt) :].tolist() == one.ids


def test_a_true_answer_is_likelier_than_a_false_one(base: BaseModel) -> None:
    chat = load_chat(base.folder, MODEL)
    model = load_base(base, MODEL, RuntimeConfig(), DType.float32)
    prompt = [Message(role="user", content=QUESTIONS[0])]
    rows = [encode_completion(prompt, f"The capital of France is {city}.", chat) for city in ("Paris", "Madrid")]
    true, false = score(model, rows, batch_size=2)  # type: ignore[arg-type]
    assert true.nats > false.nats + 2
    assert true.nats > -3


def test_a_damaged_conversion_is_noticed_and_made_again(base: BaseModel, cache: Path) -> None:
    weights = base.folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    os.utime(weights, (1, 1))
    notices: list[str] = []
    again = resolve_base(MODEL, cache, notices.append)
    assert [text.split(":")[-1].strip() for text in notices][0] == "converting the model again"
    assert replace(again, folder=base.folder) == base
    assert resolve_base(MODEL, cache, notice=pytest.fail) == again
