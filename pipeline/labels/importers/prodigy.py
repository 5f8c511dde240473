"""Prodigy's choice interface: options of which one or several are accepted, one record per annotator.

Format: https://prodi.gy/docs/api-interfaces#choice. An option that says that all are equally good is a tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.rows import BadRowError, Reason, check_text
from pipeline.data.turns import as_turns
from pipeline.errors import DataError
from pipeline.labels.importers.ballots import Ballots, Judgement, invalid
from pipeline.labels.importers.label_studio_wording import read_choice
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import completion_turns, exchange, shown, utc
from pipeline.labels.votes import Imported, Scale, Status

HASHES = frozenset({"_input_hash", "_task_hash"})


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    return most("answer" in fields and bool(HASHES & set(fields)) for fields in sample)


def _open(context: ImportContext) -> ReadRecord:
    if not any(isinstance(fields.get("options"), list) for fields in context.sample):
        raise DataError(
            f"{context.path} is a Prodigy export without `options`: only records of its choice interface say which "
            f"completion is better. Give another file, or name the importer that fits in `{context.key}.importer`."
        )
    ballots = Ballots(context, "prodigy", columns=("prompt",))
    prompt_field = context.source.columns.get("prompt")

    def read(fields: dict[str, Any]) -> Imported:
        candidates, ties = _options(fields)
        name = prompt_field or ("prompt" if "prompt" in fields else "text")
        sides = [completion_turns(text, f"option {key}") for key, text in candidates.items()]
        prompt, checked = exchange(as_turns(fields.get(name), "user", name), sides)
        judgements = _judgements(fields, list(candidates), ties)
        return ballots.imported(prompt, [(side, None) for side in checked], judgements)

    return read


def _options(fields: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return the options that are completions, by id, and the ids of those that stand for a tie."""
    options = fields.get("options")
    if not isinstance(options, list) or not all(isinstance(option, dict) and "id" in option for option in options):
        raise BadRowError(Reason.schema, "'options' is not a list of objects with an id")
    candidates: dict[str, Any] = {}
    ties: set[str] = set()
    for option in options:
        key, text = str(option["id"]), check_text(option.get("text"), "an option's text")
        said = read_choice(text)
        if said is not None and said.tie:
            ties.add(key)
        else:
            candidates[key] = text
    if len(candidates) < 2:
        raise BadRowError(Reason.schema, f"{len(candidates)} options are completions; a choice is between two or more")
    return candidates, ties


def _judgements(fields: Mapping[str, Any], candidates: list[str], ties: set[str]) -> list[Judgement]:
    """Return what one annotator's answer says: every accepted option is better than every other."""
    who = fields.get("_annotator_id") or fields.get("_session_id")
    everything = list(range(len(candidates)))
    known: dict[str, Any] = {"annotator": None if who is None else check_text(who, "_annotator_id")}
    scale = Scale.pairwise if len(candidates) == 2 else Scale.ranking
    try:
        known["created"] = utc(fields.get("_timestamp"))
        accepted = _accepted(fields, {*candidates, *ties})
    except BadRowError as problem:
        return [invalid(scale, problem, positions=everything, **known)]
    answer = fields.get("answer")
    if answer != "accept" or not accepted:
        status = Status.discarded if answer == "reject" else Status.skipped
        return [Judgement(scale=scale, positions=everything, status=status, **known)]
    if accepted & ties:
        if len(accepted) > 1:
            both = BadRowError(Reason.label, "a tie and a completion are both accepted")
            return [invalid(scale, both, positions=everything, **known)]
        return [Judgement(scale=scale, ranks=[1] * len(candidates), positions=everything, **known)]
    chosen = [index for index, key in enumerate(candidates) if key in accepted]
    others = [index for index in everything if index not in chosen]
    if not others:
        return [Judgement(scale=scale, ranks=[1] * len(candidates), positions=everything, **known)]
    return [
        Judgement(scale=Scale.pairwise, on=(better, worse), ranks=(1, 2), positions=(better, worse), **known)
        for better in chosen
        for worse in others
    ]


def _accepted(fields: Mapping[str, Any], known: set[str]) -> set[str]:
    """Return the ids of the accepted options."""
    if fields.get("answer") not in ("accept", "reject", "ignore"):
        raise BadRowError(Reason.label, f"answer is {shown(fields.get('answer'))}, not accept, reject or ignore")
    accept = fields.get("accept")
    if accept is None:
        return set()
    if not isinstance(accept, list):
        raise BadRowError(Reason.label, f"accept is {shown(accept)}, not a list of ids")
    accepted = {str(key) for key in accept}
    if strange := sorted(accepted - known):
        raise BadRowError(Reason.label, f"accept names {shown(strange[0])}, which is no option")
    return accepted


register_importer(Importer(name="prodigy", recognises=_recognises, open=_open))
