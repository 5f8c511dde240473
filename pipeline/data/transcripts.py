"""Conversations written as one text with ``Human:`` and ``Assistant:`` before each turn, as in Anthropic's hh-rlhf."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from pipeline.data.rows import BadRowError, Message, Reason, check_conversation, check_text, is_blank

# Only after an empty line: "Human:" also stands inside answers.
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: Any) -> bool:
    """Whether a value is a text that begins with a marked turn."""
    return isinstance(value, str) and _TURN.match(value) is not None


def parse_transcript(text: str, field: str = "transcript") -> list[Message]:
    """Cut a transcript into checked turns.

    The one space that follows a marker belongs to the marker; all other characters are the turn's.

    Raises:
        BadRowError: E_SCHEMA where it does not begin with a marker, E_EMPTY and E_ROLE for its turns.
    """
    head, *parts = _TURN.split(check_text(text, field))
    if head or not parts:
        raise BadRowError(Reason.schema, f"{field} does not begin with an empty line and 'Human:' or 'Assistant:'")
    turns = [
        {"role": _ROLES[speaker], "content": words.removeprefix(" ")}
        for speaker, words in zip(parts[::2], parts[1::2], strict=True)
    ]
    return check_conversation(turns, field)


def parse_transcript_pair(chosen: str, rejected: str) -> tuple[list[Message], list[Message], list[Message]]:
    """Cut two transcripts that differ in their last reply into prompt, chosen and rejected reply.

    Raises:
        BadRowError: They differ earlier, or one of them is no proper conversation.
    """
    texts = (check_text(chosen, "chosen"), check_text(rejected, "rejected"))
    contexts = [text.rpartition("\n\nAssistant:")[0] for text in texts]
    if contexts[0] != contexts[1]:  # before the turns are looked at, because this is what is wrong with the pair
        raise _different_conversations()
    return split_pair(parse_transcript(chosen, "chosen"), parse_transcript(rejected, "rejected"))


def split_pair(
    chosen: Sequence[Message], rejected: Sequence[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Cut two checked conversations before their last turn into their common prompt and the two replies.

    Raises:
        BadRowError: E_SCHEMA where they differ earlier, E_ROLE where the last turn is no reply.
    """
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1]["role"] != "assistant" or len(turns) < 2 or turns[-2]["role"] != "user":
            raise BadRowError(Reason.role, f"{name} does not end with a user's turn and a reply to it")
    if list(chosen[:-1]) != list(rejected[:-1]):
        raise _different_conversations()
    return list(chosen[:-1]), [chosen[-1]], [rejected[-1]]


def split_texts(chosen: Any, rejected: Any) -> tuple[list[Message], list[Message], list[Message]]:
    """Cut two texts that begin alike where the words that they share end, into prompt, chosen and rejected reply.

    Raises:
        BadRowError: They share no word at their beginning, or one of them has nothing more to say.
    """
    chosen, rejected = check_text(chosen, "chosen"), check_text(rejected, "rejected")
    shared = len(os.path.commonprefix([chosen, rejected]))
    while shared and not all(text[shared : shared + 1].isspace() for text in (chosen, rejected)):
        shared -= 1  # back to before a space in both, so that no word is cut
    if is_blank(chosen[:shared]):
        raise BadRowError(Reason.schema, "there is no prompt: chosen and rejected do not begin with the same words")
    sides = [{"role": "assistant", "content": text[shared:]} for text in (chosen, rejected)]
    asked = {"role": "user", "content": chosen[:shared]}
    return split_pair(*(check_conversation([asked, side]) for side in sides))


def _different_conversations() -> BadRowError:
    return BadRowError(Reason.schema, "chosen and rejected differ before the last reply: they answer different prompts")
