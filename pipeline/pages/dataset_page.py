"""The page of a data set: where every row went, what it looks like, and how far the votes behind it can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.pages.dataset_charts import Bar, Panel, histogram, scorecard_plot, stacked_bars
from pipeline.pages.environment import page_environment
from pipeline.pages.numbers import compact, counted, decimals_for, fixed, summed
from pipeline.pages.svg import colour

PAGE_FILE = "report.html"
SPLITS = ("train", "validation", "test")
# What can become of a row, in the order in which it is decided, and the part of the bar in which it is drawn.
FATES = {
    "accepted": ("Accepted", "accepted"),
    "guards": ("Guards", "guards: in no table, nothing like them is trained on"),
    "quarantined": ("Quaran\u00adtined", "quarantined"),
    "filtered": ("Filtered", "filtered"),
    "duplicates": ("Dupli\u00adcates", "duplicates, exact or near"),
    "near_duplicates": ("Near-dupli\u00adcates", "duplicates, exact or near"),
    "bridges_splits": ("Near two splits", "near two splits"),
    "leaks": ("Leaks", "leaks"),
    "over_limit": ("Over the limit", "over a limit"),
    "over_cap": ("Over the cap", "over a limit"),
}
COLOURS = {
    "accepted": 3,
    "guards: in no table, nothing like them is trained on": 7,
    "quarantined": 2,
    "filtered": 5,
    "duplicates, exact or near": 6,
    "near two splits": 4,
    "leaks": 1,
    "over a limit": 0,
}
# Of what aggregation counted; the others add up to it.
TOTALS = {"votes": "given", "pairs": "judged", "thumbs": "given", "completions": "judged"}
NUM_OPEN = 2  # pairs of near-duplicates that are shown without a click
PANELS = (
    Panel("agreement", "Agrees with others"),
    Panel("gold", "Right where known"),
    Panel("first_share", "Prefers the first", 0.5),
    Panel("longer_share", "Prefers the longer", 0.5),
)
MAX_LISTED = 60  # annotators, pairs of annotators, cycles; how many more there are is stated


def write_dataset_page(
    folder: Path,
    *,
    counts: Mapping[str, Any],
    examples: Mapping[str, Any],
    quality: Mapping[str, Any] | None,
    title: str,
) -> Path:
    """Write ``report.html`` into a folder and return its path; the same arguments give the same bytes."""
    path = folder / PAGE_FILE
    page = dataset_page(counts=counts, examples=examples, quality=quality, title=title)
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def dataset_page(
    *,
    counts: Mapping[str, Any],
    examples: Mapping[str, Any],
    quality: Mapping[str, Any] | None,
    title: str = "Data set",
) -> str:
    """Return the page as HTML.

    Args:
        counts: What ``counts.json`` of a data set holds.
        examples: What ``examples.json`` holds.
        quality: What ``quality.json`` of the labels holds, where the data set has any.
        title: Of the page.
    """
    environment = page_environment()
    environment.filters.update(number=lambda value: f"{value:,}", share=share_text, limits=limits_text)
    sources = [_source(entry) for entry in counts["sources"]]
    fates = [name for name in FATES if name == "accepted" or any(_amount(entry[name]) for entry in counts["sources"])]
    return environment.get_template("dataset.html").render(
        title=title,
        counts=counts,
        examples=examples,
        quality=None if quality is None else _quality(quality),
        cards=_cards(counts, quality),
        sources=sources,
        total=_total(counts["sources"], fates),
        fates=[(name, FATES[name][0]) for name in fates],
        legend=[(name, colour(COLOURS[name])) for name in dict.fromkeys(FATES[fate][1] for fate in fates)],
        bars=_bars(counts["sources"], fates),
        splits=[split for split in SPLITS if any(split in found for found in counts["tables"].values())],
        histograms=_histograms(counts["lengths"]),
        filters=[_filter(entry, examples["filters"]) for entry in counts["filters"]],
        counted=counted,
        max_listed=MAX_LISTED,
        num_open=NUM_OPEN,
    )


def account_lines(aggregated: Mapping[str, Any]) -> dict[str, str]:
    """Write each account of aggregation as a sum; thumbs have one only where completions were judged by themselves."""
    return {name: summed(aggregated[name], total) for name, total in TOTALS.items() if name in aggregated}


def share_text(value: Mapping[str, Any] | None) -> str:
    """Write a share in per cent, with the decimals that its interval supports; a dash where nothing was measured."""
    if value is None or value["estimate"] is None:
        return "–"
    return f"{fixed(100 * value['estimate'], _decimals(value))}\N{NO-BREAK SPACE}%"


def limits_text(value: Mapping[str, Any] | None) -> str:
    """Write the interval of a share in per cent, ``[48, 76]``; nothing where there is none."""
    if value is None or value["estimate"] is None or value["low"] is None or value["high"] is None:
        return ""
    decimals = _decimals(value)
    return f"[{fixed(100 * value['low'], decimals)},\N{NO-BREAK SPACE}{fixed(100 * value['high'], decimals)}]"


def _decimals(value: Mapping[str, Any]) -> int:
    low, high = (None if value[key] is None else 100 * value[key] for key in ("low", "high"))
    return decimals_for(low, high, 100 * value["estimate"])


def _amount(value: int | Mapping[str, int]) -> int:
    return value if isinstance(value, int) else sum(value.values())


def _source(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source with its columns as numbers, their reasons, and whether they add up to what was read."""
    cells = {name: _amount(entry[name]) for name in FATES}
    reasons = {name: entry[name] for name in FATES if not isinstance(entry[name], int)}
    return {"entry": entry, "cells": cells, "reasons": reasons, "missing": entry["read"] - sum(cells.values())}


