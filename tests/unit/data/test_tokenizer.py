"""Tokenizers come without torch, with a template, and with a pad token that is not the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.data.tokenizer import load_tokenizer
from pipeline.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def folder_with(tiny: Path, folder: Path, **changes: Any) -> Path:
    """Copy the tiny tokenizer with other entries in its configuration; None removes one."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    config = json.loads((tiny / "tokenizer_config.json").read_text(encoding="utf-8")) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_plain_tokenizer(folder: Path, special: list[str]) -> Path:
    """A byte-level tokenizer whose only special tokens are those given; the first is the end."""
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
    )  # fmt: skip
    tokenizer.train_from_iterator(["User and Assistant talk to the user."], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": special[0], "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_loading_a_tokenizer_imports_no_torch(tiny: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.config.shared import ModelConfig; "
        "from pipeline.data.encode import load_chat, encode_prompt; "
        "chat = load_chat(Path(sys.argv[1]), ModelConfig(id='x')); "
        "encode_prompt([{'role': 'user', 'content': 'Hi'}], chat); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny)], check=True)


@pytest.mark.parametrize(
    ("pad", "expected"),
    [
        ("<|pad|>", "<|pad|>"),  # its own is good
        ("<|im_end|>", "<|pad|>"),  # pad == eos, as in SmolLM2
        (None, "<|pad|>"),
    ],
)
def test_pad_is_never_the_end(tiny: Path, tmp_path: Path, pad: str | None, expected: str) -> None:
    tokenizer = load_tokenizer(folder_with(tiny, tmp_path / "m", pad_token=pad))
    assert tokenizer.pad_token == expected
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_without_a_spare_special_token_a_rare_one_pads_and_nothing_else_changes(tmp_path: Path) -> None:
    folder = write_plain_tokenizer(tmp_path / "m", ["<|endoftext|>"])
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert len(tokenizer) == plain.get_vocab_size()  # the vocabulary is not enlarged
    text = plain.decode(list(range(1, plain.get_vocab_size())))
    assert tokenizer.backend_tokenizer.encode(text).ids == plain.encode(text).ids


def test_the_template_is_the_users_file_then_the_tokenizers_then_ours(tiny: Path, tmp_path: Path) -> None:
    own = load_tokenizer(tiny)
    assert "for message in messages" in str(own.chat_template)
    mine = tmp_path / "mine.jinja"
    mine.write_text("{{ messages[0]['content'] + eos_token }}", encoding="utf-8")
    assert load_tokenizer(tiny, str(mine)).chat_template == mine.read_text(encoding="utf-8")
    conversation = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    bare = load_tokenizer(folder_with(tiny, tmp_path / "bare", chat_template=None))
    assert bare.apply_chat_template(conversation, tokenize=False) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    )
    other = load_tokenizer(write_plain_tokenizer(tmp_path / "plain", ["</s>", "<pad>"]))
    system = [{"role": "system", "content": "Be brief."}]
    assert other.apply_chat_template(system + conversation, tokenize=False, add_generation_prompt=True) == (
        "Be brief.\n\n### User:\nHi\n\n### Assistant:\nHo</s>\n\n### Assistant:\n"
    )
    assert other.pad_token == "<pad>"


def test_what_is_missing_is_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="eos_token"):
        load_tokenizer(folder_with(tiny, tmp_path / "m", eos_token=None))
    with pytest.raises(ConfigError, match=r"model\.chat_template: cannot read"):
        load_tokenizer(tiny, str(tmp_path / "none.jinja"))
