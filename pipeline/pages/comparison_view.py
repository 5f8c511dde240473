"""What the page and the terminal both take from a comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Comparison = Mapping[str, Any]


def metric_rows(comparison: Comparison) -> dict[tuple[str, str, str], list[Any]]:
    """Return by suite, metric and candidate's key its row and the row of its difference, None where there is none."""
    found: dict[tuple[str, str, str], list[Any]] = defaultdict(lambda: [None, None])
    for row in comparison["metrics"]:
        found[row["suite"], row["metric"], row["policy"]][row["baseline"] is not None] = row
    return found


def leading_metrics(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what the order goes by, where it is a metric, then the primary metric of every suite."""
    primary = [(suite["name"], suite["primary"]) for suite in comparison["suites"] if suite["primary"]]
    by = tuple(comparison["ranking"]["by"].split("/", 1))
    known = {(row["suite"], row["metric"]) for row in comparison["metrics"]}
    return list(dict.fromkeys([*([(by[0], by[1])] if by in known else []), *primary]))


def shown_objectives(comparison: Comparison) -> list[str]:
    """Return the names of the objectives that have a column: all of several, or one that the order goes by."""
    names = [entry["name"] for entry in comparison["objectives"]]
    return names if len(names) > 1 or comparison["ranking"]["by"] in names else []


def varying(comparison: Comparison) -> list[str]:
    """Return the parameters that do not have one value in all that is ranked."""
    order = comparison["ranking"]["order"]
    return [
        name for name, values in comparison["parameters"].items() if len({repr(values.get(key)) for key in order}) > 1
    ]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key the shortest end that no other key has."""
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        short[key] = next(
            (end for end in ends if sum(other == end or other.endswith(f".{end}") for other in keys) == 1), key
        )
    return short
