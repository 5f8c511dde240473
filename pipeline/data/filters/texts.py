"""The texts of a row, whatever its type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.data.rows import Comparison, Demonstration, Message, Row, Unpaired


def all_texts(row: Row) -> list[str]:
    """Return the text of every turn, and the reference answer where there is one."""
    texts = [message["content"] for message in row.prompt]
    if isinstance(row, Comparison):
        texts += [message["content"] for message in row.chosen]
        texts += [message["content"] for message in row.rejected]
        return texts
    if isinstance(row, Demonstration | Unpaired):
        texts += [message["content"] for message in row.completion]
    if not isinstance(row, Unpaired) and row.reference is not None:
        texts.append(row.reference)
    return texts


def completions(row: Row) -> list[list[Message]]:
    """Return what answers the prompt: nothing, one completion, or the chosen and the rejected one."""
    if isinstance(row, Demonstration | Unpaired):
        return [row.completion]
    return [row.chosen, row.rejected] if isinstance(row, Comparison) else []


def learned_replies(row: Row) -> list[str]:
    """Return the assistant turns that training makes more likely: a good completion's, or the chosen one's."""
    if isinstance(row, Unpaired) and not row.label:
        return []
    return [message["content"] for turns in completions(row)[:1] for message in turns if message["role"] == "assistant"]


def with_texts(row: Row, change: Callable[[str], str]) -> Row:
    """Return the row with every text changed, or the same object where the change leaves all of them as they are."""
    if all(change(text) == text for text in all_texts(row)):
        return row

    def changed(turns: list[Message]) -> list[Message]:
        return [Message(role=turn["role"], content=change(turn["content"])) for turn in turns]

    if isinstance(row, Comparison):
        return replace(row, prompt=changed(row.prompt), chosen=changed(row.chosen), rejected=changed(row.rejected))
    if isinstance(row, Unpaired):
        return replace(row, prompt=changed(row.prompt), completion=changed(row.completion))
    reference = None if row.reference is None else change(row.reference)
    if isinstance(row, Demonstration):
        return replace(row, prompt=changed(row.prompt), completion=changed(row.completion), reference=reference)
    return replace(row, prompt=changed(row.prompt), reference=reference)