def _total(sources: Sequence[Mapping[str, Any]], fates: Sequence[str]) -> dict[str, int]:
    return {
        "read": sum(entry["read"] for entry in sources),
        **{name: sum(_amount(entry[name]) for entry in sources) for name in fates},
    }


def _bars(sources: Sequence[Mapping[str, Any]], fates: Sequence[str]) -> Markup:
    bars = []
    for entry in sources:
        parts: Counter[str] = Counter()
        for fate in fates:
            parts[FATES[fate][1]] += _amount(entry[fate])
        bars.append(Bar(entry["source"], list(parts.items())))
    return stacked_bars(bars, COLOURS, "What became of each source's rows")


def _histograms(lengths: Mapping[str, Any]) -> list[Markup]:
    return [
        histogram(entry, f"{table}: {field}") for table, fields in lengths.items() for field, entry in fields.items()
    ]


def _filter(entry: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, Any]:
    shown = examples.get(entry["name"], {})
    return {
        "entry": entry,
        "dropped": sum(entry["dropped"].values()),
        "num_examples": sum(map(len, shown.values())),
        "examples": {kind: shown.get(kind, []) for kind in ("dropped", "changed", "kept")},
    }


def _cards(counts: Mapping[str, Any], quality: Mapping[str, Any] | None) -> list[tuple[str, str, str, str]]:
    """Return the headline numbers: style, name, number, and what it means."""
    read = sum(entry["read"] for entry in counts["sources"])
    kept = sum(entry["accepted"] for entry in counts["sources"])
    bad: Counter[str] = Counter()
    for entry in counts["sources"]:
        bad.update(entry["quarantined"])
    guards = sum(entry["guards"] for entry in counts["sources"])
    removed = read - kept - guards - sum(bad.values())
    for entry in quality["exports"] if quality is not None else ():
        bad.update(entry["quarantined"])
    part = f"of {read:,} read, {100 * kept / read:.1f}\N{NO-BREAK SPACE}%" if read else "nothing was read"
    cards = [
        ("", "Rows kept", f"{kept:,}", part),
        ("worse" if bad else "", "Quarantined", f"{sum(bad.values()):,}", _reasons(bad) or "no row or record was bad"),
        ("", "Removed by rule", f"{removed:,}", "filtered, repeated, leaked or over a limit"),
    ]
    if quality is not None:
        aside = [entry["annotator"] for entry in quality["annotators"] if entry["set_aside"]]
        voters = len(quality["annotators"])
        cards.append(
            ("worse" if aside else "", "Annotators set aside", f"{len(aside)}", f"of {counted(voters, 'annotator')}")
        )
        best = max(quality["agreement"], key=lambda entry: entry["num_votes"], default=None)
        if best is not None and best["alpha_nominal"] is not None:
            words = f"nominal, over {counted(best['num_units'], 'unit')} with two votes or more"
            cards.append(("", "Krippendorff’s alpha", f"{best['alpha_nominal']:.3f}", words))
    return cards


def _reasons(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {name}" for name, number in ordered)


def _quality(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report on the votes, those who were set aside first, and lists cut to what can be read."""
    people = sorted(
        quality["annotators"], key=lambda entry: (not entry["set_aside"], -entry["num_votes"], entry["annotator"])
    )
    shown = people[:MAX_LISTED]
    panels = [panel for panel in PANELS if any(entry[panel.key] is not None for entry in shown)]
    return {
        **quality,
        "people": shown,
        "num_people": len(people),
        "plot": scorecard_plot(shown, panels, "Scorecards of the annotators") if shown and panels else None,
        "sums": [f"{name}: {line}" for name, line in account_lines(quality["aggregated"]).items()],
        "bound": compact(100 * quality.get("bound_confidence", 0.95)),
    }
