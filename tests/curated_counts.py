"""Counts, examples and a quality report as a data set's page and card are given them, small enough to check by hand."""

from __future__ import annotations

from typing import Any


def source(name: str, table: str, read: int, **more: Any) -> dict[str, Any]:
    """Return an account whose accepted rows are what its other columns leave over."""
    entry = {
        "source": name,
        "table": table,
        "protected": False,
        "read": read,
        "quarantined": {},
        "filtered": {},
        **dict.fromkeys(
            ("guards", "duplicates", "near_duplicates", "bridges_splits", "leaks", "over_limit", "over_cap"), 0
        ),
    } | more
    left = read - sum(entry["quarantined"].values()) - sum(entry["filtered"].values())
    left -= sum(entry[name] for name in ("duplicates", "near_duplicates", "bridges_splits", "leaks"))
    return entry | {"accepted": left - entry["over_limit"] - entry["over_cap"]}


def counts(**changes: Any) -> dict[str, Any]:
    base = {
        "sources": [
            source("desk/demonstrations", "demonstrations", 100, duplicates=3, quarantined={"E_JSON": 2, "E_EMPTY": 1}),
            source("desk/votes", "comparisons", 60, filtered={"personal_data": 4}, leaks=5, near_duplicates=1),
        ],
        "tables": {
            "demonstrations": {"train": 80, "validation": 8, "test": 6},
            "comparisons": {"train": 40, "validation": 5, "test": 5},
        },
        "folds": {"0": 10, "1": 30, "2": 10},
        "prompts_from_demonstrations": {"taken": 90, "repeated": 4},
        "filters": [
            {"name": "personal_data", "tables": [], "kept": 140, "changed": 7, "dropped": {"E_PII": 4}},
            {"name": "secrets", "tables": ["comparisons"], "kept": 50, "changed": 0, "dropped": {}},
        ],
        "duplicates": {"exact": 3, "near": 1},
        "leaks": {"exact": 4, "ngram": 1},
        "lengths": {
            "demonstrations": {
                "prompt": {"edges": [1, 10, 100, 1000], "counts": [20, 60, 14], "median": 35, "p95": 240, "max": 812}
            }
        },
        "licences": {"MIT": 94, "none": 50},
        "mixing": [{"source": "desk/votes", "weight": 2.0, "max_rows": None, "before": 20, "after": 40}],
    }
    return base | changes


def examples(text: str = "user: Hi\nassistant: Hello") -> dict[str, Any]:
    dropped = {"id": "d1", "source": "desk/votes", "reason": "E_PII", "detail": "holds: email", "text": text}
    return {
        "filters": {
            "personal_data": {
                "kept": [{"id": "k1", "text": text}],
                "dropped": [dropped],
                "changed": [{"id": "c1", "before": text, "after": text}, {"id": "c2", "after": text}],
            }
        },
        "near_duplicates": [
            {"kept": f"n{n}", "dropped": f"m{n}", "similarity": 0.875, "kept_text": text, "dropped_text": text}
            for n in range(3)
        ],
        "leaks": [{"id": "l1", "source": "desk/votes", "rule": "exact", "evaluation_id": "e1", "text": text}],
        "rows": {"demonstrations": [{"id": "r1", "source": "desk/demonstrations", "text": text}], "comparisons": []},
    }


def share(estimate: float, low: float, high: float, n: int = 200) -> dict[str, Any]:
    return {"estimate": estimate, "low": low, "high": high, "n": n}


def annotator(name: str, **changes: Any) -> dict[str, Any]:
    base = {
        "annotator": name,
        "num_votes": 220,
        "num_ties": 20,
        "agreement": share(0.9, 0.86, 0.94),
        "gold": None,
        "first_share": share(0.5, 0.43, 0.57),
        "longer_share": None,
        "median_seconds": 8.5,
        "repeats": {"n": 6, "same": 5},
        "skipped": 1,
        "set_aside": False,
        "reasons": [],
    }
    return base | changes


def quality(**changes: Any) -> dict[str, Any]:
    lefty = annotator(
        "lefty", set_aside=True, first_share=share(0.99, 0.97, 1.0), reasons=["votes for what is shown first: 0.990"]
    )
    base = {
        "votes": {"by_status": {"submitted": 440, "skipped": 2}, "ties": 40, "annotators": 2, "unnamed": 0},
        "bound_confidence": 0.95,
        "agreement": [
            {
                "question": "", "scale": "pairwise", "num_units": 90, "num_votes": 440,
                "alpha_nominal": 0.612, "alpha_ordinal": -0.031, "alpha_interval": None,
            }
        ],
        "kappa": [{"first": "ada", "second": "lefty", "num_shared": 80, "kappa": 0.25}],
        "annotators": [annotator("ada"), lefty],
        "position_bias": share(0.74, 0.7, 0.78),
        "length_bias": None,
        "cycles": [{"item": "i1", "annotator": None, "candidates": ["a", "b", "c"]}],
        "contradictions": [{"item": "i2", "annotator": "lefty", "candidates": ["a", "b"], "votes": ["v1", "v2"]}],
        "exports": [
            {
                "source": "desk/votes", "importer": "label_studio", "protected": False, "read": 95, "accepted": 92,
                "quarantined": {"E_SCHEMA": 3}, "over_limit": 0, "votes": {"submitted": 440, "skipped": 2},
                "unlabelled": 4,
            }
        ],
        "aggregated": {
            "votes": {"given": 442, "skipped": 2, "set_aside": 220, "counted": 220},
            "pairs": {"judged": 90, "undecided": 7, "comparisons": 83},
        },
    }  # fmt: skip
    return base | changes
