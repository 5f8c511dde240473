"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.pages.charts import verdict_class
from pipeline.pages.comparison_charts import (
    HIGHLIGHTED,
    LAYOUTS,
    MAX_ROWS,
    colour_of,
    curve_plots,
    difference_plot,
    intermediate_plot,
    parallel_plot,
    share_bars,
)
from pipeline.pages.comparison_view import (
    Comparison,
    leading_metrics,
    metric_rows,
    short_names,
    shown_objectives,
    varying,
)
from pipeline.pages.environment import page_environment
from pipeline.pages.numbers import (
    counted,
    duration_text,
    estimate_text,
    interval_text,
    metric_text,
    setting_text,
    verdict,
)

MAX_AXES = 6  # of the plot of parameters, its result included
SHOWN_COLUMNS = 6  # candidates of the table of all metrics
SHOWN_ROWS = 25  # of the tables, without a click


def comparison_page(comparison: Comparison, title: str = "Comparison of runs") -> str:
    """Return the page as HTML; the same comparison gives the same text."""
    environment = page_environment()
    environment.filters.update(
        verdict=verdict, verdict_class=verdict_class, estimate=estimate_text, interval=interval_text,
        metric_text=metric_text, setting=setting_text, duration=duration_text,
        short_of=short_names(list(comparison["parameters"])).__getitem__,
    )  # fmt: skip
    found = {entry["key"]: entry for entry in comparison["candidates"]}
    order, baseline = comparison["ranking"]["order"], comparison["baseline"]
    own = [key for key in order if found[key]["twin_of"] is None]  # the same policy twice has one line, one colour
    colours = {key: colour_of(str(entry["twin_of"] or key), own, baseline) for key, entry in found.items()}
    metrics, by_key = leading_metrics(comparison), metric_rows(comparison)
    return environment.get_template("comparison.html").render(
        title=title,
        comparison=comparison,
        ranking=comparison["ranking"],
        found=found,
        colours=colours,
        names={key: entry["label"] for key, entry in found.items()},
        metrics=metrics,
        rows=[_row(comparison, key, [by_key[suite, name, key] for suite, name in metrics]) for key in order],
        parameters=varying(comparison),
        objectives=shown_objectives(comparison),
        forests=_forests(comparison, metrics, colours),
        parallel=_parallel(comparison),
        importance=[share_bars(comparison["importance"]["entries"], "Importance of parameters", layout)
                    for layout in LAYOUTS if comparison["importance"]["entries"]],
        effects=_effects(comparison),
        curves=[*curve_plots(comparison["curves"], own, baseline),
                *intermediate_plot(comparison["runs"], {found[key]["run"]: colours[key] for key in own},
                                    found[baseline]["run"])],
        all_metrics=_all_metrics(comparison, _columns(own, baseline)),
        columns=_columns(own, baseline),
        settings=_settings(comparison),
        costs=[(key, comparison["costs"][key]) for key in order if key in comparison["costs"]],
        lost=[run for index, run in enumerate(comparison["runs"])
              if run["status"] != "finished" and all(entry["run"] != index for entry in found.values())],
        twins=[entry for entry in found.values() if entry["twin_of"] is not None],
        shown_rows=SHOWN_ROWS,
        highlighted=HIGHLIGHTED,
        counted=counted,
    )  # fmt: skip


def _row(comparison: Comparison, key: str, cells: Sequence[Any]) -> dict[str, Any]:
    """Return a line of the ranking: the candidate's cells by metric, and whether it may be the best."""
    possible = comparison["ranking"]["possibly_best"]
    twins = {entry["key"]: entry["twin_of"] for entry in comparison["candidates"]}
    return {
        "key": key,
        "cells": cells,
        "may_be_best": possible is not None and str(twins[key] or key) in possible,
    }


def _forests(
    comparison: Comparison, metrics: Sequence[tuple[str, str]], colours: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the differences of each leading metric, best first; the corrected interval where the order goes by it."""
    found, by_key = {entry["key"]: entry for entry in comparison["candidates"]}, metric_rows(comparison)
    views = []
    for suite, name in metrics:
        ranked = f"{suite}/{name}" == comparison["ranking"]["by"]
        rows = []
        for key in comparison["ranking"]["order"]:
            difference = by_key[suite, name, key][1]
            if difference is None or found[key]["twin_of"] is not None:
                continue
            corrected = comparison["ranking"]["corrected"].get(key) if ranked else None
            label = f"#{key} {found[key]['short']}"
            rows.append({**difference, "label": label, "colour": colours[key], "corrected": corrected})
        if rows:
            charts = [difference_plot(rows[:MAX_ROWS], f"{suite}: {name}", layout) for layout in LAYOUTS]
            views.append({"suite": suite, "metric": name, "charts": charts, "ranked": ranked,
                          "more": max(0, len(rows) - MAX_ROWS)})  # fmt: skip
    return views


def _parallel(comparison: Comparison) -> list[Markup]:
    """Return the plot of parameters and result; nothing where there are fewer than two parameters' worth of it."""
    ranking, names = comparison["ranking"], varying(comparison)
    order = [key for key in ranking["order"] if all(key in comparison["parameters"][name] for name in names)]
    if not names or len(order) < 3:
        return []
    known = [entry["parameter"] for entry in comparison["importance"]["entries"]]
    names.sort(key=lambda name: known.index(name) if name in known else len(known))
    short = short_names(list(comparison["parameters"]))
    axes = [(short[name], comparison["parameters"][name]) for name in names[: MAX_AXES - 1]]
    axes.append((ranking["by"].partition("/")[2], ranking["values"]))
    title = "Parameters and result of each run"
    return [parallel_plot(axes, order, comparison["baseline"], title, layout) for layout in LAYOUTS]


def _effects(comparison: Comparison) -> list[Markup]:
    short = short_names(list(comparison["parameters"]))
    rows = [
        {**row, "label": f"{short[row['parameter']]}: {setting_text(row['level'])} against "
                         f"{setting_text(row['against'])}", "colour": 1, "corrected": None}
        for row in comparison["effects"]
    ]  # fmt: skip
    return [difference_plot(rows, "What each value does, the others averaged", layout) for layout in LAYOUTS if rows]


def _columns(order: Sequence[str], baseline: str) -> list[str]:
    """Return the candidates that the table of all metrics shows: the baseline and the best."""
    best = [key for key in order if key != baseline][: SHOWN_COLUMNS - 1]
    return [baseline, *best] if baseline in order else best


def _all_metrics(comparison: Comparison, columns: Sequence[str]) -> list[dict[str, Any]]:
    by_key = metric_rows(comparison)
    named = list(dict.fromkeys((row["suite"], row["metric"], row["unit"]) for row in comparison["metrics"]))
    return [
        {"suite": suite, "metric": name, "unit": unit,
         "cells": [by_key[suite, name, key] for key in columns]}
        for suite, name, unit in named
    ]  # fmt: skip


def _settings(comparison: Comparison) -> list[dict[str, Any]]:
    """Return every differing key with its values and the runs that have each."""
    ranked = {entry["run"]: entry["key"] for entry in comparison["candidates"]}
    told = []
    for name, values in comparison["config"]["keys"].items():
        groups: dict[str, list[str]] = {}
        for index, value in enumerate(values):
            if index in ranked:
                groups.setdefault(setting_text(value), []).append(f"#{ranked[index]}")
        told.append({"name": name, "groups": groups})
    return told
