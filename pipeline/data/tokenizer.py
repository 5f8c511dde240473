"""The tokenizer of a base model, loaded without torch, with a template and a pad token that can be relied on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerFast

from pipeline.config.paths import find_file
from pipeline.errors import ConfigError, ModelError

TEMPLATES = Path(__file__).parent / "templates"
# Tokens that models keep for padding or never write in a conversation, in order of preference.
PAD_NAMES = (
    "<|pad|>", "<pad>", "[PAD]", "<|padding|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<|end_of_text|>",
    "<|vision_pad|>", "<unk>", "[UNK]", "<|unk|>",
)  # fmt: skip


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Load ``tokenizer.json`` and ``tokenizer_config.json`` of ``folder``.

    The tokenizer that is returned always has an end token, a chat template, and a pad token that is neither the end
    token nor written by the template. Its pad token serves to fill tensors only; masks are carried beside the ids.

    Args:
        folder: Folder of a base model.
        chat_template: Path of a Jinja file (``model.chat_template``); None is the tokenizer's own template, and where
            it has none ours: ChatML if its turn markers are tokens of the vocabulary, else headings in words.

    Raises:
        ModelError: There is no ``tokenizer.json``, or the tokenizer has no end token.
        ConfigError: The template file cannot be read.
    """
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(
            f"No tokenizer.json in {folder}. Slow tokenizers are not read: load the model in transformers and call "
            f"`save_pretrained` on its fast tokenizer, then name that folder in `model.id`."
        )
    tokenizer = cast(PreTrainedTokenizerFast, PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True))
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer in {folder} names no eos_token. Set it in {folder / 'tokenizer_config.json'}.")
    tokenizer.chat_template = _template(tokenizer, chat_template)
    tokenizer.pad_token = _pad_token(tokenizer)
    return tokenizer


def has_chatml(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the turn markers of ChatML are single tokens of the vocabulary."""
    backend = tokenizer.backend_tokenizer
    return all(
        len(backend.encode(marker, add_special_tokens=False).ids) == 1 for marker in ("<|im_start|>", "<|im_end|>")
    )


def _template(tokenizer: PreTrainedTokenizerFast, chat_template: str | None) -> str:
    """Choose the chat template: the user's file, the tokenizer's own, or ours."""
    if chat_template is not None:
        path = find_file(chat_template)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"model.chat_template: cannot read {path} as a text file ({error}). Give the path of a Jinja file."
            ) from error
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several by name; "default" is the one for plain conversations
        own = own.get("default")
    if own:
        return str(own)
    name = "chatml" if has_chatml(tokenizer) else "plain"
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def _pad_token(tokenizer: PreTrainedTokenizerFast) -> str:
    """Choose a token of the vocabulary that no conversation contains; the vocabulary is never enlarged for it."""
    template = str(tokenizer.chat_template)
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    own = [] if tokenizer.pad_token is None else [tokenizer.pad_token]
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    for candidate in [*own, *(name for name in PAD_NAMES if name in vocabulary), *special]:
        if candidate not in taken and candidate not in template:
            return str(candidate)
    # No spare special token: the last entry of the vocabulary is the rarest one of a byte-pair vocabulary.
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token], reverse=True)
    return next(token for token in ordered if token not in taken and token not in template)
