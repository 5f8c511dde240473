"""What a chat template does, found by rendering probes: names and conventions differ, what is written does not."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from pipeline.data.rows import Message
from pipeline.errors import ModelError

_SYSTEM_PROBE, _USER_PROBE, _REPLY_PROBE, _NEXT_PROBE = "Qsystemprobe", "Quserprobe", "Qreplyprobe", "Qnextprobe"


def render(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
    """Render a conversation with the tokenizer's template, which runs in Jinja's immutable sandbox."""
    if not messages:  # a conversation that begins with a reply; some templates fail on no turns at all
        return ""
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=generation_prompt
        )
    )


def find_end_of_turn(tokenizer: PreTrainedTokenizerFast) -> str:
    """Find what the template writes after a reply, up to and including the first control token."""
    turns = [Message(role="user", content=_USER_PROBE), Message(role="assistant", content=_REPLY_PROBE)]
    after = render(tokenizer, turns).rpartition(_REPLY_PROBE)[2]
    encoded = tokenizer.backend_tokenizer.encode(after, add_special_tokens=False)
    added = tokenizer.added_tokens_decoder
    for token, (_, right) in zip(encoded.ids, encoded.offsets, strict=True):
        if token == tokenizer.eos_token_id or token in added:
            return after[:right]
    raise ModelError(
        f"The chat template writes {after!r} after a reply, and no control token: a model trained on it would never "
        f"learn to stop. Give a template in `model.chat_template` that writes {tokenizer.eos_token} there."
    )


def template_notices(tokenizer: PreTrainedTokenizerFast, system_prompt: str | None) -> list[str]:
    """Report what a template does by itself and nobody asked for."""
    notices: list[str] = []
    injected = _injected_system_turn(tokenizer)
    if injected and system_prompt is None:
        notices.append(
            f"The chat template puts a system turn of its own before every conversation that has none: {injected!r}. "
            f"Set model.system_prompt to say something else."
        )
    if "strftime_now" in str(tokenizer.chat_template):
        notices.append(
            "The chat template writes today's date, so tokens change from day to day. "
            "Give a template without it in model.chat_template where runs must repeat."
        )
    return notices


def require_system_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    """Check that the template writes system turns.

    Raises:
        ModelError: It leaves them out.
    """
    turns = [Message(role="system", content=_SYSTEM_PROBE), Message(role="user", content=_USER_PROBE)]
    if _SYSTEM_PROBE not in render(tokenizer, turns):
        raise ModelError("model.system_prompt is set, and the chat template leaves system turns out. Unset it.")


def _injected_system_turn(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the words that a lone user turn comes with before its own heading, or nothing."""
    first = Message(role="user", content=_USER_PROBE)
    turns = [first, Message(role="assistant", content=_REPLY_PROBE), Message(role="user", content=_NEXT_PROBE)]
    between = render(tokenizer, turns).partition(_REPLY_PROBE)[2].partition(_NEXT_PROBE)[0]
    head = render(tokenizer, [first]).partition(_USER_PROBE)[0]
    for token in tokenizer.added_tokens_decoder.values():
        head, between = head.replace(str(token), "\0"), between.replace(str(token), "\0")
    shared = 0  # the heading of a user turn ends what precedes the first one and what precedes the second
    while shared < min(len(head), len(between)) and head[-1 - shared] == between[-1 - shared]:
        shared += 1
    rest = head[: len(head) - shared].replace("\0", "\n")
    lines = [line for line in rest.strip().splitlines() if line.strip() not in {"", "system", "user"}]
    return " ".join(lines)
