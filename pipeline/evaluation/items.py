"""Every metric item by item, beside the report: runs can be compared later without samples, checks or models.

One suite is ``definition`` (what it asks and how it judges), ``ids`` and ``digests`` of all its items, ``clusters`` as
numbers, and ``metrics``, the primary one first: per policy a value for each item, null where the items were not
compared. A metric with a ``denominator`` is a ratio of sums. `item_file` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.config.gates import WIN_RATE
from pipeline.evaluation.item_file import FORMAT_VERSION
from pipeline.evaluation.joining import JoinedSuite
from pipeline.evaluation.judged import JudgedWins
from pipeline.evaluation.measures import Measure
from pipeline.evaluation.report import round_floats, suite_definition
from pipeline.evaluation.samples import item_digest
from pipeline.pages.numbers import WINS
from pipeline.statistics.clusters import cluster_codes


def items_json(measured: Sequence[tuple[JoinedSuite, Sequence[Measure]]], judged: Sequence[JudgedWins] = ()) -> str:
    """Return the content of ``items.json``: one line, sorted keys, only ASCII."""
    suites = {suite.name: _suite(suite, measures) for suite, measures in measured}
    for entry in judged:
        suites[entry.suite]["metrics"].append(_judged(entry, suites[entry.suite]["ids"]))
    content = {"format_version": FORMAT_VERSION, "suites": suites}
    return json.dumps(round_floats(content), sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"


def _judged(entry: JudgedWins, ids: Sequence[str]) -> dict[str, Any]:
    """Return wins over the baseline as a metric; ``against`` says who judged, and what they were compared with."""
    return {
        "name": f"{WIN_RATE}{entry.judge}",
        "unit": WINS,
        "higher_is_better": True,
        "denominator": None,
        "against": entry.against,
        "qualified": entry.qualified,
        "values": {policy: [wins.get(name) for name in ids] for policy, wins in entry.wins.items()},
    }


def _suite(suite: JoinedSuite, measures: Sequence[Measure]) -> dict[str, Any]:
    ids = [row.id for row in suite.items]
    places = {row_id: place for place, row_id in enumerate(ids)}
    compared = [places[row.id] for row in suite.rows[suite.policies[0]]]
    codes, _ = cluster_codes([row.cluster for row in suite.items], len(ids))

    def spread(values: Sequence[float]) -> list[float | None]:
        """Return one value for each item of the suite."""
        spread: list[float | None] = [None] * len(ids)
        for place, value in zip(compared, values, strict=True):
            spread[place] = int(value) if value.is_integer() else value
        return spread

    return {
        "definition": suite_definition(suite.config),
        "ids": ids,
        "digests": [item_digest(row) for row in suite.items],
        "clusters": codes.tolist(),
        "metrics": [
            {
                "name": entry.name,
                "unit": entry.unit,
                "higher_is_better": entry.higher_is_better,
                "denominator": None if entry.denominator is None else spread(entry.denominator),
                "values": {policy: spread(values) for policy, values in entry.values.items()},
            }
            for entry in measures
        ],
    }
