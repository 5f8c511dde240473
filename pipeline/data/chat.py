"""How a conversation becomes token ids: the template, the system turn, and where an assistant turn begins and ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerFast

from pipeline.artifacts.base_model import declared_stop_ids
from pipeline.config.shared import ModelConfig
from pipeline.data.rows import Message
from pipeline.data.template import find_end_of_turn, render, require_system_turns, template_notices
from pipeline.data.tokenizer import load_tokenizer
from pipeline.errors import ModelError

# Private-use characters that stand for a control token which somebody typed, while the template is rendered.
_OPEN, _CLOSE = "\uf8e0", "\uf8e1"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class EncodingRefusedError(Exception):
    """This conversation cannot be encoded faithfully; ``reason`` is what it is counted under."""

    def __init__(self, reason: str) -> None:
        """Keep the reason as counted."""
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered conversation that is supervised as a whole or not at all."""

    text: str
    literals: tuple[tuple[int, int], ...]  # spans of control tokens that are text here, because somebody typed them
    supervised: bool


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids, and for each the place in the text where it ends."""

    ids: list[int]
    ends: list[int]


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A tokenizer with its template and system prompt, and what rendering showed about them."""

    tokenizer: PreTrainedTokenizerFast
    system_prompt: str | None
    end_of_turn: str  # what the template writes directly after a reply, up to and including a control token
    end_of_turn_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]  # generation ends at any: the last end-of-turn token, eos, and what the model declares
    control_ids: frozenset[int]  # tokens that only the template may write
    notices: tuple[str, ...] = ()  # what the user should know about this template
    _literal: re.Pattern[str] = field(repr=False)  # finds the text of control tokens

    @property
    def pad_id(self) -> int:
        """Id that fills tensors. It says nothing about masks."""
        return int(self.tokenizer.pad_token_id)

    def with_system(self, messages: Sequence[Message]) -> list[Message]:
        """Put the system prompt first, unless there is none or the conversation brings its own."""
        if self.system_prompt is None or messages[0]["role"] == "system":
            return list(messages)
        return [Message(role="system", content=self.system_prompt), *messages]

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """Write a conversation as the model's text."""
        return render(self.tokenizer, self.with_system(messages), generation_prompt=generation_prompt)

    def pieces(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> list[Piece]:
        """Render a conversation and cut it where supervision begins and ends.

        A reply begins where the generation prompt for it ends, and ends with the end-of-turn token. What follows the
        last reply is left out, unless it is the generation prompt.

        Raises:
            EncodingRefusedError: The template refuses the turns, or does not write a reply right after the
                generation prompt for it (``template_not_prefix``).
        """
        turns, literals = self._shield(self.with_system(messages))
        try:
            text = render(self.tokenizer, turns, generation_prompt=generation_prompt)
            starts = [
                render(self.tokenizer, turns[:index], generation_prompt=True)
                for index, turn in enumerate(turns)
                if turn["role"] == "assistant"
            ]
        except jinja2.TemplateError as error:
            raise EncodingRefusedError("template_refused") from error
        cuts = [0]
        for start in starts:
            end = text.find(self.end_of_turn, len(start))
            if not text.startswith(start) or len(start) < cuts[-1] or end < 0:
                raise EncodingRefusedError("template_not_prefix")
            cuts += [len(start), end + len(self.end_of_turn)]
        if generation_prompt:
            cuts.append(len(text))
        bounds = zip(cuts, cuts[1:], strict=False)
        return [_restore(text[left:right], literals, bool(index % 2)) for index, (left, right) in enumerate(bounds)]

    def tokens(self, text: str, literals: Sequence[tuple[int, int]] = ()) -> Tokens:
        """Encode text in which control tokens count, except at ``literals``, where they are spelled out as text."""
        encoded = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        if not literals:
            return Tokens(list(encoded.ids), [end for _, end in encoded.offsets])
        tokens = Tokens([], [])
        for token, (left, right) in zip(encoded.ids, encoded.offsets, strict=True):
            typed = token in self.control_ids and any(left < end and start < right for start, end in literals)
            ids = self._spelled(text[left:right]) if typed else [token]
            tokens.ids.extend(ids)
            tokens.ends.extend([right] * len(ids))
        return tokens

    def _spelled(self, text: str) -> list[int]:
        """Encode the text of a control token as ordinary characters."""
        backend = self.tokenizer.backend_tokenizer
        backend.encode_special_tokens = True
        try:
            ids = list(backend.encode(text, add_special_tokens=False).ids)
        finally:
            backend.encode_special_tokens = False
        if self.control_ids.intersection(ids):  # a control token that the vocabulary does not mark as special
            raise EncodingRefusedError("E_CONTROLTOK")
        return ids

    def _shield(self, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
        """Replace control tokens in the turns' own text by placeholders, so that the template's own stand out."""
        literals: list[str] = []

        def placeholder(match: re.Match[str]) -> str:
            literals.append(match.group())
            return f"{_OPEN}{len(literals) - 1}{_CLOSE}"

        # A placeholder that somebody typed is shielded as well, so that it comes back as it was.
        return [
            Message(role=turn["role"], content=self._literal.sub(placeholder, turn["content"])) for turn in messages
        ], literals


def load_chat(folder: Path, model: ModelConfig) -> Chat:
    """Load the tokenizer of a base model and find out how its template writes conversations.

    Raises:
        ModelError: The template cannot be rendered, ends no turn, or refuses the system prompt.
    """
    tokenizer = load_tokenizer(folder, model.chat_template)
    try:
        end_of_turn = find_end_of_turn(tokenizer)
        notices = template_notices(tokenizer, model.system_prompt)
        if model.system_prompt is not None:
            require_system_turns(tokenizer)
    except jinja2.TemplateError as error:
        raise ModelError(
            f"The chat template of {folder.name} cannot be rendered: {error}. Give one in `model.chat_template`, or "
            f"unset `model.system_prompt` if it is the system turn that it refuses."
        ) from error
    end_ids = tokenizer.backend_tokenizer.encode(end_of_turn, add_special_tokens=False).ids
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    declared = set(declared_stop_ids(folder)) & set(tokenizer.get_vocab().values())  # some name what is not there
    stop_ids = dict.fromkeys([end_ids[-1], int(tokenizer.eos_token_id), *sorted(declared)])
    control_ids = frozenset({*special, *stop_ids})
    texts = sorted((tokenizer.convert_ids_to_tokens(token) for token in control_ids), key=len, reverse=True)
    return Chat(
        tokenizer=tokenizer,
        system_prompt=model.system_prompt,
        end_of_turn=end_of_turn,
        end_of_turn_ids=tuple(end_ids),
        stop_ids=tuple(stop_ids),
        control_ids=control_ids,
        notices=tuple(notices),
        _literal=re.compile("|".join([*(re.escape(text) for text in texts), _PLACEHOLDER.pattern])),
    )


def _restore(text: str, literals: list[str], supervised: bool) -> Piece:
    """Put typed control tokens back in the place of their placeholders and remember where they stand."""
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    length = position = 0
    for match in _PLACEHOLDER.finditer(text):
        literal = literals[int(match.group(1))]
        parts += [text[position : match.start()], literal]
        length += match.start() - position
        spans.append((length, length + len(literal)))
        length += len(literal)
        position = match.end()
    parts.append(text[position:])
    return Piece("".join(parts), tuple(spans), supervised)
