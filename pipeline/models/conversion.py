"""Turn a GGUF file into safetensors and tokenizer.json: ``python -m pipeline.models.conversion``.

It runs in a process of its own, so that the commands which only need the folder's identity never import torch.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# GGUF names the splitting of text before the merges, which transformers does not read; it splits as GPT-2 did. These
# tokenizers take every digit by itself first, which decides how white space before a digit is split.
DIGITS_FIRST = frozenset({"smollm", "starcoder", "refact", "command-r"})


def convert(source: Path, folder: Path, name: str, dtype_name: str = "float32") -> None:
    """De-quantise ``source`` into ``folder``, which then loads in plain transformers.

    Args:
        source: A GGUF file.
        folder: Filled with ``model.safetensors``, ``config.json`` and the tokenizer's files.
        name: The model's name, for its configuration.
        dtype_name: Number format of the saved weights.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    _read_once()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, report = AutoModelForCausalLM.from_pretrained(
        str(source.parent),
        gguf_file=source.name,
        dtype=getattr(torch, dtype_name),
        local_files_only=True,
        output_loading_info=True,
    )
    faults = {key: sorted(map(str, values)) for key, values in report.items() if values}
    if faults:
        raise ValueError(f"{source} does not fit its own architecture: {faults}")
    # Both would make the saved folder claim to be GGUF still.
    del model.hf_quantizer
    del model.config.quantization_config
    model.config.name_or_path = name
    vars(model.config).pop("_model_name_or_path", None)  # what the GGUF file calls itself
    model.save_pretrained(folder, max_shard_size="100GB")
    _save_tokenizer(source, folder, context_length=model.config.max_position_embeddings)


def _read_once() -> None:
    """Keep what transformers would read anew: the file's header for every part, the tensors' names for every module.

    That is half of the time of a conversion. Nothing else runs in this process.
    """
    import gguf

    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)


def _save_tokenizer(source: Path, folder: Path, context_length: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name, local_files_only=True)
    if _pre_tokenizer_name(source) in DIGITS_FIRST:
        _split_digits_first(tokenizer)
    tokenizer.model_max_length = context_length
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # A class name that every release knows, and nothing about how the tokenizer was read here.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["clean_up_tokenization_spaces"] = False
    for key in ("backend", "is_local", "local_files_only"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _pre_tokenizer_name(source: Path) -> str | None:
    from gguf import GGUFReader

    field = GGUFReader(str(source)).get_field("tokenizer.ggml.pre")
    return None if field is None else str(field.contents())


def _split_digits_first(tokenizer: PreTrainedTokenizerBase) -> None:
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def main(arguments: list[str]) -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.models.conversion", description=convert.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args(arguments)
    convert(given.source, given.folder, given.name, given.dtype)


if __name__ == "__main__":
    main(sys.argv[1:])
