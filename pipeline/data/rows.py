"""What a row is. Every rule about turns and text stands here, and every broken rule has a reason code."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypedDict

MAX_ID_LENGTH = 200  # characters; longer ones are text that stands in the wrong column
WEIGHT_KEYS = frozenset({"weight", "loss_weight", "train"})  # 1 or true is what happens anyway
ROLES = ("system", "user", "assistant")
# Keys of a message that change what it means. Reading on without them would train on something else than the file says.
MEANINGFUL_KEYS = frozenset(
    {"tool_calls", "function_call", "tool_call_id", "weight", "loss_weight", "train", "prefix", "reasoning_content"}
)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_TURN_KEYS = frozenset({"role", "content"})


class Reason(StrEnum):
    """Why a row was set aside."""

    encoding = "E_ENCODING"  # not UTF-8, a lone surrogate, a NUL or another raw control character
    json = "E_JSON"  # not one JSON value per row
    duplicate_key = "E_DUPKEY"  # an object names one key twice, and which value counts is a guess
    nonfinite = "E_NONFINITE"  # NaN or Infinity, which JSON has not
    range = "E_RANGE"  # a number that no float and no sane integer holds
    depth = "E_DEPTH"  # nested deeper than the parser goes
    too_long = "E_TOOLONG"  # a single row of more than `lines.MAX_ROW_BYTES`
    quoting = "E_FORMAT"  # a CSV row that breaks CSV's quoting
    schema = "E_SCHEMA"  # a field is missing or of the wrong type
    role = "E_ROLE"  # an unknown role, or turns in an impossible order
    empty = "E_EMPTY"  # a user or assistant turn without a visible character
    id = "E_ID"  # an unusable id, or one that another row with other content has
    archive = "E_ARCHIVE"  # a damaged archive, one that holds too much, or one with members that are not plain files
    label = "E_LABEL"  # a vote outside its scale, or for a candidate that is not there
    same_pair = "E_SAMEPAIR"  # both completions of a pair say the same
    control_token = "E_CONTROLTOK"  # a chat template's control token inside text
    duplicate = "E_DUP"  # the same content as an earlier row
    conflict = "E_CONFLICT"  # one annotator voted both ways on one pair, or two sources contradict each other
    time = "E_TIME"  # a time stamp that cannot be one
    licence = "E_LICENCE"  # missing or not allowed
    personal_data = "E_PII"
    leak = "E_LEAK"  # would be trained on, and is or contains an evaluation prompt
    secret = "E_SECRET"  # looks like a key or a password


class BadRowError(Exception):
    """A row breaks a rule. It is set aside with this reason, never repaired."""

    def __init__(self, reason: Reason, detail: str) -> None:
        """Keep the code beside the sentence, because rows are counted by code."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    """A conversation to imitate.

    ``prompt`` is everything before the first assistant turn. ``completion`` begins and ends with an assistant turn and
    may hold user turns in between.
    """

    id: str
    source: str
    licence: str | None
    prompt: list[Message]
    completion: list[Message]
    reference: str | None = None  # the expected answer, where a check compares with one
    topic: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A conversation that waits for an assistant turn."""

    id: str
    source: str
    licence: str | None
    prompt: list[Message]
    reference: str | None = None
    topic: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two completions of one prompt, of which ``chosen`` is the better one with probability ``confidence``."""

    id: str
    source: str
    licence: str | None
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    confidence: float  # in [0.5, 1]; a tie counts half
    num_votes: int  # whose result this is; 1 where the file states a preference and nothing more
    margin: float | None = None  # mean strength of the preference in rating units; None where nobody gave strengths
    tie: float | None = None  # probability that both are equally good, only with ties as a label
    fold: int | None = None  # prompt hash mod 5, near-duplicates together; `curate` sets it
    topic: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpaired:
    """One completion by itself, on which ``label`` is right with probability ``confidence``."""

    id: str
    source: str
    licence: str | None
    prompt: list[Message]
    completion: list[Message]
    label: bool  # True: good, False: bad
    confidence: float  # in [0.5, 1]; a judgement that it is neither counts half
    num_votes: int  # whose result this is
    topic: str | None = None


Row = Demonstration | Prompt | Comparison | Unpaired


def is_blank(text: str) -> bool:
    """Whether nothing of ``text`` can be seen: spaces, zero-width and other format characters only."""
    if "!" <= text[:1] <= "~":
        return False  # what nearly every text begins with
    return all(character.isspace() or unicodedata.category(character) in {"Cf", "Cc"} for character in text)


def check_text(value: Any, field: str) -> str:
    """Return ``value`` if it is storable text.

    Raises:
        BadRowError: E_SCHEMA for anything but a string, E_ENCODING for what UTF-8 or a text file cannot hold.
    """
    if not isinstance(value, str):
        raise BadRowError(Reason.schema, f"{field} is {_kind(value)}, not text")
    if not value.isascii() and _LONE_SURROGATE.search(value):
        raise BadRowError(Reason.encoding, f"{field} holds bytes that are not UTF-8, or half of a surrogate pair")
    if "\x00" in value:
        raise BadRowError(Reason.encoding, f"{field} holds a NUL character")
    return value


def check_id(value: Any) -> str:
    """Return a given id as text; whole numbers are written in decimal, which loses nothing."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadRowError(Reason.id, f"id is {_kind(value)}, not text or a whole number")
    text = check_text(value, "id")
    if is_blank(text):
        raise BadRowError(Reason.id, "id is empty")
    if len(text) > MAX_ID_LENGTH:
        raise BadRowError(Reason.id, f"id has {len(text)} characters; at most {MAX_ID_LENGTH} are an id")
    if _UNPRINTABLE.search(text):
        raise BadRowError(Reason.id, "id holds a control character")
    return text


