"""NVIDIA's HelpSteer2 and HelpSteer3: ratings on five attributes, and preferences with a strength.

Formats: https://huggingface.co/datasets/nvidia/HelpSteer2 and HelpSteer3. A preference is from -3 to 3: negative where
the first response is better, 0 for a tie, -100 for one that could not be given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.rows import BadRowError, Reason, check_text
from pipeline.data.turns import as_turns
from pipeline.labels.importers.ballots import Ballots, Judgement, invalid
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import completion_turns, exchange, number, shown
from pipeline.labels.votes import Imported, Scale, Status

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
CONSOLIDATED = "consolidated"  # the annotator of ratings that stand for those of several people
MISSING = -100
_TURN = re.compile(r"\n*<extra_id_1>(User|Assistant)\n")
STYLES = (
    "complexity and verbosity say how a response is, not how good it is; name the questions that count in "
    "ingest.questions"
)
RAW = "each record's individual preferences are the votes; the consolidated one is not counted beside them"


def _responses(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the names of the two responses in a preference set."""
    for names in (("response_1", "response_2"), ("response1", "response2")):
        if set(names) <= set(fields) and {"preference_strength", "overall_preference"} & set(fields):
            return names
    return None


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    rated = {"prompt", "response", *ATTRIBUTES}
    return most(_responses(fields) is not None or rated <= set(fields) for fields in sample)


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "helpsteer")

    def read(fields: dict[str, Any]) -> Imported:
        names = _responses(fields)
        if names is None:
            prompt, sides = exchange(_context(fields), [completion_turns(fields.get("response"), "response")])
            return ballots.imported(prompt, [(sides[0], None)], _ratings(fields), notices=[STYLES])
        prompt, sides = exchange(_context(fields), [completion_turns(fields[name], name) for name in names])
        judgements, notices = _preferences(fields)
        return ballots.imported(prompt, [(side, None) for side in sides], judgements, notices=notices)

    return read


def _context(fields: Mapping[str, Any]) -> list[Any]:
    """Return the turns of a prompt, of which HelpSteer2 writes several into one text."""
    value = fields.get("context", fields.get("prompt"))
    if isinstance(value, list):
        return as_turns(value, "user", "context")
    first, *parts = _TURN.split(check_text(value, "prompt"))
    turns = [{"role": "user", "content": first}]
    for speaker, words in zip(parts[::2], parts[1::2], strict=True):
        turns.append({"role": speaker.lower(), "content": words})
    return turns


def _preferences(fields: Mapping[str, Any]) -> tuple[list[Judgement], list[str]]:
    """Return the votes of a preference record: those of its annotators, or the consolidated one."""
    for name, key in (("all_preferences_unprocessed", "strength"), ("individual_preference", "score")):
        single = fields.get(name)
        if isinstance(single, list) and single:
            values = [entry.get(key) if isinstance(entry, dict) else entry for entry in single]
            return [_preference(value, f"{name}[{index}]") for index, value in enumerate(values)], [RAW]
    value = fields.get("preference_strength", fields.get("overall_preference"))
    return [] if value is None else [_preference(value, "the preference")], []


def _preference(value: Any, what: str) -> Judgement:
    """Return a signed strength as a judgement."""
    shown_at = (0, 1)
    try:
        signed = number(value, what)
        if signed == MISSING:
            return Judgement(scale=Scale.pairwise, positions=shown_at, status=Status.skipped)
        if not -3 <= signed <= 3:
            raise BadRowError(Reason.label, f"{what} is {shown(value)}, which is not from -3 to 3")
    except BadRowError as problem:
        return invalid(Scale.pairwise, problem, positions=shown_at)
    ranks = (1, 1) if signed == 0 else (1, 2) if signed < 0 else (2, 1)
    return Judgement(scale=Scale.pairwise, ranks=ranks, strength=abs(signed), positions=shown_at)


def _ratings(fields: Mapping[str, Any]) -> list[Judgement]:
    """Return a response's ratings: the consolidated one of each attribute, or those of all its raters."""
    judgements: list[Judgement] = []
    for attribute in ATTRIBUTES:
        value = fields.get(attribute)
        several = isinstance(value, list)
        for rating in value if isinstance(value, list) else [value]:
            if rating is None:
                continue
            who = None if several else CONSOLIDATED
            try:
                given = number(rating, attribute)
                if not 0 <= given <= 4:
                    raise BadRowError(Reason.label, f"{attribute} is {shown(rating)}, which is not from 0 to 4")
            except BadRowError as problem:
                judgements.append(invalid(Scale.rating, problem, question=attribute, annotator=who))
                continue
            judgements.append(Judgement(scale=Scale.rating, ratings=(given,), question=attribute, annotator=who))
    return judgements


register_importer(Importer(name="helpsteer", recognises=_recognises, open=_open))
