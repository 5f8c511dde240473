"""Which column of a file is which field of a row, said by the user or recognised by the names present."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config.data import SourceConfig, TableName
from pipeline.config.suggestions import near_miss
from pipeline.errors import ConfigError, DataError

FIELDS = ("id", "messages", "prompt", "completion", "system", "reference", "topic")
COMPARISON_FIELDS = (
    "id", "messages", "prompt", "chosen", "rejected", "system", "topic", "margin", "score_chosen", "score_rejected",
)  # fmt: skip
OPTIONAL = ("id", "system", "reference", "topic")  # taken from columns of the same name where nothing is said
COMPARISON_OPTIONAL = ("id", "system", "topic", "margin")
PREFERENCES = ("chosen", "rejected", "label", "labels")  # columns of files in which some completions are bad ones
PREFERENCE_PAIRS = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
COMPARISON_PROMPTS = ("prompt", "question", "instruction", "input", "conversations", "messages")


class Shape(StrEnum):
    """How a row holds its conversation."""

    messages = "messages"  # one list of turns, {role, content} or {from, value}
    pair = "pair"  # prompt and completion, each text or a list of turns
    instruction = "instruction"  # instruction, input and output
    preference = "preference"  # prompt, chosen and rejected, each text or turns
    implicit_preference = "implicit_preference"  # chosen and rejected, whole conversations that begin alike


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """The columns that a source is read through."""

    shape: Shape
    columns: dict[str, str]  # our field -> the file's column
    ignored: tuple[str, ...]  # columns that are not read

    def describe(self) -> str:
        """Say what is read from where, for the log."""
        read = ", ".join(f"{field} <- {_shown(column)}" for field, column in self.columns.items())
        return read + (f"; not read: {_listed(self.ignored)}" if self.ignored else "")


def choose_columns(source: SourceConfig, key: str, present: Collection[str]) -> Mapping:
    """Decide how to read a source.

    Args:
        source: Its configuration.
        key: Its place in the configuration, such as ``data.sources[0]``, for messages.
        present: Names of the columns that its first rows have.

    Raises:
        ConfigError: `columns` names a field that does not exist, or fields that do not go together.
        DataError: A column is missing, or the names present fit no known shape.
    """
    given = {field: column for field, column in source.columns.items() if column}
    compares = source.table is TableName.comparisons
    fields = COMPARISON_FIELDS if compares else FIELDS
    for field in source.columns:
        if field not in fields:
            raise ConfigError(
                f"{key}.columns.{field}: {source.table.value} have no such field.{near_miss(field, fields)} "
                f"Fields: {', '.join(fields)}."
            )
    for field, column in given.items():
        if column not in present:
            raise DataError(
                f"{key}.columns.{field}: {source.path} has no column {column!r}.{near_miss(column, present)} "
                f"Its columns: {_listed(present)}."
            )
    if compares:
        shape, chosen = _comparison(source, key, given, present)
    elif "messages" in given or "prompt" in given:
        shape = _given_shape(source, key, given)
        chosen = given
    else:
        shape, recognised = _recognise(source, key, present)
        chosen = {**recognised, **given}
    if source.reference_after is not None and "reference" in given:
        raise ConfigError(f"{key}: `columns.reference` and `reference_after` both name the reference. Keep one.")
    for field in COMPARISON_OPTIONAL if compares else OPTIONAL:
        marked = field == "reference" and source.reference_after is not None
        if field in present and field not in source.columns and field not in chosen.values() and not marked:
            chosen = {**chosen, field: field}
    used = set(chosen.values())
    return Mapping(shape=shape, columns=chosen, ignored=tuple(name for name in present if name not in used))


def _given_shape(source: SourceConfig, key: str, given: dict[str, str]) -> Shape:
    """Check that the fields which the user mapped make a row."""
    if "messages" in given:
        if clash := sorted({"prompt", "completion", "system"} & given.keys()):
            raise ConfigError(f"{key}.columns: `messages` is the whole conversation; remove {', '.join(clash)}.")
        return Shape.messages
    if "completion" not in given and (source.table is TableName.demonstrations or source.reference_after is not None):
        raise ConfigError(f"{key}.columns: `completion` is missing. Name the column that holds the reply.")
    return Shape.pair


def _recognise(source: SourceConfig, key: str, present: Collection[str]) -> tuple[Shape, dict[str, str]]:
    """Recognise one of the common shapes by the names of its columns."""
    names = set(present)
    needs_reply = source.table is TableName.demonstrations or source.reference_after is not None
    if needs_reply and (bad := [name for name in PREFERENCES if name in names]):
        raise DataError(
            f"{source.path} has the column {bad[0]!r}: some of its completions may be ones not to imitate. If all are "
            f"good, say so by naming columns, as in `{key}.columns: {{prompt: prompt, completion: {_reply(names)}}}`."
        )
    for name in ("messages", "conversations"):
        if name in names:
            return Shape.messages, {"messages": name}
    for prompt, completion in (("prompt", "completion"), ("question", "answer")):
        if prompt in names and (completion in names or not needs_reply):
            columns = {"prompt": prompt}
            return Shape.pair, {**columns, "completion": completion} if needs_reply else columns
    if "instruction" in names and "instances" not in names and ("output" in names or not needs_reply):
        columns = {"prompt": "instruction", **({"input": "input"} if "input" in names else {})}
        return Shape.instruction, {**columns, "completion": "output"} if needs_reply else columns
    if "text" in names:
        raise DataError(
            f"{source.path} holds running text: in its columns ({_listed(present)}) nothing says where a prompt ends "
            f"and a reply begins. Name columns in `{key}.columns`, as in {{prompt: question, completion: answer}}."
        )
    raise DataError(
        f"{source.path} has the columns {_listed(present)}, which is none of: messages | conversations | prompt and "
        f"completion | question and answer | instruction (input) output. "
        f"Name them in `{key}.columns`, as in {{prompt: question, completion: answer}}."
    )


def _comparison(
    source: SourceConfig, key: str, given: dict[str, str], present: Collection[str]
) -> tuple[Shape, dict[str, str]]:
    """Find the columns of a preference that is stated once for each row."""
    if source.reference_after is not None:
        raise ConfigError(f"{key}.reference_after: comparisons have no reference answer. Remove it.")
    for one, other in (("chosen", "rejected"), ("score_chosen", "score_rejected")):
        if (one in given) != (other in given):
            raise ConfigError(f"{key}.columns: `{one}` and `{other}` go together. Name both.")
    for one, other in (("messages", "prompt"), ("score_chosen", "margin")):
        if one in given and other in given:
            raise ConfigError(f"{key}.columns: `{one}` and `{other}` say the same. Keep one.")
    columns = {"prompt" if field == "messages" else field: column for field, column in given.items()}
    if "chosen" not in columns:
        pair = next((pair for pair in PREFERENCE_PAIRS if set(pair) <= set(present)), None)
        if pair is None:
            raise DataError(
                f"{source.path} has the columns {_listed(present)}, of which none say what was chosen and what was "
                f"rejected. Name them in `{key}.columns`, as in {{prompt: question, chosen: better, rejected: worse}}; "
                f"votes of annotators are read as `table: exports`."
            )
        columns |= {"chosen": pair[0], "rejected": pair[1]}
    if not {"prompt", "messages"} & source.columns.keys():
        prompt = next((name for name in COMPARISON_PROMPTS if name in present), None)
        columns |= {"prompt": prompt} if prompt else {}
        if prompt == "instruction" and "input" in present:
            columns["input"] = "input"
    scores = {"score_chosen": "score_chosen", "score_rejected": "score_rejected"}
    if set(scores) <= set(present) and "margin" not in present and not {"margin", *scores} & source.columns.keys():
        columns |= scores
    return Shape.preference if "prompt" in columns else Shape.implicit_preference, columns


def _reply(names: set[str]) -> str:
    return "chosen" if "chosen" in names else "completion"


def _listed(names: Collection[str]) -> str:
    """List column names, at most twenty of them."""
    shown = [_shown(name) for name in list(names)[:20]]
    return ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"


def _shown(name: str) -> str:
    """Write a column's name so that it cannot steer a terminal or break its encoding."""
    return "".join(character if character.isprintable() else "?" for character in name[:60])