def check_message(value: Any, where: str, *, may_be_blank: bool = False) -> Message:
    """Return one turn, checked for its own content but not for its place."""
    if not isinstance(value, dict):
        raise BadRowError(Reason.schema, f"{where} is {_kind(value)}, not an object with role and content")
    if value.keys() != _TURN_KEYS:
        _check_keys(value, where)
    role = value["role"]
    if role not in ROLES:
        check_text(role, f"{where}.role")
        raise BadRowError(Reason.role, f"{where} has the unknown role {role[:40]!r}; known: {', '.join(ROLES)}")
    content = check_text(value["content"], f"{where}.content")
    # An empty system turn says something: it keeps a template from putting in a system turn of its own.
    if role != "system" and not may_be_blank and is_blank(content):
        raise BadRowError(Reason.empty, f"{where} ({role}) has no visible text")
    return {"role": role, "content": content}


def _check_keys(turn: dict[Any, Any], where: str) -> None:
    """Refuse a turn without role or content, and one with a key that changes what it means."""
    for key in sorted(MEANINGFUL_KEYS & turn.keys()):
        if turn[key] not in (None, [], {}, "") and not (key in WEIGHT_KEYS and turn[key] == 1):
            raise BadRowError(Reason.schema, f"{where} carries {key!r}, which training here would ignore")
    for key in ("role", "content"):
        if key not in turn:
            raise BadRowError(Reason.schema, f"{where} has no {key!r}")


def check_conversation(values: Any, field: str = "messages", *, last_may_be_blank: bool = False) -> list[Message]:
    """Return turns that follow each other properly: a system turn or none, then user and assistant in alternation.

    Args:
        values: The turns.
        field: Where they stand, for messages.
        last_may_be_blank: Whether the last turn may be without a visible character.

    Raises:
        BadRowError: With the reason and the turn that breaks the rule.
    """
    if not isinstance(values, list):
        raise BadRowError(Reason.schema, f"{field} is {_kind(values)}, not a list of turns")
    if not values:
        raise BadRowError(Reason.role, f"{field} has no turns")
    last = len(values) - 1
    messages = [
        check_message(value, f"{field}[{index}]", may_be_blank=last_may_be_blank and index == last)
        for index, value in enumerate(values)
    ]
    expected = "user"
    for index, message in enumerate(messages):
        if message["role"] == "system":
            if index:
                raise BadRowError(Reason.role, f"{field}[{index}] is a system turn, which may only come first")
            continue
        if message["role"] != expected:
            before = messages[index - 1]["role"] if index else "nothing"
            raise BadRowError(Reason.role, f"{field}[{index}] is a turn of {message['role']} after {before}")
        expected = "assistant" if expected == "user" else "user"
    return messages


def split_demonstration(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Cut checked turns before the first assistant turn, into prompt and completion."""
    check_reply(messages)
    first = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:first], messages[first:]


def check_reply(messages: list[Message]) -> None:
    """Refuse checked turns that do not end with an assistant turn."""
    if messages[-1]["role"] != "assistant":
        raise BadRowError(Reason.role, f"the last turn is of {messages[-1]['role']}: there is no reply to learn")


def check_prompt(messages: list[Message]) -> list[Message]:
    """Return checked turns if they wait for an assistant turn."""
    if messages[-1]["role"] != "user":
        raise BadRowError(Reason.role, f"the prompt ends with a turn of {messages[-1]['role']}, not of user")
    return messages


@lru_cache(maxsize=16)  # one row's texts, which are compared by several keys
def normalise(text: str) -> str:
    """Unicode NFC with every run of white space as one space: what counts as the same text."""
    text = unicodedata.normalize("NFC", text).replace("\n", " ")
    if "  " in text or not text.isprintable():  # in the latter case it may hold other white space than spaces
        return " ".join(text.split())
    return text.strip(" ")


def prompt_key(messages: Sequence[Message]) -> str:
    """Normalised text of a prompt. The system turn is left out: the same question under two of them is one prompt."""
    return "\n".join([normalise(message["content"]) for message in messages if message["role"] != "system"])


def prompt_hash(messages: Sequence[Message], seed: int = 0) -> str:
    """Hex sha256 of the seed and the prompt's normalised text; it decides the split."""
    return key_hash(prompt_key(messages), seed)


def key_hash(key: str, seed: int = 0) -> str:
    """Return `prompt_hash` of the prompt that has this key."""
    return hashlib.sha256(f"{seed}\n{key}".encode()).hexdigest()


def content_key(row: Row) -> str:
    """Hex sha256 of a row's normalised content without its id and origin; equal for exact duplicates."""
    parts = [_normalised(row.prompt)]
    if isinstance(row, Demonstration | Unpaired):  # a completion has one label, so that it is no part of the content
        parts.append(_normalised(row.completion))
    if isinstance(row, Comparison):
        parts += [_normalised(row.chosen), _normalised(row.rejected)]
    elif not isinstance(row, Unpaired) and row.reference is not None:
        parts.append(f"reference\0{normalise(row.reference)}")
    # No text holds a NUL, so nothing can look like the end of what it stands in.
    return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()


def _normalised(messages: Sequence[Message]) -> str:
    return "\0".join([f"{message['role']}\0{normalise(message['content'])}" for message in messages])


def _kind(value: Any) -> str:
    """Name a value's type in the words of the file it came from."""
    names = {
        bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text",
    }  # fmt: skip
    return "null" if value is None else names.get(type(value), type(value).__name__)
