"""Pairs of completions as tasks of a labeling server: two texts side by side, in an order that chance decides once."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.data import SourceFormat
from pipeline.data.readers import read_file
from pipeline.data.rows import BadRowError, Message, Reason, check_conversation, check_id, check_prompt
from pipeline.data.turns import as_turns
from pipeline.errors import DataError
from pipeline.labels.importers.label_studio_wording import candidate_families

# The prompt is shown turn by turn. A choice, because a Pairwise control has no word for a tie.
LABELING_CONFIG = """\
<View>
  <Header value="Which answer is better?"/>
  <Paragraphs name="prompt" value="$prompt" layout="dialogue" nameKey="role" textKey="content"/>
  <View style="display: grid; grid-template-columns: 1fr 1fr; gap: 1em; margin: 1em 0; white-space: pre-wrap">
    <View><Header value="Left" size="5"/><Text name="answer1" value="$answer1"/></View>
    <View><Header value="Right" size="5"/><Text name="answer2" value="$answer2"/></View>
  </View>
  <Choices name="preference" toName="prompt" choice="single-radio" showInline="true" required="true">
    <Choice value="Left" hotkey="1"/>
    <Choice value="Tie" hotkey="2"/>
    <Choice value="Right" hotkey="3"/>
  </Choices>
  <TextArea name="reason" toName="prompt" placeholder="Why? (optional)" rows="2"/>
</View>
"""
TASK_KEYS = frozenset({"prompt", "answer1", "answer2"})  # what an interface may show


def read_pairs(path: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the data of one task per pair of a file.

    A row has an ``id``, a ``prompt`` and two completions: ``chosen`` and ``rejected``, ``completions``, or two columns
    with names such as ``response_a`` and ``response_b``. ``swapped`` says whether the second is shown on the left.

    Raises:
        DataError: A row is no pair; nothing is pushed of a file that is not right as a whole.
    """
    seen: dict[str, int] = {}
    for record in read_file(path, SourceFormat.auto):
        try:
            if record.problem is not None:
                raise record.problem
            data = pair_task(record.fields or {}, seed)
        except BadRowError as error:
            raise DataError(f"{path}:{record.line}: {error}. Correct the row; nothing was pushed.") from error
        first = seen.setdefault(data["id"], record.line)
        if first != record.line:
            raise DataError(f"{path}:{record.line}: E_ID: the id {data['id']!r} is that of line {first} as well.")
        yield data
    if not seen:
        raise DataError(f"{path} holds no pair.")


def pair_task(fields: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the data of the task for one pair.

    Raises:
        BadRowError: It is none.
    """
    if fields.get("id") in (None, ""):
        raise BadRowError(Reason.id, "the pair has no id, by which its votes are found again")
    row_id = check_id(fields["id"])
    if fields.get("prompt") is None:
        raise BadRowError(Reason.schema, "the pair has no `prompt`")
    prompt = check_prompt(check_conversation(as_turns(fields["prompt"], "user", "prompt")))
    first, second = (_text(prompt, value, name) for name, value in _completions(fields))
    if first == second:
        raise BadRowError(Reason.same_pair, "both completions say the same")
    swapped = hmac.digest(str(seed).encode(), row_id.encode(), "sha256")[0] % 2 == 1
    left, right = (second, first) if swapped else (first, second)
    return {"id": row_id, "prompt": prompt, "answer1": left, "answer2": right, "swapped": swapped}


def _completions(fields: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the two completions of a row with the names of their columns."""
    listed = fields.get("completions")
    if isinstance(listed, list) and len(listed) == 2:
        return [(f"completions[{index}]", value) for index, value in enumerate(listed)]
    names = ["chosen", "rejected"] if {"chosen", "rejected"} <= fields.keys() else None
    families = [family for family in candidate_families(fields) if len(family) == 2]
    if names is None and len(families) == 1:
        names = families[0]
    if names is None:
        columns = ", ".join(sorted(fields)[:20])
        raise BadRowError(Reason.schema, f"nothing says which two completions to compare; its columns: {columns}")
    return [(name, fields[name]) for name in names]


def _text(prompt: list[Message], value: Any, name: str) -> str:
    turns = check_conversation([*prompt, *as_turns(value, "assistant", name)])[len(prompt) :]
    if len(turns) != 1:
        raise BadRowError(Reason.schema, f"{name} has {len(turns)} turns; one answer is compared with another")
    return turns[0]["content"]
