"""A tiny random Llama with a ChatML tokenizer, written from nothing and offline, for every test that needs a model.

The same arguments give the same bytes on every machine: the weights come from numpy's PCG64 stream and the tokenizer
from a fixed text. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
END_OF_TURN_ID, PAD_ID = 2, 3

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEXT = (
    "system\nuser\nassistant\nYou are a support agent. Answer in one short paragraph.",
    "Hello, I cannot sign in to my account since this morning. What should I do?",
    "Open the settings page, choose Security, and reset the password. A new link arrives within five minutes.",
    "How long does delivery take? Orders that are placed before noon leave the same day.",
    "The quick brown fox jumps over the lazy dog. 0 1 2 3 4 5 6 7 8 9",
    "Thank you for the question. The refund is paid to the card that was used for the order.",
    "Was kostet der Versand? Déjà vu, naïve café, 東京, emoji 🙂 and a tab\tcharacter.",
)


def make_tiny_model(
    folder: Path,
    *,
    text: Iterable[str] = TEXT,
    vocab_size: int = 512,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    num_key_value_heads: int = 2,
    context_length: int = 512,
    tie_word_embeddings: bool = True,
    seed: int = 0,
) -> Path:
    """Write ``model.safetensors``, ``config.json``, ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        folder: Made where it is missing.
        text: What the byte-level BPE tokenizer is trained on. Every byte is in its alphabet whatever the text says.
        vocab_size: Rows of the embedding, and the most entries the tokenizer may have (it ends with fewer when the
            text has no more pairs to merge).
        hidden_size: Width of the residual stream.
        num_layers: Decoder layers.
        num_heads: Attention heads; must divide ``hidden_size``.
        num_key_value_heads: Heads of keys and values; must divide ``num_heads``.
        context_length: ``max_position_embeddings``.
        tie_word_embeddings: Whether the output head is the embedding.
        seed: Of the weights.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, text, vocab_size, context_length)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dtype": "float32",
        "eos_token_id": END_OF_TURN_ID,
        "head_dim": hidden_size // num_heads,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": context_length,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": num_heads,
        "num_hidden_layers": num_layers,
        "num_key_value_heads": num_key_value_heads,
        "pad_token_id": PAD_ID,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": tie_word_embeddings,
        "vocab_size": vocab_size,
    }
    _write_json(folder / "config.json", config)
    weights = _weights(
        np.random.default_rng(seed), vocab_size, hidden_size, num_layers, hidden_size // num_heads * num_key_value_heads
    )
    if not tie_word_embeddings:
        generator = np.random.default_rng([seed, 1])
        weights["lm_head.weight"] = 0.1 * generator.standard_normal((vocab_size, hidden_size), dtype=np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(
    generator: np.random.Generator, vocab_size: int, hidden_size: int, num_layers: int, key_value_size: int
) -> dict[str, np.ndarray]:
    """Draw fp32 weights under Llama's names, large enough that the predictions are far from uniform."""

    def matrix(rows: int, columns: int, scale: float) -> np.ndarray:
        return scale * generator.standard_normal((rows, columns), dtype=np.float32)

    scale = 1.0 / math.sqrt(hidden_size)
    weights = {"model.embed_tokens.weight": matrix(vocab_size, hidden_size, 0.1)}
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        weights[prefix + "self_attn.q_proj.weight"] = matrix(hidden_size, hidden_size, scale)
        weights[prefix + "self_attn.k_proj.weight"] = matrix(key_value_size, hidden_size, scale)
        weights[prefix + "self_attn.v_proj.weight"] = matrix(key_value_size, hidden_size, scale)
        weights[prefix + "self_attn.o_proj.weight"] = matrix(hidden_size, hidden_size, scale)
        weights[prefix + "mlp.gate_proj.weight"] = matrix(2 * hidden_size, hidden_size, scale)
        weights[prefix + "mlp.up_proj.weight"] = matrix(2 * hidden_size, hidden_size, scale)
        weights[prefix + "mlp.down_proj.weight"] = matrix(hidden_size, 2 * hidden_size, scale)
        weights[prefix + "input_layernorm.weight"] = np.ones(hidden_size, dtype=np.float32)
        weights[prefix + "post_attention_layernorm.weight"] = np.ones(hidden_size, dtype=np.float32)
    weights["model.norm.weight"] = np.ones(hidden_size, dtype=np.float32)
    return weights


def _write_tokenizer(folder: Path, text: Iterable[str], vocab_size: int, context_length: int) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "bos_token": "<|endoftext|>",
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": context_length,
        "pad_token": "<|pad|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<|endoftext|>",
    }
    _write_json(folder / "tokenizer_config.json", tokenizer_config)


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
