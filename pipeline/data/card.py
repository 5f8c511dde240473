"""The data card: what a data set is, where it comes from, what was done to it, and what its user must know."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.data import CurateConfig, DataConfig, FilterConfig, SourceConfig, SourceSplit
from pipeline.data.sources import source_names

CARD_FILE = "data_card.md"
SPLITS = ("train", "validation", "test")
NO_LICENCE = "none"  # in `counts.json`
REMOVED = {
    "duplicates": "exact duplicates, after normalisation",
    "near_duplicates": "near-duplicates",
    "bridges_splits": "prompts near to prompts of two splits",
    "leaks": "rows that hold an evaluation prompt",
    "over_limit": "rows behind a source's `limit`, not looked at",
    "over_cap": "train rows over a source's cap",
    "guards": "rows that go into no table, and nothing like them is trained on",
}
# What a licence's name says about its terms, for a reader who does not know the name.
TERMS = (("-NC", "forbids commercial use"), ("-ND", "forbids changed copies"), ("-SA", "asks for the same licence"))


def write_card(
    folder: Path,
    *,
    counts: Mapping[str, Any],
    quality: Mapping[str, Any] | None,
    data: DataConfig,
    config: CurateConfig,
) -> Path:
    """Write ``data_card.md`` into a folder and return its path; the same arguments give the same bytes.

    Args:
        folder: Of the data set.
        counts: What its ``counts.json`` holds.
        quality: What ``quality.json`` of the labels holds, where there are any.
        data: The sources.
        config: How they were curated.
    """
    parts = [
        [f"# {_plain(data.name)}"],
        _rows(counts),
        _sources(counts, data),
        _licences(counts, data),
        _making(counts, config),
        _removed(counts),
        _votes(quality) if quality is not None else [],
        _limits(counts, quality, config),
    ]
    path = folder / CARD_FILE
    text = "\n\n".join("\n".join(lines) for lines in parts if lines)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def _rows(counts: Mapping[str, Any]) -> list[str]:
    splits = [split for split in SPLITS if any(split in found for found in counts["tables"].values())]
    lines = _table(
        ["table", *splits],
        [
            [table, *(f"{found.get(split, 0):,}" for split in splits)]
            for table, found in counts["tables"].items()
            if any(found.values())
        ],
    )
    return [*lines, "", "A prompt never stands in two splits, whatever the table."]


def _sources(counts: Mapping[str, Any], data: DataConfig) -> list[str]:
    """Return every source of the configuration, and what was read under names that it does not know."""
    left = list(counts["sources"])
    rows = []
    for name, source in zip(source_names(data), data.sources, strict=True):
        key = (name, source.table.value)
        account = next((entry for entry in left if (entry["source"], entry["table"]) == key), None)
        if account is not None:
            left.remove(account)
        use = "to guard against" if source.split is SourceSplit.guard else source.table.value
        use += ", protected" if source.split is SourceSplit.test else ""
        licence = "**none declared**" if source.licence is None else _plain(source.licence)
        rows.append([_name(name, source), use, licence, *_numbers(account)])
    rows += [[_code(entry["source"]), entry["table"], "of its exports", *_numbers(entry)] for entry in left]
    return ["## Sources", "", *_table(["from", "used as", "licence", "rows read", "rows kept"], rows)]


def _numbers(account: Mapping[str, Any] | None) -> list[str]:
    return ["–", "–"] if account is None else [f"{account['read']:,}", f"{account['accepted']:,}"]


def _name(name: str, source: SourceConfig) -> str:
    return _code(name) + (f" at {_plain(source.revision)}" if source.revision else "")


def _licences(counts: Mapping[str, Any], data: DataConfig) -> list[str]:
    """Say which licences the rows are under, and what about them is missing or hard to meet together."""
    lines = ["## Licences", ""]
    named = {name: number for name, number in counts["licences"].items() if name != NO_LICENCE}
    for name, number in sorted(named.items(), key=lambda item: (-item[1], item[0])):
        terms = [words for mark, words in TERMS if mark in name.upper()]
        lines.append(f"- {_plain(name)}: {number:,} rows{f'; it {_list(terms)}' if terms else ''}.")
    missing = counts["licences"].get(NO_LICENCE, 0)
    if missing:
        without = [
            _name(name, source)
            for name, source in zip(source_names(data), data.sources, strict=True)
            if source.licence is None and source.split is not SourceSplit.guard
        ]
        lines.append(
            f"- **No licence is declared for {missing:,} rows**{f', from {_list(without)}' if without else ''}. "
            "Nobody has said that they may be used or passed on."
        )
    if len(named) > 1:
        lines += ["", "The rows are under different licences. Who passes the set on must meet each of them."]
    return lines


def _making(counts: Mapping[str, Any], config: CurateConfig) -> list[str]:
    near, leaks = config.near_duplicates, config.decontamination
    lines = [
        "## How it was made",
        "",
        f"- Splits by the hash of the prompt, seed {config.seed}: {_percent(config.validation_fraction)} validation, "
        f"{_percent(config.test_fraction)} test. Protected sources are test.",
        f"- Near-duplicates: Jaccard similarity of {_ngrams(near.ngram)} of at least {near.threshold:g}, found by "
        f"MinHash with {near.num_permutations} permutations."
        if near.enabled
        else "- Near-duplicates were not looked for.",
        f"- Leaks: rows that hold an evaluation prompt, by its normalised text"
        f"{f' or by {leaks.ngram} words in a row' if leaks.ngram is not None else ''}."
        if leaks.enabled
        else "- Leaks of evaluation prompts were not looked for.",
    ]
    if config.filters:
        lines += [f"- Filter {_filter(entry)}." for entry in config.filters]
    else:
        lines.append("- No filter was applied.")
    for entry in counts["mixing"]:
        if entry["weight"] != 1 or entry["max_rows"] is not None:
            cap = f", at most {entry['max_rows']:,} rows" if entry["max_rows"] is not None else ""
            lines.append(
                f"- Train rows of {_code(entry['source'])} have weight {entry['weight']:g}{cap}: "
                f"{entry['before']:,} became {entry['after']:,}."
            )
    return lines


def _filter(entry: FilterConfig) -> str:
    params = ", ".join(f"{name}: {value}" for name, value in entry.params.items())
    tables = _list([table.value for table in entry.tables])
    return f"{_code(entry.name)}{f' ({_code(params)})' if params else ''}{f' on {tables}' if tables else ''}"


def _removed(counts: Mapping[str, Any]) -> list[str]:
    read = sum(entry["read"] for entry in counts["sources"])
    kept = sum(entry["accepted"] for entry in counts["sources"])
    bad: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    for entry in counts["sources"]:
        bad.update(entry["quarantined"])
        filtered.update(entry["filtered"])
    lines = ["## What was removed", "", f"Of {read:,} rows read, {kept:,} were kept and {read - kept:,} were not:", ""]
    lines += [f"- {number:,} bad rows: {reason}" for reason, number in _ordered(bad)]
    lines += [f"- {number:,} dropped by the filter {_code(name)}" for name, number in _ordered(filtered)]
    totals = Counter({name: sum(entry[name] for entry in counts["sources"]) for name in REMOVED})
    lines += [f"- {totals[name]:,} {words}" for name, words in REMOVED.items() if totals[name]]
    changed = [entry for entry in counts["filters"] if entry["changed"]]
    lines += [f"- {entry['changed']:,} kept, but changed by {_code(entry['name'])}" for entry in changed]
    return lines if read > kept or changed else ["## What was removed", "", f"Nothing: all {read:,} rows were kept."]


def _votes(quality: Mapping[str, Any]) -> list[str]:
    """Describe the votes and the annotators without naming anybody."""
    people = quality["annotators"]
    aside = [entry for entry in people if entry["set_aside"]]
    submitted = quality["votes"]["by_status"].get("submitted", 0)
    lines = [
        "## Votes",
        "",
        f"{submitted:,} submitted votes of {len(people):,} annotators, {quality['votes']['ties']:,} of them ties.",
        "",
    ]
    for entry in quality["agreement"]:
        alpha = "not defined" if entry["alpha_nominal"] is None else f"{entry['alpha_nominal']:.3f}"
        asked = f" on {_code(entry['question'])}" if entry["question"] else ""
        lines.append(
            f"- Krippendorff's alpha{asked} ({_plain(entry['scale'])}, nominal): {alpha} "
            f"over {entry['num_units']:,} units"
        )
    for key, words in (("position_bias", "what was shown first"), ("length_bias", "the longer completion")):
        bias = quality[key]
        if bias is not None:
            limits = "" if bias["low"] is None else f" [{100 * bias['low']:.1f}, {100 * bias['high']:.1f}]"
            lines.append(f"- {words} was preferred in {100 * bias['estimate']:.1f} %{limits} of cases")
    lines.append(f"- {len(aside):,} of {len(people):,} annotators were set aside; their votes do not count")
    lines += [f"    - {_plain(reason)}" for entry in aside for reason in entry["reasons"]]
    return lines


def _limits(counts: Mapping[str, Any], quality: Mapping[str, Any] | None, config: CurateConfig) -> list[str]:
    applied = {entry.name: entry for entry in config.filters}
    lines = ["## Known limits", ""]
    if "language" in applied:
        allowed = applied["language"].params.get("allowed", [])
        lines.append(f"- Languages: {_list([_plain(str(name)) for name in allowed])}, and text too short to tell.")
    else:
        lines.append("- Languages were not determined.")
    personal = applied.get("personal_data")
    if personal is None or personal.params.get("action") == "keep":
        lines.append("- Personal data was not removed.")
    else:
        lines.append(
            "- Personal data was looked for by patterns and checksums; names and postal addresses are not found."
        )
    if "toxicity" not in applied:
        lines.append("- Offensive text was not removed.")
    if any(sum(found.values()) for table, found in counts["tables"].items() if table == "comparisons"):
        lines.append(
            "- Comparisons say what was preferred, not what is true or safe; see their confidence and number of votes."
        )
    if quality is not None and len(quality["annotators"]) < 3:
        lines.append("- Fewer than three annotators are known, so a majority says little.")
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _ngrams(size: int) -> str:
    return "words" if size == 1 else f"runs of {size} words"


def _plain(text: str) -> str:
    """Write a text on one line so that it neither ends a table's cell nor becomes markup."""
    return re.sub(r"([\\`|<>\[\]_*])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Write a name on one line and as it is, save for what would end the code or a table's cell."""
    return f"`{' '.join(text.split()).replace('`', '').replace('|', '/')}`"
