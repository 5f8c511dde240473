"""Filters on text that was meant for a machine: control tokens of chat templates, and templates never filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pipeline.data.filters.registry import Drop, Filter, register_filter
from pipeline.data.filters.texts import all_texts, completions, with_texts
from pipeline.data.rows import Reason, Row
from pipeline.errors import ConfigError

# <|im_end|>, <|endoftext|>, <|eot_id|> and their like, and DeepSeek's with full-width bars; Llama 2's; Gemma's;
# HelpSteer's turns. `<s>` and `</s>` are judged by themselves, because they also strike text out in HTML.
_CONTROL = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{1,40}\|>|<\N{FULLWIDTH VERTICAL LINE}[^<>\s]{2,40}\N{FULLWIDTH VERTICAL LINE}>"
    r"|(?<!\w)\[INST\]|\[/INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:bos|eos)>|<extra_id_\d{1,2}>|</?s>"
)
# Each control token begins with one of `<` and `[` and holds one of these signs, and to look for them is many times
# faster than the expression.
_SIGNS = ("<|", "<\N{FULLWIDTH VERTICAL LINE}", "INST]", "SYS>>", "_of_turn>", "os>", "<extra_id_", "<s>", "</s>")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_UNFILLED = re.compile(r"(?<!\{)\{\{\s*[A-Za-z_][\w .-]{0,60}\}\}(?!\})")
# Each begins with a sign of its own case, which the search looks for many times faster than for one of either.
_TO_FILL = re.compile(
    r"\[(?i:(?:insert|your|enter)\b[^\[\]\n]{0,60}\](?![(\[:]))|<(?i:(?:insert|your|enter)[ _-][^<>\n/=\"]{1,60}>)"
    r"|l(?i:orem ipsum dolor)|L(?i:orem ipsum dolor)"
)


@register_filter("control_tokens")
def control_tokens(*, action: Literal["drop", "escape"] = "drop", tokens: list[str] | None = None) -> Filter:
    """No text holds a control token of a chat template: such a row was written out by another tool and cut wrongly.

    Args:
        action: `drop` the row, or `escape` the token with a space after its first character, so that it is text.
        tokens: Further tokens, such as those of a tokenizer of one's own.
    """
    if not all(len(token.strip()) > 1 for token in tokens or []):
        raise ConfigError("control_tokens.tokens must be of at least two characters each.")
    own = re.compile("|".join(map(re.escape, tokens))) if tokens else None

    def spans(text: str) -> Iterator[tuple[int, int]]:
        for sign in _SIGNS if "<" in text or "[" in text else ():
            if sign in text:
                yield from (match.span() for match in _CONTROL.finditer(text) if not _strikes_out(match))
                break
        if own is not None:
            yield from (match.span() for match in own.finditer(text))

    def escape(text: str) -> str:
        for start, _ in sorted(set(spans(text)), reverse=True):
            text = f"{text[: start + 1]} {text[start + 1 :]}"
        return text

    def check(row: Row) -> Row | Drop:
        for text in all_texts(row):
            for start, end in spans(text):
                if action == "escape":
                    return with_texts(row, escape)
                return Drop(Reason.control_token, f"{text[start:end]!r} stands in the text")
        return row

    return check


@register_filter("placeholders")
def placeholders() -> Filter:
    """Nothing is left to fill in: no `{{name}}`, `[Insert date]`, `<your name>` or dummy text.

    `{{name}}` counts in every turn, the others in completions only, and only where the prompt does not hold the same:
    who asks for a letter that is signed with [Your Name] shall have it. Code is left out.
    """

    def check(row: Row) -> Row | Drop:
        for text in all_texts(row):
            if "{{" in text and (found := _UNFILLED.search(_without_code(text))):
                return Drop("placeholder", f"{found[0]!r} was not filled in")
        for turns in completions(row):
            for turn in turns:
                text = turn["content"]
                if "[" not in text and "<" not in text and "psum dolor" not in text:
                    continue
                for found in _TO_FILL.finditer(_without_code(text)):
                    asked_for = any(found[0].casefold() in message["content"].casefold() for message in row.prompt)
                    if not asked_for:
                        return Drop("placeholder", f"{found[0]!r} was not filled in")
        return row

    return check


def _without_code(text: str) -> str:
    return _CODE.sub(" ", text) if "`" in text else text


def _strikes_out(match: re.Match[str]) -> bool:
    """Whether a match is one of `<s>` and `</s>` around words that HTML shows struck out."""
    text = match.string
    if match[0] == "<s>":
        return match.start() > 0 and "</s>" in text[match.end() :].rstrip().removesuffix("</s>")
    if match[0] == "</s>":
        return match.end() < len(text.rstrip()) and "<s>" in text[1 : match.start()]
    return False
