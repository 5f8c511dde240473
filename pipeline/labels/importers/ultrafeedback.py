"""UltraFeedback: several completions of an instruction, each rated on four aspects and as a whole.

Format: https://huggingface.co/datasets/openbmb/UltraFeedback. Ratings are text, "N/A" is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.data.rows import BadRowError, Reason
from pipeline.data.turns import as_turns
from pipeline.labels.importers.ballots import Ballots, Judgement, invalid
from pipeline.labels.importers.registry import ImportContext, Importer, ReadRecord, most, register_importer
from pipeline.labels.importers.values import completion_turns, exchange, label_text, number, shown, text_or_none
from pipeline.labels.votes import Imported, Scale

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
OVERALL = "overall"
NOBODY = "the file names no annotator; in UltraFeedback as published a model gave the ratings"
LOW_MEAN = 3.0  # of the aspects: a completion below it is no 10


def _recognises(sample: Sequence[Mapping[str, Any]], path: Path) -> bool:
    return most(
        "instruction" in fields and isinstance(fields.get("completions"), list)
        and all(isinstance(entry, dict) and "response" in entry for entry in fields["completions"])
        for fields in sample
    )  # fmt: skip


def _open(context: ImportContext) -> ReadRecord:
    ballots = Ballots(context, "ultrafeedback")

    def read(fields: dict[str, Any]) -> Imported:
        entries = fields.get("completions")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadRowError(Reason.schema, "'completions' is not a list of objects")
        if not entries:
            raise BadRowError(Reason.empty, "'completions' is empty")
        asked = as_turns(fields.get("instruction"), "user", "instruction")
        sides = [completion_turns(entry.get("response"), f"completions[{i}]") for i, entry in enumerate(entries)]
        prompt, checked = exchange(asked, sides)
        models = [text_or_none(entry.get("model"), "model") for entry in entries]
        judgements = [found for aspect in ASPECTS if (found := _aspect(entries, aspect)) is not None]
        if (overall := _overall(entries)) is not None:
            judgements.append(overall)
        return ballots.imported(prompt, list(zip(checked, models, strict=True)), judgements, notices=[NOBODY])

    return read


def _rating(entry: Mapping[str, Any], aspect: str) -> float | None:
    """Return a rating from 1 to 5, or None where it is "N/A" or not there."""
    annotations = entry.get("annotations")
    annotation = annotations.get(aspect) if isinstance(annotations, dict) else None
    value = annotation.get("Rating") if isinstance(annotation, dict) else annotation
    if value is None or label_text(value) in ("n/a", ""):
        return None
    rating = number(value, f"{aspect}.Rating")
    if not 1 <= rating <= 5:
        raise BadRowError(Reason.label, f"{aspect}.Rating is {shown(value)}, which is not from 1 to 5")
    return rating


def _aspect(entries: Sequence[Mapping[str, Any]], aspect: str) -> Judgement | None:
    """Return the ratings on one aspect, or None where there are none."""
    try:
        ratings = [_rating(entry, aspect) for entry in entries]
    except BadRowError as problem:
        return invalid(Scale.rating, problem, question=aspect)
    if all(rating is None for rating in ratings):
        return None
    return Judgement(scale=Scale.rating, ratings=ratings, question=aspect)


def _overall(entries: Sequence[Mapping[str, Any]]) -> Judgement | None:
    """Return the overall scores, without those that their own aspects contradict.

    In the first release 2,628 completions that deserved a 1 were given a 10.
    """
    scores: list[float | None] = []
    doubted: list[str] = []
    try:
        for index, entry in enumerate(entries):
            value = entry.get("overall_score")
            score = None if value is None or label_text(value) in ("n/a", "") else number(value, "overall_score")
            if score is not None and not 1 <= score <= 10:
                raise BadRowError(Reason.label, f"overall_score is {shown(value)}, which is not from 1 to 10")
            aspects = [rating for aspect in ASPECTS if (rating := _rating(entry, aspect)) is not None]
            if score == 10 and aspects and fmean(aspects) < LOW_MEAN:
                doubted.append(
                    f"completions[{index}]: overall_score 10, and its aspects have the mean {fmean(aspects):g}"
                )
                score = None
            scores.append(score)
    except BadRowError as problem:
        return invalid(Scale.rating, problem, question=OVERALL)
    if all(score is None for score in scores) and not doubted:
        return None
    note = f"{Reason.label}: {'; '.join(doubted)}; left out" if doubted else None
    return Judgement(scale=Scale.rating, ratings=scores, question=OVERALL, note=note)


register_importer(Importer(name="ultrafeedback", recognises=_recognises, open=_open))
