"""From rows to token ids and masks: the one path that training, evaluation and ``plan`` share."""

from __future__ import annotations

import os
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.stages import OverlengthPolicy
from pipeline.data.chat import Chat as Chat
from pipeline.data.chat import EncodingRefusedError, Piece, Tokens
from pipeline.data.chat import load_chat as load_chat
from pipeline.data.rows import Comparison, Demonstration, Message, Prompt, Unpaired
from pipeline.errors import DataError

_GREEN, _DIM, _RESET = "\x1b[32m", "\x1b[2m", "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """One row as tokens. ``completion_mask`` is True on every token that is learned from or scored."""

    id: str
    input_ids: list[int]
    completion_mask: list[bool]
    truncated: bool = False

    @property
    def prompt_ids(self) -> list[int]:
        """Tokens before the first one that is learned from."""
        return self.input_ids[: self.completion_mask.index(True)]

    @property
    def num_supervised(self) -> int:
        """Tokens that are learned from."""
        return sum(self.completion_mask)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that yields no tokens, and why."""

    reason: str


@dataclass(kw_only=True)
class EncodingCounts:
    """What became of the rows: ``given = encoded + sum(dropped.values())``."""

    given: int = 0
    encoded: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    truncated: int = 0  # of the encoded
    supervised_tokens: int = 0
    total_tokens: int = 0
    longest: int = 0  # tokens of the longest encoded row

    def add(self, result: Encoded | Dropped) -> None:
        """Count one row."""
        self.given += 1
        if isinstance(result, Dropped):
            self.dropped[result.reason] = self.dropped.get(result.reason, 0) + 1
            return
        self.encoded += 1
        self.truncated += result.truncated
        self.supervised_tokens += result.num_supervised
        self.total_tokens += len(result.input_ids)
        self.longest = max(self.longest, len(result.input_ids))

    def as_dict(self) -> dict[str, Any]:
        """For metrics and reports."""
        return {
            "given": self.given,
            "encoded": self.encoded,
            "dropped": dict(sorted(self.dropped.items())),
            "truncated": self.truncated,
            "supervised_tokens": self.supervised_tokens,
            "total_tokens": self.total_tokens,
            "longest": self.longest,
        }


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows in the order given, and the counts that account for those that are missing."""

    rows: list[Encoded]
    counts: EncodingCounts


def encode_rows(
    rows: Iterable[Demonstration], chat: Chat, max_length: int, overlength: OverlengthPolicy
) -> EncodedRows:
    """Encode demonstrations and count what is kept, cut and dropped.

    Raises:
        DataError: A row is longer than ``max_length`` and ``overlength`` is ``raise``.
    """
    kept: list[Encoded] = []
    counts = EncodingCounts()
    for row in rows:
        encoded = encode_demonstration(row, chat, max_length, overlength)
        counts.add(encoded)
        if isinstance(encoded, Encoded):
            kept.append(encoded)
    return EncodedRows(kept, counts)


def encode_demonstration(
    row: Demonstration, chat: Chat, max_length: int, overlength: OverlengthPolicy
) -> Encoded | Dropped:
    """Encode one demonstration: every reply and its end-of-turn token is supervised, nothing else."""
    encoded = encode_conversation(row.id, [*row.prompt, *row.completion], chat, num_context=len(row.prompt))
    if isinstance(encoded, Dropped):
        return encoded
    length = len(encoded.input_ids)
    if length > max_length:
        if overlength is OverlengthPolicy["drop"]:
            return Dropped("overlength")
        if overlength is OverlengthPolicy["raise"]:
            raise DataError(
                f"Row {row.id!r} of {row.source} has {length} tokens and max_length is {max_length}. "
                f"Raise max_length, or set overlength to drop or truncate."
            )
        encoded = Encoded(
            id=row.id,
            input_ids=encoded.input_ids[:max_length],
            completion_mask=encoded.completion_mask[:max_length],
            truncated=True,
        )
    return encoded if any(encoded.completion_mask) else Dropped("nothing_supervised")


def encode_comparison(row: Comparison, chat: Chat, max_length: int) -> tuple[Encoded, Encoded] | Dropped:
    """Encode the chosen and the rejected completion after the same prompt; every reply in them is supervised.

    A pair of which either is longer than ``max_length`` is dropped as a whole: what is left of a cut completion is not
    what was judged.
    """
    sides = []
    for completion in (row.chosen, row.rejected):
        encoded = _encode_judged(row.id, row.prompt, completion, chat, max_length)
        if isinstance(encoded, Dropped):
            return encoded
        sides.append(encoded)
    return sides[0], sides[1]


def encode_unpaired(row: Unpaired, chat: Chat, max_length: int) -> Encoded | Dropped:
    """Encode one judged completion after its prompt, or drop it whole."""
    return _encode_judged(row.id, row.prompt, row.completion, chat, max_length)


def _encode_judged(
    row_id: str, prompt: Sequence[Message], completion: Sequence[Message], chat: Chat, max_length: int
) -> Encoded | Dropped:
    encoded = encode_conversation(row_id, [*prompt, *completion], chat, num_context=len(prompt))
    if isinstance(encoded, Encoded) and len(encoded.input_ids) > max_length:
        return Dropped("overlength")
    return encoded


def encode_conversation(
    row_id: str, messages: Sequence[Message], chat: Chat, *, num_context: int = 0
) -> Encoded | Dropped:
    """Encode a conversation that ends with a reply.

    Args:
        row_id: Kept on the result.
        messages: Turns; the last one is the assistant's.
        chat: Tokenizer and template.
        num_context: The first turns that are context only: a reply among them is not supervised.
    """
    try:
        pieces = chat.pieces(messages)
        ids = encode_pieces(pieces, chat)
    except EncodingRefusedError as refusal:
        return Dropped(refusal.reason)
    num_unsupervised = sum(message["role"] == "assistant" for message in messages[:num_context])
    input_ids: list[int] = []
    mask: list[bool] = []
    for index, (piece, tokens) in enumerate(zip(pieces, ids, strict=True)):
        input_ids += tokens
        mask += [piece.supervised and index >= 2 * num_unsupervised] * len(tokens)
    return Encoded(id=row_id, input_ids=input_ids, completion_mask=mask)


def encode_prompt(messages: Sequence[Message], chat: Chat) -> list[int]:
    """Encode a prompt up to and including the generation prompt: exactly the tokens before a reply in training.

    Raises:
        DataError: The template cannot write this conversation faithfully.
    """
    try:
        return [token for ids in encode_pieces(chat.pieces(messages, generation_prompt=True), chat) for token in ids]
    except EncodingRefusedError as refusal:
        opening = messages[0]["content"][:60]
        raise DataError(
            f"The prompt that begins {opening!r} cannot be encoded ({refusal.reason}): "
            f"the chat template does not fit its turns."
        ) from refusal


def encode_prompt_row(row: Prompt, chat: Chat, max_length: int) -> Encoded | Dropped:
    """Encode a row of the table of prompts, of which nothing is supervised; one that does not fit is dropped."""
    try:
        tokens = encode_prompt(row.prompt, chat)
    except DataError:
        return Dropped("template does not fit")
    if len(tokens) > max_length:
        return Dropped("overlength")
    return Encoded(id=row.id, input_ids=tokens, completion_mask=[False] * len(tokens))


def encode_completion(prompt: Sequence[Message], completion: str, chat: Chat) -> Encoded | Dropped:
    """Encode a prompt with one reply, of which only the reply and its end-of-turn token are supervised."""
    messages = [*prompt, Message(role="assistant", content=completion)]
    return encode_conversation("", messages, chat, num_context=len(prompt))


def encode_pieces(pieces: Sequence[Piece], chat: Chat) -> list[list[int]]:
    """Encode pieces so that a reply continues exactly the tokens of the prompt before it.

    Encoding the whole text is what every other tool does, so that is kept where each prefix of pieces is a prefix of
    its tokens. Where a token would reach over a cut (a reply that begins with white space), the pieces are encoded one
    by one, as generation meets them, provided that this still decodes to the same text.

    Raises:
        EncodingRefusedError: Neither is faithful (``template_not_prefix``).
    """
    text = "".join(piece.text for piece in pieces)
    literals: list[tuple[int, int]] = []
    cuts = [0]
    for piece in pieces:
        literals += [(cuts[-1] + start, cuts[-1] + end) for start, end in piece.literals]
        cuts.append(cuts[-1] + len(piece.text))
    whole = chat.tokens(text, literals)
    places = [_clean_cut(text, literals, whole, cut, chat) for cut in cuts]
    if None not in places:
        return [whole.ids[left:right] for left, right in zip(places, places[1:], strict=False)]
    separate = [chat.tokens(piece.text, piece.literals).ids for piece in pieces]
    if chat.tokenizer.decode([token for ids in separate for token in ids]) != chat.tokenizer.decode(whole.ids):
        raise EncodingRefusedError("template_not_prefix")
    return separate


def _clean_cut(text: str, literals: Sequence[tuple[int, int]], whole: Tokens, cut: int, chat: Chat) -> int | None:
    """Return how many tokens of the whole text are the tokens of ``text[:cut]``, or None if they are not a prefix.

    Control tokens part the text before anything else does, so only the stretch since the last one is encoded again.
    """
    num_before = bisect_right(whole.ends, cut)
    first = num_before
    while first and whole.ids[first - 1] not in chat.control_ids:
        first -= 1
    if first and whole.ends[first - 1] == cut:
        return num_before
    start = whole.ends[first - 2] if first > 1 else 0  # the control token itself is encoded again, as context
    spans = [(left - start, right - start) for left, right in literals if start <= left and right <= cut]
    again = chat.tokens(text[start:cut], spans).ids
    return num_before if again == whole.ids[max(first - 1, 0) : num_before] else None


def coloured_sample(encoded: Encoded, chat: Chat, colour: bool | None = None) -> str:
    """Show one row for the terminal: what is learned in green, context dim; ``[[...]]`` where there is no colour."""
    if colour is None:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    shown: list[str] = []
    start = 0
    mask = encoded.completion_mask
    for end in range(1, len(mask) + 1):
        if end < len(mask) and mask[end] == mask[start]:
            continue
        text = str(chat.tokenizer.decode(encoded.input_ids[start:end], skip_special_tokens=False))
        text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)  # a row must not steer the terminal
        if colour:
            shown.append(f"{_GREEN if mask[start] else _DIM}{text}{_RESET}")
        else:
            shown.append(f"[[{text}]]" if mask[start] else text)
        start = end
    return "".join(shown)
