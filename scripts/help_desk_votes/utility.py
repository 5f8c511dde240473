"""The true utility of an answer, which annotators see with errors: `pipeline.checks.utility` and one part more.

An answer that is broken off at the token limit loses a point. Two answers whose utilities differ by less than `EQUAL`
are equally good: the true verdict on them is a tie.
"""

from __future__ import annotations

from pathlib import Path

from help_desk_votes.material import HELP_DESK, Question, Sample
from pipeline.checks.registry import CheckItem
from pipeline.checks.utility import WrittenUtility

EQUAL = 0.25
CUT_OFF = -1


class Utility:
    """Judges answers by the help desk's rules."""

    def __init__(self, fact_sheet: Path = HELP_DESK / "fact_sheet.yaml") -> None:
        self._written = WrittenUtility(fact_sheet)
        self._known: dict[tuple[Question, Sample], float] = {}

    def __call__(self, question: Question, sample: Sample) -> float:
        """Return the utility of an answer, to two decimals."""
        key = (question, sample)
        if key not in self._known:
            item = CheckItem([{"role": "user", "content": question.text}], question.reference)
            points = self._written.points(sample.text, item, question.topic) + CUT_OFF * (sample.finish == "length")
            self._known[key] = round(points, 2)
        return self._known[key]
